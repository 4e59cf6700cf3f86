"""The process in which one step of a campaign is done: `python -m cryptoalpha.app.retraining_child FOLDER STEP PARENT`.

Training, search and judgement are here, and nothing else of a campaign: `lifecycle.retrain.child` starts and watches it. All that a step
depends on is in the campaign's plan: settings, data, the moment up to which bars are known, the seed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptoalpha.app.locked_days import before_locked_days
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.sources import open_dataset
from cryptoalpha.app.train_all import STEPS, Training, plan_stretches
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.lifecycle.registry.registry import PLACE, ModelRegistry
from cryptoalpha.lifecycle.retrain.child import serve
from cryptoalpha.lifecycle.retrain.step import Outcome, Work
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole

TUNED = ("nets", "learn")
"""Sections of settings that a search may change, besides `lifecycle.train`."""

Open = Callable[[Settings, Mapping[str, Any]], Dataset]


def planned_settings(work: Work) -> Settings:
    """The settings of a campaign: those of its plan, and what its search found best."""
    settings = Settings.model_validate(work.plan["settings"])
    best = work.results.get("tune", {}).get("best", {})
    update: dict[str, Any] = {name: type(getattr(settings, name)).model_validate(best[name]) for name in TUNED if name in best}
    if "train" in best:
        train = type(settings.lifecycle.train).model_validate(best["train"])
        update["lifecycle"] = settings.lifecycle.model_copy(update={"train": train})
    return settings.model_copy(update=update)


def opened(settings: Settings, plan: Mapping[str, Any]) -> Dataset:
    """What a verb would open, by the words of the plan."""
    data = plan["data"]
    return open_dataset(
        settings, Path(plan["home"]), data=Path(data) if data else None, simulated=plan["simulated"], interval=plan["interval"],
        instruments=plan["instruments"],
    )  # fmt: skip


def data_of(work: Work, open_data: Open = opened) -> Dataset:
    """The data of a campaign: what was known when it began. Bars that came since change nothing in it."""
    dataset = open_data(Settings.model_validate(work.plan["settings"]), work.plan)
    return replace(dataset.known_until(int(work.plan["until"])), fingerprint=str(work.plan["fingerprint"]))


def training_of(work: Work, dataset: Dataset) -> Training:
    """The training of a campaign, in its own folder."""
    settings = planned_settings(work)
    retrain, plan = settings.lifecycle.retrain, work.plan
    stretches = plan_stretches(
        dataset, settings.lifecycle.train, since=None, until=int(plan["until"]), test_since=None, folds=retrain.folds,
        earlier=retrain.earlier,
    )  # fmt: skip
    return Training(settings, int(plan["seed"]), dataset, stretches, work.folder / "models", plan["instruments"])


def train_step(name: str, work: Work, open_data: Open = opened) -> Outcome:
    """Train one of the models; whole afterwards, and gone on with after a kill. The last one writes the settings that use all."""
    from cryptoalpha.app.config_template import HEADER, render

    training = training_of(work, data_of(work, open_data))
    begun = time.perf_counter()
    made = dict(training.steps())[name](False, None)
    if name == STEPS[-1]:
        header = f"Written by campaign {work.campaign} of `cryptoalpha retrain`: its models are switched on.\n\n{HEADER}"
        write_whole(training.out / "cryptoalpha.yaml", render(training.settings_with(*STEPS), header))
    words = "was there already" if made.already else f"trained in {time.perf_counter() - begun:.0f} s"
    return Outcome("done", words, {"path": str(made.path)})


def tune_step(work: Work, open_data: Open = opened) -> Outcome:
    """Search settings of the forecaster within the budget, on days before those that the gates keep locked; refuses where no trial came
    through."""
    from cryptoalpha.app.trials import trial_ledger
    from cryptoalpha.lifecycle.recipes.forecaster import Plan
    from cryptoalpha.lifecycle.tune.forecaster import forecaster_search, winning_plan
    from cryptoalpha.lifecycle.tune.journal import Place
    from cryptoalpha.lifecycle.tune.search import tune

    settings, dataset = Settings.model_validate(work.plan["settings"]), data_of(work, open_data)
    config, seed = settings.lifecycle.tune, int(work.plan["seed"])
    until = before_locked_days(dataset, settings.lifecycle.gates.holdout_days, work.plan["instruments"])
    plan = Plan(settings.nets, settings.signals, settings.learn, settings.lifecycle.train, settings.execution.costs, seed)
    name = f"campaign_{work.campaign:04d}"
    search = forecaster_search(plan, config, dataset, name=name, until=until, instruments=work.plan["instruments"])
    place = Place(Path(work.plan["home"]) / "lifecycle" / "studies", name)
    ledger = trial_ledger(Path(work.plan["home"])).path
    result = tune(
        search, place, ledger, trials=settings.lifecycle.retrain.tune_trials, processes=settings.lifecycle.train.processes, seed=seed
    )
    if result.best is None:
        return Outcome("refused", f"none of {len(result.trials)} trials was judged by all folds")
    found = winning_plan(plan, config, result.params)
    best = {name: getattr(found, name).model_dump(mode="json") for name in (*TUNED, "train")}
    return Outcome("done", f"the best of {len(result.trials)} trials", {"best": best, "params": dict(result.params)})


def gates_step(work: Work, open_data: Open = opened) -> Outcome:
    """Judge the registered version beside the champion; the report lies in the campaign's folder."""
    from cryptoalpha.app.judging_candidates import Ground
    from cryptoalpha.lifecycle.gates.gate import promotion_gate

    settings, home, registered = planned_settings(work), Path(work.plan["home"]), work.results["register"]
    registry = ModelRegistry(home / PLACE, now=time.time_ns)
    candidate = registry.get(str(registered["version"]))
    champion = registry.get(str(registered["champion"])) if registered["champion"] else None

    def counted(data: str, since: int, until: int) -> int:
        return registry.holdout_touches(data, since, until, by=candidate.id)

    ground = Ground(
        settings, data_of(work, open_data), home, candidate, champion, scratch=work.folder / "gates", look_at_holdout=counted,
        instruments=tuple(work.plan["instruments"]) if work.plan["instruments"] else None,
    )  # fmt: skip
    report = promotion_gate(candidate, champion, ground.checks(), settings.lifecycle.gates, now=time.time_ns, seed=int(work.plan["seed"]))
    told = report.as_dict()
    write_whole(work.folder / "gates.json", json.dumps(told, indent=1))
    registry.report(candidate.id, told)
    refused = {"refused_by": list(report.refused_by)}
    return Outcome("done" if report.passed else "refused", report.words(), refused, asks=report.asks_for_search)


def do(name: str, work: Work, open_data: Open = opened) -> Outcome:
    """One step by its name.

    Raises:
        ConfigError: if there is none of that name.
        DataMissingError: if there are no bars.
    """
    if name in STEPS:
        return train_step(name, work, open_data)
    if name == "tune":
        return tune_step(work, open_data)
    if name == "gates":
        return gates_step(work, open_data)
    raise ConfigError(f"{name!r} is no step that a process of its own does", hint="see app/retraining.py")


def main(words: list[str], open_data: Open = opened) -> None:
    """What `lifecycle.retrain.child.ChildStep` starts."""
    plan = json.loads((Path(words[0]) / "work.json").read_text(encoding="utf-8"))["plan"]
    nice = Settings.model_validate(plan["settings"]).lifecycle.retrain.nice
    serve(lambda name, work: do(name, work, open_data), words, nice=nice)


def end_of(dataset: Dataset) -> int:
    """The moment (UTC ns) at which the newest bar is known.

    Raises:
        DataMissingError: if there are no bars.
    """
    ends = [int(table.known_at[-1]) for table in dataset.bars.values() if len(table)]
    if not ends:
        raise DataMissingError("there are no bars to learn from", hint="`cryptoalpha data list` prints what each source covers")
    return max(ends)


if __name__ == "__main__":
    main(sys.argv[1:])
