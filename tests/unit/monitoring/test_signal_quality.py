"""Quality of a source: the product of three numbers, each known by construction."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring import measures as m

OUTCOME, NOISE = np.random.default_rng(7).normal(size=(2, 400, 8))
HELPFUL = OUTCOME + 3.0 * NOISE  # correlation 1 / √10


def test_quality_is_ic_times_coverage_times_freshness():
    spoke = np.random.default_rng(8).random(OUTCOME.shape) < 0.8
    known = np.arange(400)[:, None] < np.full(8, 395)
    record = m.SourceRecord("news", HELPFUL, OUTCOME, spoke=spoke, known=known, age=np.full(OUTCOME.shape, 6.0), half_life=3.0)
    found = m.signal_quality(record)
    ic = m.information_coefficient(HELPFUL, OUTCOME, observed=spoke & known)
    assert (found.ic, found.periods, found.cross_sectional) == (ic.mean, ic.observations, True)
    assert found.coverage == (spoke & known).sum() / known.sum()
    assert found.freshness == 0.25  # two half-lives
    assert found.quality.estimate == pytest.approx(found.ic * found.coverage * 0.25, rel=1e-12)
    assert 0 < found.quality.low < found.quality.estimate < found.quality.high
    assert found.quality.share_below_zero == 0.0
    assert found.reason is None


def test_a_source_without_content_has_zero_in_its_interval_and_a_misleading_one_lies_below():
    worthless = m.signal_quality(m.SourceRecord("noise", NOISE, OUTCOME))
    assert worthless.quality.low < 0 < worthless.quality.high
    assert m.signal_quality(m.SourceRecord("contrary", -HELPFUL, OUTCOME)).quality.high < 0


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for k in range(100):
        rng = np.random.default_rng(1000 + k)
        r = rng.normal(size=(150, 6))
        found = m.signal_quality(m.SourceRecord("s", rng.normal(size=r.shape), r), seed=k, resamples=200)
        held += found.quality.low <= 0.0 <= found.quality.high
    assert held >= 88  # 95 less three standard errors


def test_one_asset_is_judged_along_time_and_blocks_are_as_long_as_the_horizon():
    found = m.signal_quality(m.SourceRecord("chain", HELPFUL[:, 0], OUTCOME[:, 0], horizon=12))
    assert found.cross_sectional is False
    assert found.ic == pytest.approx(m.information_coefficient(HELPFUL[:, 0], OUTCOME[:, 0]).mean)
    assert found.quality.block_length >= 12
    assert (found.coverage, found.freshness) == (1.0, 1.0)


def test_rolling_windows_are_the_quality_of_their_rows_and_see_nothing_later():
    record = m.SourceRecord("news", HELPFUL, OUTCOME)
    rolled = list(m.rolling_signal_quality(record, 100, step=50, resamples=50))
    assert [row.end for row in rolled] == [100, 150, 200, 250, 300, 350, 400]
    own = m.signal_quality(m.SourceRecord("news", HELPFUL[50:150], OUTCOME[50:150]), resamples=50)
    assert (rolled[1].quality, rolled[1].ic) == (own.quality, own.ic)
    poisoned = HELPFUL.copy()
    poisoned[200:] = -1e9
    again = list(m.rolling_signal_quality(m.SourceRecord("news", poisoned, OUTCOME), 100, step=50, resamples=50))
    assert again[:3] == rolled[:3]


@pytest.mark.parametrize("horizon", [1, 5, 20])
def test_within_a_window_outcomes_that_are_not_known_yet_count_for_nothing(horizon):
    """The outcome of a row is known `horizon` rows later: poison all that lie beyond `end`, and nothing told at `end` changes."""
    record = m.SourceRecord("news", HELPFUL, OUTCOME, horizon=horizon, age=np.arange(400)[:, None] % 3 + np.zeros(8))
    told = next(iter(m.rolling_signal_quality(record, 100, resamples=50)))
    poisoned = OUTCOME.copy()
    poisoned[100 - horizon + 1 :] *= -7.0
    again = m.SourceRecord("news", HELPFUL, poisoned, horizon=horizon, age=record.age)
    assert next(iter(m.rolling_signal_quality(again, 100, resamples=50))) == told
    assert told.periods == 100 - horizon + 1  # all that are known are used
    assert told.coverage == 1.0  # what cannot be judged yet is not missed
    poisoned[100 - horizon] *= -7.0  # the last one that is known at row 100
    assert next(iter(m.rolling_signal_quality(again, 100, resamples=50))) != told


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (m.SourceRecord("a", HELPFUL, OUTCOME, known=np.zeros(OUTCOME.shape)), "no outcome is known"),
        (m.SourceRecord("a", HELPFUL, OUTCOME, spoke=np.zeros(OUTCOME.shape)), "the source never spoke about a known outcome"),
        (m.SourceRecord("a", np.ones(OUTCOME.shape), OUTCOME), "signals or outcomes never varied"),
        (m.SourceRecord("a", HELPFUL[:29], OUTCOME[:29]), "29 periods with a rank correlation, fewer than the 30"),
        (m.SourceRecord("a", [], []), "no outcome is known"),
    ],
)
def test_what_is_undefined_is_nan_and_says_why(record, reason):
    found = m.signal_quality(record)
    assert found.reason is not None
    assert found.reason.startswith(reason)
    assert math.isnan(found.quality.estimate)
    assert math.isnan(found.quality.low)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: m.SourceRecord("a", [1.0], [1.0], horizon=0), ConfigError, "horizon"),
        (lambda: m.SourceRecord("a", [1.0], [1.0], half_life=0.0), ConfigError, "half_life"),
        (lambda: m.SourceRecord("a", [1.0], [1.0, 2.0]), DataError, "differ in shape"),
        (lambda: m.SourceRecord("a", [1.0], [1.0], age=[-1.0]), DataError, "age"),
        (lambda: m.SourceRecord("a", [1.0], [1.0], spoke=[True, False]), DataError, "differ in shape"),
        (lambda: m.SourceRecord("a", [math.nan], [1.0]), DataError, "NaN"),
    ],
)
def test_what_makes_no_sense_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        m.signal_quality(make())


def test_windows_have_rows():
    with pytest.raises(ConfigError, match="window 0"):
        list(m.rolling_signal_quality(m.SourceRecord("a", [1.0], [1.0]), 0))
