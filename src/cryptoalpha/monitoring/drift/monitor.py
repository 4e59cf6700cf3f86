"""Everything that may drift, in one place: values in, alarms out, each with the mean distance of its false alarms.

Two tiers (the third, minutes, are the breakers of `risk`):

- **retrain**, a year between false alarms each: the features' distributions, the level of the predictions, and of each subject's outcomes
  the accuracy (against the reference) and the calibration (against what was claimed);
- **champion**, two years each: its daily returns (CUSUM from the expected Sharpe ratio to none, told together with the rolling Sharpe ratio
  and the probability that the true one is positive) and its information coefficient.

After an alarm the predictions' and the coefficient's watch learn anew what is normal; the others compare with what they were promised.
An alarm proposes; nothing here trades. Same values in the same order, same alarms; `state` and `from_state` carry on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from numpy.typing import ArrayLike

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.detector import State
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
        self._features = self._new_features()
        self._predictions: dict[str, SeriesWatch] = {}
        self._outcomes: dict[str, OutcomeWatch] = {}
        self._returns = ReturnsWatch(self.config)
        self._ic = SeriesWatch(self._series("information_coefficient", "champion"))

    def observe_features(self, at: int, names: Sequence[str], values: ArrayLike) -> list[Alarm]:
        """Features `[F]` as they were used at `at`; the names must stay the same."""
        return self._features.update(at, names, values) if self.config.enabled else []

    def observe_prediction(self, at: int, subject: str, value: float) -> list[Alarm]:
        """A prediction made at `at`, such as the direction of one instrument."""
        if not self.config.enabled:
            return []
        watch = self._predictions.get(subject)
        if watch is None:
            watch = self._predictions[subject] = SeriesWatch(self._series(f"prediction:{subject}", "retrain"))
        return _listed(watch.update(at, value))

    def observe_outcome(self, at: int, subject: str, probability: float, hit: bool, *, horizon: int) -> list[Alarm]:
        """An outcome known at `at`: the probability that had been claimed for it `horizon` nanoseconds before, and whether it came true.

        Outcomes whose horizon overlaps that of the last one taken are passed over: the run length holds for none other.
        """
        if not self.config.enabled:
            return []
        watch = self._outcomes.get(subject)
        if watch is None:
            watch = self._outcomes[subject] = OutcomeWatch(self.config, subject, horizon)
        return watch.update(at, probability, hit)

    def observe_return(self, at: int, value: float) -> list[Alarm]:
        """The champion's return of the day that ended at `at`, net of costs, a fraction."""
        return _listed(self._returns.update(at, value)) if self.config.enabled else []

    def observe_ic(self, at: int, value: float) -> list[Alarm]:
        """An information coefficient of predictions whose outcomes are known at `at`, one per horizon or day."""
        return _listed(self._ic.update(at, value)) if self.config.enabled else []

    def relearn(self) -> None:
        """After retraining: what is normal is learned anew; the champion's returns go on."""
        self._features = self._new_features()
        for watch in self._predictions.values():
            watch.relearn()
        self._outcomes = {}
        self._ic.relearn()

    @property
    def feature_p_values(self) -> dict[str, float]:
        """Of the features at their last look."""
        return dict(self._features.p_values)

    @property
    def rolling_sharpe(self) -> float:
        """Annual Sharpe ratio of the champion's latest returns; NaN before there are enough."""
        return self._returns.rolling_sharpe

    @property
    def probability_of_skill(self) -> float:
        """Probability that the champion's true Sharpe ratio is positive, by the same returns; NaN before there are enough."""
        return self._returns.probability_of_skill

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

    def _new_features(self) -> FeatureWatch:
        c = self.config
        return FeatureWatch(reference_days=c.reference_days, run_length_days=c.retrain_run_length_days, rate=c.false_discovery_rate)

    def state(self) -> State:
        """All but the settings; survives JSON."""
        return {
            "features": self._features.state(),
            "predictions": {name: watch.state() for name, watch in self._predictions.items()},
            "outcomes": {name: watch.state() for name, watch in self._outcomes.items()},
            "returns": self._returns.state(),
            "ic": self._ic.state(),
        }

    @classmethod
    def from_state(cls, state: State, config: DriftConfig | None = None, *, seed: int = 0) -> Self:
        """The monitor that gave this state, with the same settings."""
        made = cls(config, seed=seed)
        c = made.config
        made._features = FeatureWatch.from_state(
            state["features"],
            reference_days=c.reference_days,
            run_length_days=c.retrain_run_length_days,
            rate=c.false_discovery_rate,
        )
        for name, kept in state["predictions"].items():
            made._predictions[name] = SeriesWatch.from_state(made._series(f"prediction:{name}", "retrain"), kept)
        for name, kept in state["outcomes"].items():
            made._outcomes[name] = OutcomeWatch.from_state(c, name, kept)
        made._returns = ReturnsWatch.from_state(c, state["returns"])
        made._ic = SeriesWatch.from_state(made._ic.settings, state["ic"])
        return made


def _listed(alarm: Alarm | None) -> list[Alarm]:
    return [] if alarm is None else [alarm]
