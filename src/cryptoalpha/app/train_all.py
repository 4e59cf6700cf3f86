"""`train all`: every model of the loop, one after the other, and a configuration that switches all of them on.

    OUT/regime, forecaster, genome, fusion, agent      a model folder each
    OUT/times.json                                     wall and CPU seconds of each step, added up over interruptions by Ctrl-C
    OUT/cryptoalpha.yaml                               the settings that use them: `cryptoalpha backtest --config OUT/cryptoalpha.yaml`

The order is that of what is built on what: fusion and agents learn from the signals of regime, forecaster and genome. They must meet on
the bars that they learn from what they will meet later: opinions of models that had not seen those bars. A model folder has no opinion
before its first fold, so regime, forecaster and genome get `earlier` folds before the first day that is judged, and fusion and agents learn
from the first of these on: every opinion in their lessons was formed by a fold trained before it. Those folds are judged as well, and are
models that a run over those days may use.

Every step goes on where it was stopped, and one whose model lies there is not done again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptoalpha.app.config_template import HEADER, render
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.decisions.config import MEMBERS
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.agent import AgentPlan, train_agent
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan, train_forecaster
from cryptoalpha.lifecycle.recipes.fusion import FusionPlan, train_fusion
from cryptoalpha.lifecycle.recipes.genome import train_genome
from cryptoalpha.lifecycle.recipes.regime import train_regime
from cryptoalpha.lifecycle.recipes.workshop import UNITS, Tell
from cryptoalpha.signals.config import SourceName
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole

STEPS = ("regime", "forecaster", "genome", "fusion", "agent")
MODEL_SOURCES: tuple[SourceName, ...] = ("forecast", "genome")


class Made(Protocol):
    """What every training gives back."""

    @property
    def path(self) -> Path: ...
    @property
    def already(self) -> bool: ...


@dataclass(frozen=True)
class Stretches:
    """Which bars teach and which are judged, UTC ns. `signals` from `signals_since` on, fusion and agents from `test_since` on."""

    since: int
    until: int
    signals_since: int
    test_since: int
    test_days: int
    earlier: int

    def train(self, config: TrainConfig, *, of_signals: bool) -> TrainConfig:
        """How the folds lie: all learn from the first bar on."""
        update: dict[str, Any] = {"expanding": True, "test_days": self.test_days}
        if not of_signals and self.earlier:
            update["train_days"] = self.earlier * self.test_days - 1
        return config.model_copy(update=update)

    def period(self, *, of_signals: bool) -> Period:
        """The period of one training."""
        if of_signals:
            return Period(self.since, self.until, self.signals_since, folds=None)
        return Period(self.signals_since if self.earlier else self.since, self.until, self.test_since, folds=None)

    def as_dict(self) -> dict[str, object]:
        moments = {name: iso(getattr(self, name)) for name in ("since", "until", "signals_since", "test_since")}
        return {**moments, "test_days": self.test_days, "earlier_folds": self.earlier}


def plan_stretches(
    dataset: Dataset, config: TrainConfig, *, since: int | None, until: int | None, test_since: int | None, folds: int, earlier: int
) -> Stretches:
    """Folds of equal length from the first judged day to the end, and as many of them before it for fusion and agents to learn from.

    Args:
        folds: judged folds; with `test_since` their length follows from it, else it is `lifecycle.train.test_days`.
        earlier: folds before them; fewer where the history is too short.

    Raises:
        DataMissingError: if there are no bars.
        ConfigError: if `test_since` is not before the end.
    """
    tables = [table for table in dataset.bars.values() if len(table.open_time)]
    if not tables:
        raise DataMissingError("there are no bars to learn from", hint="`cryptoalpha data list` prints what each source covers")
    interval = tables[0].interval
    begin = max(since or 0, min(int(table.open_time[0]) for table in tables))
    end = min(until or 2**62, max(int(table.open_time[-1]) for table in tables) + interval)
    if test_since is not None and test_since >= end:
        raise ConfigError(
            f"the first judged day {iso(test_since)} is not before the end, {iso(end)}", hint="choose an earlier --test-since"
        )
    days = config.test_days if test_since is None else -(-(end - test_since) // (folds * DAY))
    judged = end - folds * days * DAY if test_since is None else test_since
    while earlier and end - (folds + earlier) * days * DAY - config.train_days * DAY < begin:
        earlier -= 1
    # A bar after the grid of folds, which is counted back from the end: the oldest fold is a bar shorter, and no fold of a bar precedes it.
    judged = max(judged, end - folds * days * DAY + interval)
    first = end - (folds + earlier) * days * DAY + interval if earlier else judged
    return Stretches(begin, end, first, judged, days, earlier)


@dataclass(frozen=True)
class Training:
    """A whole training, ready to run: settings, data, stretches and where it goes."""

    settings: Settings
    seed: int
    dataset: Dataset
    stretches: Stretches
    out: Path
    instruments: Sequence[str] | None = None

    def settings_with(self, *names: str) -> Settings:
        """The settings that use the models of these steps."""
        return with_models(self.settings, {name: self.out / name for name in names})

    def steps(self) -> Iterator[tuple[str, Callable[[bool, Tell | None], Made]]]:
        """Each step's name and how it is done: `do(fresh, tell)`."""
        train = {of: self.stretches.train(self.settings.lifecycle.train, of_signals=of) for of in (True, False)}
        signal_plan = Plan(
            self.settings.nets, self.settings.signals, self.settings.learn, train[True], self.settings.execution.costs, self.seed
        )
        for name, work in (("regime", train_regime), ("forecaster", train_forecaster), ("genome", train_genome)):
            yield name, self._signal_step(work, signal_plan, name)
        yield "fusion", self._fusion(train[False])
        yield "agent", self._agent(train[False])

    def _signal_step(self, work: Callable[..., Made], plan: Plan, name: str) -> Callable[[bool, Tell | None], Made]:
        def do(fresh: bool, tell: Tell | None) -> Made:
            period = self.stretches.period(of_signals=True)
            return work(plan, self.dataset, period, self.out / name, instruments=self.instruments, fresh=fresh, tell=tell)

        return do

    def _fusion(self, train: TrainConfig) -> Callable[[bool, Tell | None], Made]:
        def do(fresh: bool, tell: Tell | None) -> Made:
            used = self.settings_with("regime", "forecaster", "genome")
            fusion = used.fusion.model_copy(update={"method": "search"})
            plan, period = FusionPlan(used.signals, fusion, train, self.seed), self.stretches.period(of_signals=False)
            return train_fusion(plan, self.dataset, period, self.out / "fusion", instruments=self.instruments, fresh=fresh, tell=tell)

        return do

    def _agent(self, train: TrainConfig) -> Callable[[bool, Tell | None], Made]:
        def do(fresh: bool, tell: Tell | None) -> Made:
            used = self.settings_with("regime", "forecaster", "genome", "fusion")
            agent = used.agent.model_copy(update={"members": MEMBERS})
            plan = AgentPlan(used.signals, used.fusion, agent, train, used.execution, self.seed)
            period = self.stretches.period(of_signals=False)
            return train_agent(plan, self.dataset, period, self.out / "agent", instruments=self.instruments, fresh=fresh, tell=tell)

        return do


def with_models(settings: Settings, folders: Mapping[str, Path]) -> Settings:
    """The settings that ask the models in these folders, by the step that makes such a model; what is not named stays as it is."""
    at = {name: str(folder.resolve()) for name, folder in folders.items()}
    signals, sources = settings.signals, settings.signals.sources
    sections = {section: name for name, section in (("forecaster", "forecast"), ("genome", "genome"), ("regime", "regime")) if name in at}
    update: dict[str, Any] = {
        section: getattr(signals, section).model_copy(update={"model": at[name]}) for section, name in sections.items()
    }
    update["sources"] = (*sources, *(one for one in MODEL_SOURCES if one in sections and one not in sources))
    signals = signals.model_copy(update=update)
    fusion, agent = settings.fusion, settings.agent
    if "fusion" in at:
        learning = fusion.learning.model_copy(update={"model": at["fusion"]})
        fusion = fusion.model_copy(update={"method": "search", "learning": learning})
    if "agent" in at:
        agent = agent.model_copy(update={"members": MEMBERS, "planner": agent.planner.model_copy(update={"model": at["agent"]})})
    return settings.model_copy(update={"signals": signals, "fusion": fusion, "agent": agent})


@dataclass(frozen=True)
class AllTrained:
    """What came of it: each step's model, seconds in all its sessions, and the configuration that uses them."""

    out: Path
    config: Path
    made: Mapping[str, Made]
    times: Mapping[str, Mapping[str, float]]
    stretches: Stretches

    def as_dict(self) -> dict[str, object]:
        steps = {name: {"path": str(one.path), "already": one.already, **self.times[name]} for name, one in self.made.items()}
        return {"out": str(self.out), "config": str(self.config), "stretches": self.stretches.as_dict(), "steps": steps}


def train_all(
    training: Training,
    *,
    fresh: bool = False,
    tell: Tell | None = None,
    done: Callable[[str, Made, Mapping[str, float]], None] | None = None,
) -> AllTrained:
    """Take every step that is not done yet, and write the configuration.

    Args:
        fresh: begin anew and replace what is there.
        tell: told where the step in hand stands.
        done: told of every finished step, with its seconds.

    Raises:
        DataMissingError, ConfigError, ModelError: as the trainings do.
        KeyboardInterrupt: after Ctrl-C; what was reached is kept.
    """
    training.out.mkdir(parents=True, exist_ok=True)
    clock = Times(training.out / "times.json", fresh=fresh)
    made: dict[str, Made] = {}
    for name, do in training.steps():
        with clock.measured(name):
            made[name] = do(fresh, _of_step(name, tell))
        if done is not None:
            done(name, made[name], clock.of(name))
    config = training.out / "cryptoalpha.yaml"
    write_whole(
        config, render(training.settings_with(*STEPS), f"Written by `cryptoalpha train all`: its models are switched on.\n\n{HEADER}")
    )
    return AllTrained(training.out, config, made, {name: clock.of(name) for name in made}, training.stretches)


def _of_step(name: str, tell: Tell | None) -> Tell | None:
    """Who is told names the step as well, from its beginning on: reading and computing signals come before any fold."""
    if tell is None:
        return None
    tell(0, UNITS, f"{name}: preparing")
    return lambda done, total, what: tell(done, total, f"{name}: {what}")


class Times:
    """Wall and CPU seconds of each step, its processes included, in a file; a step that was stopped adds up, seconds of a session that was
    killed (not by Ctrl-C) are lost."""

    def __init__(self, file: Path, *, fresh: bool = False) -> None:
        self._file = file
        self._times: dict[str, dict[str, float]] = {}
        if not fresh and file.is_file():
            try:
                kept = json.loads(file.read_text(encoding="utf-8"))
                self._times = {str(step): {key: float(took[key]) for key in ("wall_seconds", "cpu_seconds")} for step, took in kept.items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                self._times = {}  # a damaged clock must not stop a training: it counts from here

    def of(self, name: str) -> Mapping[str, float]:
        """Seconds of one step."""
        return self._times[name]

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Add what the block takes, however it ends."""
        wall, cpu = time.perf_counter(), _cpu_seconds()
        try:
            yield
        finally:
            before = self._times.get(name, {"wall_seconds": 0.0, "cpu_seconds": 0.0})
            taken = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": _cpu_seconds() - cpu}
            self._times[name] = {key: round(before[key] + taken[key], 3) for key in taken}
            write_whole(self._file, json.dumps(self._times, indent=1) + "\n")


def _cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    return sum(os.times()[:4])
