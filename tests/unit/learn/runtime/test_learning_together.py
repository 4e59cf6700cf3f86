"""Learning by workers: the same bits as without them, also when one of them is killed in the middle."""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError, WorkerDiedError
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.evolution import evolve
from cryptoalpha.learn.runtime import open_workers
from cryptoalpha.learn.self_play_together import SelfPlayTogether
from cryptoalpha.learn.workers import InProcess, LocalProcesses


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("CRYPTOALPHA_TEST_LEARNER", str(os.getpid()))  # who is not to be killed
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def evolved(learners, workers=None, generations=5):
    here = learners.replica()
    evolve(here.strategy, here.fitness, generations=generations, workers=workers)
    return here.strategy.fingerprint()


def played(learners, workers, groups=3, iterations=3):
    learner = learners.play_learner()
    many = SelfPlayTogether(learner, workers, [learners.player(seed).world.state() for seed in range(3, 3 + groups)])
    return [many.iterate() for _ in range(iterations)], learners.weights(learner.net), learner


def planned(learners, planners=None, at_once=5):
    learner = learners.plan_learner(at_once, planners)
    return [learner.iterate() for _ in range(3)], learners.weights(learner.net)


@pytest.mark.slow
def test_evolution_goes_on_with_new_workers_after_a_death_to_the_same_bits(learners, tmp_path):
    alone = evolved(learners)
    (tmp_path / "die").touch()
    build = functools.partial(learners.replica, 3, str(tmp_path / "die"))
    with LocalProcesses(2, build, restarts=1) as workers:
        assert evolved(learners, workers) == alone
    assert not (tmp_path / "die").exists()  # it did die
    (tmp_path / "die").touch()
    with LocalProcesses(2, build) as workers, pytest.raises(WorkerDiedError, match="SIGKILL"):
        evolved(learners, workers)


@pytest.mark.slow
def test_evolution_survives_a_death_while_the_workers_take_an_update(learners, monkeypatch):
    """Some have followed and some have not: all new ones get the weights."""
    alone = evolved(learners)
    with LocalProcesses(2, learners.replica, restarts=1) as workers:
        asked = workers.each
        updates = 0

        def each(task, item):
            nonlocal updates
            answers = asked(task, item)
            updates += task.__name__ == "follow"
            if updates == 3 and task.__name__ == "follow":
                raise WorkerDiedError("one of them, after the others had followed")
            return answers

        monkeypatch.setattr(workers, "each", each)
        assert evolved(learners, workers) == alone


def test_one_group_of_self_play_is_self_play_itself(learners):
    alone = learners.play_learner()
    lessons = [alone.iterate() for _ in range(3)]
    shared, weights, learner = played(learners, InProcess(learners.player), groups=1)
    assert shared == lessons
    assert weights == learners.weights(alone.net)
    for column, values in alone.memory.rows(alone.memory.ids).items():
        np.testing.assert_array_equal(learner.memory.rows(learner.memory.ids)[column], values)


@pytest.mark.slow
def test_self_play_by_processes_one_of_which_dies_is_that_of_this_process(learners, tmp_path):
    here = played(learners, InProcess(learners.player))
    (tmp_path / "die").touch()
    with LocalProcesses(2, functools.partial(learners.player, 3, str(tmp_path / "die")), restarts=1) as workers:
        there = played(learners, workers)
    assert not (tmp_path / "die").exists()
    assert there[:2] == here[:2]
    assert here[0][-1].rows == 3 * 3 * 4 * 8  # iterations, groups, decisions, episodes


def test_a_shared_run_that_is_resumed_is_the_run_that_was_not_interrupted(learners, tmp_path):
    from cryptoalpha.learn.replay.buffer import ReplayBuffer

    workers = InProcess(learners.player)
    whole, weights, _ = played(learners, workers, iterations=4)
    _, _, first = played(learners, workers, iterations=0)
    many = SelfPlayTogether(first, workers, [learners.player(seed).world.state() for seed in (3, 4, 5)])
    assert [many.iterate() for _ in range(2)] == whole[:2]
    state = many.state()
    first.memory.save(tmp_path / "memory")

    second = learners.play_learner()
    again = SelfPlayTogether(second, workers, [learners.player(seed).world.state() for seed in (0, 1, 2)])
    again.load(state, ReplayBuffer.restore(tmp_path / "memory"))
    assert [again.iterate() for _ in range(2)] == whole[2:]
    assert learners.weights(second.net) == weights
    with pytest.raises(ConfigError, match="3 groups of episodes, this one has 1"):
        SelfPlayTogether(second, workers, [learners.player(0).world.state()]).load(state, second.memory)
    with pytest.raises(ConfigError, match="no group"):
        SelfPlayTogether(second, workers, [])


@pytest.mark.slow
def test_plans_made_by_processes_one_of_which_dies_teach_the_same(learners, tmp_path):
    here = planned(learners)
    (tmp_path / "die").touch()
    with LocalProcesses(2, functools.partial(learners.planner, str(tmp_path / "die")), restarts=1) as workers:
        assert planned(learners, workers) == here
    assert not (tmp_path / "die").exists()


def test_plans_of_a_fixed_size_are_those_of_any_planner(learners):
    here = planned(learners)
    assert planned(learners, InProcess(learners.planner)) == here
    assert planned(learners, at_once=0)[0] == pytest.approx(here[0], rel=1e-4)  # all in one plan: the same up to rounding


def test_settings_choose_who_works():
    with open_workers(RuntimeConfig(), 1, int) as workers:
        assert isinstance(workers, InProcess)
        assert not workers.revive()
    with open_workers(RuntimeConfig(restarts=2), 2, int) as workers:
        assert isinstance(workers, LocalProcesses)
        assert [workers.revive() for _ in range(3)] == [True, True, False]
        assert len(set(workers.pids)) == 2
