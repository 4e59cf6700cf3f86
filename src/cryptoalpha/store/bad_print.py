"""Prints that no other trade supports: wicks to nowhere and closes that jump without volume.

Every verdict on a bar uses that bar and bars before it, so removing later bars never changes it. A bad close that only the next bar could
expose is therefore not repaired with hindsight: the bar is quarantined when it appears, and the next bar only decides which price level
goes on. The real example is LINK/USDT on 12 March 2020, 10:00: open 3.06, close 2.47, low 0.0001.

Only suspects are examined closely (a median per suspect), so clean data cost one vectorised pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.store.config import BarGateConfig
from cryptoalpha.store.tables import BarTable, Floats

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Wicks:
    """Which bars have a bad wick, and highs and lows with those wicks clipped. Shapes: `[n]` each."""

    is_bad: Mask
    high: Floats
    low: Floats


def clip_wicks(table: BarTable, config: BarGateConfig) -> Wicks:
    """Find wicks beyond `wick_ratio` and `wick_ranges` typical ranges, and cut them to `wick_clip_ranges` of those.

    The typical range is the median of log(high / low) over the `window` bars before, as they came; it is 0 for the very first bar, whose
    bad wick is cut to its body. Expects sorted bars with possible values.
    """
    body_low, body_high = np.minimum(table.open, table.close), np.maximum(table.open, table.close)
    below, above = np.log(body_low / table.low), np.log(table.high / body_high)
    log_range = np.log(table.high / table.low)
    high, low = table.high.copy(), table.low.copy()
    is_bad = np.zeros(len(table), np.bool_)
    floor = np.log(config.wick_ratio)
    for i in np.flatnonzero((below > floor) | (above > floor)):
        before = log_range[max(0, i - config.window) : i]
        typical = float(np.median(before)) if before.size else 0.0
        limit = max(floor, config.wick_ranges * typical)
        reach = config.wick_clip_ranges * typical
        if below[i] > limit:
            low[i], is_bad[i] = body_low[i] * np.exp(-reach), True
        if above[i] > limit:
            high[i], is_bad[i] = body_high[i] * np.exp(reach), True
    return Wicks(is_bad, high, low)


def unbacked_jumps(table: BarTable, config: BarGateConfig) -> Mask:
    """Which bars to quarantine because their close jumped by more than `jump_ratio` from the last accepted close without volume.

    A bar after a quarantined one is accepted where it stands near the last accepted close (the print was bad) or near the quarantined one
    (the level is new), or has volume; else it is quarantined too. Expects sorted bars with possible values.

    Shapes: → `[n]`.
    """
    level, limit, n = np.log(table.close), float(np.log(config.jump_ratio)), len(table)
    quarantined = np.zeros(n, np.bool_)
    suspects = np.flatnonzero(np.abs(np.diff(level)) > limit) + 1
    place = 0
    while place < len(suspects):
        i = int(suspects[place])
        reference, pending = level[i - 1], level[i - 1]
        while i < n and not (min(abs(level[i] - reference), abs(level[i] - pending)) <= limit or _is_traded(table.volume, i, config)):
            quarantined[i], pending = True, level[i]
            i += 1
        place = int(np.searchsorted(suspects, i, side="right"))
    return quarantined


def _is_traded(volume: Floats, i: int, config: BarGateConfig) -> bool:
    """Whether enough was traded in bar `i`, compared with the bars before, to believe its close."""
    before = volume[max(0, i - config.window) : i]
    if before.size < config.min_volume_history:
        return False
    return bool(volume[i] > 0.0 and volume[i] >= config.jump_volume_multiple * float(np.median(before)))
