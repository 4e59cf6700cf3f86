"""Hedge with sharing: multiplicative weights over sources, their opposites, and doing nothing.

Every source enters twice, as itself and negated, beside one expert that always says nothing. With a uniform prior the signed weights
start at zero, so the fusion holds no view until evidence arrives, and returns to none when it fades.

Source: Freund & Schapire (1997), Hedge; Herbster & Warmuth (1998), fixed share; Freund et al. (1997), experts that sleep (a silent source
neither gains nor loses). Departure: outcomes overlap over the horizon, so each one moves the weights by `rate / horizon`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryptoalpha.core.values import FusedSignal, FusionSearch, MarketState, Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.contract import compose
from cryptoalpha.decisions.fusion.outcomes import OUTCOME_CAP, DelayedOutcomes
from cryptoalpha.store.tables import Floats

LEAST = 1e-300
"""What an expert keeps where nothing is shared: a weight of 0 could never grow again."""


class Hedge:
    """Fixed-share Hedge over ± sources and cash.

    The direction of an instrument is the expected opinion under the expert weights, Σ_k (w⁺_k − w⁻_k) v_k; cash pulls it towards zero.
    """

    name = "hedge"
    search: FusionSearch | None = None

    def __init__(self, config: FusionConfig) -> None:
        self._config = config
        self._outcomes = DelayedOutcomes(config.horizon_bars)
        self._log_weights: Floats = np.zeros(1)  # [1 + 2 S]: cash, then + and − of each source in order of appearance

    def signed_weights(self) -> Floats:
        """Weight of each source minus the weight of its opposite, `[S]`, in the order sources first appeared."""
        weights = _softmax(self._log_weights)
        return np.asarray(weights[1::2] - weights[2::2])

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
            self._learn(
                np.array([item.values for item in matured]),
                np.array([item.spoke for item in matured]),
                np.array([item.outcome for item in matured]),
            )
        weights, place = self.signed_weights(), self._outcomes.sources
        opinions: dict[str, list[tuple[Signal, int, float]]] = {state.instrument: [] for state in states}
        for signal, event in zip(signals, signal_events, strict=True):
            opinions[signal.instrument].append((signal, event, float(weights[place[signal.source]])))
        return [
            compose(at, state, event, heard, direction=sum(weight * signal.value for signal, _, weight in heard))
            for state, event in zip(states, state_events, strict=True)
            for heard in (opinions[state.instrument],)
        ]

    def _grow(self) -> None:
        """A source heard for the first time enters at the mean of what is there: the uniform prior, relative to the others."""
        missing = 1 + 2 * len(self._outcomes.sources) - len(self._log_weights)
        if missing:
            self._log_weights = np.concatenate([self._log_weights, np.full(missing, np.log(np.mean(np.exp(self._log_weights))))])

    def _learn(self, values: Floats, spoke: Floats, outcomes: Floats) -> None:
        """One multiplicative update from the matured outcomes of a step. Shapes: `[M, S]`, `[M, S]`, `[M]`."""
        heard = spoke.sum(axis=0)
        gain = np.where(heard > 0, (values * outcomes[:, None] / OUTCOME_CAP).sum(axis=0) / np.maximum(heard, 1.0), 0.0)
        step = self._config.hedge_rate / self._config.horizon_bars
        self._log_weights[1::2] += step * gain
        self._log_weights[2::2] -= step * gain
        weights = _softmax(self._log_weights)
        share = self._config.hedge_share / self._config.horizon_bars
        self._log_weights = np.log(np.maximum((1.0 - share) * weights + share / len(weights), LEAST))


def _softmax(log_weights: Floats) -> Floats:
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())
