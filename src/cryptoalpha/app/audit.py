"""The look-ahead audit: remove the future, then poison it, and nothing up to then may change by a single bit.

At each of K random moments t the whole path runs three times over the same window: on everything; on the data known at t (`remove`); and
on data whose later rows are garbage of the same shape (`poison`). Every feature, join, label, scaler, signal and fitted weight known at
or before t is compared bit for bit, and so is every journal row: market states, fused weights, decisions, orders, refusals, fills, cash.
On top come rules that need no second run: no bar may be known before it closes, no fill may happen before its order or at another price
than the open it claims.

What differs is a leak. The report names the array or the kind of value, the moment, and the first row that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cryptoalpha.app.book import build_engine, tape_steps
from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import Fill, Order, Travelling
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Dataset

Mode = Literal["remove", "poison", "rule"]
PRICE_TOLERANCE = 1e-6
"""Relative difference allowed between the price a fill implies and the open it claims: fills are rounded to a thousandth of a tick."""


@dataclass(frozen=True)
class Path:
    """What is audited: how data become a tape, and how a tape is traded. Tests plant leaks by replacing either."""

    prepare: Callable[[Dataset], SignalTape]
    engine: Callable[[Dataset, SignalTape, VirtualClock, Journal], Engine]


@dataclass(frozen=True)
class Leak:
    """Something that changed although nothing it may know had changed."""

    what: str
    mode: Mode
    cut: int
    """The moment after which data were removed or poisoned, UTC ns; for a rule, the moment of the offence."""
    first: int
    """When the first changed value was known, UTC ns."""
    count: int

    def __str__(self) -> str:
        if self.mode == "rule":
            return f"{self.what}: {self.count} times, first at {iso(self.first)}"
        done = "removing" if self.mode == "remove" else "poisoning"
        return (
            f"{self.what}: {self.count} rows changed by {done} what became known after {iso(self.cut)}; first the one of {iso(self.first)}"
        )


@dataclass
class AuditReport:
    """What was compared and what leaked."""

    cuts: list[int]
    rows: int
    compared: dict[str, int] = field(default_factory=dict)
    """Values compared, by family (`price`, `chain`, `signal`, `journal` …)."""
    leaks: list[Leak] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.leaks

    def add(self, name: str, count: int) -> None:
        """Count values that were compared."""
        family = name.partition("/")[0]
        self.compared[family] = self.compared.get(family, 0) + count

    def as_dict(self) -> dict[str, object]:
        return {
            "clean": self.is_clean,
            "cuts": [iso(cut) for cut in self.cuts],
            "window_rows": self.rows,
            "values_compared": dict(self.compared),
            "leaks": [
                {
                    "what": leak.what,
                    "mode": leak.mode,
                    "cut": iso(leak.cut),
                    "first": iso(leak.first),
                    "count": leak.count,
                    "text": str(leak),
                }
                for leak in self.leaks
            ],
        }


def default_path(settings: Settings, period: Period, instruments: Sequence[str] | None = None) -> Path:
    """The path a backtest takes."""

    def prepare(dataset: Dataset) -> SignalTape:
        return SignalBook(settings.signals).prepare(dataset, since=period.since, until=period.until, instruments=instruments)

    def engine(dataset: Dataset, tape: SignalTape, clock: VirtualClock, journal: Journal) -> Engine:
        return build_engine(settings, dataset, tape.panel.instruments, clock=clock, journal=journal, auto_trading=True, account="audit")

    return Path(prepare, engine)


def audit(dataset: Dataset, path: Path, *, cuts: int = 8, seed: int = 0, advance: Callable[[int], None] | None = None) -> AuditReport:
    """Audit one window of data.

    Args:
        cuts: how many random moments to cut at.
        advance: told of every run of the path that has finished (2 · cuts + 1 in all).

    Raises:
        ConfigError: if the window is too short to cut.
    """
    whole = path.prepare(dataset)
    panel = whole.panel
    if len(panel) < 2 * cuts:
        raise ConfigError(f"{len(panel)} bars are too few for {cuts} cuts", hint="audit a longer window or ask for fewer cuts")
    rows = np.sort(stream(seed, "audit cuts").choice(np.arange(len(panel) // 4, len(panel) - 1), size=cuts, replace=False))
    moments = [int(panel.known_at[row]) for row in rows]
    report = AuditReport(moments, len(panel))
    journal = _trade(path, dataset, whole, moments[-1])
    _check_rules(panel, journal, report)
    _tell(advance)
    for moment in moments:
        attempts: tuple[tuple[Mode, Dataset], ...] = (
            ("remove", dataset.known_until(moment)),
            ("poison", poisoned(dataset, moment, seed)),
        )
        for mode, changed in attempts:
            tape = path.prepare(changed)
            _compare_arrays(whole, tape, moment, mode, report)
            _compare_journals(journal, _trade(path, changed, tape, moment), moment, mode, report)
            _tell(advance)
    return report


def _tell(advance: Callable[[int], None] | None) -> None:
    if advance is not None:
        advance(1)


def poisoned(dataset: Dataset, moment: int, seed: int = 0) -> Dataset:
    """The same rows, but those known after `moment` hold garbage: prices off by a random factor of up to 50, readings of a million, doom
    in every text. Times and shapes stay, so that nothing can change for a legitimate reason."""
    rng = stream(seed, "poison", moment)
    bars = {}
    for name, table in dataset.bars.items():
        late = table.known_at > moment
        factor = np.where(late, np.exp(rng.uniform(-4.0, 4.0, len(table))), 1.0)
        columns = {column: getattr(table, column) * factor for column in ("open", "high", "low", "close", "volume", "taker_buy_volume")}
        bars[name] = replace(table, **columns)
    readings = {
        key: replace(table, value=np.where(table.known_at > moment, 1e6 * (1.0 + rng.random(len(table))), table.value))
        for key, table in dataset.readings.items()
    }
    doom = "hack crash collapse bankrupt lawsuit"
    posts = {
        key: replace(table, text=np.where(table.known_at > moment, np.array(doom, dtype=object), table.text))
        for key, table in dataset.posts.items()
    }
    return replace(dataset, bars=bars, readings=readings, posts=posts)


def _trade(path: Path, dataset: Dataset, tape: SignalTape, until: int) -> list[tuple[int, list[Travelling]]]:
    """The journal rows of the run up to and including `until`. What lies after it is not traded: poison may bankrupt any account."""
    clock = VirtualClock()
    with Journal(None, durable=False, header={"run": "audit"}) as journal:
        engine = path.engine(dataset, tape, clock, journal)
        engine.run(_until(tape_steps(tape, dataset, clock), until))
        return [(at, list(values)) for _, at, values in journal.rows(1, journal.next_row)]


def _until(steps: Iterator[Step], moment: int) -> Iterator[Step]:
    return takewhile(lambda step: step.bar.at <= moment, steps)


def _compare_arrays(whole: SignalTape, cut: SignalTape, moment: int, mode: Mode, report: AuditReport) -> None:
    """Every array the two tapes rest on, row by row up to `moment`."""
    arrays, times = cut.arrays(), whole.panel.known_at
    inside = times <= moment
    inside_cut = cut.panel.known_at <= moment
    for name, values in whole.arrays().items():
        old = values[inside]
        new = arrays[name][inside_cut] if name in arrays else old[:0]
        report.add(name, old.size)
        shared = min(len(old), len(new))
        differs = _differs(old[:shared], new[:shared])
        count = int(differs.sum()) + abs(len(old) - len(new))
        if count:
            first = int(np.argmax(differs)) if differs.any() else shared
            report.leaks.append(Leak(name, mode, moment, int(times[min(first, len(times) - 1)]), count))


def _differs(old: npt.NDArray[Any], new: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Rows that are not equal bit for bit (a NaN equals a NaN). Shape `[n]`."""
    same = (old == new) | ((old != old) & (new != new))
    return np.asarray(~same.reshape(len(old), -1).all(axis=1)) if len(old) else np.zeros(0, bool)


def _compare_journals(
    whole: list[tuple[int, list[Travelling]]], cut: list[tuple[int, list[Travelling]]], moment: int, mode: Mode, report: AuditReport
) -> None:
    """The first journal row that differs names the kind of value in it that differs; later rows only follow from it."""
    expected = [row for row in whole if row[0] <= moment]
    report.add("journal", sum(len(values) for _, values in expected))
    for (at, old), (found_at, new) in zip(expected, cut, strict=False):
        if at == found_at and (old == new or repr(old) == repr(new)):  # the second way: NaN is written alike, but equals nothing
            continue
        place = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if repr(a) != repr(b)), min(len(old), len(new)))
        longer = old if len(old) >= len(new) else new
        report.leaks.append(Leak(f"journal/{_describe(longer[min(place, len(longer) - 1)])}", mode, moment, at, 1))
        return
    if len(expected) != len(cut):
        report.leaks.append(Leak("journal/rows", mode, moment, moment, abs(len(expected) - len(cut))))


def _describe(value: Travelling) -> str:
    kind = type(value).__name__
    source = getattr(value, "source", "")
    return f"{kind} {source}".strip()


def _check_rules(panel: Panel, journal: list[tuple[int, list[Travelling]]], report: AuditReport) -> None:
    """Offences that one run shows by itself."""
    early = np.flatnonzero(panel.known_at < panel.open_time + panel.interval)
    report.add("rule", len(panel))
    if len(early):
        report.leaks.append(Leak("bar known before it closed", "rule", 0, int(panel.known_at[early[0]]), len(early)))
    orders: dict[str, Order] = {}
    late: list[Fill] = []
    mispriced: list[Fill] = []
    place = {name: a for a, name in enumerate(panel.instruments)}
    for _, values in journal:
        for value in values:
            if isinstance(value, Order):
                orders[value.client_id] = value
            elif isinstance(value, Fill):
                report.add("rule", 1)
                order = orders.get(value.client_id)
                if order is None or value.happened_at < order.known_at:
                    late.append(value)
                elif order.type == "market" and not _is_at_the_open(value, panel, place):
                    mispriced.append(value)
    if late:
        report.leaks.append(Leak("fill before its order", "rule", 0, late[0].happened_at, len(late)))
    if mispriced:
        report.leaks.append(Leak("fill at another price than the next open", "rule", 0, mispriced[0].happened_at, len(mispriced)))


def _is_at_the_open(fill: Fill, panel: Panel, place: Mapping[str, int]) -> bool:
    """Whether the price before costs that a fill implies is the open of the bar it claims to have happened in."""
    sign = 1 if fill.side == "buy" else -1
    implied = float(fill.price - sign * (fill.spread_cost + fill.impact_cost) / fill.quantity)
    row = int(np.searchsorted(panel.open_time, fill.happened_at))
    if row >= len(panel) or int(panel.open_time[row]) != fill.happened_at:
        return False
    opened = float(panel.open[row, place[fill.instrument]])
    return abs(implied / opened - 1.0) <= PRICE_TOLERANCE
