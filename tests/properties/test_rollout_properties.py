"""Properties of a rollout: assignment, evidence, and a controller that never does what it must not, whatever the traffic."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.ab import binary_sequence, bounded_sequence
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.evidence import ceiling_evidence, relative_evidence
from cryptoalpha.lifecycle.rollout.router import Router, assigned
from cryptoalpha.lifecycle.rollout.split import ARMS, CANARY, STABLE, ArmCounts, Pairs, Split, summed

counts = st.integers(0, 200)
shares = st.floats(0.0, 1.0)


@given(salt=st.text(max_size=10), key=st.text(max_size=20), low=shares, high=shares)
def test_a_higher_share_never_takes_a_key_from_the_canary(salt, key, low, high):
    low, high = min(low, high), max(low, high)
    assert not (assigned(salt, key, low) == CANARY and assigned(salt, key, high) == STABLE)
    assert assigned(salt, key, 0.0) == STABLE
    assert assigned(salt, key, 1.0) == CANARY


@given(ours=counts, theirs=counts, weight=st.floats(0.01, 0.99))
def test_each_failure_speaks_for_whose_it_is(ours, theirs, weight):
    here = relative_evidence(ours, theirs, weight)
    assert relative_evidence(ours + 1, theirs, weight) >= here
    assert relative_evidence(ours, theirs + 1, weight) <= here


@given(hits=counts, others=counts, ceiling=st.floats(0.001, 0.9))
def test_more_hits_speak_against_the_ceiling_and_more_cases_for_it(hits, others, ceiling):
    here = ceiling_evidence(hits, hits + others, ceiling)
    assert ceiling_evidence(hits + 1, hits + others + 1, ceiling) >= here >= ceiling_evidence(hits, hits + others + 1, ceiling)


@given(hits=st.integers(0, 300), others=st.integers(0, 300), alpha=st.floats(0.001, 0.2))
def test_an_interval_holds_what_was_seen_and_grows_with_confidence(hits, others, alpha):
    low, high = binary_sequence(hits, hits + others, alpha)
    wide_low, wide_high = binary_sequence(hits, hits + others, alpha / 2)
    assert 0.0 <= wide_low <= low <= high <= wide_high <= 1.0
    if hits + others:
        assert low <= hits / (hits + others) <= high
    turned = binary_sequence(others, hits + others, alpha)
    assert turned == pytest.approx((1.0 - high, 1.0 - low), abs=1e-9)


@given(values=st.lists(shares, max_size=50), alpha=st.floats(0.001, 0.2))
def test_the_interval_of_a_bounded_mean_lies_in_the_range_and_turns_with_it(values, alpha):
    low, high = bounded_sequence(values, alpha)
    assert 0.0 <= low <= high <= 1.0
    assert bounded_sequence([1.0 - value for value in values], alpha) == pytest.approx((1.0 - high, 1.0 - low), abs=1e-9)


@given(weights=st.dictionaries(st.sampled_from(["stable", "canary", "other"]), st.floats(-0.5, 1.5), max_size=3), shadow=st.booleans())
def test_a_split_divides_everything_or_is_refused(weights, shadow):
    try:
        split = Split(weights=weights, shadow=shadow, version="1", since=0)
    except ConfigError:
        return
    assert set(weights) <= set(ARMS)
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-5)
    assert not (split.shadow and split.canary_share > 0.0)


class Given:
    """A router whose counts are what the test says."""

    def __init__(self, router: Router[float]) -> None:
        self.router, self.counted = router, {arm: ArmCounts() for arm in ARMS}

    def __getattr__(self, name: str):
        return getattr(self.router, name)

    async def counts(self, since: int):
        return self.counted


looks = st.lists(st.tuples(st.integers(0, 400), st.sampled_from([0.0, 0.01, 0.05, 0.5]), st.sampled_from([0.0, 0.01, 0.5])), max_size=25)


@given(traffic=looks, hand=st.integers(-1, 25))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_the_share_rises_by_one_step_at_a_time_and_falls_only_to_nothing(traffic, hand):
    async def story() -> None:
        ns = [0]
        router: Router[float] = Router(stable="a", salt="s", now=lambda: ns[0])
        split = Given(router)
        config = CanaryConfig(minimum_seconds=0.0, bake_seconds=0.0)
        controller = CanaryController(split, RolloutBook(None), config, now=lambda: ns[0], holder="x")
        before = await controller.begin("a", "b")
        ladder = [0.0, *config.steps]
        since = router.split.since
        for number, (requests, canary_fails, stable_fails) in enumerate(traffic):
            if before.is_over:
                break
            if number == hand:
                await router.write({STABLE: 0.7, CANARY: 0.3}, expected_version=router.split.version)
            if router.split.since != since:
                since, split.counted = router.split.since, {arm: ArmCounts() for arm in ARMS}
            here = router.split
            ours = requests if here.shadow else round(requests * here.canary_share)
            theirs = requests if here.shadow else requests - ours
            ours_failed, theirs_failed = int(ours * canary_fails), int(theirs * stable_fails)
            pairs = Pairs(canary_failed=ours_failed, stable_failed=theirs_failed, both_fine=ours) if here.shadow else Pairs()
            new = {
                CANARY: ArmCounts(requests=ours, failures={"error": ours_failed}, pairs=pairs),
                STABLE: ArmCounts(requests=theirs, failures={"error": theirs_failed}),
            }
            split.counted = {arm: summed([split.counted[arm], new[arm]]) for arm in ARMS}
            ns[0] += 10_000_000_000
            after = await controller.step()
            if before.stage == "hold":
                assert after.stage in ("hold", "rolled_back")
            if after.stage == "hold":
                assert router.split.weights == here.weights  # nothing is touched
            elif after.stage == "rolled_back":
                assert (router.split.stable, router.split.canary_share) == ("a", 0.0)
            elif after.stage == "promoted":
                assert (router.split.stable, before.stage) == ("b", "bake")
            else:
                place, was = ladder.index(router.split.canary_share), ladder.index(here.canary_share)
                assert place - was in (0, 1)
            before = after

    asyncio.run(story())
