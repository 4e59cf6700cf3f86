"""How well each fusion foretold what happened: log scores of expected outcomes, given only when their horizon has closed.

A fusion that expects the outcome y (in volatility units, `outcomes`) to be m is read as N(m, 1); its log score less that of expecting
nothing is `y m − m²/2`. In expectation it is ½(IC)² of y's variance for whoever is right and negative for whoever claims too much: the
score cannot be raised by shouting. Fusions that name only a direction are read through `Calibration`: the slope of past outcomes on their
past directions, claimed by the rule of `search.statistics`, so that the direction of noise is worth nothing instead of being punished for
its scale.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.decisions.fusion.outcomes import OUTCOME_CAP
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.state import UNIFORM
from cryptoalpha.decisions.fusion.search.statistics import FamilyStatistics
from cryptoalpha.store.tables import Floats


def log_scores(predictions: Floats, outcomes: Floats) -> Floats:
    """Mean log score over instruments of each fusion, less that of expecting nothing.

    Shapes: predictions `[F, I]`, outcomes `[I]` (NaN = no verdict) → `[F]`; zeros where there is no verdict at all.
    """
    told = np.isfinite(outcomes)
    if not told.any():
        return np.zeros(len(predictions))
    m, y = predictions[:, told], outcomes[told]
    return np.asarray((y * m - 0.5 * m**2).mean(axis=1))


def worst_differences(predictions: Floats, outcomes: Floats) -> Floats:
    """The most by which one fusion's score can fall behind another's, whatever the capped outcomes turn out to be: `[F, F]` ≥ 0.

    Only which instruments have a verdict is read from `outcomes` `[I]`.
    """
    told = np.isfinite(outcomes)
    if not told.any():
        return np.zeros((len(predictions), len(predictions)))
    m = predictions[:, told]
    apart, squares = np.abs(m[:, None] - m[None, :]), 0.5 * np.abs(m[:, None] ** 2 - m[None, :] ** 2)
    return np.asarray((OUTCOME_CAP * apart + squares).mean(axis=2))


class Calibration:
    """Expected outcome per unit of a fusion's direction, from matured outcomes alone. Renewed once per horizon."""

    def __init__(self, config: SearchConfig, horizon_bars: int) -> None:
        self._statistics = FamilyStatistics(config, 1, horizon_bars)
        self._horizon = horizon_bars
        self._steps = 0
        self.slope = 0.0

    def learn(self, directions: Floats, outcomes: Floats) -> None:
        """Add a bar: what the directions were, and what came, each `[M]`."""
        self._statistics.learn(directions[:, None], np.ones((len(directions), 1)), outcomes, UNIFORM)
        self._steps += 1
        if self._steps % self._horizon == 0:
            self.slope = float(self._statistics.belief(UNIFORM).slopes[0])
