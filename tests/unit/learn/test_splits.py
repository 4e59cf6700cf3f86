"""Splits in time: no training label touches a test label, judged by comparing every pair; counts by their closed forms."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.splits.combinatorial import along_path, backtest_paths, combinatorial_purged_cv, path_count, split_count
from cryptoalpha.learn.splits.folds import purged_kfold, walk_forward
from cryptoalpha.learn.splits.labels import Split, labels


def market(seed, count):
    """Intervals of several instruments at irregular moments, shuffled, with labels of different lengths."""
    random = stream(seed, "test")
    known_at = np.sort(random.integers(0, 4 * count, count))
    order = random.permutation(count)
    return known_at[order], (known_at + random.integers(0, 12, count))[order]


def leaking_pairs(split, known_at, ends_at, embargo=0):
    """Pairs (train, test) that share a moment, or where training begins within the embargo after the test: all are looked at."""
    pairs = []
    for i in split.train:
        for j in split.test:
            overlap = known_at[i] <= ends_at[j] and known_at[j] <= ends_at[i]
            hasty = ends_at[j] < known_at[i] <= ends_at[j] + embargo
            if overlap or hasty:
                pairs.append((int(i), int(j)))
    return pairs


def needlessly_dropped(split, known_at, ends_at, embargo):
    """Samples on neither side although they touch no test: purging must not cost more than it has to."""
    out = np.setdiff1d(np.arange(len(known_at)), np.concatenate([split.train, split.test]))
    return set(out.tolist()) - {i for i, _ in leaking_pairs(Split(out, split.test), known_at, ends_at, embargo)}


def made(splits):
    """All splits; an example in which a fold would be empty shows nothing."""
    try:
        return list(splits())
    except ConfigError:
        reject()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(8, 50), folds=st.integers(2, 5), embargo=st.integers(0, 6))
def test_purged_folds_leak_nothing_and_drop_nothing_else(seed, count, folds, embargo):
    known_at, ends_at = market(seed, count)
    splits = made(lambda: purged_kfold(known_at, ends_at, folds=folds, embargo_ns=embargo))
    assert_array_equal(np.sort(np.concatenate([split.test for split in splits])), np.arange(count))  # each judged once
    for split in splits:
        assert leaking_pairs(split, known_at, ends_at, embargo) == []
        assert needlessly_dropped(split, known_at, ends_at, embargo) == set()


def test_without_the_purge_there_are_leaks():
    known_at, ends_at = market(1, 60)

    def leaks(ends):
        return sum(len(leaking_pairs(split, known_at, ends_at, 3)) for split in purged_kfold(known_at, ends, folds=4, embargo_ns=0))

    assert leaks(known_at) > 10  # a splitter that is told that labels end at once is one without purge
    assert sum(len(leaking_pairs(split, known_at, ends_at, 3)) for split in purged_kfold(known_at, ends_at, folds=4, embargo_ns=3)) == 0
    assert leaks(ends_at) > 0  # purged, but without the embargo


def test_the_example_of_the_book_by_hand():
    # 120 bars, labels three bars ahead, two bars of embargo, test 24–35: train up to 20 and from 41 on.
    bar = np.arange(120)
    split = list(purged_kfold(bar, bar + 3, folds=10, embargo_ns=2))[2]
    assert_array_equal(split.test, np.arange(24, 36))
    assert_array_equal(split.train, np.concatenate([np.arange(21), np.arange(41, 120)]))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(8, 50), folds=st.integers(1, 5), embargo=st.integers(0, 6), window=st.integers(0, 80))
def test_walking_forward_only_learns_what_was_settled_before(seed, count, folds, embargo, window):
    known_at, ends_at = market(seed, count)
    window_ns = window or None
    splits = made(lambda: walk_forward(known_at, ends_at, folds=folds, embargo_ns=embargo, window_ns=window_ns))
    judged = np.concatenate([split.test for split in splits])
    assert len(np.unique(judged)) == len(judged) == (known_at >= known_at[splits[0].test].min()).sum()
    for split in splits:
        start = known_at[split.test].min()
        wanted = [i for i in range(count) if ends_at[i] + embargo < start and (not window or known_at[i] >= start - window)]
        assert_array_equal(split.train, wanted)
        assert leaking_pairs(split, known_at, ends_at) == []


def test_walking_forward_by_hand():
    bar = np.arange(12)
    expanding = list(walk_forward(bar, bar + 1, folds=3))
    assert [split.train.tolist() for split in expanding] == [[0, 1], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7]]
    assert [split.test.tolist() for split in expanding] == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]
    rolling = list(walk_forward(bar, bar + 1, folds=2, first_train_share=0.5, window_ns=4, embargo_ns=1))
    assert [split.train.tolist() for split in rolling] == [[2, 3], [5, 6]]
    assert [split.test.tolist() for split in rolling] == [[6, 7, 8], [9, 10, 11]]


def test_instruments_of_one_moment_stay_together():
    known_at = np.repeat(np.arange(10), 4)
    for split in purged_kfold(known_at, known_at, folds=3):
        assert set(known_at[split.train]) & set(known_at[split.test]) == set()
        assert len(split.train) + len(split.test) == 40


# --- combinatorial


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(20, 50), blocks=st.integers(2, 6), data=st.data())
def test_combinatorial_splits_leak_nothing_and_paths_pass_every_sample_once(seed, count, blocks, data):
    tested, embargo = data.draw(st.integers(1, blocks - 1)), data.draw(st.integers(0, 4))
    known_at, ends_at = market(seed, count)
    splits = made(lambda: combinatorial_purged_cv(known_at, ends_at, blocks=blocks, tested=tested, embargo_ns=embargo))
    assert len(splits) == split_count(blocks, tested) == comb(blocks, tested)
    for split in splits:
        assert leaking_pairs(split, known_at, ends_at, embargo) == []
        test = np.zeros(count, bool)
        test[split.test] = True
        dropped = ~test & ~np.isin(np.arange(count), split.train)
        assert_array_equal(dropped, ~test & labels(known_at, ends_at).touching(test, after=embargo))
    paths = backtest_paths(blocks, tested)
    assert len(paths) == path_count(blocks, tested) == tested * comb(blocks, tested) // blocks
    outputs = [np.stack([split.test, np.full(len(split.test), number)], axis=1) for number, split in enumerate(splits)]
    used = np.zeros((len(splits), count), int)
    for path in paths:
        joined = along_path(path, splits, outputs)
        assert_array_equal(joined[:, 0], np.arange(count))  # every sample, once, in its place
        used[joined[:, 1], np.arange(count)] += 1
    wanted = [np.isin(np.arange(count), split.test) for split in splits]
    assert_array_equal(used, wanted)  # and every forecast made is used on exactly one path


def test_ten_blocks_two_tested_are_45_splits_and_9_paths():
    bar = np.arange(120)
    splits = list(combinatorial_purged_cv(bar, bar + 3, blocks=10, tested=2, embargo_ns=2))
    assert (len(splits), backtest_paths(10, 2).shape) == (45, (9, 10))
    assert [split.blocks for split in splits] == list(combinations(range(10), 2))
    one = splits[[split.blocks for split in splits].index((2, 5))]
    assert_array_equal(one.train, np.concatenate([np.arange(21), np.arange(41, 57), np.arange(77, 120)]))


def test_the_paths_of_six_blocks_two_tested_are_those_of_the_book():
    # Chapter 12, figure 12.1 and 12.2: 15 splits, 5 paths; path 1 takes block 1 from split 1, block 2 from split 1, block 3 from split 2 …
    assert_array_equal(backtest_paths(6, 2)[0] + 1, [1, 1, 2, 3, 4, 5])
    assert_array_equal(backtest_paths(6, 2)[1] + 1, [2, 6, 6, 7, 8, 9])


# --- what is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: purged_kfold([0, 1], [0, 1], folds=3), "2 moments cannot be cut into 3"),
        (lambda: purged_kfold([0, 1], [0, 1], folds=1), "1 folds, expected 2"),
        (lambda: purged_kfold([0, 1, 2], [9, 9, 9], folds=3), "fold 1 of 3 has no train samples"),
        (lambda: purged_kfold([0, 5], [1, 4], folds=2), "sample 1 is made at 5, after its label ended at 4"),
        (lambda: purged_kfold([0, 1], [0], folds=2), "differ in shape"),
        (lambda: purged_kfold([0.0, 1.0], [0.0, 1.0], folds=2), "whole nanoseconds"),
        (lambda: purged_kfold([0, 1], [0, 1], folds=2, embargo_ns=-1), "embargo_ns is -1"),
        (lambda: walk_forward([0, 1], [0, 1], folds=0), "0 folds"),
        (lambda: walk_forward([0, 1], [0, 1], folds=2), "too few"),
        (lambda: walk_forward([0, 1, 2], [5, 5, 5], folds=1), "walk-forward fold 1 of 1 has no train samples"),
        (lambda: walk_forward([0, 1, 2], [0, 1, 2], folds=1, window_ns=0), "window_ns is 0"),
        (lambda: combinatorial_purged_cv([0, 1], [0, 1], blocks=2, tested=2), "2 of 2 blocks"),
        (lambda: list(combinatorial_purged_cv([0, 1, 2], [9, 9, 9], blocks=3, tested=1)), "tests blocks \\(0,\\) has no train"),
    ],
)
def test_what_cannot_be_split_says_why(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


FOREVER = np.iinfo(np.int64).max


@pytest.mark.parametrize("embargo", [0, 1, 10**18, FOREVER - 20])
def test_a_label_open_for_ever_never_teaches(embargo):
    known = np.arange(12, dtype=np.int64) + (FOREVER - 12 if embargo == FOREVER - 20 else 0)
    ends = known.copy()
    ends[0] = FOREVER
    if embargo < 10**18:
        for split in walk_forward(known, ends, folds=2, embargo_ns=embargo):
            assert 0 not in split.train
    # By hand, in Python's integers, which do not wrap.
    samples = labels(known, ends)
    for test in (known < known[4], known >= known[8]):
        expected = [
            any(int(known[t]) <= int(ends[s]) and int(known[s]) <= int(ends[t]) + embargo for t in np.flatnonzero(test)) for s in range(12)
        ]
        assert_array_equal(samples.touching(test, after=embargo), expected)


def test_a_test_label_open_for_ever_leaves_nothing_after_it_to_learn_from():
    known = np.arange(12, dtype=np.int64)
    ends = known.copy()
    ends[5] = FOREVER
    split = list(purged_kfold(known, ends, folds=3, embargo_ns=1))[1]
    assert_array_equal(split.train, [0, 1, 2, 3])


@pytest.mark.parametrize("bad", [float("nan"), 1.5, 2.0, True, -1, 10**19, None, "1"])
def test_an_embargo_must_be_a_length_of_time(bad):
    known = np.arange(12, dtype=np.int64)
    for make in (
        lambda: walk_forward(known, known, folds=2, embargo_ns=bad),
        lambda: purged_kfold(known, known, folds=2, embargo_ns=bad),
        lambda: combinatorial_purged_cv(known, known, blocks=3, tested=1, embargo_ns=bad),
    ):
        with pytest.raises(ConfigError, match="embargo_ns"):
            make()


@pytest.mark.parametrize("bad", [float("nan"), 1.5, 0, -1, 10**19])
def test_a_window_must_be_a_length_of_time(bad):
    known = np.arange(12, dtype=np.int64)
    with pytest.raises(ConfigError, match="window_ns"):
        walk_forward(known, known, folds=2, window_ns=bad)


def test_a_window_may_reach_back_before_the_first_moment_there_is():
    known = np.arange(12, dtype=np.int64) + np.iinfo(np.int64).min
    (wide,) = walk_forward(known, known, folds=1, window_ns=int(FOREVER))
    (open_end,) = walk_forward(known, known, folds=1)
    assert_array_equal(wide.train, open_end.train)


def test_a_moment_beyond_the_last_there_is_is_refused():
    with pytest.raises(ConfigError, match="known_at holds 9223372036854775808"):
        labels(np.array([2**63], np.uint64), np.array([2**63], np.uint64))
