"""Rolling ridge: signed weights by exponentially forgetting regression of outcomes on opinions, pooled over instruments.

With x the vector of opinions and y the outcome in volatility units, `A ← λA + x xᵀ`, `b ← λb + x y`, `w = (A + κI)⁻¹ b`. The expected move
of an instrument is `wᵀx`; its direction is `tanh(shrunk move / scale)`.

Honesty about noise: a regression always finds something. Each weight is compared with its standard error under the hypothesis that no
source knows anything, `C = (A + κI)⁻¹ M (A + κI)⁻¹` with `M = h Σ_t g_t g_tᵀ`, `g_t = Σ_a x_a y_a`: instruments that move together are
one cluster, and outcomes that overlap over the horizon h count once. The weight is then multiplied by the positive part of
`1 − floor / t²` (the non-negative garrote, Breiman 1995). A source whose |t| does not exceed √floor has no weight at all; a strong one
keeps nearly all of it. M forgets by λ², because b is a sum weighted by powers of λ and its variance one weighted by their squares.

Departure from BLAS: sums stand in a fixed order, so a journal is the same whatever processor the linear algebra was tuned for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cryptoalpha.core.values import FusedSignal, FusionSearch, MarketState, Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.contract import compose
from cryptoalpha.decisions.fusion.outcomes import DelayedOutcomes, Matured
from cryptoalpha.store.tables import Floats


class RollingRidge:
    """Exponentially forgetting ridge regression with the garrote. Weights are renewed once per horizon."""

    name = "ridge"
    search: FusionSearch | None = None

    def __init__(self, config: FusionConfig) -> None:
        self._config = config
        self._outcomes = DelayedOutcomes(config.horizon_bars)
        self._gram: Floats = np.zeros((0, 0))
        self._cross: Floats = np.zeros(0)
        self._meat: Floats = np.zeros((0, 0))
        self._weights: Floats = np.zeros(0)
        self._steps = 0

    def signed_weights(self) -> Floats:
        """Weight of each source after the garrote, `[S]`, in the order sources first appeared."""
        return self._weights

    def fuse(
        self,
        at: int,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
        *,
        state_events: Sequence[int],
        signal_events: Sequence[int],
    ) -> list[FusedSignal]:
        matured = self._outcomes.observe(at, states, signals)
        self._grow()
        if matured:
            self._learn(matured)
        weights, place = self.signed_weights().tolist(), self._outcomes.sources
        opinions: dict[str, list[tuple[Signal, int, float]]] = {state.instrument: [] for state in states}
        for signal, event in zip(signals, signal_events, strict=True):
            opinions[signal.instrument].append((signal, event, weights[place[signal.source]]))
        fused = []
        horizon, scale = self._config.horizon_bars * self._outcomes.bar, self._config.ridge_scale
        for state, event in zip(states, state_events, strict=True):
            heard = opinions[state.instrument]
            move: float = 0
            for signal, _, weight in heard:  # a loop: for a few opinions a generator costs more than the sum
                move += weight * signal.value
            direction = math.tanh(move / scale)
            fused.append(compose(at, state, event, heard, direction=direction, expected_move=move, horizon=horizon))
        return fused

    def _grow(self) -> None:
        missing = len(self._outcomes.sources) - len(self._cross)
        if missing:
            self._gram = np.pad(self._gram, ((0, missing), (0, missing)))
            self._meat = np.pad(self._meat, ((0, missing), (0, missing)))
            self._cross = np.pad(self._cross, (0, missing))
            self._weights = np.pad(self._weights, (0, missing))

    def _learn(self, matured: Sequence[Matured]) -> None:
        """Add a step's outcomes; every `horizon` steps solve for the weights anew."""
        values = np.array([item.values for item in matured])
        outcomes = np.array([item.outcome for item in matured])
        forget = 0.5 ** (1.0 / self._config.half_life_bars)
        moved = (values * outcomes[:, None]).sum(axis=0)
        self._gram = forget * self._gram + (values[:, :, None] * values[:, None, :]).sum(axis=0)
        self._cross = forget * self._cross + moved
        self._meat = forget**2 * self._meat + np.outer(moved, moved)
        self._steps += 1
        if self._steps % self._config.horizon_bars == 0:
            self._solve()

    def _solve(self) -> None:
        horizon = self._config.horizon_bars
        spread = inverse(self._gram + self._config.ridge_penalty * horizon * np.eye(len(self._cross)))
        weights = (spread * self._cross).sum(axis=1)
        variance = horizon * ((spread[:, :, None] * self._meat).sum(axis=1) * spread).sum(axis=1)
        square = weights**2
        kept = np.where(square > 0.0, 1.0 - self._config.noise_floor * variance / np.where(square > 0.0, square, 1.0), 0.0)
        self._weights = np.asarray(np.maximum(kept, 0.0) * weights, dtype=np.float64)


def inverse(matrix: Floats) -> Floats:
    """Inverse of a symmetric positive definite matrix, by elimination without pivots. `[S, S]` → `[S, S]`, symmetric to the last bit."""
    size = len(matrix)
    rows = np.hstack([matrix, np.eye(size)])
    for i in range(size):
        rows[i] /= rows[i, i]
        factor = rows[:, i].copy()
        factor[i] = 0.0
        rows -= factor[:, None] * rows[i]
    inverse = rows[:, size:]
    return np.asarray(0.5 * (inverse + inverse.T))
