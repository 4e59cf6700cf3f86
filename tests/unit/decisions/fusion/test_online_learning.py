"""Learning beside the loop: live it never waits, a replay adopts the same, a dead learner hurts nobody, a worse challenger stays out."""

from __future__ import annotations

import copy
import math
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import DataMissingError, ModelError, StoreError
from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.fusion.experience import Experience, ExperienceQueue
from cryptoalpha.decisions.fusion.learning_config import FusionLearningConfig, FusionOnlineConfig
from cryptoalpha.decisions.fusion.network import build_network, guide_of, weights_of
from cryptoalpha.decisions.fusion.online.adoptions import Adoption, Adoptions
from cryptoalpha.decisions.fusion.online.beside import OnlineLearning
from cryptoalpha.decisions.fusion.online.evidence import Evidence, PairedTest
from cryptoalpha.decisions.fusion.online.student import Enrolment, Homework, Student, enrol
from cryptoalpha.learn.workers import InProcess
from cryptoalpha.nets.config import PolicyValueConfig

torch.set_num_threads(1)

SMALL = PolicyValueConfig(state_width=8, hidden=(32,), value_hidden=16, policy_hidden=16)
BAR, HORIZON, ACTIONS = 3_600_000_000_000, 4, 3
CONFIG = FusionOnlineConfig(enabled=True, every_bars=64, delay_bars=8, judged_on=60, rehearsed=2, confidence=0.9)
LEARNING = FusionLearningConfig(learning_rate=1e-2, batch=32)


class Market:
    """A fusion in a small world of its own: the search prefers the action of the largest of three numbers, and the fourth says what a
    state earns. What it journals depends on the network in charge."""

    def __init__(self, seed=0):
        self.experience = ExperienceQueue(ACTIONS, width=8)
        self.random = stream(seed, "market")
        self.evaluator, self.version = None, ""
        self.journal, self.waiting = [], []

    def adopt(self, evaluator, version):
        self.evaluator, self.version = evaluator, version

    def bar(self, t):
        at = t * BAR
        for ticket, due, reward in [entry for entry in self.waiting if entry[1] <= at]:
            self.experience.settle(ticket, reward, known_at=due)
        self.waiting = [entry for entry in self.waiting if entry[1] > at]
        x = self.random.normal(size=8).astype(np.float32)
        wanted = np.exp(2.0 * x[:3])
        target = (wanted / wanted.sum()).astype(np.float32)
        action = int(self.random.choice(ACTIONS, p=target.astype(np.float64) / target.sum(dtype=np.float64)))
        reward = 1e-3 * float(x[3]) + 1e-4 * self.random.normal()
        due = at + HORIZON * BAR
        remembered = Experience(at, due, x, np.ones(ACTIONS, np.bool_), target, action, float(target[action]), 0.0)
        self.waiting.append((self.experience.remember(remembered), due, reward))
        logits = [0.0] * ACTIONS if self.evaluator is None else self.evaluator(x[None])[0][0].tolist()
        self.journal.append((at, self.version, logits))
        return at


def enrolment(**given):
    found = {"actions": ACTIONS, "step_bars": HORIZON, "discount": 0.5, "learning": LEARNING, "online": CONFIG, "seed": 0, "sizes": SMALL}
    return Enrolment(**(found | given))


def here(enrolled):
    """The student in this process, for tests of what it does rather than where."""
    return InProcess(lambda: enrol(enrolled))


def run(bars, learning, market, first=1):
    for t in range(first, first + bars):
        learning.after(market.bar(t), t, market)
    return market.journal


def played(bars, adoptions, *, start=here, live=False, follow_until=0):
    said = []
    learning = OnlineLearning(enrolment(), adoptions, live=live, follow_until=follow_until, say=said.append, start=start)
    try:
        return run(bars, learning, Market()), said
    finally:
        learning.close()


def test_what_proves_better_takes_over_and_a_replay_writes_the_same_journal(tmp_path):
    first, said = played(520, Adoptions(tmp_path / "one"))
    again, _ = played(520, Adoptions(tmp_path / "two"))
    assert first == again
    kept = Adoptions(tmp_path / "one").rows
    assert kept
    assert kept == Adoptions(tmp_path / "two").rows
    assert len(said) == 8
    for adoption in kept:  # at the fixed bar after its lesson, and not before the next one is journaled
        assert (adoption.at // BAR - CONFIG.delay_bars) % CONFIG.every_bars == 0
        by_time = {at: version for at, version, _ in first}
        assert by_time[adoption.at + BAR] == adoption.version
        assert by_time[adoption.at] != adoption.version


def test_a_run_that_goes_on_follows_its_table_also_without_any_lesson(tmp_path):
    first, _ = played(520, Adoptions(tmp_path))
    kept = len(Adoptions(tmp_path))
    silent = FusionOnlineConfig(enabled=True, every_bars=100_000)
    market = Market()
    learning = OnlineLearning(enrolment(online=silent), Adoptions(tmp_path), live=True, follow_until=520 * BAR, start=here)
    assert run(520, learning, market) == first
    assert len(Adoptions(tmp_path)) == kept > 0
    learning.close()


def lessons_end(learning):
    """Until every lesson handed out has been answered."""
    deadline = time.monotonic() + 20.0
    while learning._desk._work.qsize() or len(learning._desk._answers) < len(learning._due):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_live_run_that_ended_while_a_lesson_was_late_takes_over_when_it_goes_on(tmp_path):
    """The learner of the run before had proposed nothing when it ended; the one of the run that goes on does so while it only follows."""
    played(520, Adoptions(tmp_path / "whole"))
    due = Adoptions(tmp_path / "whole").rows[0]
    market, end = Market(), due.at // BAR + 5
    late = Adoptions(tmp_path / "late")
    learning = OnlineLearning(enrolment(), late, live=False, follow_until=end * BAR, start=here)
    run(end - 1, learning, market)
    assert not late.rows  # bars that were decided without it stay as they are
    taken = learning.after(market.bar(end), end, market)
    assert taken is not None
    assert (taken.version, taken.at, taken.lesson) == (due.version, end * BAR, due.lesson)
    assert market.version == due.version
    learning.close()


def test_a_live_run_that_goes_on_takes_over_nothing_a_second_time(tmp_path):
    """Lessons answered only after the bars that are followed: what they propose has been taken over long ago."""
    first, _ = played(520, Adoptions(tmp_path))
    kept = Adoptions(tmp_path).rows
    assert len(kept) >= 1
    Slow.allowed.clear()
    market = Market()
    learning = OnlineLearning(
        enrolment(), Adoptions(tmp_path), live=True, follow_until=520 * BAR, start=lambda enrolled: InProcess(lambda: Slow(enrolled))
    )
    assert run(520, learning, market) == first
    Slow.allowed.set()
    lessons_end(learning)
    learning.after(market.bar(521), 521, market)
    assert Adoptions(tmp_path).rows == kept
    assert market.version == kept[-1].version
    learning.close()


def test_a_table_ahead_of_its_journal_is_followed(tmp_path):
    """The take-over was written, the bar after which it acts was lost with the machine."""
    first, _ = played(520, Adoptions(tmp_path))
    again, _ = played(520, Adoptions(tmp_path), follow_until=Adoptions(tmp_path).rows[0].at - BAR)
    assert again == first


class Slow(Student):
    """A student whose lesson never ends before it is allowed to."""

    allowed = threading.Event()

    def attend(self, homework):
        self.allowed.wait(30.0)
        return super().attend(homework)


def test_a_live_loop_does_not_wait_for_a_lesson():
    Slow.allowed.clear()
    adoptions, market = Adoptions(None), Market()
    learning = OnlineLearning(enrolment(), adoptions, live=True, start=lambda enrolled: InProcess(lambda: Slow(enrolled)))
    began = time.monotonic()
    run(520, learning, market)
    assert time.monotonic() - began < 15.0  # a lesson waits for 30 s
    assert not adoptions.rows
    Slow.allowed.set()  # the answers come all at once; the newest that proved better takes over at the next bar
    deadline = time.monotonic() + 20.0
    t = 521
    while not adoptions.rows and time.monotonic() < deadline:
        learning.after(market.bar(t), t, market)
        t += 1
        time.sleep(0.01)
    assert adoptions.rows
    assert market.version == adoptions.rows[-1].version
    learning.close()


@pytest.mark.slow
def test_a_learner_that_is_killed_is_mourned_once_and_the_loop_goes_on(tmp_path):
    adoptions, market, said = Adoptions(tmp_path), Market(), []
    learning = OnlineLearning(enrolment(), adoptions, live=False, say=said.append)
    run(520, learning, market)
    assert learning.is_alive
    assert adoptions.rows  # the process learned, and what it proposed took over
    same, _ = played(520, Adoptions(None))
    assert market.journal == same  # whether in this process or in another
    os.kill(learning.process, signal.SIGKILL)
    champion, told = market.version, len(said)
    run(500, learning, market, first=521)
    assert not learning.is_alive
    assert market.version == champion
    assert len(market.journal) == 1_020
    mourned = [words for words in said[told:] if "has ended" in words]
    assert len(mourned) == 1
    assert "SIGKILL" in mourned[0]
    assert "array" not in mourned[0]  # words, not the numbers that it was taught from
    learning.close()


def poison(student):
    """A challenger that prefers what the search does not, and calls good what is bad."""
    with torch.no_grad():
        for head in (student.challenger.policy, student.challenger.value):
            for parameter in head[-1].parameters():
                parameter.neg_()


def homeworks(count, seed=0):
    market, found = Market(seed), []
    for t in range(1, count * CONFIG.every_bars + 1):
        at = market.bar(t)
        if t % CONFIG.every_bars == 0:
            found.append(Homework(len(found), at, market.experience.take(at)))
    return found


def test_a_poisoned_challenger_is_refused_and_a_good_one_is_not():
    given = homeworks(9)
    good = Student(enrolment(online=CONFIG.model_copy(update={"patience_lessons": 99})))
    accepted = next(answer for answer in map(good.attend, given) if answer.graph is not None)
    assert accepted.evidence.is_better
    # the champion is what has just been accepted; the challenger begins as its copy and is poisoned before every judgement
    champion = weights_of(good.champion)
    spoiled = Student(enrolment(champion=champion, online=CONFIG.model_copy(update={"patience_lessons": 99})))
    for homework in homeworks(7, seed=1):
        spoiled.challenger.load_state_dict(copy.deepcopy(spoiled.champion.state_dict()))
        poison(spoiled)
        answer = spoiled.attend(homework)
        assert answer.graph is None
    assert answer.evidence.mean < 0.0
    assert {name: array.tobytes() for name, array in weights_of(spoiled.champion).items()} == {
        name: array.tobytes() for name, array in champion.items()
    }


def test_a_challenger_is_never_judged_on_what_overlaps_what_it_was_taught():
    student = Student(enrolment())
    taught_until = 0
    for homework in homeworks(5):
        judged_before = student._test.found().decisions if student._lessons else 0
        answer = student.attend(homework)
        fresh = (homework.lessons.decided_at >= taught_until) & (homework.lessons.due_at + HORIZON * BAR <= homework.now)
        if taught_until:
            assert answer.evidence.decisions - judged_before == int(fresh.sum())
            assert 0 < int(fresh.sum()) < CONFIG.every_bars - HORIZON
        taught_until = int(homework.lessons.known_at.max())


def test_looking_every_time_finds_noise_better_no_more_often_than_said():
    random, wrong = stream(0, "looks"), 0
    for _ in range(150):
        test = PairedTest(1, confidence=0.9)
        noise, found = random.normal(size=100), False
        for difference in noise:
            test.add(np.array([difference]))
            found = found or test.found().is_better
        wrong += found
    assert wrong / 150 <= 0.15  # 10 % and two standard errors
    test = PairedTest(1, confidence=0.9)
    test.add(random.normal(0.6, 1.0, size=200))
    assert test.found().is_better
    assert "beyond chance" in test.found().words()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Evidence(0, 0, 0.0, -math.inf), "has no outcome to be compared on yet"),
        (Evidence(121, 5, 0.0018, -math.inf), "is ahead of the champion by 0.0018 a decision over 121 decisions: too few to say whether"),
        (Evidence(121, 5, -0.0018, -math.inf), "is behind the champion by 0.0018 a decision over 121 decisions: too few to say whether"),
        (Evidence(121, 5, 0.0, -math.inf), "is level with the champion over 121 decisions: too few"),
        (
            Evidence(900, 40, 0.002, -0.001),
            "is ahead of the champion by 0.0020 a decision over 900 decisions, not beyond chance (at least -0.0010)",
        ),
        (
            Evidence(900, 40, 0.002, 0.001),
            "is ahead of the champion by 0.0020 a decision over 900 decisions, beyond chance (at least +0.0010)",
        ),
    ],
)
def test_evidence_is_told_in_plain_words(found, words):
    assert found.words().startswith(words)
    assert "inf" not in found.words()


def test_decisions_that_share_a_horizon_are_one_observation():
    test, random = PairedTest(4, confidence=0.9), stream(0, "blocks")
    differences = random.normal(size=46)
    for part in np.split(differences, [3, 20, 21]):
        test.add(part)
    found = test.found()
    assert (found.decisions, found.blocks) == (46, 11)
    assert found.mean == pytest.approx(differences[:44].mean())


def test_a_plain_interval_would_find_noise_better_far_more_often():
    """Mutation: one that is right for a single look is wrong for many."""
    random, wrong = stream(0, "looks"), 0
    for _ in range(400):
        noise = random.normal(size=200)
        n = np.arange(1, 201)
        means = np.cumsum(noise) / n
        wrong += bool((means[10:] - 1.2816 / np.sqrt(n[10:]) > 0.0).any())
    assert wrong / 400 > 0.2


def test_a_table_survives_a_cut_and_nothing_else(tmp_path):
    graph = guide_of(build_network(ACTIONS, sizes=SMALL))
    table = Adoptions(tmp_path)
    table.add(Adoption(5, 1, graph.version, "first"), graph.graph)
    with (tmp_path / "adoptions.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"at": 9, "ro')
    again = Adoptions(tmp_path)
    assert again.rows == table.rows
    assert again.newest(5).version == graph.version
    assert again.newest(4) is None
    again.add(Adoption(9, 2, graph.version, "second"), graph.graph)
    assert [row.at for row in Adoptions(tmp_path).rows] == [5, 9]
    with pytest.raises(StoreError):
        again.add(Adoption(9, 3, graph.version, "late"), graph.graph)
    with pytest.raises(ModelError):
        again.add(Adoption(11, 3, "0" * 64, "another"), graph.graph)
    (tmp_path / f"{graph.version}.onnx").write_bytes(b"another")
    with pytest.raises(ModelError):
        again.graph(graph.version)
    (tmp_path / f"{graph.version}.onnx").unlink()
    with pytest.raises(DataMissingError):
        again.graph(graph.version)
    (tmp_path / "adoptions.jsonl").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(StoreError):
        Adoptions(tmp_path)
