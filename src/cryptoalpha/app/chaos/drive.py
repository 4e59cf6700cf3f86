"""Drives one schedule: starts its exchange, lets one life after another trade and die, moves the market, then asks the checker.

The driver is the world: it alone moves the market, arms faults and plays the other hands, each exactly once, however often the run is
killed. It has no threads, so that its children may be forked.
"""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import msgspec

from cryptoalpha.app.chaos.checker import Case, Violation, check, check_replay
from cryptoalpha.app.chaos.exchange import Playground
from cryptoalpha.app.chaos.lives import VENUE_SILENT, Mutation, fork_life
from cryptoalpha.app.chaos.schedule import Hand, Schedule
from cryptoalpha.app.chaos.truth import read_run, read_truth
from cryptoalpha.app.chaos.world import CASH, WORTH, World
from cryptoalpha.core.errors import CryptoAlphaError
from cryptoalpha.execution.live.points import Point

LIFE_SECONDS = 40.0
"""A life that takes longer hangs."""
MOST_LIVES = 24


@dataclass
class Outcome:
    """What one schedule came to."""

    seed: int
    market: str
    seconds: float = 0.0
    lives: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    orders: int = 0
    fills: int = 0
    violations: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        return dict(vars(self))


@dataclass(frozen=True)
class _Death:
    """How a life ended: by its kill, by itself (`status` 0: it was done), or `hung`."""

    killed: bool
    status: int
    hung: bool = False


class Drive:
    """One schedule. See the module header.

    Args:
        folder: where the run's journal and everything it says lies; empty at the start.
        mutate: breaks the run's order path on purpose, in its lives only.
    """

    def __init__(self, schedule: Schedule, folder: Path, *, mutate: Mutation | None = None) -> None:
        self.schedule, self.folder, self.world, self._mutate = schedule, folder, World(schedule), mutate
        self._row = 0
        self._armed = 0
        self._moved = 0
        self._strangers: list[str] = []
        self.outcome = Outcome(schedule.seed, schedule.market)

    def run(self) -> Outcome:
        """Everything, to the verdict."""
        began = time.monotonic()
        found: list[Violation] = []
        with Playground(self.world, self.folder) as playground:
            self._happen(playground)
            found += self._lives(playground)
            if not found:
                found += self._judge(playground)
            self.outcome.faults = playground.faults_acted()
        self.outcome.violations = [str(one) for one in found]
        self.outcome.seconds = round(time.monotonic() - began, 3)
        return self.outcome

    def _lives(self, playground: Playground) -> list[Violation]:
        died = 0
        for number in range(MOST_LIVES):
            kill = self.schedule.kills[died] if died < len(self.schedule.kills) else None
            pid, asks, answers = fork_life(self.world, self.folder, playground.url, kill, mutate=self._mutate)
            death = self._serve(playground, pid, asks, answers)
            self.outcome.lives += 1
            if death.hung:
                return [Violation("crash", f"life {number} did not end within {LIFE_SECONDS:g} s: {self._last_words()}")]
            if death.status == VENUE_SILENT:
                continue
            if not death.killed:
                return [] if death.status == 0 else [Violation("crash", f"life {number} ended by itself: {self._last_words()}")]
            assert kill is not None
            name = Point(kill.point).name
            self.outcome.kills[name] = self.outcome.kills.get(name, 0) + 1
            died += 1
            for _ in range(self.schedule.missed[died - 1]):
                if self._row < self.schedule.quiet_from:
                    self._advance(playground, self._row + 1)
        return [Violation("crash", f"{MOST_LIVES} lives were not enough")]

    def _serve(self, playground: Playground, pid: int, asks: int, answers: int) -> _Death:
        """Let the market go on as the life asks, until it is dead."""
        deadline, hung, waiting = time.monotonic() + LIFE_SECONDS, False, b""
        with os.fdopen(asks, "rb", buffering=0) as questions, os.fdopen(answers, "wb", buffering=0) as replies:
            while True:
                ready, _, _ = select.select([questions], [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    hung = True
                    os.kill(pid, signal.SIGKILL)
                    break
                piece = questions.read(4096)
                if not piece:
                    break
                waiting += piece
                while b"\n" in waiting:
                    line, _, waiting = waiting.partition(b"\n")
                    self._advance(playground, int(line))
                    try:
                        replies.write(f"{self._row}\n".encode())
                    except BrokenPipeError:
                        break  # killed while it waited for the bar
        _, status = os.waitpid(pid, 0)
        return _Death(os.WIFSIGNALED(status) and not hung, os.waitstatus_to_exitcode(status), hung)

    def _advance(self, playground: Playground, row: int) -> None:
        while self._row < min(row, self.schedule.bars - 1):
            playground.advance()
            self._row += 1
            self._happen(playground)

    def _happen(self, playground: Playground) -> None:
        """What the schedule says of the bars up to now, each thing once; at the quiet end everything works and nobody else trades."""
        if self._row == self.schedule.quiet_from:
            playground.end_strangers(self._strangers)
            if self._armed:
                playground.heal()
        while self._armed < len(self.schedule.strikes) and self.schedule.strikes[self._armed].bar <= self._row:
            playground.arm(self.schedule.strikes[self._armed].fault)
            self._armed += 1
        while self._moved < len(self.schedule.hands) and self.schedule.hands[self._moved].bar <= self._row:
            self._strangers += self._move(playground, self.schedule.hands[self._moved])
            self._moved += 1

    def _move(self, playground: Playground, hand: Hand) -> list[str]:
        client_id = f"ca{self.schedule.seed:08x}stranger{self._moved}" if self._moved % 2 else f"web_{self.schedule.seed}_{self._moved}"
        return playground.play(hand, client_id)

    def _judge(self, playground: Playground) -> list[Violation]:
        journal = self.folder / "journal.sqlite"
        try:
            run = read_run(journal)
        except CryptoAlphaError as error:
            return [Violation("crash", f"the journal cannot be read: {error}")]
        names = {rule.base + rule.quote: name for name, rule in self.world.rules.items()}
        venue = read_truth(playground.account(), self.world.funds, names)
        self.outcome.orders, self.outcome.fills = len(run.orders), len(run.fills)
        found = check(self.case(), run, venue)
        death = self._serve(playground, *fork_life(self.world, self.folder, playground.url, None, further=True, mutate=self._mutate))
        if death.status or death.hung:
            found.append(Violation("replay", f"a further life ended badly: {self._last_words()}"))
        else:
            found += check_replay(run, read_run(journal))
        return found

    def case(self) -> Case:
        rules, panel = self.world.rules, self.world.panel
        spread = {
            name: (Decimal(repr(float(panel.low[:, place].min()))), Decimal(repr(float(panel.high[:, place].max()))))
            for place, name in enumerate(panel.instruments)
        }
        late = any(strike.fault.action == "late_fill" for strike in self.schedule.strikes)
        return Case(rules, Decimal(repr(CASH)), tuple(self._strangers), worth=WORTH, spread=spread, has_late_fills=late)

    def _last_words(self) -> str:
        try:
            said = (self.folder / "said.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return "it said nothing"
        return said[-1] if said else "it said nothing"


def keep_evidence(folder: Path, schedule: Schedule, outcome: Outcome) -> None:
    """What somebody needs who wants to understand a violation: the schedule, the verdict, the venue's books; the journal lies there."""
    (folder / "schedule.json").write_bytes(msgspec.json.format(msgspec.json.encode(schedule)))
    (folder / "outcome.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome.as_dict())))
