"""Looks for drift while the loop runs: asks `monitoring.drift` once a day and hands its alarms to the journal. It changes nothing.

Once a day, at the first step after 00:00 UTC, for two reasons: labels of one day do not overlap, which is what the detectors' run lengths
rest on, and a watch that costs next to nothing is left switched on. What it is shown then:

- **prediction**: the mean direction over the book;
- **outcome**, one label per day: were yesterday's directions, weighed by themselves, on the side the market went. The fusion claims no
  probability of that, so the promise it is held to is a coin's;
- **information coefficient** of yesterday's directions over the book, where at least five instruments have one;
- **return** of the book since the last look, after costs;
- **features**: what the fusion was given. Of each source the mean of its signals over the book, by the source's name; of each instrument
  the logarithm of its volatility (`volatility:BTC/USDT`; its steps then do not grow with it) and what else its market state holds
  (`BTC/USDT:0` and on). What is absent today is not observed.

A day is one of the calendar (UTC), so a first bar that comes late loses nothing. After days without bars there is no label and no
coefficient, which would be of another horizon; the return counts as one of so many days.

Mean directions and coefficients learn what is normal anew after each of their alarms: a lasting change is told once. Outcomes, returns and
features keep what they were promised, and what stays wrong is told again.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

from cryptoalpha.app.engine import Step
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Alarm, FusedSignal, PortfolioState
from cryptoalpha.execution.broker import Outcome
from cryptoalpha.monitoring.accuracy import CROSS_SECTION
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.monitor import DriftMonitor
from cryptoalpha.store.tables import Floats

CLAIMED = 0.5
"""Probability that the book's directions are right, where nobody claims one."""

NOTHING: Sequence[Alarm] = ()


class DriftWatchdog:
    """The engine's `Watchdog`.

    Args:
        config: what is watched, and how often it may be wrong.
        seed: of the simulations that find thresholds.
    """

    def __init__(self, config: DriftConfig, *, seed: int) -> None:
        self.monitor = DriftMonitor(config, seed=seed)
        self._day = -1
        self._equity = 0.0
        self._said: dict[str, tuple[float, float]] = {}
        """Direction and price of each instrument at the day's first step."""
        self._looked = 0

    def look(
        self,
        step: Step,
        portfolio: PortfolioState,
        fused: Sequence[FusedSignal],
        happened: Sequence[Outcome],
    ) -> Sequence[Alarm]:
        """What is not as it was; at the first step of a day, at all others nothing."""
        at = step.bar.at
        day = at // DAY
        if day == self._day:
            return NOTHING
        alarms = self.monitor.observe_features(at, features_of(step))
        if day == self._day + 1:  # a label that spans a gap is of another horizon
            alarms += self._of_outcomes(at, step)
        if self._equity > 0.0:
            alarms += self.monitor.observe_return(at, float(portfolio.equity) / self._equity - 1.0, days=day - self._day)
        alarms += self._of_predictions(at, step, fused)
        self._day, self._looked, self._equity = day, at, float(portfolio.equity)
        return alarms

    def _of_outcomes(self, at: int, step: Step) -> list[Alarm]:
        """Judge what was said a day ago by what came of it."""
        pairs = []
        for name, price in zip(step.bar.instruments, step.bar.close, strict=True):
            said = self._said.get(name)
            if said is not None and price > 0.0:
                pairs.append((said[0], price / said[1] - 1.0))
        gain = sum(direction * move for direction, move in pairs)
        alarms: list[Alarm] = []
        if gain != 0.0:  # where nothing was said or nothing moved there is neither hit nor miss
            alarms += self.monitor.observe_outcome(at, "directions", CLAIMED, gain > 0.0, horizon=DAY, since=self._looked)
        if len(pairs) >= CROSS_SECTION:
            coefficient = rank_correlation(np.array(pairs).T)
            if coefficient == coefficient:
                alarms += self.monitor.observe_ic(at, coefficient)
        return alarms

    def _of_predictions(self, at: int, step: Step, fused: Sequence[FusedSignal]) -> list[Alarm]:
        """Note what is said today."""
        prices = dict(zip(step.bar.instruments, step.bar.close, strict=True))
        self._said = {
            each.instrument: (each.direction, prices[each.instrument])
            for each in fused
            if each.weights and prices.get(each.instrument, 0.0) > 0.0
        }
        if not self._said:
            return []
        mean = sum(direction for direction, _ in self._said.values()) / len(self._said)
        return self.monitor.observe_prediction(at, "book", mean)


def features_of(step: Step) -> dict[str, float]:
    """What a fusion is given at this step, one number each, by name."""
    said: dict[str, list[float]] = {}
    for signal in step.signals:
        said.setdefault(signal.source, []).append(signal.value)
    found = {source: sum(values) / len(values) for source, values in said.items()}
    for state in step.states:
        if state.volatility > 0.0:  # NaN while there is too little history
            found[f"volatility:{state.instrument}"] = log(state.volatility)
        found.update({f"{state.instrument}:{place}": value for place, value in enumerate(state.features)})
    return found


def rank_correlation(pair: Floats) -> float:
    """Spearman's, of two series `[2, A]`; NaN where one does not vary. `information_coefficient` of one moment, at a fifth of its price."""
    larger = pair[:, :, None] > pair[:, None, :]
    ranks = larger.sum(axis=2) - larger.sum(axis=1)  # twice the average rank, about its mean
    covariance, first, second = ((ranks[0] * ranks[1]).sum(), (ranks[0] ** 2).sum(), (ranks[1] ** 2).sum())
    return float(covariance / np.sqrt(float(first * second))) if first and second else float("nan")
