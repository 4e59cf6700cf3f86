"""Rolling ridge: signed weights by exponentially forgetting regression of outcomes on opinions, pooled over instruments.

With x the vector of opinions and y the outcome in volatility units, `A ← λA + x xᵀ`, `b ← λb + x y`, `w = (A + κI)⁻¹ b`. The expected move
of an instrument is `wᵀx`; its direction is `tanh(shrunk move / scale)`.

Honesty about noise: a regression always finds something. The fit is compared with what S worthless sources would explain,
`F = (wᵀAw / S) / (s² · m)`, where s² is the residual variance and m the number of overlapping outcomes that carry one outcome's worth of
information (the horizon times the instruments that move together). The move is multiplied by the positive part of `1 − floor / F`
(James & Stein 1961): where F does not exceed the floor the fusion holds no view at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cryptoalpha.core.values import FusedSignal, MarketState, Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion import compose
from cryptoalpha.decisions.outcomes import DelayedOutcomes, Matured
from cryptoalpha.store.tables import Floats


class RollingRidge:
    """Exponentially forgetting ridge regression with positive-part shrinkage. Weights are renewed once per horizon."""

    name = "ridge"

    def __init__(self, config: FusionConfig) -> None:
        self._config = config
        self._outcomes = DelayedOutcomes(config.horizon_bars)
        self._gram: Floats = np.zeros((0, 0))
        self._cross: Floats = np.zeros(0)
        self._energy = self._count = self._step_energy = 0.0
        self._weights: Floats = np.zeros(0)
        self._shrinkage = 0.0
        self._steps = 0

    def signed_weights(self) -> Floats:
        """Shrunk weight of each source, `[S]`, in the order sources first appeared."""
        return self._shrinkage * self._weights

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
        for state, event in zip(states, state_events, strict=True):
            heard = opinions[state.instrument]
            move = sum(weight * signal.value for signal, _, weight in heard)
            fused.append(compose(at, state, event, heard, direction=math.tanh(move / self._config.ridge_scale)))
        return fused

    def _grow(self) -> None:
        missing = len(self._outcomes.sources) - len(self._cross)
        if missing:
            self._gram = np.pad(self._gram, ((0, missing), (0, missing)))
            self._cross = np.pad(self._cross, (0, missing))
            self._weights = np.pad(self._weights, (0, missing))

    def _learn(self, matured: Sequence[Matured]) -> None:
        """Add a step's outcomes; every `horizon` steps solve for the weights anew."""
        values = np.array([item.values for item in matured])
        outcomes = np.array([item.outcome for item in matured])
        forget = 0.5 ** (1.0 / self._config.half_life_bars)
        self._gram = forget * self._gram + values.T @ values
        self._cross = forget * self._cross + values.T @ outcomes
        self._energy = forget * self._energy + float(outcomes @ outcomes)
        self._step_energy = forget * self._step_energy + float(outcomes.sum()) ** 2
        self._count = forget * self._count + len(outcomes)
        self._steps += 1
        if self._steps % self._config.horizon_bars == 0:
            self._solve()

    def _solve(self) -> None:
        sources = len(self._cross)
        # Outcomes of one step move together and outcomes of one horizon overlap: both make them worth fewer independent ones.
        together = max(1.0, self._step_energy / self._energy) if self._energy > 0.0 else 1.0
        worth = together * self._config.horizon_bars
        penalty = self._config.ridge_penalty * worth
        self._weights = np.asarray(np.linalg.solve(self._gram + penalty * np.eye(sources), self._cross), dtype=np.float64)
        explained = float(self._weights @ self._gram @ self._weights)
        residual = max(self._energy - 2.0 * float(self._weights @ self._cross) + explained, 1e-12) / max(self._count, 1.0)
        by_noise = sources * residual * worth
        excess = explained / by_noise if by_noise > 0.0 else 0.0
        self._shrinkage = max(0.0, 1.0 - self._config.noise_floor / excess) if excess > 0.0 else 0.0
