"""One fold of the agents, in the process that trains it: dynamics and residuals of its training stretch, a value function for each law of
scenarios, and what their plans, and plainer ones, would have earned on bars that no part of it has seen.

Everything is a function of the walk, the settings and the seed. A fold that is done lies in the workshop as `result_NN.safetensors`; one
that was interrupted goes on after its last whole round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.alphazero.config import ScenarioName
from cryptoalpha.decisions.alphazero.learning import Lessons, Progress, TradingLearner
from cryptoalpha.decisions.alphazero.market import LeafValue, TradingModel
from cryptoalpha.decisions.alphazero.scenarios import Bootstrap, Garch, Law, Quantiles
from cryptoalpha.decisions.alphazero.state import LOG_VOLATILITY, SHAPE, WIDTH
from cryptoalpha.decisions.alphazero.trader import Fitted, Trader
from cryptoalpha.decisions.alphazero.trained import write_agent_fold
from cryptoalpha.decisions.config import AgentConfig
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.splits.labels import Indices
from cryptoalpha.lifecycle.recipes.agent_judging import Played, played
from cryptoalpha.lifecycle.recipes.agent_walk import Walk
from cryptoalpha.lifecycle.recipes.fold_progress import result_file, train_once
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.workshop import UNITS, Workshop
from cryptoalpha.risk.tail.garch import fit_garch
from cryptoalpha.store.array_file import read_arrays, write_arrays
from cryptoalpha.store.tables import Floats

LAWS: tuple[ScenarioName, ...] = get_args(ScenarioName)
RESULT = "agent fold result"
Rows32 = np.ndarray[Any, np.dtype[np.float32]]

DEGREES = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 50.0)

LARGEST_GARCH = 0.9999
"""Sum of reaction and memory from which on a variance does not come home."""

MOST_RETURNS = 20_000
"""Returns that GARCH is fitted to, the newest: beyond, its estimates no longer change."""


@dataclass(frozen=True, eq=False)
class AgentMaterial:
    """What every fold is made of; sent to each process once."""

    walk: Walk
    agent: AgentConfig
    costs: CostConfig
    seed: int
    out: Path
    lessons: Lessons

    def trader(self) -> Trader:
        """An untrained agent of this book."""
        book = len(self.walk.instruments)
        return Trader("quantiles", self.agent, self.agent.planner, self.costs, book_size=book, seed=self.seed)


@dataclass(frozen=True, eq=False)
class States:
    """Rows of a stretch for each law `[T, A, WIDTH]`, NaN where there is none; row 0 is bar `first` of the walk."""

    first: int
    rows: dict[ScenarioName, Rows32]

    def of(self, name: ScenarioName, chosen: Indices) -> Rows32:
        """States that exist at the chosen bars of the walk, in order of time `[n, WIDTH]`."""
        rows = self.rows[name][chosen - self.first].reshape(-1, WIDTH)
        there: Rows32 = rows[np.isfinite(rows[:, 0])]
        return there


def train_agent_fold(material: AgentMaterial, fold: Fold) -> None:
    """Train one fold and leave its model and its result in the workshop.

    Raises:
        ModelError: if a loss is not finite.
    """
    shop = Workshop(material.out)
    train_once(shop, fold, lambda: _train(material, fold, shop))


def read_agent_result(shop: Workshop, fold: Fold) -> tuple[dict[str, Floats], dict[str, Any]]:
    """Daily returns of every policy on the fold's test bars, and how training went."""
    arrays, state = read_arrays(result_file(shop, fold), kind=RESULT)
    return {name: array.astype(np.float64) for name, array in arrays.items()}, state


def _train(material: AgentMaterial, fold: Fold, shop: Workshop) -> None:
    shop.tell(fold.number, 10, "residuals and dynamics")
    base, how = fitted_on(material, fold.train)
    first, end = int(fold.train[0]), int(fold.test[-1]) + 1
    states = states_of(material, base, range(first, end))
    held = fold.accept if len(fold.accept) else fold.validation
    fitted: dict[ScenarioName, Fitted] = {}
    learned: dict[str, Any] = {}
    for place, name in enumerate(LAWS):
        shop.tell(fold.number, 100 + 200 * place, f"plans of {name}")
        progress = _learned(material, fold, base, states, held, name, shop)
        fitted[name] = Fitted(base.dynamics, base.garch, base.degrees, base.pool, progress.champion)
        learned[name] = {"gates": progress.gates, "losses": progress.losses, "trained": progress.champion is not None}
    shop.tell(fold.number, 700, "judging")
    judged = _judged(material, fitted, states, fold)
    file = write_agent_fold(shop.draft, fold.number, fold.usable_from, fitted, learned)
    state = {
        "fold": fold.as_dict(), "file": {"file": file.file, "usable_from": file.usable_from, "sha256": file.sha256}, "dynamics": how,
        "learned": learned, "trades_a_year": {name: one.turnover for name, one in judged.items()},
    }  # fmt: skip
    arrays = {name: one.daily for name, one in judged.items()} | {"days": next(iter(judged.values())).days.astype(np.float64)}
    write_arrays(result_file(shop, fold), arrays, state, kind=RESULT)
    shop.tell(fold.number, UNITS, "done")


def fitted_on(material: AgentMaterial, rows: Indices) -> tuple[Fitted, dict[str, Any]]:
    """How states move on and what residuals there were, from these bars alone; and the same in words."""
    trader, walk = material.trader(), material.walk
    for at, fused, states, signals in walk.moments(range(int(rows[0]), int(rows[-1]) + 1)):
        trader.learn(at, fused, states, signals)
    dynamics, pool = trader.memory.fitted(), trader.memory.pool()
    garch, degrees, source = _garch(walk, rows, material)
    how = {
        "persistence": dynamics.persistence, "response": dynamics.response, "reversion": dynamics.reversion,
        "garch": list(garch), "degrees": degrees, "garch_from": source, "bars": len(rows),
    }  # fmt: skip
    return Fitted(dynamics, garch, degrees, pool), how


def _garch(walk: Walk, rows: Indices, material: AgentMaterial) -> tuple[tuple[float, float], float, str]:
    """Reaction and memory of the variance and degrees of freedom of its shocks, over all instruments one after the other."""
    config = material.agent.planner
    usual = (config.garch_alpha, config.garch_beta), config.student_degrees
    price = walk.price[rows]
    changes = price[1:] / price[:-1] - 1.0
    series = []
    for a in range(changes.shape[1]):
        one = changes[np.isfinite(changes[:, a]), a][-MOST_RETURNS // changes.shape[1] :]
        if len(one) > 100 and one.std() > 0.0:
            series.append(one / one.std())
    if not series:
        return *usual, "settings: too few returns"
    together = np.concatenate(series)
    try:
        found = fit_garch(together, shocks="normal")  # quasi-likelihood: with Student shocks of few degrees the reaction has no bound
    except ConfigError:
        return *usual, "settings: SciPy is not installed"
    if found.reason is not None or found.alpha + found.beta > LARGEST_GARCH:
        return *usual, f"settings: {found.reason or 'no stationary fit'}"
    shocks = (together - found.mean) / np.sqrt(found.variances(together)[:-1])
    return (found.alpha, found.beta), _degrees(shocks), "quasi maximum likelihood"


def _degrees(shocks: Floats) -> float:
    """Degrees of freedom of the likeliest Student law of variance one, of a few."""
    squares = shocks**2

    def likelihood(degrees: float) -> float:
        constant = math.lgamma((degrees + 1.0) / 2.0) - math.lgamma(degrees / 2.0) - 0.5 * math.log(math.pi * (degrees - 2.0))
        return constant - (degrees + 1.0) / 2.0 * float(np.mean(np.log1p(squares / (degrees - 2.0))))

    return max(DEGREES, key=likelihood)


def states_of(material: AgentMaterial, base: Fitted, rows: range) -> States:
    """The state of every instrument at these bars of the walk, for each law, as an agent with these dynamics would have seen them."""
    walk, trader = material.walk, material.trader()
    trader.adopt(base)
    shape = (len(rows), len(walk.instruments))
    plain = np.full((*shape, WIDTH), np.nan, dtype=np.float32)
    variance = np.full(shape, np.nan, dtype=np.float32)
    place = {name: a for a, name in enumerate(walk.instruments)}
    for t, (at, fused, states, signals) in enumerate(walk.moments(rows)):
        for said, found in zip(fused, trader.rows(at, fused, states, signals), strict=True):
            if found is not None:
                plain[t, place[said.instrument]] = found[0]
                variance[t, place[said.instrument]] = trader.memory.garch_log_volatility(said.instrument)
    shapeless = plain.copy()
    shapeless[:, :, SHAPE] = np.where(np.isfinite(plain[:, :, :1]), 0.0, np.nan)
    reacting = shapeless.copy()
    reacting[:, :, LOG_VOLATILITY] = variance
    return States(rows.start, {"bootstrap": shapeless, "quantiles": plain, "garch": reacting})


def market(material: AgentMaterial, fitted: Fitted, name: ScenarioName, leaf: LeafValue | None) -> TradingModel:
    """The market model of one law with what was fitted."""
    trader, dynamics = material.trader(), fitted.dynamics
    law: Law
    if name == "garch":
        law, dynamics = Garch(fitted.degrees), dynamics.with_garch(*fitted.garch)
    else:
        law = Quantiles(fitted.pool) if name == "quantiles" else Bootstrap(fitted.pool)
    return TradingModel(trader.grid, law, dynamics, trader.taste, leaf=leaf)


def _learned(
    material: AgentMaterial,
    fold: Fold,
    base: Fitted,
    states: States,
    held: Indices,
    name: ScenarioName,
    shop: Workshop,
) -> Progress:
    seed = int(stream(material.seed, "agent", "fold", fold.number, name).integers(2**62))
    learner = TradingLearner(
        lambda leaf: market(material, base, name, leaf),
        states.of(name, fold.train),
        states.of(name, held),
        material.trader().budget,
        seed=seed,
        lessons=material.lessons,
    )
    place = shop.place / f"fit_{fold.number:02d}_{name}"
    place.mkdir(parents=True, exist_ok=True)
    return learner.run(place)


def _judged(material: AgentMaterial, fitted: dict[ScenarioName, Fitted], states: States, fold: Fold) -> dict[str, Played]:
    return played(
        material.walk,
        {name: states.rows[name][fold.test - states.first] for name in LAWS},
        {name: (market(material, one, name, one.leaf), market(material, one, name, None)) for name, one in fitted.items()},
        fold.test,
        material.agent,
        material.trader().budget,
        seed=material.seed,
    )
