"""The measures of `ratios`, `drawdown` and `significance`, kept up to date return by return in constant memory.

`update` takes one return, `merge` appends what a later stretch of the same series has counted, `state` is JSON and `from_state` continues
from it bit for bit. Moments are Welford's, merged by Chan's rule up to the fourth order; values agree with the batch functions to about
1e-12 relative, and each measure is NaN where the batch function is (`explain` says why).

Merging is of consecutive stretches, in order: a drawdown is a matter of order. Sharpe, Sortino and the like would not mind.

Sources: Welford (1962); Chan, Golub & LeVeque (1983); Pébay (2008) for the higher moments.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite, isnan, sqrt
from typing import Any

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.ratios import FLOOR, NAN, NOISE, checked_periods
from cryptoalpha.monitoring.significance import SharpeMoments
from cryptoalpha.monitoring.wealth_path import WealthPath

FIELDS = ("mar", "count", "mean", "m2", "m3", "m4", "largest", "shortfall", "worst", "gains", "losses", "worst_loss", "wins")

MEASURES = (
    "annual_volatility", "sharpe_ratio", "sortino_ratio", "profit_factor", "win_rate",
    "cagr", "calmar_ratio", "max_drawdown", "drawdown", "longest_underwater",
)  # fmt: skip


class StreamingMetrics:
    """Measures of a return series that grows.

    Args:
        mar: return per period below which a period counts as a shortfall (Sortino).
        mergeable: keep what `merge` needs to put this behind an earlier stretch (`wealth_path`: memory grows with the record highs).

    Departure from the batch functions: shortfalls and losses no larger than rounding are added, not dropped; they decide only whether
    there is any. A return below −1 leaves drawdowns NaN.
    """

    def __init__(self, *, mar: float = 0.0, mergeable: bool = False) -> None:
        self.mar = float(mar)
        self.count = 0
        self.mean = self.m2 = self.m3 = self.m4 = 0.0
        self.largest = 0.0
        """Largest absolute return: what rounding is measured against."""
        self.shortfall = self.worst = 0.0
        """Sum of squared shortfalls below `mar`, and the largest shortfall."""
        self.gains = self.losses = self.worst_loss = 0.0
        self.wins = 0
        self.path = WealthPath(joinable=mergeable)

    def update(self, value: float) -> None:
        """Take one simple return.

        Raises:
            DataError: if it is NaN or infinite; nothing is counted then.
        """
        r = float(value)
        if not isfinite(r):
            raise DataError(f"return {self.count} is {r}, expected a finite number", hint="repair the gap upstream, or skip the period")
        n, self.count = self.count, self.count + 1
        delta = r - self.mean
        step = delta / self.count
        square, gain = step * step, delta * step * n
        count = float(self.count)
        self.m4 += gain * square * (count * count - 3.0 * count + 3.0) + 6.0 * square * self.m2 - 4.0 * step * self.m3
        self.m3 += gain * step * (count - 2.0) - 3.0 * step * self.m2
        self.m2 += gain
        self.mean += step
        self.largest = max(self.largest, abs(r))
        short = max(self.mar - r, 0.0)
        self.shortfall += short * short
        self.worst = max(self.worst, short)
        self.gains += max(r, 0.0)
        self.losses += max(-r, 0.0)
        self.worst_loss = max(self.worst_loss, -r)
        self.wins += r > 0.0
        self.path.update(r)

    def extend(self, returns: Iterable[float]) -> None:
        """Take returns one after the other."""
        for value in returns:
            self.update(value)

    def merge(self, later: StreamingMetrics) -> None:
        """Append the stretch that `later` counted, which began where this one ends; `later` is not changed.

        Raises:
            ConfigError: if the two measure shortfalls from different returns, or `later` is not mergeable.
        """
        if later.mar != self.mar:
            raise ConfigError(f"stretches with mar {self.mar} and {later.mar} cannot be merged")
        self.path.join(later.path)
        if later.count == 0:
            return
        a, b = float(self.count), float(later.count)
        n = a + b
        d = later.mean - self.mean
        m2, m3 = self.m2, self.m3
        self.m4 += later.m4 + d**4 * a * b * (a * a - a * b + b * b) / n**3
        self.m4 += 6.0 * d * d * (a * a * later.m2 + b * b * m2) / n**2 + 4.0 * d * (a * later.m3 - b * m3) / n
        self.m3 += later.m3 + d**3 * a * b * (a - b) / n**2 + 3.0 * d * (a * later.m2 - b * m2) / n
        self.m2 += later.m2 + d * d * a * b / n
        self.mean += d * b / n
        self.count += later.count
        self.wins += later.wins
        self.shortfall += later.shortfall
        self.gains += later.gains
        self.losses += later.losses
        self.largest = max(self.largest, later.largest)
        self.worst = max(self.worst, later.worst)
        self.worst_loss = max(self.worst_loss, later.worst_loss)

    def state(self) -> dict[str, Any]:
        """Everything it knows, as plain numbers and lists."""
        return {name: getattr(self, name) for name in FIELDS} | {"path": self.path.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> StreamingMetrics:
        """The metrics that gave this state.

        Raises:
            DataError: if a field is missing or unknown.
        """
        if set(state) != {*FIELDS, "path"}:
            raise DataError(f"state of streaming metrics has fields {sorted(state)}, expected {sorted((*FIELDS, 'path'))}")
        metrics = cls(mar=state["mar"])
        for name in FIELDS:
            setattr(metrics, name, state[name])
        metrics.path = WealthPath.from_state(state["path"])
        return metrics

    # ── measures ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _noise(self, offset: float = 0.0) -> float:
        return max(NOISE * (self.largest + abs(offset)), FLOOR)

    def _deviation(self, offset: float = 0.0) -> float:
        """Standard deviation with ddof 1; 0 where it is rounding, NaN for fewer than two returns."""
        if self.count < 2:
            return NAN
        spread = sqrt(max(self.m2, 0.0) / (self.count - 1))
        return spread if spread > self._noise(offset) else 0.0

    def annual_volatility(self, *, periods_per_year: float) -> float:
        """As `ratios.annual_volatility`."""
        return self._deviation() * sqrt(checked_periods(periods_per_year))

    def sharpe_ratio(self, *, periods_per_year: float, rf: float = 0.0, minimum: int = 2) -> float:
        """As `ratios.sharpe_ratio`; `rf` is one number per period."""
        spread = self._deviation(rf)
        if self.count < minimum or not spread > 0.0:
            return NAN
        return (self.mean - rf) / spread * sqrt(checked_periods(periods_per_year))

    def sortino_ratio(self, *, periods_per_year: float) -> float:
        """As `ratios.sortino_ratio` with this object's `mar`."""
        if not self.worst > self._noise():
            return NAN
        return (self.mean - self.mar) / sqrt(self.shortfall / self.count) * sqrt(checked_periods(periods_per_year))

    def profit_factor(self) -> float:
        """As `ratios.profit_factor`."""
        return self.gains / self.losses if self.worst_loss > self._noise() else NAN

    def win_rate(self) -> float:
        """As `ratios.win_rate`."""
        return self.wins / self.count if self.count else NAN

    def cagr(self, *, periods_per_year: float) -> float:
        """As `ratios.cagr`."""
        if self.count == 0 or self.path.ruined:
            return NAN
        try:
            annual = self.path.wealth ** (checked_periods(periods_per_year) / self.count) - 1.0
        except OverflowError:
            return NAN
        return annual if isfinite(annual) else NAN

    def max_drawdown(self) -> float:
        """Depth of `drawdown.max_drawdown`; NaN once wealth fell below zero."""
        return NAN if self.path.ruined else self.path.depth

    def drawdown(self) -> float:
        """Loss from the peak now, as the last of `drawdown.drawdown_curve`; NaN once wealth fell below zero."""
        return NAN if self.path.ruined else self.path.drawdown

    def longest_underwater(self) -> float:
        """Most periods in a row below the peak; NaN once wealth fell below zero."""
        return NAN if self.path.ruined else float(self.path.longest)

    def calmar_ratio(self, *, periods_per_year: float) -> float:
        """As `drawdown.calmar_ratio`."""
        depth = self.max_drawdown()
        return self.cagr(periods_per_year=periods_per_year) / depth if depth > 0.0 else NAN

    def moments(self) -> SharpeMoments:
        """As `significance.sharpe_moments`: what the probabilistic and deflated Sharpe ratio and the track record needed are taken of."""
        spread = self._deviation()
        if not spread > 0.0:
            return SharpeMoments(NAN, self.count, NAN, NAN)
        variance = self.m2 / self.count
        return SharpeMoments(
            self.mean / spread, self.count, self.m3 / self.count / variance**1.5, self.m4 / self.count / (variance * variance)
        )

    def explain(self, measure: str, *, rf: float = 0.0, minimum: int = 2, periods_per_year: float = 365.0) -> str | None:
        """Why the measure of this name is NaN with these arguments, or None where it is defined.

        Raises:
            ConfigError: if it is not a measure of this class.
        """
        if measure not in MEASURES:
            raise ConfigError(f"no streaming measure is called {measure!r}", hint=f"known: {', '.join(MEASURES)}")
        wealth_alone = measure in ("max_drawdown", "drawdown", "longest_underwater")
        if self.count == 0:
            return None if wealth_alone else "no returns"
        if measure == "annual_volatility":
            return "one return has no deviation" if self.count < 2 else None
        if measure == "sharpe_ratio" and self.count < max(minimum, 2):
            return f"{self.count} returns, fewer than the {max(minimum, 2)} it needs"
        if measure == "sharpe_ratio":
            return None if self._deviation(rf) > 0.0 else "the returns have no volatility"
        if measure in ("sortino_ratio", "profit_factor"):
            deepest = self.worst if measure == "sortino_ratio" else self.worst_loss
            return None if deepest > self._noise() else "no return lies below the threshold"
        if measure == "calmar_ratio" and self.path.depth == 0.0:
            return "equity never fell below its peak"
        if (wealth_alone or measure in ("cagr", "calmar_ratio")) and self.path.ruined:
            return "wealth fell below zero"
        if measure in ("cagr", "calmar_ratio") and isnan(self.cagr(periods_per_year=periods_per_year)):
            return "growth per year is too large to represent"
        return None
