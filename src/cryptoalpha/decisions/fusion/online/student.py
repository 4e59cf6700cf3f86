"""The learner's side: what happens in its own process at one lesson.

    1. the challenger, as it is, is judged beside the champion on the new decisions, which it has never been taught;
    2. if all the judgements of its line prove it better, and the newest one speaks for it, the judged weights are proposed;
    3. then it is taught the new decisions and some old ones.

A decision is judged before it is taught, and only if it was made after everything taught before was known: horizons that overlap would
let a label be seen twice. What a lesson answers is a function of the lessons before it and the settings, so a replay adopts the same.

Loss of a decision: the squared error of the value in units of its spread (½ of it) and the cross-entropy to what the search then did. Both
networks are judged by the same target: the realised reward, and after it the champion's own view of what follows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.fusion.experience import Lessons
from cryptoalpha.decisions.fusion.learning import FusionLearner, Lesson, chained, refuse_unmatured
from cryptoalpha.decisions.fusion.learning_config import FusionLearningConfig, FusionOnlineConfig
from cryptoalpha.decisions.fusion.network import SMALLEST_SCALE, build_network, guide_of, network_from, weights_of
from cryptoalpha.decisions.fusion.online.evidence import Evidence, PairedTest
from cryptoalpha.learn.actor_critic.loss import log_policy
from cryptoalpha.nets.config import PolicyValueConfig
from cryptoalpha.nets.policy_value import PolicyValueNet
from cryptoalpha.store.array_file import Array


@dataclass(frozen=True, eq=False)
class Enrolment:
    """Everything a student starts with; sent to its process once. `champion`: its weights, None where no network has been trained yet."""

    actions: int
    step_bars: int
    discount: float
    learning: FusionLearningConfig
    online: FusionOnlineConfig
    seed: int
    champion: dict[str, Array] | None = None
    sizes: PolicyValueConfig = field(default_factory=PolicyValueConfig)


@dataclass(frozen=True, eq=False)
class Homework:
    """The lessons of one moment. `number` counts moments from 0; `now` UTC ns; `champion`: weights that took over by another door, such as
    the next fold of a trained folder."""

    number: int
    now: int
    lessons: Lessons
    champion: dict[str, Array] | None = None

    def __repr__(self) -> str:
        """For people: it is named where the process that worked on it died."""
        return f"lesson {self.number}"


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a lesson. `graph`: the proposed network, None where none has proved better."""

    number: int
    graph: bytes | None
    version: str
    words: str
    evidence: Evidence
    lesson: Lesson


class Student:
    """Champion, challenger, what they are taught from, and the evidence between them."""

    def __init__(self, enrolment: Enrolment) -> None:
        torch.set_num_threads(1)
        self._with = enrolment
        if enrolment.champion is None:
            self.champion = build_network(enrolment.actions, sizes=enrolment.sizes, seed=enrolment.seed)
        else:
            self.champion = network_from(enrolment.champion)
        self._memory: Lessons | None = None
        self._seen = self._taught_until = 0
        self._line = 0
        self._begin()

    def attend(self, homework: Homework) -> Answer:
        """One lesson.

        Raises:
            LookAheadError: if a reward is known only after the lesson.
        """
        refuse_unmatured(homework.lessons, homework.now)
        if homework.champion is not None:
            self.champion = network_from(homework.champion)
            self._begin()
        self._memory = self._remembered(homework.lessons)
        new = self._memory.decided_at > self._seen
        judged = self._judge(self._memory, new)
        evidence = self._test.found()
        proposed = self.challenger if evidence.is_better and judged.size and float(judged.mean()) > 0.0 else None
        graph, version, words = None, "", f"lesson {homework.number}: challenger {self._line} {evidence.words()}"
        if proposed is not None:
            guide = guide_of(proposed)
            graph, version, words = guide.graph, guide.version, f"{words}: proposed as {guide.version[:12]}"
            self.champion = network_from(weights_of(proposed))
            self._begin()
        elif self._lessons >= self._with.online.patience_lessons:
            words = f"{words}: dropped after {self._lessons} lessons"
            self._begin()
        lesson = self._teach(homework.number, self._memory, new, homework.now)
        return Answer(homework.number, graph, version, words, evidence, lesson)

    def _begin(self) -> None:
        """A challenger that is a copy of the champion."""
        self.challenger: PolicyValueNet = copy.deepcopy(self.champion)
        with_ = self._with
        self._line += 1
        self._learner = FusionLearner(self.challenger, with_.learning, discount=with_.discount, seed=with_.seed + self._line)
        self._test = PairedTest(with_.step_bars, confidence=with_.online.confidence, least=with_.online.judged_on)
        self._lessons = 0

    def _remembered(self, lessons: Lessons) -> Lessons:
        joined = lessons if self._memory is None else Lessons.joined([self._memory, lessons])
        return joined.rows(slice(-self._with.online.memory, None))

    def _judge(self, memory: Lessons, new: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Paired differences of the new decisions that nothing taught overlaps; none of a challenger that has not been taught."""
        if not self._lessons:
            return np.empty(0)
        return_of = chained(
            memory, self.values_of(self.champion, memory), discount=self._with.discount, trace=self._with.learning.gae_lambda
        )
        fresh = return_of.of((new & (memory.decided_at >= self._taught_until))[return_of.rows])
        order = np.argsort(fresh.rows, kind="stable")
        rows, returns = fresh.rows[order], fresh.returns[order]
        if not len(rows):
            return np.empty(0)
        scale = max(float(memory.rewards.std()) / np.sqrt(1.0 - self._with.discount**2), SMALLEST_SCALE)
        lost = [losses(net, memory.rows(rows), returns, scale) for net in (self.champion, self.challenger)]
        differences = lost[0] - lost[1]
        self._test.add(differences)
        return differences

    def values_of(self, net: PolicyValueNet, lessons: Lessons) -> NDArray[np.float64]:
        """What `net` says the states are worth, `[N]`."""
        with torch.no_grad():
            return np.asarray(net(torch.from_numpy(lessons.features))[1].double().numpy())

    def _teach(self, number: int, memory: Lessons, new: NDArray[np.bool_], now: int) -> Lesson:
        """What is new, and as many older decisions as are rehearsed. Decisions whose successor is not known yet stay new."""
        teaches = new.copy()
        older = np.flatnonzero(~new)
        wanted = min(len(older), self._with.online.rehearsed * int(new.sum()))
        teaches[stream(self._with.seed, "fusion-online", number).choice(older, size=wanted, replace=False)] = True
        lesson = self._learner.teach(memory, now=now, passes=1, only=teaches)
        followed = memory.decided_at[np.isin(memory.due_at, memory.decided_at)]
        self._seen = int(followed.max()) if len(followed) else self._seen
        self._taught_until = int(memory.known_at.max()) if len(memory) else self._taught_until
        self._lessons += 1
        return lesson


def losses(net: PolicyValueNet, lessons: Lessons, returns: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """What a network lost on each decision, `[N]`: ½ ((R − V)/scale)² and the cross-entropy to the search's policy."""
    with torch.no_grad():
        logits, values = net(torch.from_numpy(lessons.features))
        logs = log_policy(logits.double(), torch.from_numpy(lessons.legal)).numpy()
    target = lessons.policy_target.astype(np.float64)
    crossed = -np.where(target > 0.0, target * logs, 0.0).sum(axis=1)
    errors = (returns - values.double().numpy()) / scale
    return np.asarray(0.5 * errors**2 + crossed)


def enrol(enrolment: Enrolment) -> Student:
    """Builds the student where it lives."""
    return Student(enrolment)


def attend(student: Student, homework: Homework) -> Answer:
    """One lesson, as a task for `learn.workers`."""
    return student.attend(homework)
