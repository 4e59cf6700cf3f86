"""`train forecaster|genome|regime|fusion|agent|text|sentiment|all`: models are born here, walking forward, judged beside their baselines,
kept with their lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.output import Table

if TYPE_CHECKING:
    from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan
    from cryptoalpha.lifecycle.recipes.trained import Trained
    from cryptoalpha.lifecycle.recipes.workshop import Tell
    from cryptoalpha.nets.config import NetsConfig
    from cryptoalpha.store.tables import Dataset

Data = Annotated[Path | None, typer.Option("--data", help="Directory of history [else what the store holds].")]
Since = Annotated[str | None, typer.Option("--since", help="First bar that may be learned from, YYYY-MM-DD [else the first there is].")]
Until = Annotated[str | None, typer.Option("--until", help="End of the bars, exclusive [else the last there is].")]
TestSince = Annotated[str | None, typer.Option("--test-since", help="First day to be judged [else so that the newest folds fit].")]
Folds = Annotated[int, typer.Option("--folds", min=1, help="Folds at most, the newest ones, without --test-since.")]
Interval = Annotated[str, typer.Option("--interval", help="Bar length, such as 1h.")]
Instruments = Annotated[str | None, typer.Option("--instruments", help="Comma-separated, such as BTC/USDT,ETH/USDT [else all].")]
Simulated = Annotated[bool, typer.Option("--simulated", help="Use the simulated market instead of data.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Size of the network: small, base, seed or custom [else nets.preset].")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the model [else models/NAME in the store].")]
Fresh = Annotated[
    bool, typer.Option("--fresh/--resume", help="Begin anew and replace what is there, or go on with an interrupted training.")
]

League = Annotated[bool, typer.Option("--league", help="Agents that move the price, against each other and their past selves.")]
Teaching = Annotated[
    Path | None,
    typer.Option("--labelled", help="Labelled texts, a folder or one file, that teach the sentiment head [else it is unavailable]."),
]
Labelled = Annotated[Path, typer.Option("--data", help="Folder of labelled texts (columns text and label), or one file.")]
Encoder = Annotated[str | None, typer.Option("--encoder", help="lexicon, minilm, hf:… [else signals.text.encoder].")]
HeadOut = Annotated[Path | None, typer.Option("--out", help="File of the head [else models/sentiment.safetensors in the store].")]


class Told(Protocol):
    """What came of a training."""

    @property
    def path(self) -> Path: ...
    @property
    def already(self) -> bool: ...
    @property
    def lineage(self) -> Mapping[str, Any]: ...
    def tables(self) -> Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]: ...
    def lines(self) -> Sequence[str]: ...


Settled_contra = TypeVar("Settled_contra", contravariant=True)
Found_co = TypeVar("Found_co", covariant=True)


class Recipe(Protocol[Settled_contra, Found_co]):
    """A training that walks forward."""

    def __call__(
        self,
        plan: Settled_contra,
        dataset: Dataset,
        period: Period,
        out: Path,
        *,
        instruments: Sequence[str] | None,
        fresh: bool,
        tell: Tell | None,
    ) -> Found_co: ...


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Train models, walking forward, and judge them beside their baselines.")
    verb(group)(forecaster)
    verb(group)(genome)
    verb(group)(regime)
    verb(group)(fusion)
    verb(group)(agent)
    verb(group)(text)
    verb(group, "all")(everything)
    verb(group)(sentiment)
    app.add_typer(group, name="train")


def forecaster(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    test_since: TestSince = None,
    folds: Folds = 4,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    preset: Preset = None,
    out: Out = None,
    labelled: Teaching = None,
    fresh: Fresh = False,
) -> None:
    """Train the cross-asset forecaster and say what it is worth beside no change, EWMA, ridge and LightGBM."""
    from cryptoalpha.lifecycle.recipes.forecaster import train_forecaster

    asked = Asked(data, since, until, test_since, folds, interval, instruments, simulated, out, fresh)
    show(frame, walked(frame, "forecaster", partial(train_forecaster, labelled=labelled), planned(frame, preset), asked))


def genome(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    test_since: TestSince = None,
    folds: Folds = 4,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    preset: Preset = None,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Train the market genome and say what its levels, tokens and calls are worth beside what is usual."""
    from cryptoalpha.lifecycle.recipes.genome import train_genome

    asked = Asked(data, since, until, test_since, folds, interval, instruments, simulated, out, fresh)
    show(frame, walked(frame, "genome", train_genome, planned(frame, preset), asked))


def regime(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    test_since: TestSince = None,
    folds: Folds = 4,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Train the regime filter: beliefs over trend and volatility, beside what is usual."""
    from cryptoalpha.lifecycle.recipes.regime import train_regime

    asked = Asked(data, since, until, test_since, folds, interval, instruments, simulated, out, fresh)
    told(frame, walked(frame, "regime", train_regime, planned(frame, None), asked))


def fusion(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    test_since: TestSince = None,
    folds: Folds = 4,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Train the searched fusion's network and settings on the signals of the configured sources."""
    from cryptoalpha.lifecycle.recipes.fusion import FusionPlan, train_fusion

    settings = frame.settings
    asked = Asked(data, since, until, test_since, folds, interval, instruments, simulated, out, fresh)
    plan = FusionPlan(settings.signals, settings.fusion, settings.lifecycle.train, frame.seed)
    told(frame, walked(frame, "fusion", train_fusion, plan, asked))


def agent(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    test_since: TestSince = None,
    folds: Folds = 4,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    out: Out = None,
    fresh: Fresh = False,
    league: League = False,
) -> None:
    """Train the agents that plan trades; with --league, agents that move the price of a simulated market and play past selves."""
    settings = frame.settings
    if league:
        from cryptoalpha.lifecycle.recipes.league import train_league

        with frame.out.progress("training") as bar:
            played = train_league(settings.agent.league, out or models(frame) / "league", seed=frame.seed, fresh=fresh, tell=bar.at)
        told(frame, played)
        return
    from cryptoalpha.lifecycle.recipes.agent import AgentPlan, train_agent

    asked = Asked(data, since, until, test_since, folds, interval, instruments, simulated, out, fresh)
    plan = AgentPlan(settings.signals, settings.fusion, settings.agent, settings.lifecycle.train, settings.execution, frame.seed)
    told(frame, walked(frame, "agent", train_agent, plan, asked))


def text(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    test_since: TestSince = None,
    folds: Folds = 4,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Train the networks that weigh the signals of texts and propose actions, and judge them beside no learning."""
    from cryptoalpha.lifecycle.recipes.text_agent import train_text_agent

    asked = Asked(data, since, until, test_since, folds, interval, instruments, simulated, out, fresh)
    told(frame, walked(frame, "text", train_text_agent, planned(frame, None), asked))


def everything(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    test_since: TestSince = None,
    folds: Annotated[int, typer.Option("--folds", min=1, help="Judged folds.")] = 3,
    earlier: Annotated[int, typer.Option("--earlier", min=0, help="Folds before them, from which fusion and agents learn.")] = 2,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    preset: Preset = None,
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Train regime, forecaster, genome, fusion and agent in this order, and write the configuration that uses them."""
    from cryptoalpha.app.train_all import Training, plan_stretches, train_all

    names = listed(instruments)
    dataset = opened(frame, data, simulated, interval, names)
    settings = frame.settings.model_copy(update={"nets": chosen_sizes(frame.settings.nets, preset)})
    asked = judged_period(since, until, test_since, folds)
    stretches = plan_stretches(
        dataset, settings.lifecycle.train, since=asked.since, until=asked.until, test_since=asked.test_since, folds=folds, earlier=earlier
    )
    if stretches.earlier < earlier:
        frame.out.warn(
            f"the history leaves room for {stretches.earlier} of {earlier} earlier folds: fusion and agents learn from fewer opinions"
        )
    training = Training(settings, frame.seed, dataset, stretches, out or models(frame), names)
    with frame.out.progress("training") as bar:
        trained = train_all(
            training,
            fresh=fresh,
            tell=bar.at,
            done=lambda name, one, took: frame.out.note(
                f"{name}: {'was there already' if one.already else 'trained'}, "
                f"{took['wall_seconds']:.0f} s, {took['cpu_seconds']:.0f} s of CPU in all"
            ),
        )
    rows = [(name, str(one.path), f"{trained.times[name]['wall_seconds']:.0f}", f"{trained.times[name]['cpu_seconds']:.0f}")
            for name, one in trained.made.items()]  # fmt: skip
    table = Table(("step", "model", "seconds", "CPU seconds"), rows, "trained")
    frame.out.result(trained.as_dict(), [table, f"all switched on: cryptoalpha backtest --config {trained.config}"])


def sentiment(frame: Frame, data: Labelled, encoder: Encoder = None, out: HeadOut = None) -> None:
    """Train a head that reads the sentiment of texts, and judge it beside VADER and the word list."""
    from cryptoalpha.lifecycle.recipes.sentiment import train_sentiment
    from cryptoalpha.store.home import Home

    config = frame.settings.signals.text
    if encoder is not None:
        config = config.model_copy(update={"encoder": encoder})
    place = out or models(frame) / "sentiment.safetensors"
    with frame.out.progress("training") as bar:
        trained = train_sentiment(data, config, place, seed=frame.seed, home=Home(frame.home), tell=bar.at)
    frame.out.result(trained.as_dict(), trained.lines())


@dataclass(frozen=True)
class Asked:
    """What every training that walks forward is asked for, as it stands on the command line."""

    data: Path | None
    since: str | None
    until: str | None
    test_since: str | None
    folds: int
    interval: str
    instruments: str | None
    simulated: bool
    out: Path | None
    fresh: bool


def walked(frame: Frame, name: str, train: Recipe[Settled_contra, Found_co], plan: Settled_contra, asked: Asked) -> Found_co:
    """Open the history, and train over it with a bar that says where training stands."""
    names = listed(asked.instruments)
    dataset = opened(frame, asked.data, asked.simulated, asked.interval, names)
    period, place = judged_period(asked.since, asked.until, asked.test_since, asked.folds), asked.out or models(frame) / name
    with frame.out.progress("training") as bar:
        return train(plan, dataset, period, place, instruments=names, fresh=asked.fresh, tell=bar.at)


def models(frame: Frame) -> Path:
    """Where models lie unless another place is named."""
    return frame.home / "models"


def planned(frame: Frame, preset: str | None) -> Plan:
    """The settings of a training."""
    from cryptoalpha.lifecycle.recipes.forecaster import Plan

    settings = frame.settings
    return Plan(
        chosen_sizes(settings.nets, preset),
        settings.signals,
        settings.learn,
        settings.lifecycle.train,
        settings.execution.costs,
        frame.seed,
    )


def judged_period(since: str | None, until: str | None, test_since: str | None, folds: int) -> Period:
    """Which bars are used and which are judged; a first day to be judged decides how many folds there are."""
    from cryptoalpha.core.time import parse_time
    from cryptoalpha.lifecycle.recipes.forecaster import Period

    def moment(text: str | None) -> int | None:
        return parse_time(text) if text else None

    return Period(moment(since), moment(until), moment(test_since), folds=None if test_since else folds)


def chosen_sizes(nets: NetsConfig, preset: str | None) -> NetsConfig:
    """The settings of the networks with the preset named on the command line.

    Raises:
        ConfigError: if there is no such preset.
    """
    from typing import get_args

    from cryptoalpha.core.errors import ConfigError
    from cryptoalpha.nets.config import PresetName

    if preset is None:
        return nets
    if preset not in get_args(PresetName):
        raise ConfigError(f"there is no preset {preset!r}", hint=f"there are: {', '.join(get_args(PresetName))}")
    return nets.model_copy(update={"preset": preset})


def listed(instruments: str | None) -> list[str] | None:
    """The instruments named on the command line."""
    return [name.strip() for name in instruments.split(",") if name.strip()] if instruments else None


def opened(frame: Frame, data: Path | None, simulated: bool, interval: str, instruments: list[str] | None) -> Dataset:
    """The data to learn from; what the bar gate and the sources did is said."""
    from cryptoalpha.app.sources import open_dataset

    dataset = open_dataset(frame.settings, frame.home, data=data, simulated=simulated, interval=interval, instruments=instruments)
    for found in dataset.notes:
        frame.out.note(found)
    return dataset


def told(frame: Frame, trained: Told) -> None:
    """Print what a training found: its tables, its words, and where the model lies."""
    if trained.already:
        frame.out.note(f"{trained.path} holds this very model; --fresh trains it anew")
    tables: list[str | Table] = []
    for title, columns, rows in trained.tables():
        tables += [Table(columns, rows, title), ""]
    document = {"path": str(trained.path), "already": trained.already, **trained.lineage}
    frame.out.result(document, [*tables, *trained.lines(), f"model {trained.path}"])


def show(frame: Frame, trained: Trained) -> None:
    """Print what a training found: tables with intervals, how training went, the verdict, and where the model lies."""
    if trained.already:
        frame.out.note(f"{trained.path} holds this very model; --fresh trains it anew")
    if trained.lineage["verdict"]["audit_first"]:
        frame.out.warn(trained.lineage["verdict"]["audit_first"])
    tables: list[str | Table] = []
    for title, columns, rows in trained.tables():
        tables += [Table(columns, rows, title), ""]
    lines = [*trained.training_lines(), *trained.verdict_lines()]
    lines.append(f"model {trained.path}, report {trained.path / 'report.html'}")
    document = {"path": str(trained.path), "already": trained.already, **trained.lineage}
    frame.out.result(document, [*tables, *lines])
