"""The look-ahead audit: remove the future, then poison it, and nothing up to then may change by a single bit.

At each of K moments t the whole path runs three times over the same window: on everything; on the data known at t (`remove`); and
on data whose later rows are garbage of the same shape (`poison`). Every feature, join, label, scaler, signal and fitted weight known at
or before t is compared bit for bit, and so is every journal row: market states, fused weights, decisions, how risk sized them, what it says
of the book's tail, orders, refusals, fills, cash.
On top come rules that need no second run (`audit_rules`): nothing may be known before it is over, no fill may happen before its order or
at another price than the open it claims.

What differs is a leak. The report names the array or the kind of value, the moment, and the first row that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from cryptoalpha.app.audit_rules import data_offences, fill_offences, panel_offences
from cryptoalpha.app.book import build_engine, show_the_past, tape_steps
from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, CryptoAlphaError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import Order, Refusal, RiskEvent, RiskState, Sizing, Travelling
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Dataset, PostTable, ReadingTable, Times

Mode = Literal["remove", "poison", "rule"]
JournalRows = list[tuple[int, list[Travelling]]]
FITTED = ("scaler", "weights")
"""Families of traces that change only when something is fitted."""

OF_RISK = Order | Refusal | Sizing | RiskEvent | RiskState
"""What the risk gate answers. It is compared with its journal row, and counted by itself, so that an audit says whether it saw any."""


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
    """The path a backtest takes, but for the days its fusion learns on before: here it learns within the window, by the same steps. The
    risk gate is shown the days before, as it is in a backtest."""

    def prepare(dataset: Dataset) -> SignalTape:
        return SignalBook(settings.signals).prepare(dataset, since=period.since, until=period.until, instruments=instruments)

    def engine(dataset: Dataset, tape: SignalTape, clock: VirtualClock, journal: Journal) -> Engine:
        names = tape.panel.instruments
        built = build_engine(settings, dataset, names, clock=clock, journal=journal, auto_trading=True, account="audit")
        show_the_past(built.gate, dataset, period.since, names)
        return built

    return Path(prepare, engine)


def audit(dataset: Dataset, path: Path, *, cuts: int = 8, seed: int = 0, advance: Callable[[int], None] | None = None) -> AuditReport:
    """Audit one window of data.

    Args:
        cuts: how many moments to cut at. Not all of them at random (`cut_rows`): a fit that used labels from the future shows it only
            until those are known, a reading used before it was published only until it is.
        advance: told of every run of the path that has finished (2 · cuts + 1 in all).

    Raises:
        ConfigError: if the window is too short to cut.
    """
    whole = path.prepare(dataset)
    panel = whole.panel
    if cuts < 1 or len(panel) < 2 * cuts:
        raise ConfigError(f"{len(panel)} bars are too few for {cuts} cuts", hint="audit a longer window or ask for at least one cut")
    moments = [int(panel.known_at[row]) for row in cut_rows(whole, cuts, seed)]
    report = AuditReport(moments, len(panel))
    journal = _trade(path, dataset, whole, moments[-1])
    _check_rules(dataset, panel, journal, report)
    _tell(advance)
    for moment in moments:
        attempts: tuple[tuple[Mode, Dataset], ...] = (
            ("remove", dataset.known_until(moment)),
            ("poison", poisoned(dataset, moment, seed)),
        )
        for mode, changed in attempts:
            _compare_runs(path, changed, whole, journal, moment, mode, report)
            _tell(advance)
    return report


def cut_rows(tape: SignalTape, cuts: int, seed: int) -> Times:
    """The rows to cut at, ascending: random ones, up to a quarter of them where a fit is new and, of three cuts or more, up to a quarter
    where as many sources as possible have something that happened but is not known yet."""
    rng = stream(seed, "audit cuts")
    rows = np.arange(len(tape) // 4, len(tape) - 1)
    waiting = _sources_in_waiting(tape)[rows]
    kinds = ((np.flatnonzero(_is_refitted(tape)[:-1]), cuts - 1), (rows[waiting == waiting.max()] if waiting.any() else rows[:0], cuts - 2))
    chosen = rows[:0]
    for candidates, most in kinds:
        fresh = np.setdiff1d(candidates, chosen)
        chosen = np.append(chosen, rng.choice(fresh, size=max(0, min(max(1, cuts // 4), len(fresh), most)), replace=False))
    others = rng.choice(np.setdiff1d(rows, chosen), size=cuts - len(chosen), replace=False)
    return np.sort(np.append(chosen, others)).astype(np.int64)


def _is_refitted(tape: SignalTape) -> npt.NDArray[np.bool_]:
    """Rows at which a scaler or weights differ from the row before. Shape `[T]`."""
    refitted = np.zeros(len(tape), bool)
    for name, values in tape.arrays().items():
        if name.partition("/")[0] in FITTED:
            refitted[1:] |= _differs(values[1:], values[:-1])
    return refitted


def _sources_in_waiting(tape: SignalTape) -> Times:
    """At each row, how many tables of readings and posts hold something that has happened and is not known. Shape `[T]`."""
    at, count = tape.panel.known_at, np.zeros(len(tape), np.int64)
    tables: list[ReadingTable | PostTable] = [*tape.dataset.readings.values(), *tape.dataset.posts.values()]
    for table in tables:
        happened = np.searchsorted(np.sort(table.happened_at), at, side="right")
        count += happened > np.searchsorted(table.known_at, at, side="right")
    return count


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


def _trade(path: Path, dataset: Dataset, tape: SignalTape, until: int) -> JournalRows:
    """The journal rows of the run up to and including `until`. What lies after it is not traded: poison may bankrupt any account."""
    clock = VirtualClock()
    with Journal(None, durable=False, header={"run": "audit"}) as journal:
        engine = path.engine(dataset, tape, clock, journal)
        with closing(engine):
            engine.run(_until(tape_steps(tape, dataset, clock), until))
        return [(at, list(values)) for _, at, values in journal.rows(1, journal.next_row)]


def _until(steps: Iterator[Step], moment: int) -> Iterator[Step]:
    return takewhile(lambda step: step.bar.at <= moment, steps)


def _compare_runs(
    path: Path, changed: Dataset, whole: SignalTape, journal: JournalRows, moment: int, mode: Mode, report: AuditReport
) -> None:
    """Take the path again on changed data and compare everything up to `moment`. A run that breaks off has seen the change."""
    try:
        tape = path.prepare(changed)
        _compare_arrays(whole, tape, moment, mode, report)
        _compare_journals(journal, _trade(path, changed, tape, moment), moment, mode, report)
    except CryptoAlphaError as error:
        report.leaks.append(Leak(f"run broke off with {type(error).__name__} ({error})", mode, moment, moment, 1))


def _compare_arrays(whole: SignalTape, cut: SignalTape, moment: int, mode: Mode, report: AuditReport) -> None:
    """Every array the two tapes rest on, row by row up to `moment`."""
    before, after = whole.arrays(), cut.arrays()
    times = whole.panel.known_at[whole.panel.known_at <= moment]
    rows_after = int(np.searchsorted(cut.panel.known_at, moment, side="right"))
    for name in [*before, *(name for name in after if name not in before)]:
        old = before[name][: len(times)] if name in before else after[name][:0]
        new = after[name][:rows_after] if name in after else old[:0]
        report.add(name, old.size)
        shared = min(len(old), len(new))
        differs = _differs(old[:shared], new[:shared])
        count = int(differs.sum()) + abs(len(old) - len(new))
        if count:
            first = int(np.argmax(differs)) if differs.any() else shared
            report.leaks.append(Leak(name, mode, moment, int(times[first]) if first < len(times) else moment, count))


def _differs(old: npt.NDArray[Any], new: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Rows that are not equal bit for bit (a NaN equals a NaN, but −0 is not 0). Shape `[n]`."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return np.ones(len(old), bool)
    same = (old == new) | ((old != old) & (new != new))
    if np.issubdtype(old.dtype, np.floating):
        same &= (np.signbit(old) == np.signbit(new)) | (old != old)
    return np.asarray(~same.reshape(len(old), -1).all(axis=1)) if len(old) else np.zeros(0, bool)


def _compare_journals(whole: JournalRows, cut: JournalRows, moment: int, mode: Mode, report: AuditReport) -> None:
    """The first journal row that differs names the kind of value in it that differs; later rows only follow from it."""
    expected = [row for row in whole if row[0] <= moment]
    report.add("journal", sum(len(values) for _, values in expected))
    if of_risk := sum(isinstance(value, OF_RISK) for _, values in expected for value in values):
        report.add("risk", of_risk)
    for (at, old), (found_at, new) in zip(expected, cut, strict=False):
        if at == found_at and _same(old, new):
            continue
        place = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if not _same(a, b)), min(len(old), len(new)))
        longer = old if len(old) >= len(new) else new
        what = _describe(longer[place]) if place < len(longer) else "time"
        report.leaks.append(Leak(f"journal/{what}", mode, moment, at, 1))
        return
    if len(expected) != len(cut):
        report.leaks.append(Leak("journal/rows", mode, moment, moment, abs(len(expected) - len(cut))))


def _same(old: Travelling | Sequence[Travelling], new: Travelling | Sequence[Travelling]) -> bool:
    """Equal as written; the second way is for NaN, whose bits may differ although it says the same."""
    return msgspec.msgpack.encode(old) == msgspec.msgpack.encode(new) or repr(old) == repr(new)


def _describe(value: Travelling) -> str:
    kind = type(value).__name__
    source = getattr(value, "source", "")
    return f"{kind} {source}".strip()


def _check_rules(dataset: Dataset, panel: Panel, journal: JournalRows, report: AuditReport) -> None:
    """Offences that one run shows by itself."""

    def count(checked: int) -> None:
        report.add("rule", checked)

    count(len(panel))
    for offence in (*data_offences(dataset, count), *panel_offences(panel), *fill_offences(panel, journal, count)):
        report.leaks.append(Leak(offence.what, "rule", 0, offence.first, offence.count))
