"""Everything that may drift, in one place: values in, alarms out, each with the mean distance of its false alarms.

Two tiers (the third, minutes, are the breakers of `risk`):

- **retrain**, a year between false alarms each: the features' distributions, the level of the predictions, and of each subject's outcomes
  the calibration (against what was claimed);
- **champion**, two years each: its daily returns (CUSUM from the expected Sharpe ratio to none) and its information coefficient.

After an alarm the predictions' and the coefficient's watch learn anew what is normal; the others compare with what they were promised.
An alarm proposes; nothing here trades. Same values in the same order, same alarms: a run that is taken up again replays its journal, which
brings this back too. After retraining, start another one.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.feature_watch import FeatureWatch
from cryptoalpha.monitoring.drift.outcome_watch import OutcomeWatch
from cryptoalpha.monitoring.drift.returns_watch import ReturnsWatch
from cryptoalpha.monitoring.drift.watch import SeriesWatch, Tier, WatchSettings


class DriftMonitor:
    """Watches a running system. Every `observe_*` takes a moment (UTC ns) and answers with the alarms it raised, mostly none.

    Args:
        config: run lengths, references, cooldown.
        seed: of the simulations that find thresholds.

    Raises:
        DataError: from `observe_*`, for values that are not finite (features may be NaN where not observed).
    """

    def __init__(self, config: DriftConfig | None = None, *, seed: int = 0) -> None:
        self.config = config if config is not None else DriftConfig()
        self.seed = seed
        self.features = FeatureWatch(
            reference_days=self.config.reference_days,
            run_length_days=self.config.retrain_run_length_days,
            rate=self.config.false_discovery_rate,
        )
        self._predictions: dict[str, SeriesWatch] = {}
        self._outcomes: dict[str, OutcomeWatch] = {}
        self._returns = ReturnsWatch(self.config)
        self._ic = SeriesWatch(self._series("information_coefficient", "champion"))

    def observe_features(self, at: int, values: Mapping[str, float]) -> list[Alarm]:
        """Features by name as they were used at `at`, NaN where not observed."""
        return self.features.update(at, values) if self.config.enabled else []

    def observe_prediction(self, at: int, subject: str, value: float) -> list[Alarm]:
        """A prediction made at `at`, such as the direction of one instrument."""
        if not self.config.enabled:
            return []
        watch = self._predictions.get(subject)
        if watch is None:
            watch = self._predictions[subject] = SeriesWatch(self._series(f"prediction:{subject}", "retrain"))
        return _listed(watch.update(at, value))

    def observe_outcome(
        self, at: int, subject: str, probability: float, hit: bool, *, horizon: int, since: int | None = None
    ) -> list[Alarm]:
        """An outcome known at `at`: the probability that had been claimed for it at `since` [`horizon` before], and whether it came true.

        Outcomes that overlap with the last one taken are passed over: the run length holds for none other.
        """
        if not self.config.enabled:
            return []
        watch = self._outcomes.get(subject)
        if watch is None:
            watch = self._outcomes[subject] = OutcomeWatch(self.config, subject, horizon)
        return _listed(watch.update(at, probability, hit, since=since))

    def observe_return(self, at: int, value: float, *, days: int = 1) -> list[Alarm]:
        """The champion's return of the `days` (UTC) before the one `at` falls on, net of costs, a fraction."""
        return _listed(self._returns.update(at, value, days=days)) if self.config.enabled else []

    def observe_ic(self, at: int, value: float) -> list[Alarm]:
        """An information coefficient of predictions whose outcomes are known at `at`, one per horizon or day."""
        return _listed(self._ic.update(at, value)) if self.config.enabled else []

    def _series(self, subject: str, tier: Tier) -> WatchSettings:
        c = self.config
        days = c.retrain_run_length_days if tier == "retrain" else c.champion_run_length_days
        return WatchSettings(
            subject=subject,
            tier=tier,
            reference_days=c.reference_days,
            run_length_days=days,
            cooldown_days=c.cooldown_days,
            shift=c.shift,
            side="both" if tier == "retrain" else "down",
            every=HOUR,
            runs=c.simulated_runs,
            seed=self.seed,
        )


def _listed(alarm: Alarm | None) -> list[Alarm]:
    return [] if alarm is None else [alarm]
