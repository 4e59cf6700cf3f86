"""`data list|import|verify|fetch|replay`: what history there is, adding to it, and proving that it is what was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.output import Table

if TYPE_CHECKING:
    from cryptoalpha.signals.features import LiveCount
    from cryptoalpha.store.tables import Dataset

Interval = Annotated[str, typer.Option("--interval", help="Bar length, such as 1h.")]
Since = Annotated[str | None, typer.Option("--since", help="First day, YYYY-MM-DD.")]
Until = Annotated[str | None, typer.Option("--until", help="Day after the last, YYYY-MM-DD.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="See, add and verify history.")
    verb(group, "list")(list_)
    verb(group, "import")(import_)
    verb(group)(fetch)
    verb(group)(verify)
    verb(group)(replay)
    app.add_typer(group, name="data")


def list_(
    frame: Frame,
    data: Annotated[Path | None, typer.Option("--data", help="Look at this directory instead of the store.")] = None,
    interval: Interval = "1h",
    features: Annotated[bool, typer.Option(help="Count the features that live.")] = True,
) -> None:
    """Print what history there is, and how many of the 50 price and 30 on-chain features live per asset and year."""
    from cryptoalpha.app.inventory import coverage_lines, coverage_row, live_features, stored_features
    from cryptoalpha.store.history import History
    from cryptoalpha.store.home import Home

    if data is not None:
        dataset = _directory(frame, data, interval, None, None)
        counts = {dataset.origin: live_features(dataset)} if features else {}
        tables = [_bars_table(dataset), *_feature_tables(counts)]
        frame.out.result({"origin": dataset.origin, "notes": list(dataset.notes), "features": _feature_rows(counts)}, _spaced(tables))
        return
    if not Home(frame.home).manifest.exists():
        empty = f"the store {frame.home} is empty; fill it with `cryptoalpha data fetch` or `cryptoalpha data import DIR`"
        frame.out.result({"home": str(frame.home), "series": [], "features": []}, empty)
        return
    with History(Home(frame.home)) as history:
        coverage = history.coverage()
        counts, problems = stored_features(history, coverage) if features else ({}, [])
    for problem in problems:
        frame.out.warn(problem)
    rows = [coverage_row(found) for found in coverage]
    held = Table(("kind", "source", "subject", "what", "first", "last", "rows"), coverage_lines(rows), str(frame.home))
    result = {"home": str(frame.home), "series": rows, "features": _feature_rows(counts)}
    frame.out.result(result, _spaced([held, *_feature_tables(counts)]))


def import_(
    frame: Frame,
    directory: Annotated[Path, typer.Argument(help="Directory of CSV or Parquet history; docs/data.md shows the layout.")],
    interval: Interval = "1h",
    since: Since = None,
    until: Until = None,
    venue: Annotated[str | None, typer.Option("--venue", help="Name to keep the bars under.")] = None,
) -> None:
    """Add a directory of history to the store; what is there already stays, contradictions are told and not stored."""
    from cryptoalpha.app.inventory import import_dataset, series_count

    dataset = _directory(frame, directory, interval, since, until)
    with frame.out.progress("importing", total=series_count(dataset)) as advance:
        done = import_dataset(frame.home, dataset, venue=venue, advance=advance)
    for conflict in done.conflicts[:10]:
        frame.out.warn(f"not stored: {conflict}")
    lines = [*dataset.notes, f"{done.series} series: {done.added:,} rows added, {done.already_there:,} were there already"]
    if done.conflicts:
        lines.append(f"{len(done.conflicts):,} rows contradict stored ones and were not stored")
    result = {"home": str(frame.home), "origin": dataset.origin, "notes": list(dataset.notes), "series": done.series, "added": done.added}
    frame.out.result({**result, "already_there": done.already_there, "conflicts": list(done.conflicts)}, lines)


def fetch(
    frame: Frame,
    instruments: Annotated[
        list[str] | None,
        typer.Option(
            "--instruments", "-i", help="Comma-separated or repeated, such as BTC/USDT [else those stored, else eight large ones]."
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    interval: Interval = "1h",
    venue: Annotated[
        list[str] | None, typer.Option("--venue", help="ccxt ids, comma-separated or repeated [else data.exchange.venues].")
    ] = None,
    funding: Annotated[bool, typer.Option(help="Fetch funding rates too.")] = True,
) -> None:
    """Download public candles and funding into the store; goes on where it stopped, needs no key."""
    from cryptoalpha.app.fetching import Wanted, fetch_history
    from cryptoalpha.core.time import parse_time

    wanted = Wanted(
        instruments=_listed(instruments),
        since=parse_time(since) if since else None,
        until=parse_time(until) if until else None,
        interval=interval,
        venues=_listed(venue),
        funding=funding,
    )
    with frame.out.progress("fetching") as bar:
        done = fetch_history(frame.home, frame.settings, wanted, note=frame.out.note, tell=bar.at)
    for problem in done.problems:
        frame.out.warn(problem)
    frame.out.result({"home": str(frame.home), **done.as_dict()}, done.lines())


def verify(frame: Frame) -> None:
    """Hash every stored file again and compare with what was written; exit code 3 if one differs."""
    from cryptoalpha.core.errors import DataMissingError, StoreError
    from cryptoalpha.store.history import History
    from cryptoalpha.store.home import Home

    if not Home(frame.home).manifest.exists():
        raise DataMissingError(
            f"the store {frame.home} is empty", hint="`cryptoalpha data fetch` or `cryptoalpha data import DIR` fills it"
        )
    with History(Home(frame.home)) as history:
        files = sum(found.partitions for found in history.coverage())
        faults = history.verify()
    lines = [f"{fault.path}: {fault.problem}; {fault.advice}" for fault in faults]
    frame.out.result({"files": files, "faults": faults}, lines or [f"{files} files, all as they were written"])
    if faults:
        raise StoreError(f"{len(faults)} of {files} files are not what the manifest says", hint="the list above says what to do about each")


def _listed(given: list[str] | None) -> tuple[str, ...]:
    """Names given in several options, or in one with commas."""
    return tuple(name.strip() for text in given or () for name in text.split(",") if name.strip())


def _directory(frame: Frame, path: Path, interval: str, since: str | None, until: str | None) -> Dataset:
    """A directory of history through the bar gate, as of now."""
    from cryptoalpha.core.clock import SystemClock
    from cryptoalpha.core.time import parse_interval, parse_time
    from cryptoalpha.data.files import load_directory
    from cryptoalpha.store.bar_gate import BarGate

    parse_interval(interval)  # a length that is none is a fault of usage, whatever the directory holds
    return load_directory(
        path,
        gate=BarGate(frame.settings.store.bar_gate),
        now=SystemClock().now(),
        interval=interval,
        since=parse_time(since) if since else None,
        until=parse_time(until) if until else None,
        config=frame.settings.data.files,
    )


def _bars_table(dataset: Dataset) -> Table:
    from cryptoalpha.core.time import day_of, interval_name

    rows = [
        (name, interval_name(bars.interval), day_of(int(bars.open_time[0])), day_of(int(bars.open_time[-1])), f"{len(bars):,}")
        for name, bars in dataset.bars.items()
    ]
    return Table(("instrument", "bars", "first", "last", "rows"), rows, dataset.origin)


def _feature_rows(counts: dict[str, tuple[LiveCount, ...]]) -> list[dict[str, object]]:
    from cryptoalpha.core.time import day_of

    return [
        {
            "book": book,
            "instrument": each.instrument,
            "since": day_of(each.since),
            "until": day_of(each.until),
            "bars": each.bars,
            "price_live": each.price,
            "chain_live": each.chain,
            "masked": list(each.masked),
        }
        for book, counted in counts.items()
        for each in counted
    ]


def _feature_tables(counts: dict[str, tuple[LiveCount, ...]]) -> list[Table]:
    from cryptoalpha.core.time import day_of

    return [
        Table(
            ("instrument", "year", "bars", "price of 50", "on-chain of 30"),
            [(each.instrument, day_of(each.since)[:4], f"{each.bars:,}", each.price, each.chain) for each in counted],
            f"features that live, {book} (--json names the masked ones)",
        )
        for book, counted in counts.items()
    ]


def _spaced(tables: list[Table]) -> list[str | Table]:
    """Tables with an empty line between them."""
    spaced: list[str | Table] = []
    for table in tables:
        spaced += [table, ""]
    return spaced[:-1]


def replay(
    frame: Frame,
    place: Annotated[Path, typer.Argument(metavar="FOLDER|FILE", help="What live sources received, recorded.")],
    read_as: Annotated[str | None, typer.Option("--as", help="Channel of the messages [else what the file's name begins with].")] = None,
    subject: Annotated[str, typer.Option("--subject", help="The venue's name of what messages without one are about.")] = "",
    speed: Annotated[float, typer.Option("--speed", min=0.0, help="Times as fast as they came; 0 does not wait.")] = 0.0,
    instruments: Annotated[str | None, typer.Option("--instruments", help="Comma-separated, such as BTC/USDT,ETH/USDT.")] = None,
) -> None:
    """Read recorded messages again, by the parsers that read them live, and count what they hold."""
    from cryptoalpha.app.streams.replaying import channels_in, reader_of, replay_recording

    names = [name.strip() for name in instruments.split(",")] if instruments else ["BTC/USDT", "ETH/USDT"]
    found = []
    for name, files in channels_in(place).items():
        channel = read_as or name
        read = reader_of(channel, frame.settings, names, subject=subject)
        found.append(replay_recording(channel, files, read, speed=speed))
    rows = [
        (one.channel, f"{one.raw:,}", ", ".join(f"{kind} {count:,}" for kind, count in sorted(one.kinds.items())), f"{one.dead.total():,}")
        for one in found
    ]
    reasons = [f"{one.channel}: {count:,} × {reason}" for one in found for reason, count in one.dead.most_common(5)]
    frame.out.result(
        {"channels": [one.as_dict() for one in found]}, [Table(("channel", "messages", "values", "unreadable"), rows), *reasons]
    )
