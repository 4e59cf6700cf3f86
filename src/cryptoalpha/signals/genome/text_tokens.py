"""Tokens 10, 11 and 15, and the crowd's voice for token 13: what was published about an asset while a bar lasted.

A text belongs to the bar in whose time it became known, (open, close]. It concerns an asset by the house's one rule (`recent_texts`): one
that names assets of the book concerns those, one that names none concerns all, one seen within a week before concerns nobody. Its tone is
the lexicon's. Where no text at all became known within a week the source counts as missing: silence is no news, a dead feed is not even
that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.before import mean_between, robust_z
from cryptoalpha.signals.genome.price_tokens import holds
from cryptoalpha.signals.recent_texts import recent_texts
from cryptoalpha.signals.text.lexicon import LONGEST_TEXT, tone_of
from cryptoalpha.store.tables import Floats, Times

TEXT_BARS = 98
"""Bars of texts on which the tokens of the newest one can depend: 96 that say what is usual, itself, and one that has begun."""

STALE = 7 * DAY
"""Time without any text after which the source counts as missing, and within which a repeated text does not count."""

CLEAR_TONE = 0.3
"""Mean tone beyond which news is good or bad: one clear word per text."""

REGULATION = (
    "SEC CFTC DOJ FinCEN OFAC FCA ESMA MiCA FATF",
    "ban(s|ned|ning)? lawsuit(s)? su(e|es|ed|ing) regulat(e|es|ed|ing|or|ors|ory|ion|ions) licen[cs](e|es|ed|ing) sanction(s|ed|ing)? "
    "subpoena(s|ed)? indict(s|ed|ment|ments)? crackdown(s)? legislation lawmaker(s)? enforcement unregistered outlaw(s|ed|ing)? "
    "court(s)? settlement(s)? compliance probe(s|d)? watchdog(s)?",
)
"""Words of regulation: authorities and laws in this spelling, everything else in any case; endings in brackets."""

_PATTERN = re.compile(
    rf"(?<![A-Za-z0-9])(?:{'|'.join(REGULATION[0].split())}|(?i:{'|'.join(REGULATION[1].split())}))(?![A-Za-z0-9])", re.ASCII
)
_tone = lru_cache(maxsize=1 << 16)(tone_of)


@lru_cache(maxsize=1 << 16)
def speaks_of_regulation(text: str) -> bool:
    """Whether a text has at least one word of `REGULATION`.

    >>> speaks_of_regulation("SEC sues an exchange"), speaks_of_regulation("a few sec later")
    (True, False)
    """
    return _PATTERN.search(text[:LONGEST_TEXT]) is not None


@dataclass(frozen=True, eq=False)
class TextEvidence:
    """The texts of one frame.

    Shapes: `known_at`, `tone`, `regulatory` `[n]`; `concerns` `[n, A]`; `heard` `[m]`, when any text became known, repeats included.
    """

    known_at: Times
    tone: Floats
    regulatory: npt.NDArray[np.bool_]
    concerns: npt.NDArray[np.bool_]
    heard: Times


def text_evidence(frame: Frame, begin: int = 0) -> TextEvidence:
    """The texts that became known in the frame's bars from row `begin` on."""
    panel = frame.panel
    window = int(panel.known_at[begin] - panel.open_time[begin])
    texts = recent_texts(frame, window=window, repeat=STALE, market_weight=1.0, begin=begin)
    tables = [table.known_at for table in frame.dataset.posts.values()]
    return TextEvidence(
        known_at=texts.known_at,
        tone=np.array([_tone(text) for text in texts.texts], np.float64),
        regulatory=np.array([speaks_of_regulation(text) for text in texts.texts], bool),
        concerns=texts.relevance > 0.0,
        heard=np.sort(np.concatenate([*tables, np.empty(0, np.int64)])),
    )


@dataclass(frozen=True, eq=False)
class BarTexts:
    """Of each bar of one asset, `[n]`: texts that concern it, their mean tone (NaN if none), those on regulation; NaN without a source."""

    count: Floats
    tone: Floats
    regulatory: Floats


def texts_of_bars(evidence: TextEvidence, asset: int, begins: Times, ends: Times) -> BarTexts:
    """What became known in (begin, end] of each bar."""
    heard = np.searchsorted(evidence.heard, [ends - STALE, ends], side="right")
    alive = heard[1] > heard[0]
    mine = evidence.concerns[:, asset]
    known_at = evidence.known_at[mine]
    count, regulatory = (_count(times, begins, ends) for times in (known_at, evidence.known_at[mine & evidence.regulatory]))
    tone = mean_between(known_at, evidence.tone[mine], begins, ends)
    return BarTexts(*(np.where(alive, values, np.nan) for values in (count, tone, regulatory)))


def _count(known_at: Times, begins: Times, ends: Times) -> Floats:
    """How many became known in (begin, end] of each row."""
    first, stop = np.searchsorted(known_at, begins, side="right"), np.searchsorted(known_at, ends, side="right")
    return (stop - first).astype(np.float64)


def news_tokens(texts: BarTexts) -> tuple[Floats, Floats, Floats]:
    """Tokens 10 (good news), 11 (bad news) and 15 (regulation), `[n]` each: 1 on, 0 off, NaN without a source."""
    return (
        holds(texts.tone > CLEAR_TONE, texts.count),
        holds(texts.tone < -CLEAR_TONE, texts.count),
        holds(texts.regulatory > 0.0, texts.regulatory),
    )


def chatter(texts: BarTexts, first: int = 0) -> Floats:
    """Whether the crowd talks, and gladly: z96 of the number of texts > 2 with a mean tone > 0.3. `[n]`; NaN where that is not known.

    A spread of less than one text counts as one: in quiet times every text would be infinitely unusual.
    """
    z = robust_z(texts.count, texts.count, 96, 1.0, first)
    return holds((z > 2.0) & (texts.tone > CLEAR_TONE), z)
