"""Folds: nothing that teaches, accepts or stops touches what judges, whatever the lengths; too little history says how much is needed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.learn.splits.labels import LAST, labels
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.folds import PARTS, plan_folds


def history(days: int, horizon: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Hourly bars whose labels end `horizon` + 1 bars later; the last never do."""
    known_at = HOUR * np.arange(1, 24 * days + 1, dtype=np.int64)
    ends = np.full(len(known_at), LAST)
    ends[: -1 - horizon] = known_at[1 + horizon :]
    return known_at, ends


@settings(max_examples=40, deadline=None)
@given(
    learn=st.integers(20, 60),
    test=st.integers(3, 30),
    horizon=st.integers(1, 48),
    embargo=st.floats(0.0, 2.0),
    extra=st.integers(0, 40),
    most=st.none() | st.integers(1, 3),
    expanding=st.booleans(),
)
def test_no_interval_of_what_teaches_touches_what_judges(learn, test, horizon, embargo, extra, most, expanding):
    known_at, ends = history(learn + test + extra, horizon)
    config = TrainConfig(
        train_days=learn, test_days=test, validation_share=0.25, accept_share=0.2, embargo_days=embargo, expanding=expanding
    )
    folds = plan_folds(known_at, ends, config, most=most)
    samples = labels(known_at, ends)
    judged = np.zeros(len(known_at), int)
    for fold in folds:
        parts = [getattr(fold, part) for part in PARTS]
        assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
        for place, later in enumerate(parts[1:], start=1):
            mask = np.zeros(len(known_at), bool)
            mask[later] = True
            touching = samples.touching(mask)  # an independent rule: intervals, not boundaries
            for earlier in parts[:place]:
                assert not touching[earlier].any()
        for earlier, later in pairwise(parts):
            assert ends[earlier].max() < known_at[later[0]] - round(embargo * DAY) + HOUR
        assert ends[np.concatenate(parts[:3])].max() + round(embargo * DAY) < fold.usable_from <= known_at[fold.test[0]]
        judged[fold.test] += 1
    stretch = slice(folds[0].test[0], None)
    assert (judged[stretch] == 1).all()  # end to end, up to the newest bar
    assert not judged[: folds[0].test[0]].any()
    assert most is None or len(folds) <= most


def test_the_newest_folds_are_chosen_and_are_as_long_as_asked():
    known_at, ends = history(700)
    folds = plan_folds(known_at, ends, TrainConfig(train_days=100, test_days=90), most=4)
    assert [len(fold.test) for fold in folds] == [90 * 24] * 4
    assert folds[-1].test[-1] == len(known_at) - 1
    assert [fold.number for fold in folds] == [0, 1, 2, 3]


def test_an_expanding_fold_learns_from_the_first_bar_on():
    known_at, ends = history(700)
    folds = plan_folds(known_at, ends, TrainConfig(train_days=100, test_days=90, expanding=True), test_since=300 * DAY)
    assert [fold.train[0] for fold in folds] == [0] * len(folds)
    assert [fold.validation_since for fold in folds] == [pytest.approx(0.85 * fold.test_since, rel=1e-12) for fold in folds]


def test_a_first_day_to_judge_is_kept_and_the_oldest_stretch_is_what_is_left():
    known_at, ends = history(300)
    folds = plan_folds(known_at, ends, TrainConfig(train_days=100, test_days=60), test_since=150 * DAY, test_until=280 * DAY)
    assert [len(fold.test) for fold in folds] == [10 * 24, 60 * 24, 60 * 24]
    assert folds[0].test_since == 150 * DAY
    assert folds[-1].test_until == 280 * DAY


def test_too_little_history_says_how_many_days_are_needed():
    known_at, ends = history(120)
    with pytest.raises(DataMissingError, match=r"holds 120 days .* needs 150: 100 to learn from and 50 to be judged on"):
        plan_folds(known_at, ends, TrainConfig(train_days=100, test_days=50))
    with pytest.raises(DataMissingError, match="needs bars from"):
        plan_folds(known_at, ends, TrainConfig(train_days=100, test_days=50), test_since=90 * DAY)


def test_a_stretch_without_a_settled_row_is_refused():
    known_at, ends = history(60, horizon=200)
    with pytest.raises(ConfigError, match="no accept rows left"):
        plan_folds(known_at, ends, TrainConfig(train_days=40, test_days=10, accept_share=0.02))


def test_rows_out_of_order_are_refused():
    known_at, ends = history(60)
    with pytest.raises(ConfigError, match="order of time"):
        plan_folds(known_at[::-1], ends[::-1], TrainConfig(train_days=40, test_days=10))
