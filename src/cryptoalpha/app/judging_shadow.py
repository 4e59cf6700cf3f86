"""The shadow run: a candidate decides the newest bars one at a time, knowing at each only what was known then, and nothing is traded.

It is the very way in which `trade` meets live bars (`signals.book.SignalBook.prepare` of one bar at a time, then the engine's step), beside
the very way in which a backtest meets them: one batch. Where the two decide otherwise, the backtest that promoted the candidate was of
another strategy than the one that would trade. The champion is replayed in a batch, to tell how often the two differ.

Times are CPU seconds of the process: what else runs on the machine that judges says nothing about a model. Waiting is serving's to measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import process_time

import msgspec
import numpy as np

from cryptoalpha.app.backtest import learn_before
from cryptoalpha.app.book import build_engine, tape_steps
from cryptoalpha.app.engine import Engine
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import DataMissingError, ModelError, WorkerDiedError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import Decision, FusedSignal, Order, Signal
from cryptoalpha.lifecycle.gates.evidence import Footprint, ShadowRecord
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

TOLERANCE = 1e-6
"""Difference of two numbers that is none; orders must be the same."""

WARM_ANSWERS = 3
"""Answers that are not timed: a process that serves has its models in memory."""

WANTED = "wanted weight"

Said = dict[str, dict[str, float]]
"""By instrument: the wanted weight and all that it rests on, named: value and confidence of each signal, direction and confidence fused."""

Decided = dict[int, tuple[Said, bytes]]
"""Per bar (known at, UTC ns): what was said, and the orders that became of it, as written."""


@dataclass
class _Run:
    """What one run decided."""

    decided: Decided = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    failure: str = ""


def shadow_run(settings: Settings, champion: Settings | None, dataset: Dataset, names: Sequence[str], period: Period) -> ShadowRecord:
    """Candidate (and champion) over a period, without a broker that is real.

    Raises:
        DataMissingError: if the period has no bars.
    """
    alone = _one_by_one(settings, dataset, names, period)
    batch = _in_one_batch(settings, dataset, names, period)
    if alone.failure or batch.failure:
        return ShadowRecord(_count(alone.decided), 0, 1, np.array(alone.seconds), first_mismatch=alone.failure or batch.failure)
    mismatches, first = _mismatches(alone.decided, batch.decided)
    disagreements = 0
    if champion is not None:
        disagreements = _disagreements(_in_one_batch(champion, dataset, names, period).decided, batch.decided)
    return ShadowRecord(_count(alone.decided), mismatches, 0, np.array(alone.seconds), disagreements, first)


def measured_answers(settings: Settings, dataset: Dataset, names: Sequence[str], answers: int) -> Footprint:
    """Time the signals of single bars, the newest ones, in a fresh process, and read the most memory that it held.

    Raises:
        WorkerDiedError: if the process ends without an answer.
        DataMissingError: if there are fewer bars.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, peak = pool.submit(_answered, settings, dataset, tuple(names), answers).result()
    except BrokenProcessPool:
        raise WorkerDiedError("the process that was asked for answers died", hint="most likely for want of memory") from None
    return Footprint(np.array(seconds), peak)


def _answered(settings: Settings, dataset: Dataset, names: tuple[str, ...], answers: int) -> tuple[list[float], int]:
    """In the measured process."""
    newest = max(int(dataset.bars[name].open_time[-1]) for name in names)
    interval = dataset.bars[names[0]].interval
    book, taken = SignalBook(settings.signals), []
    period = Period(newest - (answers + WARM_ANSWERS - 1) * interval, newest + interval)
    for since, known_at in _bars(dataset, names, period):
        seen = dataset.known_until(known_at)
        begun = process_time()
        book.prepare(seen, since=since, until=since + interval, instruments=names)
        taken.append(process_time() - begun)
    return taken[WARM_ANSWERS:], _peak_bytes()


def _peak_bytes() -> int:
    """Most memory that this process held since it began. Not `getrusage`, which on Linux counts the parent's from before `exec`."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise WorkerDiedError("this system does not say how much memory a process held", hint="judge on Linux")


def _bars(dataset: Dataset, names: Sequence[str], period: Period) -> Iterator[tuple[int, int]]:
    """Open of each bar of a period and the moment at which it may be used."""
    panel = build_panel(dataset, since=period.since, until=period.until, instruments=tuple(names))
    if not len(panel):
        raise DataMissingError(f"no bars in {period} to decide on", hint="bring newer bars")
    known = np.maximum.accumulate(panel.known_at)
    for row in np.flatnonzero(panel.present.any(axis=1)):
        yield int(panel.open_time[row]), int(known[row])


def _one_by_one(settings: Settings, dataset: Dataset, names: Sequence[str], period: Period) -> _Run:
    """As it would trade."""
    book, interval = SignalBook(settings.signals), dataset.bars[names[0]].interval

    def take(engine: Engine, clock: VirtualClock, run: _Run) -> None:
        for since, known_at in _bars(dataset, names, period):
            seen = dataset.known_until(known_at)
            begun = process_time()
            tape = book.prepare(seen, since=since, until=since + interval, instruments=names)
            said = {step.bar.at: _said(engine.step(step).values) for step in tape_steps(tape, seen, clock)}
            run.seconds.append(process_time() - begun)
            run.decided |= said

    return _run(settings, dataset, names, period, take)


def _in_one_batch(settings: Settings, dataset: Dataset, names: Sequence[str], period: Period) -> _Run:
    """As a backtest has it."""
    book = SignalBook(settings.signals)

    def take(engine: Engine, clock: VirtualClock, run: _Run) -> None:
        tape = book.prepare(dataset, since=period.since, until=period.until, instruments=names)
        for step in tape_steps(tape, dataset, clock):
            run.decided[step.bar.at] = _said(engine.step(step).values)

    return _run(settings, dataset, names, period, take)


def _run(
    settings: Settings, dataset: Dataset, names: Sequence[str], period: Period, take: Callable[[Engine, VirtualClock, _Run], None]
) -> _Run:
    """What an engine decides that `take` leads through the period; a run that breaks off says why."""
    run, clock = _Run(), VirtualClock()
    with Journal(None, durable=False, header={"run": "shadow"}) as journal:
        engine = build_engine(settings, dataset, names, clock=clock, journal=journal, auto_trading=True, account="shadow")
        with closing(engine):
            try:
                learn_before(settings, dataset, period, names, engine)
                take(engine, clock, run)
            except ModelError as error:
                run.failure = f"{iso(clock.now())}: {error}"
    return run


def _said(values: Sequence[object]) -> tuple[Said, bytes]:
    said: Said = {}
    for value in values:
        if isinstance(value, Decision):
            said.setdefault(value.instrument, {})[WANTED] = value.target_weight
        elif isinstance(value, Signal):
            said.setdefault(value.instrument, {}).update(
                {f"value of {value.source}": value.value, f"confidence of {value.source}": value.confidence}
            )
        elif isinstance(value, FusedSignal):
            said.setdefault(value.instrument, {}).update({"direction": value.direction, "confidence": value.confidence})
    return said, msgspec.msgpack.encode([value for value in values if isinstance(value, Order)])


def _count(decided: Decided) -> int:
    """Decisions taken, one for each instrument and bar."""
    return sum(WANTED in words for said, _ in decided.values() for words in said.values())


def _disagreements(left: Decided, right: Decided) -> int:
    """Bars and instruments for which two contenders want another weight."""
    return sum(
        not _near(left.get(at, ({}, b""))[0].get(name, {}).get(WANTED), words[WANTED])
        for at, (said, _) in right.items()
        for name, words in said.items()
        if WANTED in words
    )


def _mismatches(alone: Decided, batch: Decided) -> tuple[int, str]:
    """Decisions that differ, or rest on something that does, and the first of them in words. Else an idle agent would match anything."""
    count, first = 0, ""
    for at in sorted({*alone, *batch}):
        (ours, orders), (theirs, other_orders) = (each.get(at, ({}, b"")) for each in (alone, batch))
        apart = 0
        for name in sorted({*ours, *theirs}):
            said, other = ours.get(name, {}), theirs.get(name, {})
            # A NaN is near nothing, itself included.
            differing = [word for word in sorted({*said, *other}) if not _near(said.get(word), other.get(word))]
            apart += bool(differing)
            if differing and not first:
                word = differing[0]
                first = f"{iso(at)} {name}, {word}: {said.get(word)} one by one, {other.get(word)} in the batch"
        if not apart and orders != other_orders:
            apart, first = 1, first or f"{iso(at)}: the same weights, other orders"
        count += apart
    return count, first


def _near(left: float | None, right: float | None) -> bool:
    return left is not None and right is not None and abs(left - right) <= TOLERANCE
