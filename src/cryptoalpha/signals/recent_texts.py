"""The texts that may still count at the bars of a frame, and how much each concerns each asset.

The one rule for whoever reads texts bar by bar: a text seen before within `repeat` does not count again; one that names assets of the book
concerns them and no other; one that names none concerns the market, every asset alike and less. Both are multiplied by the text's own
weight where somebody judged who wrote it (`signals.agents`). A bar weighs a text by ½^(age / half-life) × relevance. Nothing here depends
on where the frame begins, as long as it begins before the bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat as again
from typing import Self

import numpy as np
import numpy.typing as npt

from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.text.lexicon import mentions
from cryptoalpha.store.tables import Dataset, Floats, Times

REMEMBERED = 1 << 16
"""Texts whose assets are kept; the oldest leaves first."""

_named: dict[tuple[str, tuple[str, ...]], tuple[float, ...]] = {}


def remember_named(text: str, assets: tuple[str, ...], named: tuple[str, ...]) -> tuple[float, ...]:
    """Keep which assets a text names, read elsewhere; returns 1 for each of them, else 0."""
    row = tuple(1.0 if asset in named else 0.0 for asset in assets)
    _named[text, assets] = row
    if len(_named) > REMEMBERED:
        _named.pop(next(iter(_named)), None)
    return row


def named_in(text: str, assets: tuple[str, ...]) -> tuple[float, ...]:
    """1 for each asset that the text names, else 0."""
    row = _named.get((text, assets))
    return remember_named(text, assets, mentions(text, assets)) if row is None else row


@dataclass(frozen=True, eq=False)
class RecentTexts:
    """Texts in the order they became known (then by source and row), repeats removed.

    Shapes: `known_at` `[n]`; `texts`, `names` `n`, a name being how a signal refers to the text; `relevance` `[n, A]` in [0, 1];
    `market` `[n]`, True where the text names no asset of the book.
    """

    known_at: Times
    texts: tuple[str, ...]
    names: tuple[str, ...]
    relevance: Floats
    market: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def of(
        cls,
        known: Sequence[int],
        texts: Sequence[str],
        names: Sequence[str],
        named: Sequence[tuple[float, ...]],
        weights: Sequence[float],
        assets: tuple[str, ...],
        market_weight: float,
    ) -> Self:
        """Texts with how much each concerns each asset: what it names (`named_in`), or the market."""
        names_asset = np.array(named, np.float64).reshape(len(named), len(assets))
        market = np.asarray(names_asset.sum(axis=1) == 0.0, np.bool_)
        relevance = np.where(market[:, None], market_weight, names_asset) * np.array(weights, np.float64)[:, None]
        return cls(np.array(known, np.int64), tuple(texts), tuple(names), relevance, market)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Rows of all sources known in some stretch, source after source."""

    known: list[int]
    texts: list[str]
    weights: list[float]
    places: list[tuple[str, str, int, str]]
    """Source, partition, row and id."""

    def name(self, i: int) -> str:
        """How a signal refers to a text: `partition:row` where it is stored, else `source:id`."""
        source, partition, row, post_id = self.places[i]
        return f"{partition}:{row}" if partition else f"{source}:{post_id}"


def gathered(dataset: Dataset, after: int, until: int) -> Gathered:
    """The texts known in (`after`, `until`]."""
    found = Gathered([], [], [], [])
    for source in sorted(dataset.posts):
        table = dataset.posts[source]
        start, stop = np.searchsorted(table.known_at, [after, until], side="right")
        found.known.extend(table.known_at[start:stop].tolist())
        found.texts.extend(table.text[start:stop].tolist())
        found.weights.extend(table.weight[start:stop].tolist())
        partitions, rows, ids = (getattr(table, name)[start:stop].tolist() for name in ("partition", "row", "post_id"))
        found.places.extend(zip(again(table.source), partitions, rows, ids, strict=False))
    return found


def recent_texts(frame: Frame, *, window: int, repeat: int, market_weight: float, begin: int = 0) -> RecentTexts:
    """The texts that can count at rows from `begin` on.

    Args:
        window: age, ns, at which a text no longer counts.
        repeat: ns within which a text seen before does not count.
        market_weight: relevance (0–1) of a text that names no asset of the book.
    """
    opens, ends = int(frame.panel.known_at[begin]) - window, int(frame.panel.known_at[-1])
    found = gathered(frame.dataset, opens - repeat, ends)
    kept = _not_repeated(found.known, found.texts, opens, repeat)
    return RecentTexts.of(
        [found.known[i] for i in kept],
        [found.texts[i] for i in kept],
        [found.name(i) for i in kept],
        [named_in(found.texts[i], frame.assets) for i in kept],
        [found.weights[i] for i in kept],
        frame.assets,
        market_weight,
    )


def spelt(text: str) -> str:
    """What two texts share if the later one is a repeat."""
    return text.strip().lower()


def _not_repeated(known: list[int], texts: list[str], opens: int, repeat: int) -> list[int]:
    """Places of the texts known after `opens` that were not seen within `repeat` before, in the order they became known."""
    last_seen: dict[str, int] = {}
    kept: list[int] = []
    for i in np.argsort(np.array(known, np.int64), kind="stable").tolist():
        text = spelt(texts[i])
        repeated = text in last_seen and known[i] - last_seen[text] < repeat
        last_seen[text] = known[i]
        if known[i] > opens and text and not repeated:
            kept.append(i)
    return kept
