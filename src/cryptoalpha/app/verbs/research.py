"""`backtest`, `audit`, `report`, `explain`, `bench`: what history says, whether it may be believed, and why a trade was made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryptoalpha.app.frame import Frame, verb

if TYPE_CHECKING:
    from cryptoalpha.app.audit import AuditReport
    from cryptoalpha.app.period import Period
    from cryptoalpha.store.tables import Dataset

Data = Annotated[Path | None, typer.Option("--data", help="Directory of history [else what the store holds].")]
Since = Annotated[str | None, typer.Option("--since", help="First bar, YYYY-MM-DD [else the first there is].")]
Until = Annotated[str | None, typer.Option("--until", help="End of the period, exclusive [else the last there is].")]
Interval = Annotated[str, typer.Option("--interval", help="Bar length, such as 1h.")]
Instruments = Annotated[str | None, typer.Option("--instruments", help="Comma-separated, such as BTC/USDT,ETH/USDT [else all].")]
Simulated = Annotated[bool, typer.Option("--simulated", help="Use the simulated market instead of data.")]
Run = Annotated[str | None, typer.Option("--run", help="Name of the run [else the newest].")]


def register(app: typer.Typer) -> None:
    for body in (backtest, audit, report, explain, bench):
        verb(app)(body)


def chosen(instruments: str | None) -> list[str] | None:
    """The instruments named on the command line."""
    return [name.strip() for name in instruments.split(",") if name.strip()] if instruments else None


def backtest(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    trials: Annotated[int, typer.Option("--trials", min=0, help="Variants tried elsewhere on these data; they deflate the result.")] = 0,
    run: Annotated[str | None, typer.Option("--run", help="Name to keep the run under [else made from its identity].")] = None,
    check: Annotated[bool, typer.Option("--audit", help="Also audit for look-ahead and put the result into the report.")] = False,
    ablation: Annotated[
        bool | None,
        typer.Option("--ablation/--no-ablation", help="Tell what each stage of deciding added [else where anything learned decides]."),
    ] = None,
) -> None:
    """Replay history through the very engine that trades live, then report what it would have earned."""
    import sys

    from cryptoalpha.app.champion import with_champion
    from cryptoalpha.app.deciders import unused_models
    from cryptoalpha.app.kept_runs import run_and_keep
    from cryptoalpha.app.period import period_of
    from cryptoalpha.app.sources import open_dataset
    from cryptoalpha.app.summary import as_dict, tables

    names = chosen(instruments)
    frame.settings = with_champion(frame.settings, frame.home, say=frame.out.note)
    dataset = open_dataset(frame.settings, frame.home, data=data, simulated=simulated, interval=interval, instruments=names)
    for found in (*unused_models(frame.settings), *dataset.notes):  # what the bar gate and the sources did; never silently
        frame.out.note(found)
    period = period_of(dataset, since, until)
    audited = _audit(frame, dataset, period, names, cuts=4, bars=1500) if check else None
    with frame.out.progress("replaying", period.bars(dataset)) as advance:
        kept = run_and_keep(
            frame.settings, dataset, period, frame.home, instruments=names, name=run, elsewhere=trials,
            command=" ".join(["cryptoalpha", *sys.argv[1:]]), audited=audited, advance=advance, ablation=ablation,
        )  # fmt: skip
    frame.out.result(as_dict(kept.result), [*tables(kept.result), f"report {kept.place / 'report.html'}"])


def audit(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    cuts: Annotated[int | None, typer.Option("--cuts", min=1, max=64, help="Moments to cut at [else 8].")] = None,
    bars: Annotated[int, typer.Option("--bars", min=16, help="Length of the audited window, ending where the period ends.")] = 1500,
    training: Annotated[
        bool, typer.Option("--training", help="Audit how models are trained instead: small ones, at two moments unless --cuts is given.")
    ] = False,
    recipes: Annotated[str | None, typer.Option("--recipes", help="With --training: comma-separated kinds of models [else all].")] = None,
) -> None:
    """Remove the future, then poison it: nothing before may change by a bit. Exit code 6 on a leak."""
    from cryptoalpha.app.period import period_of
    from cryptoalpha.app.sources import open_dataset

    names = chosen(instruments)
    dataset = open_dataset(frame.settings, frame.home, data=data, simulated=simulated, interval=interval, instruments=names)
    period = period_of(dataset, since, until)
    if training:
        found = _audit_training(frame, dataset.known_until(period.until), recipes, cuts=cuts or 2)
        head = f"{dataset.origin}: small models trained for {len(found.cuts)} moments, with the future, without it, and with it poisoned"
    else:
        found = _audit(frame, dataset, period, names, cuts=cuts or 8, bars=bars)
        head = f"{dataset.origin}: {found.rows:,} bars, cut at {len(found.cuts)} moments, the future removed and poisoned at each"
    _show_audit(frame, found, head)


def _show_audit(frame: Frame, found: AuditReport, head: str) -> None:
    """Print what an audit found; a leak ends the verb with its own exit code."""
    from cryptoalpha.app.output import Table
    from cryptoalpha.core.errors import LookAheadError

    table = Table(("what", "values compared"), [(family, f"{count:,}") for family, count in found.compared.items()])
    frame.out.result(found.as_dict(), [head, table, *(f"LEAK {leak}" for leak in found.leaks), *(["no leak"] if found.is_clean else [])])
    if not found.is_clean:
        raise LookAheadError(f"{len(found.leaks)} leaks, the first: {found.leaks[0]}", hint="each line names what changed and when")


def _audit_training(frame: Frame, dataset: Dataset, recipes: str | None, *, cuts: int) -> AuditReport:
    """Train small models with and without the future."""
    from tempfile import TemporaryDirectory

    from cryptoalpha.app.train_all import STEPS
    from cryptoalpha.app.training_audit import audit_training, cut_moments
    from cryptoalpha.app.training_recipes import LEARN_DAYS, chosen_recipes

    made = chosen_recipes(frame.settings, STEPS if recipes is None else tuple(chosen(recipes) or ()))
    moments = cut_moments(dataset, cuts, learn_days=LEARN_DAYS)
    with TemporaryDirectory(prefix="cryptoalpha-audit-") as scratch, frame.out.progress("training", 3 * cuts * len(made)) as advance:
        return audit_training(dataset, made, moments, Path(scratch), seed=frame.seed, advance=advance)


def _audit(frame: Frame, dataset: Dataset, period: Period, instruments: list[str] | None, *, cuts: int, bars: int) -> AuditReport:
    """Audit the last `bars` bars of the period."""
    from cryptoalpha.app.audit import audit as look_for_leaks
    from cryptoalpha.app.audit import default_path

    window = period.last_bars(dataset, bars)
    with frame.out.progress("auditing", 2 * cuts + 1) as advance:
        return look_for_leaks(dataset, default_path(frame.settings, window, instruments), cuts=cuts, seed=frame.seed, advance=advance)


def report(
    frame: Frame,
    runs: Annotated[list[str] | None, typer.Argument(help="Runs to show; several are compared [else the newest backtest].")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the HTML file.")] = None,
) -> None:
    """Write one self-contained HTML file: equity against baselines, drawdown, months, weights, trades, costs, leak checks."""
    from cryptoalpha.app.kept_runs import stored_content
    from cryptoalpha.app.report.build import build_report
    from cryptoalpha.app.runs import REPORT, find_run
    from cryptoalpha.store.whole_file import write_whole

    contents = [stored_content(frame.home, run) for run in (runs or (None,))]
    if output is None:
        one = find_run(frame.home, runs[0] if runs else contents[0].card.run_id) / REPORT
        output = one if len(contents) == 1 else Path("comparison.html")
    page = build_report(contents[0] if len(contents) == 1 else contents)
    write_whole(output, page)
    shown = [content.card.run_id for content in contents]
    frame.out.result({"path": str(output), "runs": shown, "bytes": len(page.encode())}, f"wrote {output}: {', '.join(shown)}")


def explain(
    frame: Frame,
    name: Annotated[
        str, typer.Argument(metavar="FILL_ID|ORDER_ID|EVENT_ID", help="A trade id, a client order id, or an event id such as 1842.7.")
    ],
    run: Run = None,
) -> None:
    """Print why a trade was made, or refused: fill → order → what each limit allowed → decision → fused signal → signals → bars; of a
    real order also its life at the venue."""
    from cryptoalpha.app.explain import explain as explain_trade
    from cryptoalpha.app.live.order_story import order_story
    from cryptoalpha.app.runs import JOURNAL, find_run
    from cryptoalpha.store.journal_reader import JournalReader

    place = find_run(frame.home, run)
    with JournalReader(place / JOURNAL) as journal:
        found = explain_trade(journal, name)
    story = order_story(place / JOURNAL, [link.value for link in found.links])
    life = {} if story is None else {"venue": story.as_dict()}
    frame.out.result(
        {"run": place.name, **found.as_dict(), **life}, [f"run {place.name}", *found.lines(), *(story.lines() if story else [])]
    )


def bench(
    frame: Frame,
    name: Annotated[
        str,
        typer.Argument(help="Engine, planner, evolution, networks, risk, skill, drift, execution, decisions, streams, rollout, serving."),
    ] = "engine",
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=50, help="Timed repeats (the median counts); skill, drift: seeds.")] = 5,
    keep: Annotated[Path | None, typer.Option("--keep", help="Folder in which to keep the result and write RESULTS.md.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take the result in the folder of --keep if it is of this commit.")] = False,
) -> None:
    """Measure speed as ratios against named baselines, in one run."""
    from cryptoalpha.app.bench.results import kept_result
    from cryptoalpha.app.bench.run import run_bench
    from cryptoalpha.app.summary import code_version
    from cryptoalpha.core.errors import ConfigError

    if resume and keep is None:
        raise ConfigError("--resume looks in the folder of --keep, and there is none", hint="name it: --keep benchmarks --resume")
    kept = kept_result(keep, name, code_version()) if resume and keep is not None else None
    if kept is not None:
        frame.out.bare(kept, [f"bench {name}: {keep} holds the result of this commit; measure again without --resume"])
        return
    with frame.out.progress(f"bench {name}") as advance:
        found = run_bench(name, repeats=repeats, advance=advance)
    if keep is not None:
        from datetime import UTC, datetime

        from cryptoalpha.app.bench.results import keep_result

        frame.out.note(f"wrote {keep_result(keep, found, on=datetime.now(UTC).date())}")
    frame.out.bare(found.as_dict(), found.lines())
