"""Outcomes of one subject's predictions: are they hit as often as in the reference, and as often as claimed?

Two e-detectors, each with the stated run length in outcomes, whatever the outcomes do. `calibration` needs no reference: the promise is
the probability that was claimed, less a margin. `accuracy` promises the lower end of what the reference allows (Wilson, 95 %), so that a
lucky reference does not count as a fall.
"""

from __future__ import annotations

from math import sqrt
from typing import Self

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.drift.baseline import LEAST
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.detector import State
from cryptoalpha.monitoring.drift.e_detector import EDetector

_SURE = 1.6448536269514722
"""Standard deviations that leave 5 % below."""


class OutcomeWatch:
    """Watches hits and misses of one subject.

    Args:
        config: run length, reference, bet, margin, cooldown.
        subject: whose outcomes.
        horizon: time from prediction to outcome, ns; outcomes closer together overlap and are passed over.

    Raises:
        ConfigError: for a horizon that is not positive.
    """

    def __init__(self, config: DriftConfig, subject: str, horizon: int) -> None:
        if horizon <= 0:
            raise ConfigError(f"horizon is {horizon} ns, expected a positive time")
        self.config, self.subject, self.horizon = config, subject, horizon
        self.run_length = max(config.retrain_run_length_days * DAY / horizon, 1.0)
        self._taken: int | None = None
        self._since: int | None = None
        self._hits = 0
        self._outcomes = 0
        self._calibration = EDetector(expected=0.5, run_length=self.run_length, bet=config.bet)
        self._accuracy: EDetector | None = None
        self._silent: dict[str, int] = {}

    def update(self, at: int, probability: float, hit: bool) -> list[Alarm]:
        """Take an outcome known at `at`, predicted `horizon` before with this probability of coming true.

        Raises:
            DataError: for a probability outside 0–1.
        """
        if not 0.0 <= probability <= 1.0:
            raise DataError(f"probability {probability} of {self.subject}: expected a number between 0 and 1")
        if self._taken is not None and at < self._taken + self.horizon:
            return []
        self._taken = at
        outcome = 1.0 if hit else 0.0
        claimed = max(probability - self.config.accuracy_margin, 0.0)
        found = [self._judge(at, "calibration", self._calibration, outcome, claimed)]
        if self._accuracy is None:
            self._learn(at, hit)
        else:
            found.append(self._judge(at, "accuracy", self._accuracy, outcome, self._accuracy.expected))
        return [alarm for alarm in found if alarm is not None]

    def _learn(self, at: int, hit: bool) -> None:
        self._since = at if self._since is None else self._since
        self._hits += int(hit)
        self._outcomes += 1
        if at >= self._since + self.config.reference_days * DAY and self._outcomes >= 2 * LEAST:
            promise = lowest_rate(self._hits, self._outcomes)
            self._accuracy = EDetector(expected=promise, run_length=self.run_length, bet=self.config.bet)

    def _judge(self, at: int, what: str, detector: EDetector, outcome: float, promise: float) -> Alarm | None:
        if at < self._silent.get(what, at):
            return None
        if not detector.update(outcome, promise):
            return None
        alarm = Alarm(
            happened_at=at,
            known_at=at,
            detector="e_detector",
            subject=f"{what}:{self.subject}",
            tier="retrain",
            statistic=detector.statistic,
            threshold=detector.threshold,
            run_length=detector.threshold,
            message=f"{self.subject} is right less often than "
            + ("it claims" if what == "calibration" else f"the {promise:.3f} its reference promises")
            + f"; by chance at most once in {self.config.retrain_run_length_days:g} days",
        )
        detector.restart()
        self._silent[what] = at + round(self.config.cooldown_days * DAY)
        return alarm

    def state(self) -> State:
        """All but the settings."""
        return {
            "horizon": self.horizon,
            "taken": self._taken,
            "since": self._since,
            "hits": self._hits,
            "outcomes": self._outcomes,
            "calibration": self._calibration.state(),
            "accuracy": None if self._accuracy is None else self._accuracy.state(),
            "silent": dict(self._silent),
        }

    @classmethod
    def from_state(cls, config: DriftConfig, subject: str, state: State) -> Self:
        """The watch that gave this state.

        Raises:
            ConfigError: where the state has other entries.
        """
        made = cls(config, subject, int(state["horizon"]))
        if set(state) != set(made.state()):
            raise ConfigError(f"the kept state of the watch over {subject} has other entries", hint="start it anew")
        made._taken, made._since = state["taken"], state["since"]
        made._hits, made._outcomes = int(state["hits"]), int(state["outcomes"])
        made._calibration = EDetector.from_state(state["calibration"])
        made._accuracy = None if state["accuracy"] is None else EDetector.from_state(state["accuracy"])
        made._silent = dict(state["silent"])
        return made


def lowest_rate(hits: int, outcomes: int) -> float:
    """Lower end of the one-sided 95 % Wilson interval of a rate."""
    p, z2 = hits / outcomes, _SURE**2
    centre = p + z2 / (2 * outcomes)
    width = _SURE * sqrt(p * (1.0 - p) / outcomes + z2 / (4.0 * outcomes**2))
    return max((centre - width) / (1.0 + z2 / outcomes), 0.0)
