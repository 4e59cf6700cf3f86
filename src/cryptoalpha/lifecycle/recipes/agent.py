"""Train the planning agents: walk-forward folds side by side, judged beside plainer ones, kept with where they come from.

    trained = train_agent(AgentPlan(signals, fusion, agent, train, execution, seed), dataset, Period(), home / "models" / "agent")

Signals and a baseline fusion are walked once. Each fold fits dynamics and residuals on its training stretch, teaches a value function for
each law of scenarios by expert iteration, lets it lead only if it plans better on held-out scenarios, and plays its test bars, which no
part of it has seen. The folder is written whole at the end or not at all (`workshop`).

Departure: the forecaster, genome and regime models that feed the tape are those that the settings name, fold by fold as they were usable.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha import __version__
from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.decisions.alphazero.learning import Lessons
from cryptoalpha.decisions.alphazero.trained import KIND, described, finish
from cryptoalpha.decisions.config import AgentConfig, FusionConfig
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.agent_fold import LAWS, AgentMaterial, read_agent_result, train_agent_fold
from cryptoalpha.lifecycle.recipes.agent_judging import judge_agents, verdict
from cryptoalpha.lifecycle.recipes.agent_trained import AgentTrained
from cryptoalpha.lifecycle.recipes.agent_walk import Walk, walked
from cryptoalpha.lifecycle.recipes.folds import Fold, plan_folds
from cryptoalpha.lifecycle.recipes.forecaster import Period
from cryptoalpha.lifecycle.recipes.page import page
from cryptoalpha.lifecycle.recipes.trained import as_json
from cryptoalpha.lifecycle.recipes.workshop import Tell, Workshop, side_by_side
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.model_folder import FoldFile
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole

MODEL = "agents"


@dataclass(frozen=True)
class AgentPlan:
    """The settings of a training."""

    signals: SignalsConfig
    fusion: FusionConfig
    agent: AgentConfig
    train: TrainConfig
    execution: ExecutionConfig
    seed: int = 0


def train_agent(
    plan: AgentPlan,
    dataset: Dataset,
    period: Period,
    out: Path,
    *,
    instruments: Sequence[str] | None = None,
    fresh: bool = False,
    tell: Tell | None = None,
    lessons: Lessons | None = None,
) -> AgentTrained:
    """Train, judge, and leave the agents at `out`.

    Args:
        fresh: begin anew, and replace what lies at `out`; without it an interrupted training is gone on with.
        tell: told where training stands.
        lessons: how long is trained; None as usual.

    Raises:
        DataMissingError: if the history is too short.
        ConfigError: if `out` holds something else, another model, or another training that was interrupted.
        ModelError: if a loss is not finite.
    """
    shop = Workshop(out)
    old = shop.finished(KIND, fresh=fresh)
    walk = _walk(plan, dataset, period, instruments, tell)
    folds = _folds(plan, walk, period)
    lessons = lessons or Lessons()
    identity = _identity(plan, dataset, folds, walk, lessons)
    if (done := shop.begin(old, identity, fresh=fresh)) is not None:
        return AgentTrained(out, done, already=True)
    shop.draft.mkdir(parents=True, exist_ok=True)
    material = AgentMaterial(walk, plan.agent, plan.execution.costs, plan.seed, out, lessons)
    with shop.watched([fold.number for fold in folds], tell):
        side_by_side(partial(_given, material), train_agent_fold, folds, processes=plan.train.processes)
    lineage = as_json({"identity": identity, **_judged(plan, folds, shop)})
    _write(shop, plan, walk, folds, lineage)
    return AgentTrained(out, lineage)


def _given(material: AgentMaterial) -> AgentMaterial:
    """What a worker holds: that which it was sent."""
    return material


def _walk(plan: AgentPlan, dataset: Dataset, period: Period, instruments: Sequence[str] | None, tell: Tell | None = None) -> Walk:
    """What agents would have been handed, from a warm-up of the fusion before the first bar that is looked at on."""
    warm_up = int(plan.fusion.warmup_days * DAY) if period.since is not None else 0
    since, until = max(0, (period.since or 0) - warm_up), period.until or np.iinfo(np.int64).max
    tape = SignalBook(plan.signals).prepare(dataset, since=since, until=int(until), instruments=instruments)
    return walked(tape, plan.fusion, tell)


def _folds(plan: AgentPlan, walk: Walk, period: Period) -> tuple[Fold, ...]:
    begin = int(np.searchsorted(walk.opened_at, period.since or 0))
    if begin >= len(walk.known_at) - 2:
        raise DataMissingError(f"there are no bars from {iso(period.since or 0)} on", hint="choose an earlier --since")
    ends = np.full(len(walk.known_at), np.iinfo(np.int64).max, np.int64)
    ends[:-2] = np.maximum.accumulate(walk.known_at)[2:]  # what an agent earns is known two bars later
    bounds = {"test_since": period.test_since, "test_until": period.test_until, "most": period.folds}
    folds = plan_folds(walk.known_at[begin:], ends[begin:], plan.train, **bounds)
    return tuple(_moved(fold, begin) for fold in folds)


def _moved(fold: Fold, by: int) -> Fold:
    return replace(fold, train=fold.train + by, accept=fold.accept + by, validation=fold.validation + by, test=fold.test + by)


def _identity(plan: AgentPlan, dataset: Dataset, folds: Sequence[Fold], walk: Walk, lessons: Lessons) -> dict[str, Any]:
    """What makes a training this one: everything that its result depends on."""
    found = {
        "version": __version__,
        "seed": plan.seed,
        "data": {"origin": dataset.origin, "fingerprint": dataset.fingerprint, "simulated": dataset.simulated},
        "instruments": list(walk.instruments),
        "heard": walk.fingerprint(),
        "signals": plan.signals.model_dump(),
        "fusion": plan.fusion.model_dump(),
        "agent": plan.agent.model_dump(),
        "costs": plan.execution.costs.model_dump(),
        "folds": [fold.as_dict() for fold in folds],
        "lessons": asdict(lessons),
    }
    return dict(as_json(found))


def _judged(plan: AgentPlan, folds: Sequence[Fold], shop: Workshop) -> dict[str, Any]:
    """Everything that was found out, over the test bars of all folds end to end."""
    results = [read_agent_result(shop, fold) for fold in folds]
    names = [name for name in results[0][0] if name != "days" and all(name in found for found, _ in results)]
    daily = {name: np.concatenate([found[name] for found, _ in results]) for name in names}
    judged = judge_agents(daily, LAWS, seed=plan.seed)
    states = [state for _, state in results]
    return {
        "versions": {"cryptoalpha": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "model": MODEL,
        "judgement": judged,
        "verdict": verdict(judged),
        "training": [state | _curves(state) for state in states],
        "trades_a_year": {name: float(np.mean([state["trades_a_year"][name] for state in states])) for name in names},
    }


def _curves(state: Mapping[str, Any]) -> dict[str, Any]:
    """Loss of each plan, and what challengers gained on their champions, of the first law: the curves of the report."""
    first = state["learned"][LAWS[0]]
    return {"losses": first["losses"], "validations": [gate["difference"][0] for gate in first["gates"]]}


def _write(shop: Workshop, plan: AgentPlan, walk: Walk, folds: Sequence[Fold], lineage: Mapping[str, Any]) -> None:
    files = [FoldFile(**read_agent_result(shop, fold)[1]["file"]) for fold in folds]
    kept = {file.file for file in files}
    for left in shop.draft.iterdir():
        if left.name not in kept:
            left.unlink() if left.is_file() else shutil.rmtree(left)
    write_whole(shop.draft / "report.html", page(AgentTrained(shop.out, lineage)))
    description = described(plan.agent, plan.agent.planner, book_size=len(walk.instruments), interval=walk.interval)
    finish(shop.draft, description, files, lineage)
    shop.publish()
