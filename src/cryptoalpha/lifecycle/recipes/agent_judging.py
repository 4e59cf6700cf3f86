"""What planning agents would have earned on unseen bars, net of costs, beside plainer ones, and what may be concluded.

Decided at the close of a bar, filled at the next open, earned until the open after: nobody trades at a price he has just seen. Fee, half
spread and the square-root impact that agents expect are paid by all alike. Beside each agent stand the same plan without its value
function, `myopic` (one bar, nothing beyond), the rule agent, and `hold` (equal shares of everything, always). Growth is that of the book's
equity. Funding, lots and the limits of risk are left out: the backtest of the engine counts everything.

An agent is called better only where the 95 % interval of its paired daily difference to the rule agent lies above zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.core.values import PortfolioState
from cryptoalpha.decisions.alphazero.config import ScenarioName
from cryptoalpha.decisions.alphazero.episodes import flat_place
from cryptoalpha.decisions.alphazero.market import TradingModel
from cryptoalpha.decisions.alphazero.state import COST_RATE, IMPACT, UNIT, WIDTH
from cryptoalpha.decisions.config import AgentConfig
from cryptoalpha.decisions.rule_agent import RuleAgent
from cryptoalpha.learn.search.contract import Budget, Roots
from cryptoalpha.learn.search.contract import Floats as States
from cryptoalpha.learn.search.scenario_dp import plan_all_positions
from cryptoalpha.lifecycle.recipes.agent_walk import Walk
from cryptoalpha.monitoring.bootstrap import Interval, bootstrap_interval, sharpe_difference, sharpe_interval

MYOPIC, RULE, HOLD = "myopic", "rule", "hold"
FORMULA = " without value function"
AT_ONCE = 2_048
"""Roots planned in one call."""

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Played:
    """Days (UTC, since the epoch) and log growth of the book on each `[D]`; equity traded per year."""

    days: Rows
    daily: Floats
    turnover: float


def played(
    walk: Walk,
    states: Mapping[ScenarioName, States],
    models: Mapping[ScenarioName, tuple[TradingModel, TradingModel]],
    rows: Rows,
    agent: AgentConfig,
    budget: Budget,
    *,
    seed: int,
) -> dict[str, Played]:
    """What each policy earns on these bars of the walk.

    Args:
        states: rows of the bars for each law `[T, A, WIDTH]`, NaN where there is none.
        models: for each law the model with its value function, and the one without; the same object twice where there is none.
    """
    weights: dict[str, Floats] = {}
    for name, (model, formula) in models.items():
        weights[name] = planned_weights(states[name], model, budget, seed=seed)
        if model.leaf is not None:
            weights[name + FORMULA] = planned_weights(states[name], formula, budget, seed=seed)
    first = next(iter(models))
    formula = models[first][1]
    nothing = TradingModel(formula.positions, formula.law, formula.dynamics, replace(formula.taste, leaf="zero"))
    weights[MYOPIC] = planned_weights(states[first], nothing, replace(budget, branching=budget.branching[:1]), seed=seed)
    weights[RULE] = rule_weights(walk, rows, agent)
    there = np.isfinite(walk.price[rows])
    weights[HOLD] = np.where(there, 1.0 / len(walk.instruments), 0.0)
    costs = states[first][:, :, [COST_RATE, IMPACT]].astype(np.float64)
    return {name: account(one, walk.step[rows], costs, walk.known_at[rows]) for name, one in weights.items()}


def planned_weights(states: States, model: TradingModel, budget: Budget, *, seed: int) -> Floats:
    """Weight wanted at each bar `[T, A]`, from flat on, where the position goes as the plan of its bar says; 0 where there is no state."""
    bars, names, _ = states.shape
    flat = states.reshape(-1, WIDTH)
    there = np.flatnonzero(np.isfinite(flat[:, 0]))
    table = np.zeros((len(flat), len(model.positions)), dtype=np.int64)
    table[:] = flat_place(model.positions)
    for start in range(0, len(there), AT_ONCE):
        part = there[start : start + AT_ONCE]
        table[part] = plan_all_positions(Roots(flat[part]), model, budget, seed=seed + start).actions
    moves = table.reshape(bars, names, -1)
    units = np.nan_to_num(states[:, :, UNIT].astype(np.float64))
    held, columns = np.full(names, flat_place(model.positions)), np.arange(names)
    weights = np.zeros((bars, names))
    before, wanted = np.full(names, -1), np.zeros(names)
    for t in range(bars):
        held = moves[t, columns, held]
        wanted = np.where(held == before, wanted, model.positions[held] * units[t])  # a plan that holds trades nothing
        before = held
        weights[t] = wanted
    return weights


def rule_weights(walk: Walk, rows: Rows, agent: AgentConfig) -> Floats:
    """What the rule agent wants at these bars `[T, A]`."""
    rule = RuleAgent(agent, book_size=len(walk.instruments))
    place = {name: a for a, name in enumerate(walk.instruments)}
    weights = np.zeros((len(rows), len(walk.instruments)))
    cash = Decimal(1)
    for t, (at, fused, states, signals) in enumerate(walk.moments(range(int(rows[0]), int(rows[-1]) + 1))):
        book = PortfolioState(happened_at=at, known_at=at, cash=cash, positions=(), equity=cash, peak_equity=cash)
        for said in rule.decide(at, fused, fused_events=range(len(fused)), portfolio=book, states=states, signals=signals):
            weights[t, place[said.instrument]] = said.target_weight
    return weights


def account(weights: Floats, steps: Floats, costs: Floats, known_at: Rows) -> Played:
    """Growth of a book that holds these weights over these steps `[T, A]`; costs `[T, A, 2]` rate and impact of a trade."""
    rate, impact = np.nan_to_num(costs[:, :, 0]), np.nan_to_num(costs[:, :, 1])
    traded = np.abs(np.diff(weights, axis=0, prepend=np.zeros((1, weights.shape[1]))))
    paid = (traded * (rate + impact * np.sqrt(traded))).sum(axis=1)
    growth = np.log1p(np.maximum((weights * np.nan_to_num(steps)).sum(axis=1) - paid, -0.999))
    day = (known_at - 1) // DAY
    days = np.arange(day[0], day[-1] + 1, dtype=np.int64)
    daily = np.bincount((day - day[0]).astype(np.int64), weights=growth, minlength=len(days)).astype(np.float64)
    return Played(days, daily, float(traded.sum() / max(len(days), 1) * DAYS_PER_YEAR))


def judge_agents(daily: Mapping[str, Floats], trained: Sequence[ScenarioName], *, seed: int) -> dict[str, Any]:
    """Growth and Sharpe ratio of every policy a year, with 95 % intervals, and paired differences of the agents to the rule agent."""
    scores, against = {}, {}
    for name, one in daily.items():
        scores[name] = {"growth": _growth(one, seed), "sharpe": _triple(sharpe_interval(one, periods_per_year=DAYS_PER_YEAR, seed=seed))}
    for name in trained:
        others = (RULE, HOLD, MYOPIC, name + FORMULA)
        against[name] = {
            other: {
                "growth": _growth(daily[name] - daily[other], seed),
                "sharpe": _triple(sharpe_difference(daily[name], daily[other], periods_per_year=DAYS_PER_YEAR, seed=seed)),
            }
            for other in others
            if other in daily
        }
    return {"days": len(next(iter(daily.values()))), "scores": scores, "against": against}


def verdict(judged: Mapping[str, Any]) -> dict[str, Any]:
    """Which agents grew faster than the rule agent beyond chance, in words."""
    better, words = [], []
    for name, others in judged["against"].items():
        estimate, low, high = others[RULE]["growth"]
        proved = low > 0.0
        better += [name] if proved else []
        lead = "grew faster than" if proved else "grew more slowly than" if high < 0.0 else "cannot be told from"
        words.append(f"{name} {lead} the rule agent ({estimate:+.1%} a year, {low:+.1%} to {high:+.1%})")
    text = f"{judged['days']} days, net of costs: {'; '.join(words)}."
    return {"better": better, "words": text, "audit_first": ""}


def _growth(daily: Floats, seed: int) -> list[float]:
    if not np.std(daily) > 0.0:
        level = float(np.mean(daily) * DAYS_PER_YEAR)
        return [level, level, level]
    return _triple(bootstrap_interval(daily, lambda r: float(r.mean()) * DAYS_PER_YEAR, seed=seed, name="agent growth", resamples=1_000))


def _triple(found: Interval) -> list[float]:
    return [number if math.isfinite(number) else math.nan for number in (found.estimate, found.low, found.high)]
