"""The causal filter: a belief about the regime from bars up to now, how old the regime is, and the chance that it changes.

Per axis b ← b P, then b ← b · density^temper, then b ← b / Σ b, in logarithms. A bar that says nothing (a gap) only spreads the belief. The
belief over the six cells of `core.values.REGIMES` is the product of the beliefs about trend and volatility: the two chains are fitted apart
and taken as independent, a departure from one chain of six states, which would need three times the parameters.

Age: given that a cell is the present one, the chance that it was so a bar ago as well is share = b_k P_kk / (b P)_k with b of the bar
before, multiplied over the axes; so E[age | cell] ← share · (E[age | cell] + 1), exactly, as what a bar shows does not depend on how old
its regime is. It begins at what the chain has on average, P_kk / (1 − P_kk).

A filter never looks ahead; `hmm.smooth` does, and the tests show that it is caught.

Source: Hamilton (1989) for the filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.signals.regime.hmm import GaussianHmm
from cryptoalpha.store.tables import Floats


@dataclass(frozen=True, eq=False)
class Filtered:
    """One instrument's beliefs. Shapes: `belief` `[n, 6]` over `REGIMES`; `age` bars `[n]`; `change` chance 0–1 `[n]`; `seen` `[n]` bool.

    `seen`: whether any bar up to here said something about either axis; before, the belief is only what the chains settle in.
    """

    belief: Floats
    age: Floats
    change: Floats
    seen: npt.NDArray[np.bool_]


def causal_filter(log_density: Floats, start: Floats, transition: Floats) -> Floats:
    """The belief about one chain after each bar. `[n, K]` (tempered; 0 in all states = says nothing), `[K]` before the first, `[K, K]` →
    `[n, K]`."""
    return forward(np.ascontiguousarray(log_density, np.float64), start, np.ascontiguousarray(transition))[0]


def filter_cells(trend: GaussianHmm, volatility: GaussianHmm, trend_features: Floats, volatility_features: Floats) -> Filtered:
    """Filter both axes and cross them. `[n, D]` each, a row with a NaN says nothing."""
    (first, first_share), (second, second_share) = (
        forward(hmm.temper * hmm.log_density(x), hmm.stationary(), np.ascontiguousarray(hmm.transition))
        for hmm, x in ((trend, trend_features), (volatility, volatility_features))
    )
    stays = [np.diag(hmm.transition).copy() for hmm in (trend, volatility)]
    belief, age, change = cross(first, second, first_share, second_share, stays[0], stays[1])
    said = np.isfinite(trend_features).all(axis=1) | np.isfinite(volatility_features).all(axis=1)
    return Filtered(belief, age, change, np.logical_or.accumulate(said))


@njit(cache=True)
def forward(log_density: Floats, start: Floats, transition: Floats) -> tuple[Floats, Floats]:
    """Belief after each bar, and the share of each state's predicted belief that was there a bar ago. `[n, K]` → `[n, K]`, `[n, K]`.

    `start` is the belief before the first bar, which is one step of the chain away from it.
    """
    n, states = log_density.shape
    belief, share = np.empty((n, states)), np.empty((n, states))
    before, logs = start.copy(), np.empty(states)
    for t in range(n):
        top = -math.inf
        for k in range(states):
            predicted = 0.0
            for j in range(states):
                predicted += before[j] * transition[j, k]
            share[t, k] = before[k] * transition[k, k] / predicted if predicted > 0.0 else 0.0
            logs[k] = math.log(predicted) + log_density[t, k] if predicted > 0.0 else -math.inf
            top = max(top, logs[k])
        total = 0.0
        for k in range(states):
            belief[t, k] = math.exp(logs[k] - top)
            total += belief[t, k]
        for k in range(states):
            belief[t, k] /= total
            before[k] = belief[t, k]
    return belief, share


@njit(cache=True)
def cross(
    trend: Floats, volatility: Floats, trend_share: Floats, volatility_share: Floats, trend_stay: Floats, volatility_stay: Floats
) -> tuple[Floats, Floats, Floats]:
    """Belief over trend × volatility, expected age and chance of change. `[n, K]`, `[n, L]`, shares alike, `[K]`, `[L]` → `[n, K L]`,
    `[n]`, `[n]`."""
    n, rows, columns = len(trend), trend.shape[1], volatility.shape[1]
    belief, age, change = np.empty((n, rows * columns)), np.empty(n), np.empty(n)
    ages = np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            stay = trend_stay[i] * volatility_stay[j]
            ages[i, j] = stay / (1.0 - stay)
    for t in range(n):
        total, expected, stays = 0.0, 0.0, 0.0
        for i in range(rows):
            for j in range(columns):
                chance = trend[t, i] * volatility[t, j]
                belief[t, i * columns + j] = chance
                total += chance
                ages[i, j] = trend_share[t, i] * volatility_share[t, j] * (ages[i, j] + 1.0)
                expected += chance * ages[i, j]
                stays += chance * trend_stay[i] * volatility_stay[j]
        for c in range(rows * columns):
            belief[t, c] /= total
        age[t] = expected / total
        change[t] = min(1.0, max(0.0, 1.0 - stays / total))
    return belief, age, change
