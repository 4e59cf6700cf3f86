"""The champion's returns: has its Sharpe ratio fallen from what was expected to none?

A one-sided CUSUM of daily returns over their running volatility, k half the expected daily Sharpe ratio, h for the stated run length in
closed form. At two years between false alarms a fall from 1 to 0 takes about 340 days to be found, from 2 to 0 about 200, where that was
expected (`cusum_run_length`); looking every hour would take as long. No reference is needed: the expected Sharpe ratio is one, and 90 days
could not estimate it anyway (its standard error would be 2).

Nothing else raises an alarm. Its text names the Sharpe ratio of the last year and the probability that the true one is positive
(probabilistic Sharpe ratio), so that a reader sees what the fall is a fall from.
"""

from __future__ import annotations

from collections import deque
from math import sqrt

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.cusum import Cusum, cusum_threshold
from cryptoalpha.monitoring.drift.detector import checked_value
from cryptoalpha.monitoring.ratios import sharpe_ratio
from cryptoalpha.monitoring.significance import probabilistic_sharpe_ratio

WINDOW = 365
"""Days that the text of an alarm speaks of."""
WARM_UP = 20
"""Days whose squares start the running volatility."""
DECAY = 0.94
"""Share of the running variance that stays each day: half of it is of the last 11 days."""
CLIP = 4.0
"""Standard deviations beyond which a return counts as just that: one bad day is not a lost edge."""


class ReturnsWatch:
    """Watches daily returns; with an expected Sharpe ratio of 0 it only takes them."""

    def __init__(self, config: DriftConfig) -> None:
        self.config = config
        self.taken = 0
        """Returns taken."""
        self._returns: deque[float] = deque(maxlen=WINDOW)
        self._variance = 0.0
        self._day: int | None = None
        self._silent_until = 0
        self._rising = 0
        """Returns since the sum was last at zero."""
        self._expected = config.expected_sharpe / sqrt(DAYS_PER_YEAR)
        self._cusum: Cusum | None = None
        if self._expected > 0.0:
            threshold = cusum_threshold(self._expected / 2.0, config.champion_run_length_days)
            self._cusum = Cusum(slack=self._expected / 2.0, threshold=threshold, side="down")

    def update(self, at: int, value: float, *, days: int = 1) -> Alarm | None:
        """Take the return of the days (UTC) before the one that `at` (UTC ns) falls on; a second value of one day is passed over.

        A return over several days counts as one value with the mean and spread of so many: over √days it is one day's, whose expected mean
        is √days times as large.

        Raises:
            DataError: for NaN or infinity, or less than a day.
        """
        r = checked_value(value, "the watch over returns")
        if days < 1:
            raise DataError(f"a return over {days} days: expected one or more")
        if self._day is not None and at // DAY <= self._day:
            return None
        self._day = at // DAY
        root = sqrt(days)
        self._returns.append(r / days)
        self.taken += 1
        before, square = self._variance, (r / root) ** 2
        if self.taken <= WARM_UP:
            self._variance += (square - before) / self.taken
            return None
        self._variance = DECAY * before + (1.0 - DECAY) * square
        if self._cusum is None or before <= 0.0 or at < self._silent_until:  # nothing was traded yet, or told just now
            return None
        alarmed = self._cusum.update(min(max(r / root / sqrt(before), -CLIP), CLIP) - root * self._expected)
        self._rising = self._rising + 1 if self._cusum.statistic > 0.0 else 0
        if not alarmed:
            return None
        alarm = self._alarm(at, self._cusum)
        self._cusum.restart()
        self._rising = 0
        self._silent_until = at + round(self.config.cooldown_days * DAY)
        return alarm

    def _alarm(self, at: int, cusum: Cusum) -> Alarm:
        returns = np.array(self._returns)
        whole = sharpe_ratio(returns, periods_per_year=DAYS_PER_YEAR)
        return Alarm(
            happened_at=at,
            known_at=at,
            detector="cusum",
            subject="returns",
            tier="champion",
            statistic=cusum.statistic,
            threshold=cusum.threshold,
            run_length=self.config.champion_run_length_days,
            message=f"the last {self._rising} returns fit a Sharpe ratio of 0 better than the expected {self.config.expected_sharpe:g}, by "
            f"chance once in {self.config.champion_run_length_days:g} days; with those before, {len(returns)} in all, it is {whole:.2f} "
            f"(positive with probability {probabilistic_sharpe_ratio(returns):.2f})",
        )
