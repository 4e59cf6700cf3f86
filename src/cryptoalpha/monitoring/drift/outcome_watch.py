"""Outcomes of one subject's predictions: are they hit as often as was claimed?

An e-detector with the stated run length in outcomes, whatever the outcomes do. The promise is the probability that was claimed, less a
margin, so no reference is needed. One learned from 90 daily outcomes would have to leave room for a lucky one (.44 where .53 were hit), and
finds .53 → .47 in 500 days; a claim of .5 finds it in 140 (medians, at the default settings, after 200 days with .53). What is claimed too
low goes unnoticed: claim what you mean.
"""

from __future__ import annotations

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.e_detector import EDetector


class OutcomeWatch:
    """Watches hits and misses of one subject.

    Args:
        config: run length, bet, margin, cooldown.
        subject: whose outcomes.
        horizon: usual time from prediction to outcome, ns.

    Raises:
        ConfigError: for a horizon that is not positive.
    """

    def __init__(self, config: DriftConfig, subject: str, horizon: int) -> None:
        if horizon <= 0:
            raise ConfigError(f"horizon is {horizon} ns, expected a positive time")
        self.config, self.subject, self.horizon = config, subject, horizon
        self.taken = 0
        """Outcomes taken."""
        self._latest: int | None = None
        self._silent_until = 0
        run_length = max(config.retrain_run_length_days * DAY / horizon, 1.0)
        self._detector = EDetector(expected=0.5, run_length=run_length, bet=config.bet)

    def update(self, at: int, probability: float, hit: bool, *, since: int | None = None) -> Alarm | None:
        """Take an outcome known at `at`, predicted at `since` [`horizon` before] with this probability of coming true.

        One whose prediction is older than the last outcome overlaps with it and is passed over.

        Raises:
            DataError: for a probability outside 0–1.
        """
        if not 0.0 <= probability <= 1.0:
            raise DataError(f"probability {probability} of {self.subject}: expected a number between 0 and 1")
        if self._latest is not None and (at - self.horizon if since is None else since) < self._latest:
            return None
        self._latest = at
        self.taken += 1
        promise = max(probability - self.config.accuracy_margin, 0.0)
        if at < self._silent_until or not self._detector.update(1.0 if hit else 0.0, promise):
            return None
        alarm = self._alarm(at)
        self._detector.restart()
        self._silent_until = at + round(self.config.cooldown_days * DAY)
        return alarm

    def _alarm(self, at: int) -> Alarm:
        return Alarm(
            happened_at=at,
            known_at=at,
            detector="e_detector",
            subject=f"calibration:{self.subject}",
            tier="retrain",
            statistic=self._detector.statistic,
            threshold=self._detector.threshold,
            run_length=self._detector.threshold,
            message=f"{self.subject} is right less often than it claims; by chance at most once in "
            f"{self.config.retrain_run_length_days:g} days",
        )
