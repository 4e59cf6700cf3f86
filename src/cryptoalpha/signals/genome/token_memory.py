"""Tokens of the last frame, kept for the next one: a live bar closes one bar of each length at most, and only its tokens are new.

Kept are the tokens that a frame showed, and as many bars of each length as the next one's can depend on. They hold for frames of the same
history alone (`signals.history`), so whoever asks gets what computing anew would give, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryptoalpha.signals.genome.price_tokens import memory_of
from cryptoalpha.signals.genome.tokens import Evidence, Flags, asset_tokens
from cryptoalpha.signals.price_bars import AssetBars
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats, Times

COLUMNS = ("open", "raw_high", "raw_low", "close", "volume", "taker_buy_volume")
"""What `AssetBars` is made of."""


@dataclass(frozen=True, eq=False)
class LongBars:
    """Bars of `interval` ns of every asset. Axes: `m` bars, `A` instruments; the tokens of bars before `first` are nobody's.

    Shapes: `opens` `[m]`; `bars` one of `[m]` per instrument; `closed` `[m, A]` where no part is absent; `tokens`, `missing` `[m, A, 16]`.
    """

    interval: int
    opens: Times
    bars: tuple[AssetBars, ...]
    closed: Flags
    tokens: Flags
    missing: Flags
    first: int

    def covers(self, closes: Times) -> bool:
        """Whether the bar that is newest at the first of these moments is among those with tokens."""
        return len(closes) > 0 and bool(self.opens[self.first] + self.interval <= closes[0])

    def next_row(self, panel: Panel) -> int:
        """The row in which the bar after the last one opens."""
        return int(self.opens[-1] + self.interval - panel.open_time[0]) // panel.interval

    def since(self, first: int) -> LongBars:
        """What the next frame may need: tokens from bar `first` on, and the bars on which the next one's tokens depend."""
        cut = max(0, min(first, len(self.opens) - memory_of(self.interval).reach))
        bars = tuple(_rows(one, cut) for one in self.bars)
        return LongBars(
            self.interval, self.opens[cut:], bars, self.closed[cut:], self.tokens[cut:], self.missing[cut:], max(first, self.first) - cut
        )

    def followed_by(self, later: LongBars) -> LongBars:
        """The bars of `later`, which begin with these and whose tokens come after them, with the tokens of both."""
        n = len(self.opens)
        tokens, missing = (np.concatenate(parts) for parts in ((self.tokens, later.tokens[n:]), (self.missing, later.missing[n:])))
        return LongBars(self.interval, later.opens, later.bars, later.closed, tokens, missing, self.first)


class TokenMemory:
    """What the last frame showed, by length of the bars."""

    def __init__(self) -> None:
        self._history: object | None = None
        self._sets: dict[int, LongBars] = {}

    def of(self, history: object | None) -> dict[int, LongBars]:
        """What is kept of a history; nothing of another. The caller puts in what it found."""
        if history is None or history is not self._history:
            self._history, self._sets = history, {}
        return self._sets


def told(evidence: Evidence, interval: int, opens: Times, bars: tuple[AssetBars, ...], first: int) -> LongBars:
    """Bars of a length with their tokens from bar `first` on."""
    sets = [asset_tokens(evidence, a, one, opens, interval, first=first) for a, one in enumerate(bars)]
    tokens, missing = (np.stack([getattr(one, part) for one in sets], axis=1) for part in ("tokens", "missing"))
    return LongBars(interval, opens, bars, np.stack([np.isfinite(one.close) for one in bars], axis=1), tokens, missing, first)


def joined(old: AssetBars, later: AssetBars, begin: int) -> AssetBars:
    """The rows of `old`, then those of `later` from `begin` on."""
    return _bars([np.concatenate((getattr(old, name), getattr(later, name)[begin:])) for name in COLUMNS])


def _rows(bars: AssetBars, begin: int) -> AssetBars:
    return _bars([np.array(getattr(bars, name)[begin:]) for name in COLUMNS])


def _bars(columns: list[Floats]) -> AssetBars:
    open_, high, low, close, volume, taker = columns
    return AssetBars(open_, high, low, close, volume, taker)
