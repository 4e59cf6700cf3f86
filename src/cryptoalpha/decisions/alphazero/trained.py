"""A folder of trained agents (kind `agent`), one file per fold of a walk forward, and the agents that ask them.

Each fold holds, for all laws of scenarios together, how states move on and the residuals of its training stretch, and for each law the
value function that passed its gate, if one did. At every bar an agent uses the newest fold that may be used then; before the first it is
the agent that nobody has trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import interval_name
from cryptoalpha.decisions.alphazero.config import AlphaZeroConfig, ScenarioName
from cryptoalpha.decisions.alphazero.market import Dynamics
from cryptoalpha.decisions.alphazero.scenarios import Pool
from cryptoalpha.decisions.alphazero.trader import Fitted, Trader
from cryptoalpha.decisions.alphazero.value import ValueFunction
from cryptoalpha.decisions.config import AgentConfig
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.store.model_folder import FoldFile, ModelFolder, refuse_other, write_fold, write_folder

KIND = "agent"


def described(agent: AgentConfig, config: AlphaZeroConfig, *, book_size: int, interval: int) -> dict[str, Any]:
    """What a trained agent and whoever uses it must agree on."""
    return {
        "positions": config.positions,
        "long_only": agent.long_only,
        "reward": config.reward,
        "aversion": round(config.risk_aversion * (1.0 + (book_size - 1) * agent.assumed_correlation), 9),
        "discount": config.discount,
        "leaf": config.leaf,
        "interval": interval,
    }


def open_trader(
    name: ScenarioName, agent: AgentConfig, config: AlphaZeroConfig, costs: CostConfig, *, book_size: int, seed: int, interval: int
) -> Trader:
    """The agent of that name, trained where the settings name a folder.

    Args:
        interval: length of a bar, ns.

    Raises:
        ConfigError: if there is no such folder.
        ModelError: if it was trained for another grid, taste, book or bar, or a fold is damaged.
    """
    if not config.model:
        return Trader(name, agent, config, costs, book_size=book_size, seed=seed)
    folder = ModelFolder.open(Path(config.model), KIND)
    wanted = described(agent, config, book_size=book_size, interval=interval)
    _refuse_other_market(folder, wanted, config, book_size)
    refuse_other(str(folder.path), folder.description, wanted, kind=KIND)
    folds = TrainedFolds(folder, name, block=math.prod(config.branching))
    return Trader(name, agent, config, costs, book_size=book_size, seed=seed, fitted_at=folds)


def _refuse_other_market(folder: ModelFolder, wanted: Mapping[str, Any], config: AlphaZeroConfig, book_size: int) -> None:
    """What follows from the data is refused in words of the data: who trades another book has changed no setting."""
    trained = folder.description
    if (length := trained.get("interval", wanted["interval"])) != wanted["interval"]:
        raise ModelError(
            f"{folder.path} was trained on bars of {interval_name(length)}, these have {interval_name(wanted['interval'])}",
            hint="ask for the bars it was trained on with --interval, or train it on these",
        )
    if trained.get("aversion") != wanted["aversion"]:
        raise ModelError(
            f"{folder.path} was trained for an aversion to risk of {trained.get('aversion')}, this book asks for {wanted['aversion']}: "
            f"agent.planner.risk_aversion {config.risk_aversion:g}, which grows with the number of instruments, here {book_size}",
            hint="trade as many instruments as it was trained on, at the same risk_aversion, or train anew: cryptoalpha train agent",
        )


class TrainedFolds:
    """What a folder says of one law, fold by fold; implements `trader.FittedAt`.

    Args:
        block: rows that go through a net at once: the leaves of one root.
    """

    def __init__(self, folder: ModelFolder, name: ScenarioName, *, block: int) -> None:
        self._folder, self._name, self._block = folder, name, block
        self._open: tuple[int, Fitted] | None = None

    def __call__(self, at: int) -> Fitted | None:
        self._folder = self._folder.refreshed()
        number = int(self._folder.numbers_at(np.array([at], np.int64))[0])
        if number < 0:
            return None
        if self._open is None or self._open[0] != number:
            kept = self._folder.read(number)
            self._open = (
                number,
                fitted_from(kept.arrays, kept.state, self._name, block=self._block, version=self._folder.folds[number].sha256),
            )
        return self._open[1]


def write_agent_fold(
    folder: Path, number: int, usable_from: int, fitted: Mapping[ScenarioName, Fitted], learned: Mapping[str, Any] | None = None
) -> FoldFile:
    """Write one fold: dynamics and residuals are those of the first law, which all share; each has its own value function or none.

    Args:
        learned: losses and gates of each law's training. A value function that its gate refused is not kept, but what it was taught from
            must stand the audit of training as well.
    """
    shared = next(iter(fitted.values()))
    pool, dynamics = shared.pool, shared.dynamics
    arrays: dict[str, Any] = {
        "pool/z": pool.z, "pool/kicks": pool.kicks, "pool/ladder": pool.ladder, "pool/regimes": pool.regimes,
        "transition": dynamics.transition,
    }  # fmt: skip
    trained = []
    for name, one in fitted.items():
        if isinstance(one.leaf, ValueFunction):
            arrays |= one.leaf.arrays(name)
            trained.append(name)
    state = {
        "usable_from": usable_from, "persistence": dynamics.persistence, "response": dynamics.response, "reversion": dynamics.reversion,
        "garch": list(shared.garch), "degrees": shared.degrees, "trained": trained, "learned": dict(learned or {}),
    }  # fmt: skip
    return write_fold(folder, number, arrays, state, kind=KIND)


def fitted_from(arrays: Mapping[str, Any], state: Mapping[str, Any], name: ScenarioName, *, block: int, version: str = "") -> Fitted:
    """What `write_agent_fold` wrote, for one law."""
    dynamics = Dynamics(state["persistence"], state["response"], state["reversion"], arrays["transition"])
    pool = Pool(arrays["pool/z"], arrays["pool/kicks"], arrays["pool/ladder"], arrays["pool/regimes"])
    leaf = ValueFunction.of(arrays, name, block=block) if name in state["trained"] else None
    alpha, beta = state["garch"]
    return Fitted(dynamics, (alpha, beta), state["degrees"], pool, leaf, version)


def finish(folder: Path, description: Mapping[str, Any], folds: Sequence[FoldFile], lineage: Mapping[str, Any]) -> ModelFolder:
    """Finish a folder whose folds are written."""
    return write_folder(folder, kind=KIND, description=description, lineage=lineage, folds=folds)
