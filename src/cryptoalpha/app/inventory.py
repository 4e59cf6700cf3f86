"""What data there are: what the store holds, what a directory adds to it, and how many of the 50 price and 30 on-chain features live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import day_of, interval_name
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.signals.chain_features import CHAIN_FEATURES, chain_features
from cryptoalpha.signals.features import LiveCount, live_count
from cryptoalpha.signals.price_features import PRICE_FEATURES, price_features
from cryptoalpha.store.history import Coverage, History, WriteReport
from cryptoalpha.store.home import Home
from cryptoalpha.store.lock import StoreLock
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset


@dataclass(frozen=True)
class Imported:
    """What an import changed. `conflicts` are rows that contradict stored ones; the stored ones stay."""

    series: int
    added: int
    already_there: int
    conflicts: tuple[str, ...]


def coverage_lines(rows: Sequence[dict[str, object]]) -> list[tuple[object, ...]]:
    """Stored series for people: the many metrics of one asset in one line."""
    grouped: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for row in rows:
        key = (row["kind"], row["source"], row["subject"], row["what"] if row["kind"] == "bars" else "")
        grouped.setdefault(key, []).append(row)
    lines: list[tuple[object, ...]] = []
    for (kind, source, subject, what), members in grouped.items():
        about = what or (members[0]["what"] if len(members) == 1 else f"{len(members)} metrics")
        first, last = min(str(row["first"]) for row in members), max(str(row["last"]) for row in members)
        count = sum(int(str(row["rows"])) for row in members)
        lines.append((kind, source, subject, about, first, last, f"{count:,}"))
    return lines


def coverage_row(coverage: Coverage) -> dict[str, object]:
    """One stored series for people and programs."""
    series = coverage.series
    return {
        "kind": series.kind,
        "source": series.source,
        "subject": series.subject or "–",
        "what": interval_name(series.interval) if series.interval else series.metric or "texts",
        "first": day_of(coverage.first),
        "last": day_of(coverage.last),
        "rows": coverage.rows,
        "files": coverage.partitions,
        "simulated": coverage.simulated,
        "origin": coverage.origin,
    }


def live_features(dataset: Dataset) -> tuple[LiveCount, ...]:
    """How many features are live, per asset and calendar year.

    Raises:
        DataMissingError: if there are no bars.
        DataError: if bars are of several lengths.
    """
    tables = [table for table in dataset.bars.values() if len(table)]
    since = min((int(table.open_time[0]) for table in tables), default=0)
    until = max((int(table.open_time[-1]) + 1 for table in tables), default=1)
    panel = build_panel(dataset, since=since, until=until)
    names = [spec.name for spec in (*PRICE_FEATURES, *CHAIN_FEATURES)]
    counts = live_count(panel, price_features(panel), chain_features(panel, dataset), names)
    return tuple(sorted(counts, key=lambda count: (count.instrument, count.since)))


def stored_features(history: History, coverage: Sequence[Coverage]) -> tuple[dict[str, tuple[LiveCount, ...]], list[str]]:
    """Features that live, by venue and bar length of the stored bars, and why a book could not be read if one could not."""
    counts: dict[str, tuple[LiveCount, ...]] = {}
    problems: list[str] = []
    for venue, interval in sorted({(found.series.source, found.series.interval) for found in coverage if found.series.kind == "bars"}):
        book = f"{venue} {interval_name(interval)}"
        try:
            counts[book] = live_features(history.load(interval=interval, venue=venue))
        except DataError as error:
            problems.append(f"{book}: {error}")
    return counts, problems


def import_dataset(home: Path, dataset: Dataset, *, venue: str | None, advance: Callable[[int], None] = lambda steps: None) -> Imported:
    """Add a dataset to the store, under one lock.

    Args:
        home: the store's directory.
        dataset: bars that passed the bar gate, readings and texts.
        venue: name the bars are kept under; by default that of their rules, with `-perp` for perpetuals.
        advance: told of every series written.

    Raises:
        StoreError: if the store cannot be written.
        StoreLockedError: if another process holds it.
    """
    store = Home(home)
    reports: list[WriteReport] = []
    rules = _rules_under(dataset.rules, venue)
    with StoreLock(store) as lock, History(store, lock=lock) as history:
        for name, bars in dataset.bars.items():
            reports.append(history.write_bars(rules[name].venue, bars, origin=dataset.origin, simulated=dataset.simulated))
            advance(1)
        for reading in dataset.readings.values():
            reports.append(history.write_readings(reading, origin=dataset.origin, simulated=dataset.simulated))
            advance(1)
        for posts in dataset.posts.values():
            reports.append(history.write_posts(posts, origin=dataset.origin, simulated=dataset.simulated))
            advance(1)
        history.write_rules(rules.values())
    return Imported(
        series=len(reports),
        added=sum(report.added for report in reports),
        already_there=sum(report.already_there for report in reports),
        conflicts=tuple(str(conflict) for report in reports for conflict in report.conflicts),
    )


def series_count(dataset: Dataset) -> int:
    """How many series an import writes, for its progress bar."""
    return len(dataset.bars) + len(dataset.readings) + len(dataset.posts)


def _rules_under(rules: Mapping[str, InstrumentRules], venue: str | None) -> dict[str, InstrumentRules]:
    import msgspec

    def name(rule: InstrumentRules) -> str:
        return venue or (f"{rule.venue}-perp" if rule.perpetual else rule.venue)

    return {instrument: msgspec.structs.replace(rule, venue=name(rule)) for instrument, rule in rules.items()}
