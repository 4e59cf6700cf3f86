"""Posts of the simulated market: short headlines whose tone carries the hidden state `news`, made of a small fixed vocabulary.

A post is written after the state it speaks of is reached and counts as known an embargo later, as real texts do: it tells about returns
that lie ahead of it, never about the bar it appears in.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.store.tables import Floats, PostTable, Times

POSITIVE = ("bullish", "rally", "surge", "gain", "adoption", "upgrade", "rebound", "soar")
NEGATIVE = ("bearish", "crash", "plunge", "loss", "hack", "ban", "slump", "fraud")
NEUTRAL = ("schedule", "meeting", "interview", "weekly", "figures", "overview", "conference", "calendar")
FILLER = ("analysts", "traders", "developers", "editors", "desks", "readers", "venues", "newsletters")
EMBARGO = HOUR

_OBSERVATION_NOISE = 0.8  # standard deviation added to the state before a writer picks a tone
_TONE_CUT = 0.55  # about a third of the posts each way


def simulate_posts(
    seed: int, assets: tuple[str, ...], state: Floats, known_at: Times, interval: int, *, per_day: float, partition: str
) -> PostTable:
    """Posts of all assets as one source, `news`.

    Shapes: `state` `[T, A]`, its value when bar t is known; `known_at` `[T]`. A post written between bars t and t + 1 speaks of row t.
    """
    written: list[Times] = []
    texts: list[str] = []
    for a, asset in enumerate(assets):
        rng = stream(seed, "simulated", "posts", asset)
        count = rng.poisson(per_day * interval / DAY, len(known_at) - 1)
        row = np.repeat(np.arange(len(count)), count)
        written.append(known_at[row] + rng.integers(0, interval, len(row)))
        feeling = state[row, a] + _OBSERVATION_NOISE * rng.standard_normal(len(row))
        tone = np.where(feeling > _TONE_CUT, 2, np.where(feeling < -_TONE_CUT, 0, 1))
        picks = rng.integers(0, 8, (len(row), 4)).tolist()
        texts += [_headline(asset, (NEGATIVE, NEUTRAL, POSITIVE)[k], pick) for k, pick in zip(tone.tolist(), picks, strict=True)]
    moment = np.concatenate(written)
    order = np.argsort(moment, kind="stable")
    moment = moment[order]
    return PostTable(
        source="news",
        happened_at=moment,
        known_at=moment + EMBARGO,
        text=np.array(texts, object)[order],
        post_id=np.array([f"{partition}:{row}" for row in range(len(moment))], object),
        partition=np.full(len(moment), partition, "U16"),
        row=np.arange(len(moment)),
    )


def _headline(asset: str, words: tuple[str, ...], pick: list[int]) -> str:
    return f"{asset} {words[pick[0]]}: {FILLER[pick[1]]} and {FILLER[pick[2]]} see {words[pick[3]]}"
