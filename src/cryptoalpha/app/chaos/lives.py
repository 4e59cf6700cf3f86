"""One life of a run: a process forked from one that has imported everything, which trades until it is killed or the bars end.

A life is real: the engine, the live broker with its venue thread, the ccxt client over loopback HTTP and WebSocket. Only three things
are the harness's: bars come when it asks its parent for them, the clock of the market runs from the last bar's end, and passing a numbered
point may be the last thing it does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cryptoalpha.app.chaos.schedule import Kill
from cryptoalpha.app.chaos.session import open_live
from cryptoalpha.app.chaos.world import World
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.execution.live.points import Point
from cryptoalpha.execution.venue import UnclearError, Venue
from cryptoalpha.store.journal import Journal

VENUE_SILENT = 5
"""Exit status of a life that the venue gave no answers at its start: whoever supervises it starts it again."""
PATIENCE_SECONDS = 12.0
"""How long a life waits, at each of the last two bars,
for every order to have an ending."""


class Executioner:
    """Kills its own process at the `visit`-th passing of a point, or a while later. Nothing is flushed, closed or said."""

    def __init__(self, kill: Kill | None) -> None:
        self._kill, self._visits = kill, Counter[int]()
        self._lock = threading.Lock()

    def __call__(self, point: Point) -> None:
        if self._kill is None or point != self._kill.point:
            return
        with self._lock:
            self._visits[point] += 1
            due = self._visits[point] == self._kill.visit
        if not due:
            return
        if self._kill.delay_ms == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Thread(target=_kill_later, args=(self._kill.delay_ms / 1e3,), daemon=True).start()


def _kill_later(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


class Bars:
    """The child's end of two pipes: asks the parent to let the market go on to a bar, and waits until it has."""

    def __init__(self, ask: int, answer: int) -> None:
        self._ask, self._answer = os.fdopen(ask, "w", buffering=1), os.fdopen(answer, "r")

    def advance_to(self, row: int) -> int:
        """The last bar that is known once `row` is."""
        print(row, file=self._ask)
        return int(self._answer.readline())


Mutation = Callable[[Venue], Venue]
"""Stands between the courier and the venue, to break something on purpose."""


def _unbroken(venue: Venue) -> Venue:
    return venue


def trade(world: World, folder: Path, endpoint: str, bars: Bars, reached: Executioner, *, further: bool, mutate: Mutation) -> None:
    """Trade to the last bar.

    Args:
        further: a life after the end: take every row again, ask the venue, do nothing else.
    """
    known_at = world.panel.known_at.tolist()
    with Journal(folder / "journal.sqlite", durable=True, header=world.header()) as journal:
        stored = len(journal)
        shown = bars.advance_to(0)
        parts = open_live(world, journal, folder, endpoint, reached=reached, clock=VirtualClock(), known_at=known_at[shown], wrap=mutate)
        try:
            for row, step in enumerate(world.steps()):
                if row >= stored:
                    if further:
                        break
                    parts.drain()
                    if row >= world.schedule.bars - 2:
                        parts.settle(PATIENCE_SECONDS)
                    shown = bars.advance_to(row)
                    parts.market_clock.known(known_at[shown])
                parts.clock.advance_to(step.bar.at)
                parts.engine.step(step)
            if further:
                parts.compare()
            else:
                parts.demand_agreement()
        finally:
            parts.close()


def fork_life(
    world: World, folder: Path, endpoint: str, kill: Kill | None, *, further: bool = False, mutate: Mutation | None = None
) -> tuple[int, int, int]:
    """Start a life; returns its pid, the file descriptor on which it asks for bars and the one that answers it."""
    ask_read, ask_write = os.pipe()
    answer_read, answer_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ask_write)
        os.close(answer_read)
        return pid, ask_read, answer_write
    status = 1
    try:
        os.close(ask_read)
        os.close(answer_write)
        with (folder / "said.log").open("ab", buffering=0) as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        trade(world, folder, endpoint, Bars(ask_write, answer_read), Executioner(kill), further=further, mutate=mutate or _unbroken)
        status = 0
    except UnclearError:
        traceback.print_exc()
        status = VENUE_SILENT
    finally:  # a forked child must not unwind into its parent's frames; the parent sees the status and the traceback
        if status == 1:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
