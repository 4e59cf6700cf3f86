"""The loop's side: hand out experience, take over what has proved better, and never wait for a gradient.

    learning = OnlineLearning(enrolment, adoptions, live=True, say=print)
    …after every fused bar:   learning.after(at, row, fusion)
    …at the end:              learning.close()

Every `every_bars` bars what has matured goes to the learner's process, by a thread that does nothing else: the loop only puts it into a
queue. `delay_bars` bars later the answer may take over. A replay waits for it there, if it must, so that the same bars always adopt the
same networks; a live run takes it at that bar or at the first one after it at which it is ready.

Bars up to `follow_until` follow the table of adoptions, whatever the learner says: they have been decided before. What it proposes
meanwhile and the table does not know (a live run that ended while its lesson was late) is kept and takes over after them; what the table
knows is not taken over a second time. If the learner's process dies, that is said once, the champion stays, and the loop goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from cryptoalpha.core.errors import CryptoAlphaError
from cryptoalpha.decisions.fusion.experience import ExperienceQueue, Lessons
from cryptoalpha.decisions.fusion.online.adoptions import Adoption, Adoptions
from cryptoalpha.learn.search.contract import Evaluator
from cryptoalpha.learn.workers import InProcess, LocalProcesses

if TYPE_CHECKING:  # torch: only the learner's process imports it
    from cryptoalpha.decisions.fusion.online.student import Answer, Enrolment, Homework, Student
    from cryptoalpha.store.array_file import Array

    Learner = LocalProcesses[Student] | InProcess[Student]

PATIENCE_SECONDS = 5.0
"""How long the end of a run waits for a lesson in progress; the process ends with its parent in any case."""


class Adopting(Protocol):
    """A fusion that can be guided: what `SearchedFusion` is to this room."""

    experience: ExperienceQueue | None

    def adopt(self, evaluator: Evaluator | None, version: str) -> None:
        """Be guided by this network from the next bar on."""
        ...


class OnlineLearning:
    """Learns beside one fusion.

    Args:
        enrolment: what the learner starts with.
        adoptions: where take-overs are written down, and from where those up to `follow_until` are repeated.
        live: take what is ready and never wait; else wait at the fixed bar.
        follow_until: newest bar (UTC ns) whose take-overs are decided already: the last one in the journal of a run that goes on.
        say: told once if the learner dies, and about every lesson.
        start: starts the learner; a process of its own, unless a test wants none.
    """

    def __init__(
        self,
        enrolment: Enrolment,
        adoptions: Adoptions,
        *,
        live: bool,
        follow_until: int = 0,
        say: Callable[[str], None] = lambda words: None,
        start: Callable[[Enrolment], Learner] | None = None,
    ) -> None:
        self.config = enrolment.online
        self.adoptions, self.live, self.follow_until = adoptions, live, follow_until
        self._say = say
        self._bars = 0
        self._lesson = 0
        self._is_over = False
        self._due: list[tuple[int, int]] = []  # (bar count at which it may take over, number of the lesson)
        self._held: list[Lessons] = []
        self._champion: dict[str, Array] | None = None
        self._late: Answer | None = None
        """Proposed while the run only followed what had been decided."""
        self._desk = _Desk(enrolment, in_own_process if start is None else start)

    @property
    def is_alive(self) -> bool:
        """Whether the learner still answers."""
        return self._desk.died is None

    @property
    def process(self) -> int | None:
        """Process id of the learner, None while it starts and after its end."""
        return self._desk.pid

    def after(self, at: int, row: int, fusion: Adopting) -> Adoption | None:
        """One bar has been decided; returns what takes over before the next one.

        Args:
            at: the moment the bar was known, UTC ns.
            row: its row in the journal.
        """
        self._bars += 1
        if fusion.experience is not None:
            matured = fusion.experience.take(at)
            if len(matured) and not self._is_over:
                self._held.append(matured)
        if self._bars % self.config.every_bars == 0 and self._held and not self._is_over:
            self._hand_out(at)
        answer = self._answer() or self._late
        if answer is not None and answer.number <= max((kept.lesson for kept in self.adoptions.rows), default=-1):
            answer = None  # taken over before this start, or passed over for a newer one
        kept = self.adoptions.at(at)
        if kept is not None or at < self.follow_until:  # what takes over after the last bar that was decided acts on none of them
            self._late = answer
            if kept is not None:
                self._take_over(kept, self.adoptions.graph(kept.version), fusion)
            return kept
        self._late = None
        if answer is None or answer.graph is None:
            return None
        adoption = Adoption(at, row, answer.version, answer.words, answer.number)
        self.adoptions.add(adoption, answer.graph)
        self._take_over(adoption, answer.graph, fusion)
        return adoption

    def replaced(self, weights: dict[str, Array]) -> None:
        """Another network took over by another door (the next fold of a trained folder): the challenger begins anew from it."""
        self._champion = weights
        self._due.clear()
        self._late = None

    def close(self) -> None:
        """Stop the learner."""
        self._desk.close()

    def _hand_out(self, at: int) -> None:
        from cryptoalpha.decisions.fusion.online.student import Homework

        self._desk.put(Homework(self._lesson, at, Lessons.joined(self._held), self._champion))
        self._due.append((self._bars + self.config.delay_bars, self._lesson))
        self._held, self._champion = [], None
        self._lesson += 1

    def _answer(self) -> Answer | None:
        """The newest answer that may take over now."""
        newest: Answer | None = None
        while self._due and self._due[0][0] <= self._bars:
            found = self._desk.get(self._due[0][1], wait=not self.live)
            if self._desk.died is not None and found is None:
                self._mourn()
                return newest
            if found is None:
                return newest
            self._due.pop(0)
            self._say(found.words)
            newest = found if found.graph is not None else newest
        return newest

    def _mourn(self) -> None:
        self._say(f"the fusion's learner has ended: {self._desk.died}; the network in charge stays, nothing more is learned")
        self._is_over = True
        self._due.clear()
        self._held.clear()

    def _take_over(self, adoption: Adoption, graph: bytes, fusion: Adopting) -> None:
        from cryptoalpha.learn.search.row_network import RowNetwork

        fusion.adopt(RowNetwork(graph, digest=adoption.version), adoption.version)


def in_own_process(enrolment: Enrolment) -> Learner:
    """A student in a process of its own, on one thread, which ends with this one.

    Raises:
        ConfigError: if the enrolment cannot be sent to another process.
        WorkerDiedError: if the process ended while it started.
    """
    from cryptoalpha.decisions.fusion.online.student import enrol

    return LocalProcesses(1, partial(enrol, enrolment))


class _Desk:
    """A thread that owns the learner's process: it waits so that the loop need not."""

    def __init__(self, enrolment: Enrolment, start: Callable[[Enrolment], Learner]) -> None:
        self.died: str | None = None
        self.pid: int | None = None
        self._work: queue.SimpleQueue[Homework | None] = queue.SimpleQueue()
        self._answers: dict[int, Answer] = {}
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, args=(enrolment, start), name="fusion learner", daemon=True)
        self._thread.start()

    def put(self, homework: Homework) -> None:
        self._work.put(homework)

    def get(self, number: int, *, wait: bool) -> Answer | None:
        """The answer to a lesson; None if it is not there (and, when waiting, never will be)."""
        with self._news:
            while wait and number not in self._answers and self.died is None:
                self._news.wait()
            return self._answers.pop(number, None)

    def close(self) -> None:
        self._closing = True
        self._work.put(None)
        self._thread.join(PATIENCE_SECONDS)

    def _serve(self, enrolment: Enrolment, start: Callable[[Enrolment], Learner]) -> None:
        from cryptoalpha.decisions.fusion.online.student import attend

        try:
            with start(enrolment) as workers:
                self.pid = workers.pids[0] if isinstance(workers, LocalProcesses) else None
                while (homework := self._work.get()) is not None:
                    answer = workers.map(attend, [homework])[0]
                    with self._news:
                        self._answers[answer.number] = answer
                        self._news.notify_all()
        except CryptoAlphaError as error:
            self._ended(str(error))
        finally:
            self._ended("it was stopped" if self._closing else "its thread ended")

    def _ended(self, why: str) -> None:
        with self._news:
            self.died = self.died or why
            self._news.notify_all()
