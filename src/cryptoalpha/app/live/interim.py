"""Steps between two bars. At a real venue a kill is obeyed at once, not when the next bar comes.

An interim step is a step of the engine without bars: its moment lies after the last bar's and before the next one's, so time in the journal
runs forward whatever the feed brings later. It is taken while a kill waits, and while a kill is being carried out and the venue has told
something new. It is a row of the journal like any other; a replay finds its moment there and takes it at the same place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.core.clock import Clock, VirtualClock
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.store.journal import Journal

_ROOM = 1000
"""While a bar is late its time has passed and it has not been seen: a step then takes a thousandth of the time left before it, so that
further ones fit in, some 28,000 in an hour. A kill must come to its end although the feed may never speak again."""


def interim_step(at: int, instruments: Sequence[str], interval: int) -> Step:
    """The step of a moment (UTC ns) in which no bar of the book is known."""
    nothing = [math.nan] * len(instruments)
    absent = [False] * len(instruments)
    bar = BarStep(at, at, interval, tuple(instruments), nothing, nothing, nothing, nothing, nothing, absent)
    return Step(bar, (), (), (), is_interim=True)


class Interims:
    """The interim steps of one run.

    Args:
        engine: whose steps they are; its clock is `clock`.
        clock: the run's own, moved to each step.
        wall: what time it really is.
        instruments, interval: the book, and the length of its bars (ns).
        has_news: whether the venue has told something that no step has taken yet.
    """

    def __init__(
        self,
        engine: Engine,
        clock: VirtualClock,
        wall: Clock,
        instruments: Sequence[str],
        interval: int,
        *,
        has_news: Callable[[], bool],
    ) -> None:
        self._engine, self._journal, self._clock, self._wall = engine, engine.journal, clock, wall
        self._instruments, self._interval, self._has_news = instruments, interval, has_news

    def stored(self, before: int | None) -> Iterator[Step]:
        """While the journal is replayed: those it holds between here and the bar known at `before` (None: to its end)."""
        while (at := stored_moment(self._journal)) is not None and (before is None or at < before):
            yield self._at(at)

    def due(self, before: int) -> Step | None:
        """The step to take now; None where nothing waits.

        Args:
            before: when the next bar will be known, UTC ns; later than every step so far.
        """
        if self._journal.is_replaying or not self._is_wanted():
            return None
        earliest = self._clock.now() + 1
        if earliest >= before:
            return None
        now = max(self._wall.now(), earliest)
        return self._at(now if now < before else earliest + (before - earliest) // _ROOM)

    def _is_wanted(self) -> bool:
        if any(control.kind == "kill" for control in self._journal.controls()):
            return True
        return self._engine.gate.kill_switch.state == "tripping" and self._has_news()

    def _at(self, moment: int) -> Step:
        self._clock.advance_to(moment)
        return interim_step(moment, self._instruments, self._interval)


def stored_moment(journal: Journal) -> int | None:
    """When the next row was written that a replay has to take; None where nothing is left to be replayed."""
    if not journal.is_replaying:
        return None
    row = journal.next_row
    _, at, _ = next(journal.raw(row, row + 1))
    return at
