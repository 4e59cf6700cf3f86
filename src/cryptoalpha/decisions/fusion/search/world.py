"""The world that the fusion's search plans in: weights are chosen, opinions move on, the book earns what is claimed and pays for change.

One step is one horizon h. In a state stand the opinions of the book now, the positions held and the weights. An action makes new weights;
the fused position of an instrument is `q = tanh(m / scale)` with `m = gross · slope · Σ_k w_k s_k v_k`, where s is the sign of what the
family is worth and `slope` the posterior regression of the outcome on that sum: the very formula by which the weights act after the search.

The reward is expected over outcomes, never one that was drawn: with `a` the book's risk per horizon shared among its instruments, x = a Σ q
y, `μ = a Σ q (v·β)` and `V = a² q'Cq`, the expected log growth is `μ − (μ² + V)/2` (second order; x is near .02, and the third order a
thousandth of the second), from which are taken `λ V / 2`, the cost of `|Δq|` and that of moved weights. Chance draws scenarios: how
opinions move, jointly over book and families. Where nothing is claimed (β = 0) every position is 0 and holding is best, worth exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.decisions.fusion.search.actions import ACTIONS, EQUAL, FAMILIES, RESET, Moves
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.scenarios import Drawable
from cryptoalpha.decisions.fusion.search.state import Reading, features
from cryptoalpha.decisions.fusion.search.statistics import Belief
from cryptoalpha.learn.search.contract import Evaluator, Integers, Outcomes
from cryptoalpha.learn.search.contract import Floats as AnyFloats
from cryptoalpha.store.tables import Floats

if TYPE_CHECKING:  # numba is imported by who searches
    from cryptoalpha.learn.search.answers import Asking
    from cryptoalpha.learn.search.kernels_select import Choice
    from cryptoalpha.learn.search.tree import Trees


@dataclass(frozen=True)
class Risk:
    """What a full position of each instrument stakes over a horizon."""

    unit: float
    """a: log growth per instrument at full conviction and one volatility's move."""
    notional: Floats
    """`[I]`: fraction of equity that a full position holds; 0 where the volatility is unknown."""

    @classmethod
    def of(cls, config: SearchConfig, reading: Reading, horizon_bars: int) -> Risk:
        known = np.isfinite(reading.volatilities) & (reading.volatilities > 0.0) & np.isfinite(reading.prices)
        n = max(1, int(known.sum()))
        share = config.target_volatility / np.sqrt(n * (1.0 + (n - 1) * config.assumed_correlation))
        years = horizon_bars * reading.bar / (DAYS_PER_YEAR * DAY)
        return cls(float(share * np.sqrt(years)), np.where(known, share / np.where(known, reading.volatilities, 1.0), 0.0))


class Fuser:
    """From weights to expected outcomes, by what is believed in one bar; the same in the search and after it."""

    def __init__(self, belief: Belief) -> None:
        self.signs: Floats = np.where(belief.slopes < 0.0, -1.0, 1.0)
        """Which way round each family is used, `[K]`: −1 where it is claimed to be wrong."""
        self.spread: Floats = self.signs[:, None] * belief.second_moment * self.signs
        self.covered: Floats = self.signs * (belief.second_moment * belief.slopes).sum(axis=1)

    def slope(self, weights: Floats) -> Floats:
        """Expected outcome per unit of `Σ w s v`, times gross: `[n]` from weights `[n, K]`; 0 where nothing is claimed."""
        spread = ((weights[:, :, None] * weights[:, None, :]) * self.spread).sum(axis=(1, 2))
        return np.asarray((weights * self.covered).sum(axis=1) * weights.sum(axis=1) / np.where(spread > 0.0, spread, np.inf))

    def moves(self, weights: Floats, values: Floats) -> Floats:
        """Expected outcome of each instrument, `[n, I]`, from weights `[n, K]` and opinions `[n, I, K]`."""
        return np.asarray(self.slope(weights)[:, None] * (values * (weights * self.signs)[:, None, :]).sum(axis=2))


def positions(moves: Floats, scale: float, risk: Risk) -> Floats:
    """Fused positions −1 … 1, `[n, I]`; 0 where an instrument cannot be held."""
    return np.asarray(np.where(risk.notional > 0.0, np.tanh(moves / scale), 0.0))


class FusionWorld:
    """A `ChanceModel` of one bar. States: `[opinions I·K | positions I | weights K]`, float32.

    Args:
        scale: expected move at which a position is tanh(1) of the largest.
        base: what is the same in the features of all states (`state.summary`).
        evaluator: a network's prior and leaf value, asked with `features`; None: uniform and 0.
    """

    actions = ACTIONS

    def __init__(
        self,
        config: SearchConfig,
        reading: Reading,
        belief: Belief,
        drawable: Drawable,
        moves: Moves,
        *,
        risk: Risk,
        scale: float,
        base: NDArray[np.float32],
        evaluator: Evaluator | None,
    ) -> None:
        from cryptoalpha.decisions.fusion.search.kernels import Bar, advance  # numba is imported by who searches
        from cryptoalpha.decisions.fusion.search.loop import guide
        from cryptoalpha.learn.search.row_network import RowNetwork

        self._config, self._belief, self._drawable, self._moves = config, belief, drawable, moves
        self._risk, self._scale, self._base, self._evaluator = risk, scale, base, evaluator
        self._speaking = reading.speaking
        self._instruments = len(reading.prices)
        self._cost = reading.cost * risk.notional
        self._fuser = Fuser(belief)
        self._advance = advance
        self._bar = Bar(
            config.delta, config.discount, scale, risk.unit, 0.5 * (1.0 + config.risk_aversion), config.turnover_cost,
            moves.goal[[RESET, EQUAL]], self._speaking, self._fuser.signs, self._fuser.spread, self._fuser.covered, belief.slopes,
            risk.notional > 0.0, self._cost, drawable.covariance, drawable.persistence, drawable.moves,
        )  # fmt: skip
        network = evaluator if isinstance(evaluator, RowNetwork) else None
        self._guide = guide(base, network) if evaluator is network else None

    def pack(self, values: Floats, held: Floats, weights: Floats) -> NDArray[np.float32]:
        """The state `[1, D]` of opinions `[I, K]`, positions `[I]` and weights `[K]`."""
        return np.concatenate([values.ravel(), held, weights])[None].astype(np.float32)

    def legal(self, weights: Floats) -> NDArray[np.bool_]:
        return self._moves.legal(weights, self._speaking)

    def _parts(self, states: AnyFloats) -> tuple[Floats, Floats, Floats]:
        n, i = len(states), self._instruments
        wide = states.astype(np.float64)
        return wide[:, : i * FAMILIES].reshape(n, i, FAMILIES), wide[:, i * FAMILIES : -FAMILIES], wide[:, -FAMILIES:]

    def features(self, states: AnyFloats) -> NDArray[np.float32]:
        """What the network is shown of states `[n, D]`: `[n, 100]`."""
        values, held, weights = self._parts(states)
        return features(self._base, values, weights, held, self._belief.slopes)

    def evaluate(self, states: AnyFloats) -> tuple[AnyFloats, AnyFloats]:
        """Logits `[n, A]` and values `[n]`."""
        if self._evaluator is None:
            return np.zeros((len(states), ACTIONS), np.float32), np.zeros(len(states), np.float32)
        if self._guide is None:
            return self._evaluator(self.features(states))
        from cryptoalpha.decisions.fusion.search.loop import judge_rows

        logits, guesses = np.empty((len(states), ACTIONS), np.float32), np.empty(len(states), np.float32)
        judge_rows(self._bar, self._guide, np.ascontiguousarray(states, np.float32), logits, guesses)
        return logits, guesses

    def simulate(self, trees: Trees, choice: Choice, asking: Asking) -> tuple[int, int, int] | None:
        """`contract.SimulatesItself`: all simulations of the book's tree, unless the network is one that only Python can ask."""
        if self._guide is None:
            return None
        from cryptoalpha.decisions.fusion.search.loop import simulate
        from cryptoalpha.learn.search.kernels import Answers

        asked = asking.requests, asking.moves, asking.states, asking.uniforms
        said = Answers(
            np.zeros_like(asking.states), np.zeros(1, np.float32), np.full(1, self._config.discount, np.float32), np.zeros(1, np.bool_),
            np.zeros((1, ACTIONS), np.bool_), np.zeros(asking.uniforms.shape, np.float32), np.zeros(1, np.float32),
            np.zeros((1, ACTIONS), np.float32),
        )  # fmt: skip
        fanouts = np.array(trees.fanouts, np.int64)
        fault, answered, left = simulate(trees.arrays, choice, fanouts, asked, said, self._bar, self._drawable.shares, self._guide)
        return fault, answered, left

    def outcomes(self, states: AnyFloats, actions: Integers, uniforms: AnyFloats) -> Outcomes:
        """What choosing weights earns and where the opinions may go; see the module for the formula."""
        (n, m), width = uniforms.shape, states.shape[1]
        nexts, rewards, legal = np.empty((n, m, width), np.float32), np.empty(n, np.float32), np.empty((n, m, ACTIONS), np.bool_)
        self._advance(self._bar, states, actions, self._drawn(uniforms), nexts, rewards, legal)
        weights = np.full((n, m), 1.0 / m, np.float32)
        discounts = np.full((n, m), self._config.discount, np.float32)
        return Outcomes(nexts, weights, rewards, discounts, np.zeros((n, m), np.bool_), legal)

    def _drawn(self, uniforms: AnyFloats) -> NDArray[np.int64]:
        """Numbers of the scenarios at these places of their shares."""
        return np.minimum(self._drawable.shares.searchsorted(uniforms), len(self._drawable.shares) - 1)

    def plain_outcomes(self, states: AnyFloats, actions: Integers, uniforms: AnyFloats) -> Outcomes:
        """`outcomes` by array expressions: what the compiled step is tested against, to the last but a few bits."""
        values, held, before = self._parts(states)
        weights = self._moves.apply(before, np.asarray(actions, np.int64))
        taken = positions(self._fuser.moves(weights, values), self._scale, self._risk)
        rewards = self._reward(values, held, taken) - self._config.turnover_cost * np.abs(weights - before).sum(axis=1)
        (n, m), i = uniforms.shape, self._instruments
        drawn = self._drawn(uniforms)
        nexts = np.empty((n, m, states.shape[1]), np.float32)
        later = self._drawable.persistence * values[:, None] + self._drawable.moves[drawn]  # [n, m, I, K]
        nexts[:, :, : i * FAMILIES] = np.clip(later, -1.0, 1.0).reshape(n, m, i * FAMILIES)
        nexts[:, :, i * FAMILIES : -FAMILIES] = taken[:, None]
        nexts[:, :, -FAMILIES:] = weights[:, None]
        return Outcomes(
            nexts, np.full((n, m), 1.0 / m, np.float32), rewards.astype(np.float32), np.full((n, m), self._config.discount, np.float32),
            np.zeros((n, m), np.bool_), np.repeat(self.legal(weights)[:, None], m, axis=1),
        )  # fmt: skip

    def _reward(self, values: Floats, held: Floats, taken: Floats) -> Floats:
        """Expected log growth less risk and trade cost, `[n]`."""
        staked = self._risk.unit * taken
        mean = (staked * (values * self._belief.slopes).sum(axis=2)).sum(axis=1)
        variance = ((staked[:, :, None] * staked[:, None, :]) * self._drawable.covariance).sum(axis=(1, 2))
        growth = mean - 0.5 * (mean**2 + variance) - 0.5 * self._config.risk_aversion * variance
        return np.asarray(growth - (np.abs(taken - held) * self._cost).sum(axis=1))
