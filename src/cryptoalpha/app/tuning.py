"""Searches of settings, with the house's data, ledger and registry: what `tune` does, and a failed gate may ask for.

HOME/lifecycle/studies/forecaster.journal   every trial; a search that was killed goes on from it
HOME/lifecycle/studies/forecaster.html      what came of it
HOME/lifecycle/studies/forecaster.yaml      the configuration with the winner's settings
HOME/lifecycle/studies/forecaster.model     the winner trained in full, where it is to enter as a challenger
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptoalpha.app.config_template import HEADER, render
from cryptoalpha.app.locked_days import before_locked_days
from cryptoalpha.app.runs import digest_of
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.trials import trial_ledger
from cryptoalpha.core.clock import SystemClock
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan, train_forecaster
from cryptoalpha.lifecycle.recipes.workshop import Tell
from cryptoalpha.lifecycle.tune.forecaster import forecaster_search, winning_plan
from cryptoalpha.lifecycle.tune.journal import Place
from cryptoalpha.lifecycle.tune.page import page
from cryptoalpha.lifecycle.tune.result import StudyResult
from cryptoalpha.lifecycle.tune.search import tune
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole

if TYPE_CHECKING:
    from cryptoalpha.lifecycle.registry.version import Version

FORECASTER = "forecaster"


@dataclass(frozen=True, eq=False)
class Tuned:
    """What came of a search: the study, where it lies, and the settings with its winner's in them (those given where none won)."""

    found: StudyResult
    place: Place
    settings: Settings

    def as_dict(self) -> dict[str, Any]:
        files = {"page": str(self.place.page), "config": str(self.place.settings) if self.found.best else None}
        return {**self.found.as_dict(), **files}


def studies(home: Path) -> Path:
    """Where studies lie."""
    return home / "lifecycle" / "studies"


def tune_forecaster(
    settings: Settings,
    dataset: Dataset,
    home: Path,
    *,
    name: str = FORECASTER,
    trials: int | None = None,
    processes: int = 2,
    since: int | None = None,
    until: int | None = None,
    instruments: Sequence[str] | None = None,
    fresh: bool = False,
    seconds: float | None = None,
    on_ray: bool = False,
    tell: Tell | None = None,
) -> Tuned:
    """Search the forecaster's settings, and leave the report and the winner's configuration beside the journal.

    Args:
        name: of the study; one that was interrupted goes on.
        trials: in all [`lifecycle.tune.trials`].
        since, until: bars that may be used, UTC ns. Without `until` those before the days that the gates keep locked.
        seconds: budget after which no trial is begun.
        on_ray: let Ray Tune run the trials on the cluster of `learn.runtime`.

    Raises:
        As `lifecycle.tune.search.tune` and `forecaster_search` do.
    """
    if until is None:
        until = before_locked_days(dataset, settings.lifecycle.gates.holdout_days, instruments)
    config, plan, place = settings.lifecycle.tune, plan_of(settings), Place(studies(home), name)
    search = forecaster_search(plan, config, dataset, name=name, since=since, until=until, instruments=instruments)
    found = tune(
        search, place, trial_ledger(home).path, trials=trials or config.trials, processes=processes, seed=settings.engine.seed, fresh=fresh,
        seconds=seconds, retries=config.retries, restarts=config.restarts, tell=tell,
        ray=settings.learn.runtime if on_ray else None,
    )  # fmt: skip
    won = with_winner(settings, found.params) if found.best is not None else settings
    write_whole(place.page, page(found))
    if found.best is not None:
        said = " ".join(found.lines())
        write_whole(place.settings, render(won, f"Written by `cryptoalpha tune {name}`: trial {found.best.number}. {said}\n\n{HEADER}"))
    return Tuned(found, place, won)


def enter_challenger(
    tuned: Tuned, dataset: Dataset, home: Path, *, period: Period | None = None, instruments: Sequence[str] | None = None,
    tell: Tell | None = None,
) -> Version:  # fmt: skip
    """Train the winner in full and register it as a version that follows the champion; gates judge it like any other.

    Raises:
        ConfigError: if the search has no winner.
        As `train_forecaster` and the registry do.
    """
    from cryptoalpha.app.champion import code_commit
    from cryptoalpha.lifecycle.registry.registry import ModelRegistry

    if tuned.found.best is None:
        raise ConfigError(f"the search of {tuned.found.name} has no winner to train", hint="give it more --trials")
    settings = tuned.settings
    config = settings.model_dump(mode="json", exclude={"credentials"})
    out = tuned.place.folder / f"{tuned.place.name}-{digest_of({'data': dataset.fingerprint, 'config': config})[:8]}"
    plan = plan_of(settings)
    trained = train_forecaster(plan, dataset, period or Period(), out, instruments=instruments, tell=tell)
    registry = ModelRegistry(home / "models" / "registry", now=SystemClock().now)
    metrics = {"tune_value": float(tuned.found.best.value or 0.0), **_figures(trained.lineage)}
    if tuned.found.deflated is not None and isfinite(tuned.found.deflated.probability):
        metrics["tune_deflated_sharpe"] = tuned.found.deflated.probability
    return registry.register(
        out, line=FORECASTER, data=dataset.fingerprint, commit=code_commit(), config=config, seed=plan.seed, metrics=metrics,
        parent=registry.champion_id(FORECASTER),
    )  # fmt: skip


def plan_of(settings: Settings) -> Plan:
    """The settings of a training."""
    return Plan(
        settings.nets, settings.signals, settings.learn, settings.lifecycle.train, settings.execution.costs, settings.engine.seed
    )  # fmt: skip


def with_winner(settings: Settings, params: Mapping[str, float | int]) -> Settings:
    """The settings with a point's in place of their own."""
    plan = winning_plan(plan_of(settings), settings.lifecycle.tune, params)
    lifecycle = settings.lifecycle.model_copy(update={"train": plan.train})
    return settings.model_copy(update={"nets": plan.nets, "learn": plan.learn, "lifecycle": lifecycle})


def _figures(lineage: Mapping[str, Any]) -> dict[str, float]:
    """Rank correlation at the longest horizon and net Sharpe ratio of a trained forecaster, as far as they are numbers."""
    content = json.loads(json.dumps(lineage))
    model = content["model"]
    found = {"net_sharpe": content["net_sharpe"][model][0]}
    if "rank_ic" in (scores := content["horizons"][-1]["scores"][model]):
        found["rank_ic"] = scores["rank_ic"][0]
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float) and isfinite(value)}
