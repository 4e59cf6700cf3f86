"""The replay buffer: what is drawn how often, n-step targets beside a naive loop, and a file that is whole or refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.config import ReplayConfig
from cryptoalpha.learn.replay.buffer import ReplayBuffer, needed_bytes, policy_surprise
from cryptoalpha.learn.replay.n_step import n_step_targets
from cryptoalpha.learn.replay.reanalyse import reanalyse, stalest
from cryptoalpha.learn.replay.schema import Column
from cryptoalpha.learn.replay.sum_tree import SumTree

SCHEMA = {
    "features": Column((3,)),
    "policy_target": Column((4,)),
    "value": Column(dtype="float64"),
    "value_after": Column(dtype="float64"),
    "reward": Column(dtype="float64"),
    "discount": Column(dtype="float64"),
    "terminated": Column(dtype="bool"),
    "truncated": Column(dtype="bool"),
    "model_version": Column(dtype="int32"),
}


def rows(count, random, version=0):
    end = random.random(count)
    return {
        "features": random.normal(size=(count, 3)).astype(np.float32),
        "policy_target": random.dirichlet(np.ones(4), count).astype(np.float32),
        "value": random.normal(size=count),
        "value_after": random.normal(size=count),
        "reward": random.normal(size=count),
        "discount": np.full(count, 0.9),
        "terminated": end < 0.15,
        "truncated": end > 0.85,
        "model_version": np.full(count, version, np.int32),
    }


def naive_target(steps, t, n):
    """One target by walking one episode forward, as one would by hand."""
    total, factor = 0.0, 1.0
    for k in range(n):
        step = steps[t + k]
        total += factor * step["reward"]
        factor *= step["discount"]
        if step["terminated"]:
            return total
        if step["truncated"] or t + k + 1 == len(steps):
            return total + factor * step["value_after"]
    return total + factor * steps[t + n]["value"]


# --- targets


def test_a_target_by_hand():
    # Two rewards, then the value of the third state: 1 + ½·2 + ¼·10. The second episode ends: its last step is worth its reward alone.
    rewards, values = np.array([[1.0, 5.0], [2.0, 7.0], [4.0, 3.0]]), np.array([[9.0, 9.0], [9.0, 9.0], [10.0, 20.0]])
    terminated = np.array([[False, False], [False, True], [False, False]])
    after = np.full((3, 2), 100.0)
    got = n_step_targets(rewards, values, after, terminated, np.zeros((3, 2), bool), discount=0.5, n=2)
    assert_array_equal(got[0], [1 + 1 + 2.5, 5 + 3.5])
    assert_array_equal(got[1], [2 + 2 + 25.0, 7.0])
    assert_array_equal(got[2], [4 + 50.0, 3 + 50.0])  # nothing follows yet: the value of the state reached


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 12), lanes=st.integers(1, 3), n=st.integers(1, 6))
def test_targets_equal_a_walk_through_each_episode(seed, steps, lanes, n):
    random = stream(seed, "test")
    table = rows(steps * lanes, random)
    grid = {name: column.reshape(steps, lanes, *column.shape[1:]) for name, column in table.items()}
    got = n_step_targets(
        grid["reward"], grid["value"], grid["value_after"], grid["terminated"], grid["truncated"], discount=grid["discount"], n=n
    )
    buffer = ReplayBuffer(SCHEMA, ReplayConfig(capacity=64, n_steps=n), seed=0)
    ids = np.concatenate([buffer.add({name: column[t] for name, column in grid.items()}, lanes=np.arange(lanes)) for t in range(steps)])
    for lane in range(lanes):
        walk = [{name: column[t, lane] for name, column in grid.items()} for t in range(steps)]
        wanted = [naive_target(walk, t, n) for t in range(steps)]
        assert_allclose(got[:, lane], wanted, rtol=1e-12, atol=1e-12)
        assert_allclose(buffer.targets(ids)[lane::lanes], wanted, rtol=1e-12, atol=1e-12)


def test_a_target_reads_nothing_beyond_the_end_of_its_episode():
    random = stream(1, "test")
    table = {name: column[:, None] for name, column in rows(6, random).items()}
    table["terminated"][:] = table["truncated"][:] = False
    table["terminated"][2] = True

    def targets():
        named = (table[name] for name in ("reward", "value", "value_after", "terminated", "truncated"))
        return n_step_targets(*named, discount=0.9, n=4)[:3]

    before = targets()
    table["reward"][3:], table["value"][3:], table["value_after"][2:] = np.nan, np.nan, np.nan
    assert_array_equal(targets(), before)


def test_lanes_are_links_in_time_and_break_where_told_or_where_rows_have_made_room():
    random = stream(2, "test")
    buffer = ReplayBuffer(SCHEMA, ReplayConfig(capacity=4), seed=0)
    table = rows(3, random) | {"terminated": np.zeros(3, bool), "truncated": np.zeros(3, bool)}

    def one(row):
        return {name: column[row : row + 1] for name, column in table.items()}

    first = buffer.add(one(0), lanes=[7])
    buffer.add(one(1), lanes=[7])
    assert buffer.targets(first, n=1)[0] == pytest.approx(table["reward"][0] + 0.9 * table["value"][1])
    buffer.end_lanes()
    second = buffer.ids[-1:]
    buffer.add(one(2), lanes=[7])
    assert buffer.targets(second, n=1)[0] == pytest.approx(table["reward"][1] + 0.9 * table["value_after"][1])
    for _ in range(2):
        buffer.add(one(0))
    with pytest.raises(ConfigError, match="row 0 is not held: the buffer holds 1 to 4"):
        buffer.targets(first)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), capacity=st.integers(2, 11), n=st.integers(1, 4))
def test_targets_stay_right_while_rows_make_room(seed, capacity, n):
    # Three lanes at random in blocks of random size, many times around the ring, beside a list that forgets nothing.
    random = stream(seed, "test")
    buffer = ReplayBuffer(SCHEMA, ReplayConfig(capacity=capacity, n_steps=n), seed=0)
    history, last, following = [], {}, {}
    for _ in range(12):
        count = int(random.integers(1, capacity + 1))
        table = rows(count, random)
        lanes = random.integers(0, 3, count).tolist() if random.random() < 0.8 else None
        for place, row in enumerate(buffer.add(table, lanes=lanes).tolist()):
            history.append({name: column[place] for name, column in table.items()})
            if lanes is None:
                continue
            if lanes[place] in last:
                following[last.pop(lanes[place])] = row
            if not (table["terminated"][place] or table["truncated"][place]):
                last[lanes[place]] = row
        wanted = []
        for row in buffer.ids.tolist():
            steps = [row]
            while len(steps) <= n and steps[-1] in following:
                steps.append(following[steps[-1]])
            wanted.append(naive_target([history[step] for step in steps], 0, n))
        assert_allclose(buffer.targets(buffer.ids), wanted, rtol=1e-12)


def test_a_few_targets_read_a_few_rows():
    # Asserted by the memory they take: copies of whole columns of 200,000 rows would show.
    buffer = ReplayBuffer(SCHEMA, ReplayConfig(capacity=200_000), seed=0)
    buffer.add(rows(200_000, stream(0, "test")))
    tracemalloc.start()
    buffer.targets(buffer.ids[:10])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000  # `ids` itself takes 1,600,000


# --- memory and rows


def test_the_oldest_rows_make_room():
    buffer = ReplayBuffer({"x": Column()}, ReplayConfig(capacity=5), seed=0)
    ids = buffer.add({"x": np.arange(4.0)})
    buffer.add({"x": np.arange(4.0, 8.0)})
    assert len(buffer) == 5
    assert_array_equal(buffer.ids, [3, 4, 5, 6, 7])
    assert_array_equal(buffer.rows(buffer.ids)["x"], [3, 4, 5, 6, 7])
    with pytest.raises(ConfigError, match="row 0 is not held"):
        buffer.rows(ids)


def test_too_much_memory_is_refused_before_it_is_taken():
    schema = {"x": Column((1 << 20,), "float64")}
    needed = needed_bytes(schema, 1 << 20)
    assert needed > 1 << 43  # eight terabytes: allocating first would fail
    with pytest.raises(ConfigError, match=f"need {needed:,} bytes"):
        ReplayBuffer(schema, ReplayConfig(capacity=1 << 20), seed=0)
    small = {"x": Column((2,)), "y": Column(dtype="int8")}
    exact = needed_bytes(small, 100)
    assert exact == 100 * (8 + 1 + 8) + 2 * 16 * 128
    ReplayBuffer(small, ReplayConfig(capacity=100), seed=0, memory_bytes=exact)
    with pytest.raises(ConfigError):
        ReplayBuffer(small, ReplayConfig(capacity=100), seed=0, memory_bytes=exact - 1)


@pytest.mark.parametrize(
    ("given_rows", "error", "message"),
    [
        ({"x": [1.0]}, ConfigError, "missing \\['y'\\]"),
        ({"x": [1.0], "y": [1], "z": [1]}, ConfigError, "unknown \\['z'\\]"),
        ({"x": [1.0], "y": [1, 2]}, ConfigError, "'y' has shape \\(2,\\)"),
        ({"x": [[1.0]], "y": [1]}, ConfigError, "'x' has shape \\(1, 1\\), expected \\[n\\]"),
        ({"x": [1.0, np.nan], "y": [1, 2]}, ModelError, "'x' of row 1 is not finite"),
        ({"x": [1e300], "y": [1]}, ModelError, "'x' of row 0 is not finite"),
        ({"x": [1.0], "y": [300]}, ConfigError, "'y' holds values that int8 cannot hold"),
        ({"x": [1.0], "y": [0.5]}, ConfigError, "'y' is float64, which int8 cannot hold"),
    ],
)
def test_a_row_that_does_not_fit_is_named_and_nothing_is_kept(given_rows, error, message):
    buffer = ReplayBuffer({"x": Column(), "y": Column(dtype="int8")}, ReplayConfig(capacity=8), seed=0)
    with pytest.raises(error, match=message):
        buffer.add(given_rows)
    assert len(buffer) == 0


# --- draws


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), slots=st.integers(1, 40))
def test_the_sum_tree_finds_what_a_cumulative_sum_finds(seed, slots):
    random = stream(seed, "test")
    tree, weights = SumTree(slots), np.zeros(slots)
    for _ in range(3):
        some = random.integers(slots, size=random.integers(1, slots + 1))
        given = random.integers(0, 5, len(some)).astype(float)  # whole numbers: both sums are exact; zeros occur
        tree.set(some, given)
        weights[some] = given
    assert tree.total == weights.sum()
    if tree.total:
        points = random.random(50) * tree.total
        assert_array_equal(tree.find(points), np.searchsorted(np.cumsum(weights), points, side="right"))


def test_no_point_falls_on_a_slot_without_weight_even_at_the_rim():
    tree = SumTree(6)
    tree.set(np.arange(6), np.array([0.1, 0.2, 0.3, 0.7, 0.0, 0.0]))
    assert_array_equal(tree.find(np.array([np.nextafter(tree.total, 0), tree.total, 10.0])), [3, 3, 3])


def chi_square(ids, chances):
    seen, wanted = np.bincount(ids, minlength=len(chances)), len(ids) * chances
    return float(((seen - wanted) ** 2 / wanted).sum())


CRITICAL_19 = 43.8
"""Chi-square with 19 degrees of freedom exceeds it once in a thousand (scipy.stats.chi2.isf(.001, 19) = 43.82)."""


def test_draws_by_priority_follow_the_priorities_and_the_weights_undo_it():
    config = ReplayConfig(capacity=20, priority_exponent=0.6, importance_exponent=1.0)
    buffer = ReplayBuffer({"x": Column(dtype="float64")}, config, seed=3)
    value = stream(3, "values").normal(size=20)
    ids = buffer.add({"x": value})
    priority = np.arange(1.0, 21.0)
    buffer.rate(ids, priority)
    chances = priority**0.6 / (priority**0.6).sum()
    draws = [buffer.sample_prioritised(1) for _ in range(20_000)]
    assert chi_square(np.concatenate([draw.ids for draw in draws]), chances) < CRITICAL_19
    assert chi_square(np.concatenate([draw.ids for draw in draws]), np.full(20, 0.05)) > 10 * CRITICAL_19  # the test can fail
    many = buffer.sample_prioritised(100_000)
    assert_allclose(many.weights, (chances.min() / chances)[many.ids], rtol=1e-5)  # β = 1: proportional to 1 / P, the largest is 1
    assert np.average(many.rows["x"], weights=many.weights) == pytest.approx(value.mean(), abs=0.01)


def test_new_rows_come_with_the_largest_priority():
    buffer = ReplayBuffer({"x": Column()}, ReplayConfig(capacity=8, priority_exponent=1.0), seed=0)
    buffer.rate(buffer.add({"x": np.zeros(4)}), [8.0, 0.0, 0.0, 0.0])
    new = buffer.add({"x": np.zeros(1)})
    drawn = np.bincount(buffer.sample_prioritised(1_000).ids, minlength=5)
    assert drawn[0] + drawn[new[0]] > 995
    assert abs(drawn[0] - drawn[4]) <= 2  # one draw from each thousandth of the total


def test_a_share_of_the_draws_follows_surprise():
    buffer = ReplayBuffer({"x": Column()}, ReplayConfig(capacity=20, surprise_share=0.5), seed=5)
    surprise = np.where(np.arange(20) < 2, 3.0, 0.0)
    buffer.add({"x": np.zeros(20)}, surprise=surprise)
    ids = np.concatenate([buffer.sample(10).ids for _ in range(2_000)])
    assert chi_square(ids, 0.5 / 20 + 0.5 * surprise / surprise.sum()) < CRITICAL_19
    calm = ReplayBuffer({"x": Column()}, ReplayConfig(capacity=20, surprise_share=0.5), seed=5)
    calm.add({"x": np.zeros(20)})
    assert chi_square(calm.sample(20_000).ids, np.full(20, 0.05)) < CRITICAL_19


def test_surprise_is_the_divergence_from_the_prior():
    assert_allclose(policy_surprise([[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.25, 0.75]]), [0.0, np.log(4)])
    with pytest.raises(ModelError, match="row 0"):
        policy_surprise([[0.5, 0.5]], [[1.0, 0.0]])


def test_the_same_seed_draws_the_same_rows_and_another_name_others():
    def draws(seed, name):
        buffer = ReplayBuffer({"x": Column()}, ReplayConfig(capacity=1_000), seed=seed, name=name)
        buffer.add({"x": np.zeros(1_000)})
        return buffer.sample(50).ids

    assert_array_equal(draws(1, "a"), draws(1, "a"))
    assert not np.array_equal(draws(1, "a"), draws(1, "b"))
    assert not np.array_equal(draws(1, "a"), draws(2, "a"))


def test_an_empty_buffer_draws_nothing():
    with pytest.raises(ConfigError, match="empty buffer"):
        ReplayBuffer({"x": Column()}, ReplayConfig(), seed=0).sample(1)


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_fewer_than_one_row_cannot_be_drawn(count):
    buffer = ReplayBuffer(SCHEMA, ReplayConfig(capacity=4), seed=0)
    buffer.add(rows(2, stream(0, "test")))
    for draw in (buffer.sample, buffer.sample_prioritised):
        with pytest.raises(ConfigError, match=f"{count} rows were asked for"):
            draw(count)


@pytest.mark.parametrize("exponent", [0.6, 1.0])
def test_the_largest_priorities_leave_the_weights_finite_and_larger_ones_are_refused(exponent):
    buffer = ReplayBuffer(SCHEMA, ReplayConfig(capacity=4, priority_exponent=exponent, importance_exponent=1.0), seed=0)
    ids = buffer.add(rows(4, stream(0, "test")))
    buffer.rate(ids, np.full(4, 1e100))
    assert_allclose(buffer.sample_prioritised(8).weights, 1.0)
    for priority in (1e101, 1e308, np.inf, np.nan, -1.0):
        with pytest.raises(ModelError, match="priority of row 1 is"):
            buffer.rate(ids[:2], [1.0, priority])


# --- re-planning


def test_reanalysed_rows_carry_the_new_targets_and_who_wrote_them():
    random = stream(4, "test")
    buffer = ReplayBuffer(SCHEMA, ReplayConfig(capacity=10, n_steps=1), seed=0)
    table = rows(3, random) | {"terminated": np.zeros(3, bool), "truncated": np.zeros(3, bool)}
    for row in range(3):
        buffer.add({name: column[row : row + 1] for name, column in table.items()}, lanes=[0])
    reanalyse(buffer, buffer.ids[1:2], lambda old: {"value": old["value"] + 10.0}, version=4)
    assert_array_equal(buffer.rows(buffer.ids)["model_version"], [0, 4, 0])
    assert buffer.targets(buffer.ids[:1])[0] == pytest.approx(table["reward"][0] + 0.9 * (table["value"][1] + 10.0))
    assert_array_equal(stalest(buffer, 5, version=4), [0, 2])
    assert_array_equal(stalest(buffer, 1, version=5), [0])
    with pytest.raises(ConfigError, match="row 1 was written by model 4, newer than model 3"):
        reanalyse(buffer, buffer.ids, lambda old: {"value": old["value"]}, version=3)


def test_a_refused_answer_changes_nothing():
    buffer = ReplayBuffer(SCHEMA, ReplayConfig(capacity=10), seed=0)
    buffer.add(rows(3, stream(4, "test")))
    before = buffer.rows(buffer.ids)
    bad = [{"value": np.full(3, np.nan)}, {"value": np.zeros(3), "surprise": np.full(3, -1.0)}]
    for answer in bad:
        with pytest.raises(ModelError):
            reanalyse(buffer, buffer.ids, lambda _, answer=answer: answer, version=9)
    for name, column in buffer.rows(buffer.ids).items():
        assert_array_equal(column, before[name])
