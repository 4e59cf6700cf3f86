"""The sequential tests: numbers worked out by hand, the design's table, and Ville's promise checked by simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.evidence import (
    Sprt,
    ceiling_evidence,
    mean_above_evidence,
    not_worse_evidence,
    relative_evidence,
    rise_statistic,
    share_evidence,
    worse_evidence,
)
from cryptoalpha.lifecycle.rollout.simulate import relative_table, sprt_table


def test_relative_evidence_of_one_failure_each_by_hand():
    # w = ½: a canary failure multiplies by r / (r/2 + ½) = 2r / (r + 1): 4/3, 8/5, 16/9, 32/17, 64/33
    assert math.exp(relative_evidence(1, 0, 0.5)) == pytest.approx((4 / 3 + 8 / 5 + 16 / 9 + 32 / 17 + 64 / 33) / 5)
    # then stable's by 2 / (r + 1): 2/3, 2/5, 2/9, 2/17, 2/33
    assert math.exp(relative_evidence(1, 1, 0.5)) == pytest.approx((8 / 9 + 16 / 25 + 32 / 81 + 64 / 289 + 128 / 1089) / 5)
    assert relative_evidence(0, 0, 0.05) == 0.0


@pytest.mark.parametrize("weight", [0.05, 0.25, 0.5, 0.9])
def test_relative_evidence_is_a_fair_game_if_rates_are_equal(weight):
    """The mean of the e-value over all ways in which five failures may fall is 1, exactly."""
    total = 0.0
    for fallen in product((True, False), repeat=5):
        chance = math.prod(weight if ours else 1.0 - weight for ours in fallen)
        total += chance * math.exp(relative_evidence(sum(fallen), 5 - sum(fallen), weight))
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize(("ceiling", "share", "least"), [(0.01, 0.01, 1.0), (0.01, 0.004, 0.0), (0.5, 0.5, 1.0)])
def test_ceiling_evidence_is_fair_at_the_ceiling_and_unfavourable_below(ceiling, share, least):
    mean = sum(math.comb(30, k) * share**k * (1 - share) ** (30 - k) * math.exp(ceiling_evidence(k, 30, ceiling)) for k in range(31))
    assert mean == pytest.approx(1.0) if least else mean < 1.0


@pytest.mark.parametrize("weight", [0.05, 0.5])
def test_share_evidence_is_fair_at_the_weight_and_grows_to_either_side(weight):
    mean = sum(math.comb(40, k) * weight**k * (1 - weight) ** (40 - k) * math.exp(share_evidence(k, 40, weight)) for k in range(41))
    assert mean == pytest.approx(1.0)
    assert share_evidence(0, 1000, weight) > 11.5
    assert share_evidence(500, 1000, 0.05) > 11.5
    assert share_evidence(round(1000 * weight), 1000, weight) < 0.0


@pytest.mark.parametrize(
    ("good", "bad", "in_a_row", "clean", "mean", "p95", "mean_at_bad", "mean_at_40"),
    [
        (0.01, 0.05, 4, 112, 186, 352, 162, 11),
        (0.01, 0.03, 6, 226, 501, 1048, 495, 15),
        (0.005, 0.02, 5, 304, 560, 1134, 514, 12),
        (0.002, 0.01, 4, 572, 954, 1979, 820, 10),
    ],
)
def test_sprt_is_that_of_the_designs_table(good, bad, in_a_row, clean, mean, p95, mean_at_bad, mean_at_40):
    sprt = Sprt(good, bad)
    assert (sprt.failures_in_a_row, sprt.clean_requests) == (in_a_row, clean)
    assert sprt.expected_requests == pytest.approx(mean, rel=0.02)
    at_good = sprt_table(sprt, good, runs=4000, seed=1)
    at_bad = sprt_table(sprt, bad, runs=4000, seed=1)
    assert at_good.mean == pytest.approx(mean, rel=0.05)
    one_failure_more = sprt.per_failure / -sprt.per_success  # lengths of runs that pass lie on a lattice of this width
    assert at_good.p95 == pytest.approx(p95, abs=1.05 * one_failure_more)
    assert at_bad.mean == pytest.approx(mean_at_bad, rel=0.05)
    assert sprt_table(sprt, 0.4, runs=4000, seed=1).mean == pytest.approx(mean_at_40, abs=1.0)
    assert at_good.bad <= 0.002 + 3 * math.sqrt(0.002 / 4000)
    assert 1.0 - at_bad.bad <= 0.01 + 3 * math.sqrt(0.01 / 4000)


def test_sprt_verdicts_at_their_borders():
    sprt = Sprt()
    assert [sprt.verdict(0, number) for number in (111, 112)] == ["open", "good"]
    assert [sprt.verdict(number, number) for number in (3, 4)] == ["open", "bad"]
    for wrong in ({"good": 0.05, "bad": 0.05}, {"good": 0.0}, {"false_stop": 0.6}):
        with pytest.raises(ConfigError):
            Sprt(**wrong)


@pytest.mark.parametrize(
    ("weight", "rate", "median", "p95"), [(0.05, 0.4, 9, 18), (0.5, 0.4, 28, 48), (0.05, 0.1, 54, 135), (0.5, 0.1, 149, 287)]
)
def test_relative_test_is_as_quick_as_the_design_says(weight, rate, median, p95):
    stopped, found_median, found_p95 = relative_table(weight, rate, 0.01, false_stop=0.002, runs=4000, seed=1)
    assert stopped == 1.0
    assert found_median == pytest.approx(median, rel=0.12, abs=1.0)
    assert found_p95 == pytest.approx(p95, rel=0.12, abs=1.0)


@pytest.mark.parametrize(("weight", "rate"), [(0.05, 0.01), (0.5, 0.01), (0.05, 0.5), (0.5, 0.5)])
def test_relative_test_seldom_stops_arms_that_fail_equally_often(weight, rate):
    stopped, _, _ = relative_table(weight, rate, rate, false_stop=0.002, runs=4000, seed=2)
    assert stopped <= 0.002 + 3 * math.sqrt(0.002 / 4000)


def test_rise_forgets_quiet_times():
    sprt = Sprt()
    assert rise_statistic(0.0, sprt, 0, 10_000) == 0.0
    assert sprt.ratio(0, 10_000) < -400.0  # which Wald's test could not make good for hundreds of failures
    assert rise_statistic(0.0, sprt, 9, 9) == pytest.approx(9 * math.log(5))


def test_score_evidence_by_hand_and_its_range():
    # λ = 0.1, 0.25, 0.5, 0.9; differences 0.2 and −0.1
    wealth = [(1 + bet * 0.2) * (1 - bet * 0.1) for bet in (0.1, 0.25, 0.5, 0.9)]
    assert math.exp(worse_evidence([0.2, -0.1])) == pytest.approx(sum(wealth) / 4)
    # not worse by 0.02: stakes are shares of 1/0.98, gains 0.02 − d
    wealth = [(1 + bet / 0.98 * (0.02 - 0.2)) * (1 + bet / 0.98 * (0.02 + 0.1)) for bet in (0.1, 0.25, 0.5, 0.9)]
    assert math.exp(not_worse_evidence([0.2, -0.1], 0.02)) == pytest.approx(sum(wealth) / 4)
    with pytest.raises(ConfigError):
        mean_above_evidence([-2.0], 0.0, largest_loss=1.0)
    with pytest.raises(ConfigError):
        worse_evidence([math.nan])


def test_quality_gate_takes_the_labels_that_docs_say_and_seldom_passes_what_is_worse():
    """Of models that are equal, with a spread of 0.1 and a margin of 0.02; and of ones that are worse by the margin exactly."""
    random = np.random.default_rng(3)
    lengths, passed = [], 0
    for _ in range(100):
        equal, worse = random.normal(0.0, 0.1, 1500), random.normal(0.02, 0.1, 1500)
        looks = range(50, 1500, 50)
        lengths.append(next((n for n in looks if not_worse_evidence(list(equal[:n]), 0.02) >= math.log(20)), 1500))
        passed += any(not_worse_evidence(list(worse[:n]), 0.02) >= math.log(20) for n in looks)
    assert 240 <= np.median(lengths) <= 340
    assert passed / 100 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)
