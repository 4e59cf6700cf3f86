"""Delayed labels: an opinion is judged only when its horizon has passed.

The outcome of an opinion given at time t about horizon h is `ln(price(t+h) / price(t)) / (σ_t √h)`: the move in units of the volatility
that was expected when the opinion was given. It is known at t + h and handed out then, never earlier. A bar that came late judges what it
finds due; where no bar came until one bar after t + h, there is no verdict: a price from after an outage is no outcome of h.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.core.values import MarketState, Signal
from cryptoalpha.store.tables import Floats

OUTCOME_CAP = 4.0
"""Outcomes are capped at this many volatilities: one crash must not decide the weights."""


def bar_length(known: int, at: int, states: Sequence[MarketState]) -> int:
    """Length of a bar, ns, from what was known of it (0: nothing) and the states of the bar known at `at`, one of which may be late."""
    newest = states[0].happened_at
    for state in states:  # a loop: for a few instruments a generator costs more than the comparison
        if state.happened_at > newest:
            newest = state.happened_at
    seen = at - newest
    return seen if not known or seen < known else known


@dataclass(frozen=True)
class Matured:
    """What was said about one instrument, and how it turned out. Shapes: `values` `[S]`, 0 where a source was silent; `spoke` `[S]`."""

    values: Floats
    spoke: Floats
    outcome: float


@dataclass(frozen=True)
class _Pending:
    """`values` `[I, S]` in the order of `prices`; NaN where a source was silent."""

    due: int
    values: Floats
    prices: Mapping[str, float]
    scales: Mapping[str, float]


class DelayedOutcomes:
    """Keeps opinions until they can be judged. Memory is bounded by the horizon.

    Args:
        horizon_bars: how many bars after an opinion its outcome is measured.
    """

    def __init__(self, horizon_bars: int) -> None:
        self.horizon_bars = horizon_bars
        self.sources: dict[str, int] = {}
        self.bar = 0
        """Length of a bar, ns: the shortest time from a bar's open to the moment it was known; one that came late is not longer."""
        self._waiting: deque[_Pending] = deque()

    def observe(self, at: int, states: Sequence[MarketState], signals: Sequence[Signal]) -> list[Matured]:
        """Note this step's opinions and return those that have matured by `at`, oldest first."""
        prices = {state.instrument: state.price for state in states}
        if not states:
            return []
        self.bar = bar_length(self.bar, at, states)
        self._waiting.append(self._note(at, states, signals, prices))
        matured: list[Matured] = []
        while self._waiting[0].due <= at:
            pending = self._waiting.popleft()
            if at < pending.due + self.bar:
                matured.extend(self._judge(pending, prices))
        return matured

    def _note(self, at: int, states: Sequence[MarketState], signals: Sequence[Signal], prices: Mapping[str, float]) -> _Pending:
        place = self.sources
        for signal in signals:
            if signal.source not in place:
                place[signal.source] = len(place)
        said = {name: [math.nan] * len(place) for name in prices}
        for signal in signals:
            said[signal.instrument][place[signal.source]] = signal.value
        ahead = self.horizon_bars * self.bar
        root = math.sqrt(ahead / (DAYS_PER_YEAR * DAY))
        scales = {state.instrument: state.volatility * root for state in states}
        return _Pending(at + ahead, np.array(list(said.values()), np.float64), prices, scales)

    def _judge(self, pending: _Pending, prices: Mapping[str, float]) -> list[Matured]:
        rows, outcomes = [], []
        for row, (instrument, then) in enumerate(pending.prices.items()):
            now, scale = prices.get(instrument), pending.scales[instrument]
            if now is None or not scale > 0.0:  # a gap at either end, or no volatility yet: no verdict
                continue
            rows.append(row)
            outcomes.append(max(-OUTCOME_CAP, min(OUTCOME_CAP, math.log(now / then) / scale)))
        values = np.full((len(rows), len(self.sources)), np.nan)
        values[:, : pending.values.shape[1]] = pending.values[rows]
        spoke = np.isfinite(values)
        return list(map(Matured, np.where(spoke, values, 0.0), spoke.astype(np.float64), outcomes))
