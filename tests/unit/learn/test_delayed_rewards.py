"""Decisions wait for their rewards: none leaves early, all leave once, in order, also across a restart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError, LookAheadError, ModelError, StoreError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.learn.actor_critic.delayed import DelayedRewards
from cryptoalpha.learn.replay.schema import Column

SCHEMA = {"x": Column((2,)), "action": Column(dtype="int64")}


def decision(*actions):
    return {"x": np.array([[action, 0.5] for action in actions], np.float32), "action": np.array(actions)}


def test_a_reward_is_handed_out_when_it_is_known_and_not_before():
    queue = DelayedRewards(SCHEMA, 10)
    first, second = queue.decide(decision(4, 7), decided_at=0, due_at=[2 * HOUR, 1 * HOUR])
    queue.settle([first, second], [0.5, -0.5], known_at=[2 * HOUR, 1 * HOUR + 5])
    assert len(queue.mature(1 * HOUR)) == 0  # due, but not yet known
    matured = queue.mature(3 * HOUR)
    assert_array_equal(matured.tickets, [second, first])  # by the time it was known
    assert_array_equal(matured.rows["action"], [7, 4])
    assert_array_equal(matured.rewards, [-0.5, 0.5])
    assert_array_equal(matured.known_at, [1 * HOUR + 5, 2 * HOUR])
    assert len(queue.mature(3 * HOUR)) == len(queue) == 0


def test_a_reward_cannot_claim_to_be_known_before_its_horizon_closed():
    queue = DelayedRewards(SCHEMA, 10)
    tickets = queue.decide(decision(1), decided_at=HOUR, due_at=2 * HOUR)
    with pytest.raises(LookAheadError, match="due at 1970-01-01T02:00:00Z, but claims to be known at 1970-01-01T01:00:00Z"):
        queue.settle(tickets, [1.0], known_at=HOUR)
    with pytest.raises(LookAheadError, match="before it is decided"):
        queue.decide(decision(1), decided_at=HOUR, due_at=HOUR - 1)
    assert_array_equal(queue.overdue(2 * HOUR), tickets)
    assert len(queue.mature(2**62)) == 0  # nobody has said what came of it


def test_a_full_queue_says_so_and_forgets_nothing():
    queue = DelayedRewards(SCHEMA, 2)
    tickets = queue.decide(decision(1, 2), decided_at=0, due_at=HOUR)
    with pytest.raises(ConfigError, match="1 more decisions do not fit the queue of 2: 2 wait, the first was due at 1970-01-01T01:00:00Z"):
        queue.decide(decision(3), decided_at=0, due_at=HOUR)
    queue.drop(tickets[:1])
    queue.decide(decision(3), decided_at=0, due_at=HOUR)
    assert len(queue) == 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda queue: queue.settle([5], [1.0], known_at=9), ConfigError, "do not all wait here"),
        (lambda queue: queue.settle([0.9], [1.0], known_at=9), ConfigError, "tickets are float64, expected the whole numbers"),
        (lambda queue: queue.drop([True]), ConfigError, "tickets are bool"),
        (lambda queue: queue.settle([0, 0], [1.0, 1.0], known_at=9), ConfigError, "named twice"),
        (lambda queue: queue.settle([0], [np.nan], known_at=9), ModelError, "decision 0 is nan"),
        (lambda queue: queue.settle([1], [2.0], known_at=9), ConfigError, "decision 1 is settled already"),
        (lambda queue: queue.drop([-1]), ConfigError, "do not all wait here"),
        (lambda queue: queue.decide(decision(1), decided_at=0.5, due_at=9), ConfigError, "whole nanoseconds"),
        (lambda queue: DelayedRewards(SCHEMA, 1 << 40), ConfigError, "at most 268,435,456 bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, message):
    queue = DelayedRewards(SCHEMA, 4)
    queue.decide(decision(1, 2), decided_at=0, due_at=5)
    queue.settle([1], [1.0], known_at=5)
    with pytest.raises(error, match=message):
        call(queue)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 25), restart=st.integers(0, 24))
def test_the_queue_does_what_a_plain_list_does_also_across_a_restart(tmp_path, seed, steps, restart):
    random = stream(seed, "test")
    queue, waiting = DelayedRewards(SCHEMA, 30), []
    for now in range(steps):
        for _ in range(random.integers(0, 4)):
            if len(waiting) < 30:
                due = now + int(random.integers(0, 6))
                (ticket,) = queue.decide(decision(now), decided_at=now, due_at=due)
                waiting.append({"ticket": int(ticket), "due": due, "action": now, "known": None, "reward": None})
        for item in waiting:
            if item["known"] is None and item["due"] <= now and random.random() < 0.6:
                item["known"], item["reward"] = now + int(random.integers(0, 3)), float(random.normal())
                queue.settle([item["ticket"]], [item["reward"]], known_at=item["known"])
        if now == restart:
            queue.save(tmp_path / "queue")
            queue = DelayedRewards.restore(tmp_path / "queue", schema=SCHEMA)
        late = sorted(item["ticket"] for item in waiting if item["known"] is None and item["due"] <= now)
        assert queue.overdue(now).tolist() == late
        ready = sorted(
            (item for item in waiting if item["known"] is not None and item["known"] <= now), key=lambda i: (i["known"], i["ticket"])
        )
        matured = queue.mature(now)
        assert (matured.known_at <= now).all()
        assert matured.tickets.tolist() == [item["ticket"] for item in ready]
        assert matured.rewards.tolist() == [item["reward"] for item in ready]
        assert matured.rows["action"].tolist() == matured.decided_at.tolist() == [item["action"] for item in ready]
        waiting = [item for item in waiting if item not in ready]
        assert len(queue) == len(waiting)


def test_a_queue_of_other_columns_is_refused(tmp_path):
    DelayedRewards(SCHEMA, 3).save(tmp_path / "queue")
    with pytest.raises(StoreError, match="expected"):
        DelayedRewards.restore(tmp_path / "queue", schema={"x": Column()})
