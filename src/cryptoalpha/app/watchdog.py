"""Looks for drift while the loop runs: asks `monitoring.drift` once a day and hands its alarms to the journal. It changes nothing.

Once a day, at the first step after 00:00 UTC, for two reasons: labels of one day do not overlap, which is what the detectors' run lengths
rest on, and a watch that costs next to nothing is left switched on. What it is shown then:

- **prediction**: the mean direction over the book;
- **outcome**, one label per day: were yesterday's directions, weighed by themselves, on the side the market went. The fusion claims no
  probability of that, so the promise it is held to is a coin's;
- **information coefficient** of yesterday's directions over the book, where at least five instruments have one;
- **return** of the book over the day, after costs;
- **features** of the market states, where there are any.

Mean directions and coefficients learn what is normal anew after each of their alarms: a lasting change is told once. Outcomes, returns and
features keep what they were promised, and what stays wrong is told again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryptoalpha.app.engine import Step
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Alarm, Fill, FundingPayment, FusedSignal, MarketState, PortfolioState, Refusal
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
        instruments: the book.
        seed: of the simulations that find thresholds.
    """

    def __init__(self, config: DriftConfig, instruments: Sequence[str], *, seed: int) -> None:
        self.monitor = DriftMonitor(config, seed=seed)
        self._instruments = tuple(instruments)
        self._day = -1
        self._equity = 0.0
        self._said: dict[str, tuple[float, float]] = {}
        """Direction and price of each instrument at the day's first step."""
        self._features: tuple[str, ...] = ()

    def look(
        self,
        step: Step,
        portfolio: PortfolioState,
        fused: Sequence[FusedSignal],
        happened: Sequence[Fill | FundingPayment | Refusal],
    ) -> Sequence[Alarm]:
        """What is not as it was; at the first step of a day, at all others nothing."""
        at = step.bar.at
        day = at // DAY
        if day == self._day:
            return NOTHING
        alarms = self._of_features(at, step.states)
        if day == self._day + 1:  # a label that spans a gap is of another horizon
            alarms += self._of_outcomes(at, step)
        if self._equity > 0.0:
            alarms += self.monitor.observe_return(at, float(portfolio.equity) / self._equity - 1.0)
        alarms += self._of_predictions(at, step, fused)
        self._day, self._equity = day, float(portfolio.equity)
        return alarms

    def _of_features(self, at: int, states: Sequence[MarketState]) -> list[Alarm]:
        seen = {state.instrument: state.features for state in states if state.features}
        if not seen:
            return []
        width = len(next(iter(seen.values())))
        names = self._features or tuple(f"{name}:{place}" for name in self._instruments for place in range(width))
        self._features = names
        absent = (float("nan"),) * width
        return self.monitor.observe_features(at, names, [value for name in self._instruments for value in seen.get(name, absent)])

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
            alarms += self.monitor.observe_outcome(at, "directions", CLAIMED, gain > 0.0, horizon=DAY)
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


def rank_correlation(pair: Floats) -> float:
    """Spearman's, of two series `[2, A]`; NaN where one does not vary. `information_coefficient` of one moment, at a fifth of its price."""
    larger = pair[:, :, None] > pair[:, None, :]
    ranks = larger.sum(axis=2) - larger.sum(axis=1)  # twice the average rank, about its mean
    covariance, first, second = ((ranks[0] * ranks[1]).sum(), (ranks[0] ** 2).sum(), (ranks[1] ** 2).sum())
    return float(covariance / np.sqrt(float(first * second))) if first and second else float("nan")
