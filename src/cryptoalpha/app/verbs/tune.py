"""`tune forecaster`: training settings are searched, and the winner's Sharpe ratio is deflated by every look that was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.output import Table
from cryptoalpha.app.verbs.train import Data, Instruments, Interval, Preset, Simulated, Since, Until, chosen_sizes, listed, opened

if TYPE_CHECKING:
    from cryptoalpha.app.tuning import Tuned

Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Trials of the study in all [else lifecycle.tune.trials].")]
Processes = Annotated[int, typer.Option("--processes", min=1, help="Trials judged side by side, one thread each.")]
Seconds = Annotated[float | None, typer.Option("--seconds", min=0.0, help="After which no further trial is begun.")]
Name = Annotated[str, typer.Option("--name", help="Of the study, and of its files in lifecycle/studies.")]
Fresh = Annotated[bool, typer.Option("--fresh/--resume", help="Put an earlier study of this name aside and begin anew, or go on with it.")]
Challenger = Annotated[
    bool, typer.Option("--challenger", help="Train the winner in full and register it, to be judged beside the champion.")
]

OnRay = Annotated[bool, typer.Option("--ray", help="Let Ray Tune run the trials, on the cluster of learn.runtime.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Search training settings; every trial counts as a look at the data.")
    verb(group)(forecaster)
    app.add_typer(group, name="tune")


def forecaster(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    preset: Preset = None,
    trials: Trials = None,
    processes: Processes = 2,
    seconds: Seconds = None,
    name: Name = "forecaster",
    fresh: Fresh = False,
    challenger: Challenger = False,
    ray: OnRay = False,
) -> None:
    """Search the forecaster's settings on purged folds, and say what the winner is worth after counting every trial."""
    from cryptoalpha.app.tuning import enter_challenger, tune_forecaster
    from cryptoalpha.core.time import parse_time

    names = listed(instruments)
    dataset = opened(frame, data, simulated, interval, names)
    settings = frame.settings.model_copy(update={"nets": chosen_sizes(frame.settings.nets, preset)})
    bounds = {"since": parse_time(since) if since else None, "until": parse_time(until) if until else None}
    with frame.out.progress("searching") as bar:
        tuned = tune_forecaster(
            settings, dataset, frame.home, name=name, trials=trials, processes=processes, instruments=names, fresh=fresh, seconds=seconds,
            tell=bar.at, on_ray=ray, **bounds,
        )  # fmt: skip
    document = tuned.as_dict()
    lines = _lines(tuned)
    if challenger and tuned.found.best is not None:
        with frame.out.progress("training the winner") as bar:
            version = enter_challenger(tuned, dataset, frame.home, instruments=names, tell=bar.at)
        document["challenger"] = version.id
        lines.append(f"challenger {version.id[:12]}, to be judged: cryptoalpha models list")
    frame.out.result(document, lines)


def _lines(tuned: Tuned) -> list[str | Table]:
    title, columns, rows = tuned.found.table()
    lines: list[str | Table] = [Table(columns, rows, title), "", *tuned.found.lines()] if rows else list(tuned.found.lines())
    lines.append(f"report {tuned.place.page}; journal {tuned.place.journal} (optuna-dashboard opens it)")
    if tuned.found.best is not None:
        lines.append(f"the winner's settings: cryptoalpha train forecaster --config {tuned.place.settings}")
    return lines
