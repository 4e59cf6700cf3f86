"""The rows of the genome: tokens of longer bars, made of the bars at hand and seen only once they have closed.

At base bar t the row of a time frame shows the newest of its bars that had ended when bar t closed, right-aligned: the 4 h row of the 05:00
bar shows the bar from 00:00 to 04:00 (the bar opened at 05:00 closes at 06:00). Long bars open on the grid of the epoch, wherever the data
begin. A long bar with a missing part is absent, never estimated (the rule of `data.resample`), and so is its row while it is the newest.

Where the base bar itself is absent every row is: there is no price to measure from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import grid_anchor, interval_name, parse_interval
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.text_tokens import TEXT_BARS
from cryptoalpha.signals.genome.token_memory import LongBars, TokenMemory, joined, told
from cryptoalpha.signals.genome.tokens import BOUNDED_WICK_REACH, Evidence, Flags, token_reach
from cryptoalpha.signals.genome.vocabulary import V
from cryptoalpha.signals.price_bars import AssetBars, asset_bars
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats, Times


@dataclass(frozen=True, eq=False)
class FrameTokens:
    """Tokens of several time frames at every base bar. Axes: `T` bars, `A` instruments, `S` time frames (the base first), 16 tokens.

    `intervals` `S` lengths in ns; `tokens`, `missing` `[T, A, S, 16]`; `present` `[T, A, S]`, False where there is no closed bar to show.
    """

    intervals: tuple[int, ...]
    tokens: Flags
    missing: Flags
    present: Flags


def frame_intervals(names: Sequence[str], base: int) -> tuple[int, ...]:
    """Lengths of the rows: the base bar's, then those of `names` that are longer, rising.

    Raises:
        ConfigError: if a longer one is no multiple of the base bar's.
    """
    longer = sorted({length for name in names if (length := parse_interval(name)) > base})
    for length in longer:
        if length % base:
            raise ConfigError(
                f"signals.genome.frames: {interval_name(length)} bars cannot be made of {interval_name(base)} bars",
                hint="leave it out of signals.genome.frames",
            )
    return (base, *longer)


def frames_reach(intervals: Sequence[int]) -> int:
    """Rows of the base bar before t on which the tokens of row t can depend."""
    return max(token_reach(interval, intervals[0]) for interval in intervals)


def frame_tokens(frame: Frame, names: Sequence[str], *, begin: int = 0, memory: TokenMemory | None = None) -> FrameTokens:
    """Tokens of the base bars and of the longer time frames among `names`, at the rows from `begin` on; rows before it are left empty.

    Args:
        memory: of the frames before; what it holds of this frame's history is not computed again.

    Raises:
        ConfigError: see `frame_intervals`.
    """
    panel = frame.panel
    intervals = frame_intervals(names, panel.interval)
    shape = (*frame.shape, len(intervals))
    present = np.zeros(shape, bool)
    tokens, missing = (np.zeros((*shape, V), bool) for _ in range(2))
    closes = panel.open_time[begin:] + panel.interval
    kept = {} if memory is None else memory.of(frame.history)
    known = {length: sets for length, sets in kept.items() if sets.covers(closes)}
    rows = {length: known[length].next_row(panel) if length in known else begin for length in intervals}
    parts = {length: length // panel.interval for length in intervals}
    asked = [row - TEXT_BARS * parts[length] for length, row in rows.items() if length not in known or row + parts[length] <= len(panel)]
    evidence = Evidence(frame, texts_from=max(0, min(asked, default=begin)))
    for s, interval in enumerate(intervals):
        sets = _later(evidence, known[interval]) if interval in known else _told(evidence, interval, begin)
        newest = np.searchsorted(sets.opens + interval, closes, side="right") - 1  # [T − begin]
        present[begin:, :, s] = frame.usable[begin:] & (newest >= 0)[:, None] & _at(sets.closed, newest)
        for into, values in ((tokens, sets.tokens), (missing, sets.missing)):
            into[begin:, :, s] = _at(values, newest) & present[begin:, :, s, None]
        if len(closes) and newest[0] >= 0:
            kept[interval] = sets.since(int(newest[0]))
    return FrameTokens(intervals, tokens, missing, present)


def _told(evidence: Evidence, interval: int, begin: int) -> LongBars:
    """The bars of a length with the tokens that rows from `begin` on see, from the bars of the frame."""
    frame, panel = evidence.frame, evidence.frame.panel
    start = max(0, begin - token_reach(interval, panel.interval))
    if 2 * start < begin:
        start = 0  # the frame's own bars know their volatility already
    bars = frame.bars if start == 0 else _bars_from(panel, start)
    opens, longer = _longer(bars, panel.open_time[start:], panel.interval, interval)
    ends = panel.open_time[begin : begin + 1] + panel.interval
    newest = int(np.searchsorted(opens + interval, ends, side="right")[0]) - 1 if len(ends) else 0
    return told(evidence, interval, opens, longer, max(0, newest))


def _later(evidence: Evidence, known: LongBars) -> LongBars:
    """What is known, and the bars that have closed since."""
    panel, row = evidence.frame.panel, known.next_row(evidence.frame.panel)
    if row + known.interval // panel.interval > len(panel):
        return known
    start = max(0, row - BOUNDED_WICK_REACH - 2 * known.interval // panel.interval)
    opens, longer = _longer(_bars_from(panel, start), panel.open_time[start:], panel.interval, known.interval)
    new = int(np.searchsorted(opens, known.opens[-1], side="right"))
    bars = tuple(joined(old, one, new) for old, one in zip(known.bars, longer, strict=True))
    return known.followed_by(told(evidence, known.interval, np.concatenate((known.opens, opens[new:])), bars, len(known.opens)))


def _bars_from(panel: Panel, start: int) -> tuple[AssetBars, ...]:
    rows = panel.rows(start, len(panel))
    return tuple(asset_bars(rows, a) for a in range(len(rows.instruments)))


def _longer(bars: Sequence[AssetBars], open_time: Times, base: int, interval: int) -> tuple[Times, tuple[AssetBars, ...]]:
    """`longer_bars` of every asset."""
    made = [longer_bars(one, open_time, base, interval) for one in bars]
    return made[0][0], tuple(one for _, one in made)


def _at(values: Flags, rows: Times) -> Flags:
    """Values at those rows; row −1 gives the last one, which callers mask. `[n, ...]`, `[T]` → `[T, ...]`."""
    return values[rows] if len(values) else np.zeros((len(rows), *values.shape[1:]), bool)


def longer_bars(bars: AssetBars, open_time: Times, base: int, interval: int) -> tuple[Times, AssetBars]:
    """Bars of `interval` ns from base bars of one asset: when each opens, and its columns.

    Shapes: base `[T]` → `[m]`; only long bars that lie wholly inside the rows; NaN in every column where a part is absent. Highs and lows
    are the bounded ones of the base bars, so that one bad print does not make a bad day.
    """
    if interval == base:
        return open_time, bars
    parts, anchor = interval // base, grid_anchor(interval)
    skipped = int(-(open_time[0] - anchor) // base % parts) if len(open_time) else 0
    whole = max(0, (len(open_time) - skipped) // parts)
    opens = open_time[skipped : skipped + whole * parts : parts]
    columns = _gather(bars.open, bars.high, bars.low, bars.close, bars.volume, bars.taker_buy_volume, skipped, whole, parts)
    return opens, AssetBars(*columns)


@njit(cache=True)
def _gather(
    open_: Floats, high: Floats, low: Floats, close: Floats, volume: Floats, taker: Floats, first: int, whole: int, parts: int
) -> Floats:
    """First open, highest high, lowest low, last close, summed volumes of every `parts` rows from `first` on. `[T]` → `[6, whole]`."""
    out = np.full((6, whole), np.nan)
    for k in range(whole):
        start = first + k * parts
        top, bottom, traded, bought, complete = -np.inf, np.inf, 0.0, 0.0, True
        for t in range(start, start + parts):
            if np.isnan(close[t]):
                complete = False
                break
            top, bottom = max(top, high[t]), min(bottom, low[t])
            traded += volume[t]
            bought += taker[t]
        if complete:
            out[0, k], out[1, k], out[2, k], out[3, k] = open_[start], top, bottom, close[start + parts - 1]
            out[4, k], out[5, k] = traded, bought
    return out
