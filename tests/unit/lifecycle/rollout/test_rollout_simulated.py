"""A thousand made-up rollouts of each kind: how often the controller stops a good canary, and catches a bad one."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.rollout import simulate
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.router import Router
from cryptoalpha.lifecycle.rollout.simulate import Behaviour, Scenario, counts_of, labels_of, simulate_rollout, simulate_rollouts
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, ArmCounts, summed

RUNS = 1_000
CONFIG = CanaryConfig()


@pytest.mark.slow
def test_a_canary_as_good_as_stable_is_rolled_back_in_at_most_2_of_100():
    ended = simulate_rollouts(Scenario("good", Behaviour(fails=0.01)), CONFIG, runs=RUNS, seed=3)
    assert sum(not one.promoted for one in ended) <= 0.02 * RUNS


def test_a_canary_that_fails_40_percent_is_always_caught_and_at_once():
    ended = simulate_rollouts(Scenario("bad", Behaviour(fails=0.4)), CONFIG, runs=RUNS, seed=3)
    assert sum(not one.promoted for one in ended) >= 0.99 * RUNS
    assert Counter(one.stage for one in ended) == {"shadow": RUNS}
    assert max(one.canary_requests for one in ended) < 200  # the first look of 10 s


def test_a_canary_that_fails_5_percent_is_caught_in_95_of_100():
    ended = simulate_rollouts(Scenario("five", Behaviour(fails=0.05)), CONFIG, runs=RUNS, seed=3)
    assert sum(not one.promoted for one in ended) >= 0.95 * RUNS


@pytest.mark.parametrize(
    ("canary", "words"),
    [(Behaviour(fails=1.0, cause="nan"), "nan"), (Behaviour(late=0.3), "is late more often than stable")],
    ids=["NaN", "slow"],
)
def test_nan_and_slowness_are_caught_at_the_first_look_of_shadow(canary, words):
    ended = simulate_rollouts(Scenario(words, canary), CONFIG, runs=RUNS, seed=3)
    assert Counter(one.stage for one in ended if not one.promoted) == {"shadow": RUNS}
    assert sum(words in one.reason for one in ended) >= 0.99 * RUNS
    assert max(one.canary_requests for one in ended) < 200


def test_without_shadow_the_first_step_catches_it():
    config = CanaryConfig(shadow=False)
    ended = simulate_rollouts(Scenario("bad", Behaviour(fails=0.4)), config, runs=200, seed=3)
    assert Counter((one.stage, one.step) for one in ended) == {("step", 0): 200}
    assert sorted(one.canary_requests for one in ended)[189] <= 25  # the design's goal, 95th percentile


def test_an_outage_of_both_arms_holds_for_as_long_as_it_is_watched():
    """Two tests against stable go on through half an hour of hold, each wrong in at most 0.2 %: 4 of 1,000, and chance around it."""
    ended = simulate_rollouts(Scenario("outage", Behaviour(), outage=0.5), CONFIG, runs=RUNS, seed=3)
    assert sum(one.held for one in ended) >= 0.99 * RUNS
    assert all(one.holds == 1 for one in ended)


@pytest.mark.parametrize("begins", [0.0, 400.0, 1000.0, 5000.0], ids=["shadow", "first step", "a step", "bake"])
def test_an_outage_of_a_minute_is_held_and_blames_nobody_after_it_is_over(begins):
    """The hold is watched for half an hour of requests that both arms answer as well as each other, and then resumed."""
    scenario = Scenario(
        "a minute", Behaviour(fails=0.002), Behaviour(fails=0.002), outage=0.5, outage_from=begins, outage_until=begins + 60.0
    )
    ended = simulate_rollouts(scenario, CONFIG, runs=100, seed=3)
    assert [one.reason for one in ended if not one.promoted] == []
    assert {one.holds for one in ended} == {1}


def test_a_canary_that_alone_goes_on_failing_on_hold_is_rolled_back():
    scenario = Scenario("then bad", Behaviour(fails=0.05), Behaviour(fails=0.002), outage=0.5, outage_until=10.0)
    ended = simulate_rollouts(scenario, CONFIG, runs=50, seed=3)
    assert Counter((one.promoted, one.holds, one.stage, "more often than stable" in one.reason) for one in ended) == {
        (False, 1, "shadow", True): 50
    }


def test_a_worse_brier_score_is_caught():
    scenario = Scenario("worse", Behaviour(), brier_worse=0.05, label_every=100)
    ended = simulate_rollouts(scenario, CONFIG, runs=100, seed=3)
    assert sum("Brier score is worse" in one.reason for one in ended) >= 95


class Drawn:
    """A back end whose counts are drawn as the simulation draws them: one look for each question."""

    def __init__(self, scenario: Scenario, random, router: Router[float]) -> None:
        self.scenario, self.random, self.router = scenario, random, router
        self.kept = {arm: ArmCounts() for arm in (STABLE, CANARY)}
        self.brier: list[float] = []
        self.since = 0

    def __getattr__(self, name: str):
        return getattr(self.router, name)

    async def counts(self, since: int):
        split = self.router.split
        if since == split.since and self.fresh:
            self.fresh = False
            if self.since != since:
                self.since, self.kept = since, {arm: ArmCounts() for arm in self.kept}
            requests = int(self.random.poisson(self.scenario.requests_per_second * CONFIG.look_seconds))
            self.brier += labels_of(self.scenario, requests, self.random)
            new = counts_of(self.scenario, split.weights[CANARY], split.shadow, requests, self.random)
            self.kept = {arm: summed([self.kept[arm], new[arm]]) for arm in new}
        return self.kept


@pytest.mark.parametrize(
    "canary", [Behaviour(fails=0.01), Behaviour(fails=0.02), Behaviour(fails=0.05), Behaviour(late=0.03)], ids=["1%", "2%", "5%", "late"]
)
def test_the_simulation_is_the_controller(canary):
    """The same chance gives the same end, the same reason, the same number of requests, by the whole controller with its book."""
    config = CanaryConfig(bake_seconds=600.0)
    scenario = Scenario("twin", canary)

    async def by_controller(run: int) -> tuple[str, str]:
        ns = [0]
        router: Router[float] = Router(stable="a", salt="s", now=lambda: ns[0])
        drawn = Drawn(scenario, stream(5, "twin", run), router)
        controller = CanaryController(drawn, RolloutBook(None), config, now=lambda: ns[0], holder="x")
        drawn.fresh = False
        state = await controller.begin("a", "b")
        while not state.is_over and state.stage != "hold":
            ns[0] += int(config.look_seconds * 1e9)
            drawn.fresh = True
            state = await controller.step()
        return state.stage, state.reason

    for run in range(8):
        ended = simulate_rollout(scenario, config, stream(5, "twin", run))
        expected = "promoted" if ended.promoted else "hold" if ended.held else "rolled_back"
        assert asyncio.run(by_controller(run)) == (expected, ended.reason)


def test_runs_are_the_same_for_the_same_seed_and_independent_of_how_many_there_are():
    scenario = Scenario("seeded", Behaviour(fails=0.05))
    assert simulate_rollouts(scenario, CONFIG, runs=5, seed=1) == simulate_rollouts(scenario, CONFIG, runs=9, seed=1)[:5]
    assert simulate.simulate_rollouts(scenario, CONFIG, runs=5, seed=2) != simulate_rollouts(scenario, CONFIG, runs=5, seed=1)
