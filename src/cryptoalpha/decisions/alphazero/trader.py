"""The planning agent: one plan per bar for the whole book, from what is known to the position that earns most after costs.

Each instrument becomes a row of numbers (`state`), all rows are planned at once on scenario trees (`learn.search`), and the best move from
the position that is held, rounded to the grid, is the decision. A full position is the weight at which the book has its target volatility
(as the rule agent's), and a plan chooses a share of it. Where the plan says hold, the weight held is wanted as it is, so that rounding
never trades.

The agent is a function of its settings and of what it was handed: scenarios are drawn with the run's seed and the bar's time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.core.values import REGIMES, Decision, FusedSignal, MarketState, PortfolioState, Signal
from cryptoalpha.decisions.alphazero.config import AlphaZeroConfig, ScenarioName
from cryptoalpha.decisions.alphazero.market import Dynamics, LeafValue, Taste, TradingModel
from cryptoalpha.decisions.alphazero.memory import MarketMemory
from cryptoalpha.decisions.alphazero.scenarios import Bootstrap, Garch, Law, Pool, Quantiles
from cryptoalpha.decisions.alphazero.state import (
    CARRY,
    CONFIDENCE,
    COST_RATE,
    DRIFT,
    HOME,
    IMPACT,
    LOG_VOLATILITY,
    REGIME,
    SHAPE,
    UNIT,
    WIDTH,
    Array,
    Row,
    drift_per_bar,
    forecast_shape,
)
from cryptoalpha.decisions.config import AgentConfig
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.search.contract import Budget, LineStep, Roots
from cryptoalpha.learn.search.scenario_dp import plan_scenarios

NOWHERE = np.zeros(len(REGIMES))


@dataclass(frozen=True)
class Fitted:
    """What a training found for one law of scenarios."""

    dynamics: Dynamics
    garch: tuple[float, float]
    """Reaction and memory of the variance."""
    degrees: float
    """Of Student shocks."""
    pool: Pool
    """Residuals of the training stretch, to which the agent adds its own."""
    leaf: LeafValue | None = None
    """What is added to the formula at the end of a plan; None where nothing better than the formula was found."""
    version: str = ""
    """Digest of the file it is from."""


FittedAt = Callable[[int], Fitted | None]
"""What may be used at a moment; the same object as long as it is the same fold."""


class Trader:
    """An agent that plans; implements `decisions.rule_agent.Agent`.

    Args:
        name: `bootstrap`, `quantiles` or `garch`: the law of its scenarios, and what it is called.
        agent: target volatility, correlation and whether shorts are refused.
        config: how it looks ahead.
        costs: what trading costs.
        book_size: N, the number of instruments the target volatility is shared among.
        seed: of the scenarios.
        fitted_at: what a training found that may be used at a moment (UTC ns), None where nothing yet; without it, dynamics are fitted on
            the way and plans end with the formula.
    """

    def __init__(
        self,
        name: ScenarioName,
        agent: AgentConfig,
        config: AlphaZeroConfig,
        costs: CostConfig,
        *,
        book_size: int,
        seed: int,
        fitted_at: FittedAt | None = None,
    ) -> None:
        self.name: str = name
        self.config = config
        self.memory = MarketMemory(config, book_size=book_size, pools=name != "garch")
        self.grid = grid(config.positions, long_only=agent.long_only)
        crowd = 1.0 + (book_size - 1) * agent.assumed_correlation
        self._share = agent.target_volatility / math.sqrt(book_size * crowd)
        self.taste = Taste(config.reward, config.risk_aversion * crowd, config.discount, config.leaf)
        self.budget = Budget(branching=config.branching)
        self._costs, self._seed = costs, seed
        self.fitted: Fitted | None = None
        self._fitted_at = fitted_at

    def adopt(self, fitted: Fitted) -> None:
        """Go on with what another training found; between two bars."""
        self.fitted = fitted
        self.memory.ghosts = fitted.pool
        self.memory.fix(fitted.dynamics, fitted.garch)

    def learn(self, at: int, fused: Sequence[FusedSignal], states: Sequence[MarketState], signals: Sequence[Signal]) -> None:
        """Remember a bar of the past without deciding anything."""
        self.rows(at, fused, states, signals)

    def rows(
        self, at: int, fused: Sequence[FusedSignal], states: Sequence[MarketState], signals: Sequence[Signal]
    ) -> list[tuple[Row, float] | None]:
        """The state `[WIDTH]` and the expected return per year of every fused signal, None where price or volatility is unknown. Also
        remembers the bar: to be called once per bar."""
        if self._fitted_at is not None and (fitted := self._fitted_at(at)) is not None and fitted is not self.fitted:
            self.adopt(fitted)
        known = {state.instrument: state for state in states}
        shapes = _quantiles(signals) if self.name == "quantiles" else {}
        rows = [self._row(at, signal, known.get(signal.instrument), shapes.get(signal.instrument)) for signal in fused]
        self.memory.end_bar()
        return rows

    def decide(
        self,
        at: int,
        fused: Sequence[FusedSignal],
        *,
        fused_events: Sequence[int],
        portfolio: PortfolioState,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
    ) -> list[Decision]:
        prices = {state.instrument: state.price for state in states}
        equity = float(portfolio.equity)
        held = {name: float(quantity) for name, quantity in portfolio.positions}
        rows: list[Row] = []
        places: list[tuple[int, float, float]] = []
        """Place among `fused`, weight held, expected return per year."""
        for place, found in enumerate(self.rows(at, fused, states, signals)):
            if found is not None:
                name = fused[place].instrument
                rows.append(found[0])
                places.append((place, held.get(name, 0.0) * prices[name] / equity if equity > 0.0 else 0.0, found[1]))
        if not places:
            return [self._unplanned(at, signal, event) for signal, event in zip(fused, fused_events, strict=True)]
        planned = self._planned(at, rows, places, fused, fused_events)
        return [
            planned[place] if place in planned else self._unplanned(at, signal, event)
            for place, (signal, event) in enumerate(zip(fused, fused_events, strict=True))
        ]

    def _row(
        self, at: int, signal: FusedSignal, state: MarketState | None, quantiles: tuple[float, ...] | None = None
    ) -> tuple[Row, float] | None:
        bar = at - signal.happened_at
        if state is None or bar <= 0 or not (signal.volatility > 0.0 and state.price > 0.0):
            return None
        per_year = DAYS_PER_YEAR * DAY / bar
        log_volatility = math.log(signal.volatility / math.sqrt(per_year))
        belief = np.array(state.regime) if state.regime else NOWHERE
        self.memory.observe(signal.instrument, signal.happened_at, bar, state.price, log_volatility, belief)
        move, horizon = self._move(signal, bar)
        drift = drift_per_bar(move, horizon, self.memory.dynamics().persistence)
        self.memory.believed(signal.instrument, signal.happened_at, bar, state.price, move, drift, log_volatility, belief)
        row: Row = np.zeros(WIDTH, dtype=np.float32)
        row[DRIFT], row[LOG_VOLATILITY], row[CONFIDENCE] = drift, log_volatility, signal.confidence
        if self.name == "garch":
            row[LOG_VOLATILITY] = self.memory.garch_log_volatility(signal.instrument)
        row[REGIME] = belief
        row[HOME] = self.memory.home(signal.instrument)
        row[UNIT] = min(self._share / signal.volatility, self.config.largest_weight)
        row[COST_RATE] = max(self._costs.taker_fee + self._costs.half_spread, state.recent_cost or 0.0)
        daily = signal.volatility / math.sqrt(DAYS_PER_YEAR)
        row[IMPACT] = self._costs.impact * daily * math.sqrt(self.config.equity_over_volume)
        row[CARRY] = self.config.carry_per_day * bar / DAY
        row[SHAPE] = forecast_shape(quantiles)
        return row, move * signal.volatility * math.sqrt(per_year / horizon)

    def model(self) -> TradingModel:
        """The market model of this bar: laws and dynamics as far as history tells."""
        fitted, dynamics = self.fitted, self.memory.dynamics()
        degrees = self.config.student_degrees if fitted is None else fitted.degrees
        law: Law
        if self.name == "garch":
            law, dynamics = Garch(degrees), dynamics.with_garch(*self.memory.garch)
        else:
            pool = self.memory.pool()
            law = Quantiles(pool) if self.name == "quantiles" else Bootstrap(pool)
        return TradingModel(self.grid, law, dynamics, self.taste, leaf=None if fitted is None else fitted.leaf)

    def _move(self, signal: FusedSignal, bar: int) -> tuple[float, float]:
        """Expected move in volatilities over the horizon, and the horizon in bars."""
        if signal.expected_move is None or signal.horizon <= 0:
            return self.config.typical_ic * signal.direction, float(self.config.horizon_bars)
        return signal.expected_move, max(signal.horizon / bar, 1.0)

    def _planned(
        self, at: int, rows: Sequence[Row], places: Sequence[tuple[int, float, float]], fused: Sequence[FusedSignal], events: Sequence[int]
    ) -> dict[int, Decision]:
        states = np.stack(rows)
        units = states[:, UNIT].astype(np.float64)
        weights = np.array([weight for _, weight, _ in places])
        shares: Array = weights / units
        positions = np.abs(self.grid[None, :] - shares[:, None]).argmin(axis=1)
        names = tuple(fused[place].instrument for place, _, _ in places)
        plan = plan_scenarios(Roots(states, positions, names=names), self.model(), self.budget, seed=self._seed + at)
        decisions = {}
        for i, (place, weight, expected) in enumerate(places):
            action, signal = int(plan.action[i]), fused[place]
            share = float(self.grid[action])
            holds = action == positions[i] and share != 0.0 and abs(shares[i]) <= 1.0 + HALF / (len(self.grid) - 1)
            target = weight if holds else share * float(units[i])
            worth = float(plan.q[i, action])
            decisions[place] = Decision(
                happened_at=at, known_at=at, instrument=signal.instrument, agent=self.name, target_weight=target,
                confidence=signal.confidence, reason="plan holds" if action == positions[i] else "plan trades", fused=events[place],
                expected_return=expected, votes=((self.name, target, 1.0, worth),), line=self._line(plan.lines[i]),
            )  # fmt: skip
        return decisions

    def _line(self, steps: Sequence[LineStep]) -> tuple[tuple[float, float], ...]:
        return tuple((float(self.grid[step.action]), step.value) for step in steps)

    def _unplanned(self, at: int, signal: FusedSignal, event: int) -> Decision:
        return Decision(
            happened_at=at, known_at=at, instrument=signal.instrument, agent=self.name, target_weight=0.0, confidence=signal.confidence,
            reason="volatility unknown", fused=event, votes=((self.name, 0.0, 1.0, math.nan),),
        )  # fmt: skip


HALF = 1.0
"""Half of a step of a grid from −1 to 1 is this over K − 1."""


def grid(positions: int, *, long_only: bool) -> Array:
    """Positions as shares of a unit, rising, with 0 among them: from 0 to 1, or from −1 to 1 (then an odd number, one more if need be)."""
    if long_only:
        return np.linspace(0.0, 1.0, positions)
    return np.linspace(-1.0, 1.0, positions + (positions + 1) % 2)


def _quantiles(signals: Sequence[Signal]) -> Mapping[str, tuple[float, ...]]:
    """The first forecast of each instrument that has quantiles."""
    found: dict[str, tuple[float, ...]] = {}
    for signal in signals:
        if signal.quantiles is not None:
            found.setdefault(signal.instrument, signal.quantiles)
    return found
