"""Campaigns with injected steps and a clock that is moved by hand: when one begins, what a step's answer leads to, what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ModelError, StoreLockedError, WorkerDiedError
from cryptoalpha.core.time import DAY, MINUTE
from cryptoalpha.lifecycle.retrain.campaign import campaigns, open_campaign
from cryptoalpha.lifecycle.retrain.config import RetrainConfig
from cryptoalpha.lifecycle.retrain.flight import single_flight
from cryptoalpha.lifecycle.retrain.runner import MOST_BEGUN, CampaignRunner
from cryptoalpha.lifecycle.retrain.step import Outcome, Work
from cryptoalpha.lifecycle.retrain.triggers import answered, propose, waiting

NAMES = ("train", "register", "gates", "canary", "promote")


class Injected:
    """A step that answers what it was told to, in turn, then that it is done."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Work] = []
        self.answers: list[Outcome | Exception] = []

    def __call__(self, work: Work) -> Outcome:
        self.asked.append(work)
        answer = self.answers.pop(0) if self.answers else Outcome("done", f"{self.name} well", {self.name: len(self.asked)})
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """A book, a clock and steps."""

    def __init__(self, folder: Path, *, born: Callable[[], int | None] = lambda: None, **config: object) -> None:
        self.now = 1_000 * DAY
        self.path = folder / "retrain.sqlite"
        self.config = RetrainConfig(**{"retry_minutes": 10.0, "attempts": 3, "cooldown_days": 7.0, "tune_cooldown_days": 30.0, **config})
        self.steps = {name: Injected(name) for name in ("tune", *NAMES)}
        retrain = [self.steps[name] for name in NAMES]
        self.runner = CampaignRunner(
            self.path, {"retrain": retrain, "tune": [self.steps["tune"], *retrain]},
            plan=lambda kind, cause, at: {"until": at, "kind": kind}, config=self.config, now=lambda: self.now, born=born,
        )  # fmt: skip

    def propose(self, cause: str, subject: str = "") -> None:
        propose(self.path, cause, self.now, subject=subject)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_nothing_begins_unasked(world):
    standing = world.runner.run()
    assert (standing.did, standing.again_at) == ("nothing", None)
    assert campaigns(world.path) == ()


def test_a_campaign_takes_its_steps_in_order_and_each_knows_what_came_before(world):
    world.propose("drift", "calibration:directions")
    world.propose("accuracy")
    standing = world.runner.run()
    assert standing.did == "ended"
    (campaign,) = campaigns(world.path)
    assert (campaign.kind, campaign.outcome, campaign.cause) == ("retrain", "promoted", "drift")
    assert campaign.plan == {"until": world.now, "kind": "retrain"}
    assert [step.name for step in campaign.steps] == list(NAMES)
    assert [step.verdict for step in campaign.steps] == ["done"] * 5
    assert world.steps["promote"].asked[0].results == {name: {name: 1} for name in NAMES[:-1]}
    assert len(answered(world.path, 1)) == 2  # both alarms, one training
    assert waiting(world.path) == ()


def test_one_tick_is_one_step(world):
    world.propose("hand")
    said = [world.runner.tick().did for _ in range(7)]
    assert said == ["began", "step", "step", "step", "step", "step", "ended"]
    assert [len(world.steps[name].asked) for name in NAMES] == [1] * 5


def test_after_a_campaign_there_is_a_cooldown_but_not_for_a_person(world):
    world.propose("drift")
    world.runner.run()
    world.now += DAY
    world.propose("drift", "again")
    standing = world.runner.run()
    assert (standing.did, standing.again_at) == ("nothing", 1_007 * DAY)
    world.propose("hand")
    assert world.runner.run().did == "ended"
    assert [one.cause for one in answered(world.path, 2)] == ["drift", "hand"]  # what waited is answered by it too
    world.propose("drift")
    world.now += 7 * DAY
    assert world.runner.run().did == "ended"
    assert [one.number for one in campaigns(world.path)] == [3, 2, 1]


def test_a_step_that_waits_is_asked_again_when_it_said(world):
    world.steps["canary"].answers = [Outcome("wait", "5 %", {"share": 0.05}, again_at=world.now + 5 * MINUTE)]
    world.propose("hand")
    standing = world.runner.run()
    assert (standing.did, standing.again_at) == ("waits", world.now + 5 * MINUTE)
    assert world.runner.run().did == "waits"
    assert len(world.steps["canary"].asked) == 1
    world.now += 5 * MINUTE
    assert world.runner.run().did == "ended"
    assert len(world.steps["canary"].asked) == 2


def test_a_canary_may_wait_more_often_than_a_step_may_be_killed(world):
    world.steps["canary"].answers = [
        Outcome("wait", "not yet", again_at=world.now + k * MINUTE) for k in range(1, 2 * MOST_BEGUN)
    ]  # fmt: skip
    world.propose("hand")
    for _ in range(2 * MOST_BEGUN - 1):
        assert world.runner.run().did == "waits"
        world.now += MINUTE
    assert world.runner.run().did == "ended"
    assert campaigns(world.path)[0].outcome == "promoted"


def test_a_failure_is_tried_again_later_and_later_and_then_given_up(world):
    world.steps["train"].answers = [WorkerDiedError(f"memory {k}") for k in range(3)]
    world.propose("hand")
    standing = world.runner.run()
    assert (standing.did, standing.again_at) == ("failed", world.now + 10 * MINUTE)
    world.now += 10 * MINUTE
    standing = world.runner.run()
    assert (standing.did, standing.again_at) == ("failed", world.now + 20 * MINUTE)
    world.now += 20 * MINUTE
    standing = world.runner.run()
    (campaign,) = campaigns(world.path)
    assert (standing.did, campaign.outcome) == ("ended", "failed")
    assert "train failed 3 times" in campaign.words
    assert "memory 2" in campaign.words
    assert waiting(world.path) == ()  # a crash is no judgement: no settings are searched


def test_a_failure_that_passes_costs_nothing_but_time(world):
    world.steps["gates"].answers = [ModelError("once")]
    world.propose("hand")
    world.runner.run()
    world.now += 10 * MINUTE
    assert world.runner.run().did == "ended"
    (campaign,) = campaigns(world.path)
    assert campaign.outcome == "promoted"
    assert [step.failed for step in campaign.steps] == [0, 0, 1, 0, 0]
    assert len(world.steps["train"].asked) == 1


def test_a_refused_judgement_starts_a_search_whose_best_is_judged_and_promoted(world):
    world.steps["gates"].answers = [Outcome("refused", "deflated Sharpe .4 < .95")]
    world.propose("drift")
    standing = world.runner.run()
    assert (standing.did, campaigns(world.path)[0].outcome) == ("ended", "refused")
    assert len(world.steps["canary"].asked) == 0
    (search,) = waiting(world.path)
    assert (search.cause, search.subject, search.detail) == ("gate", "campaign 1", "deflated Sharpe .4 < .95")
    assert world.runner.run().did == "ended"  # at once: the cooldown is for what drift asks
    tuned = campaigns(world.path)[0]
    assert (tuned.kind, tuned.outcome) == ("tune", "promoted")
    assert [step.name for step in tuned.steps] == ["tune", *NAMES]
    assert world.steps["train"].asked[1].results == {"tune": {"tune": 1}}


def test_a_refusal_that_no_settings_can_change_asks_for_no_search(world):
    world.steps["gates"].answers = [Outcome("refused", "the holdout was seen", asks=False)]
    world.propose("drift")
    world.runner.run()
    assert campaigns(world.path)[0].outcome == "refused"
    assert waiting(world.path) == ()


def test_whoever_made_the_steps_is_told_before_a_campaign_is_closed_as_failed(world):
    open_then = []
    world.runner = CampaignRunner(
        world.path, {"retrain": [world.steps["train"]]}, plan=lambda kind, cause, at: {}, config=world.config, now=lambda: world.now,
        failing=lambda campaign: open_then.append((campaign.number, campaigns(world.path)[0].ended_at)),
    )  # fmt: skip
    world.steps["train"].answers = [WorkerDiedError("no")] * 3
    world.propose("hand")
    for _ in range(3):
        world.runner.run()
        world.now += DAY
    assert campaigns(world.path)[0].outcome == "failed"
    assert open_then == [(1, None)]


def test_a_search_that_is_refused_asks_for_no_other_and_the_next_waits_for_its_cooldown(world):
    world.steps["gates"].answers = [Outcome("refused", "no")] * 3
    world.propose("drift")
    world.runner.run()
    world.runner.run()
    assert [one.outcome for one in campaigns(world.path)] == ["refused", "refused"]
    assert waiting(world.path) == ()
    world.now += 7 * DAY
    world.propose("drift")
    world.runner.run()  # refused a third time, and asks for a search
    standing = world.runner.run()
    assert (standing.did, standing.again_at) == ("nothing", 1_030 * DAY)
    world.now = 1_030 * DAY
    assert world.runner.run().did == "ended"
    assert [one.kind for one in campaigns(world.path)] == ["tune", "retrain", "tune", "retrain"]


def test_a_rolled_back_canary_ends_the_campaign_and_asks_for_no_search(world):
    world.steps["canary"].answers = [Outcome("refused", "rolled back at 5 %")]
    world.propose("drift")
    world.runner.run()
    assert campaigns(world.path)[0].words == "canary: rolled back at 5 %"
    assert len(world.steps["promote"].asked) == 0
    assert waiting(world.path) == ()


def test_without_a_budget_for_trials_no_search_is_asked_for(tmp_path):
    world = World(tmp_path, tune_trials=0)
    world.steps["gates"].answers = [Outcome("refused", "no")]
    world.propose("hand")
    world.runner.run()
    assert waiting(world.path) == ()


def test_by_schedule_a_champion_of_age_is_replaced_and_a_young_one_left(tmp_path):
    world = World(tmp_path, every_days=28.0, born=lambda: 990 * DAY)
    assert world.runner.run().did == "nothing"
    world.now = 1_018 * DAY
    assert world.runner.run().did == "ended"
    assert campaigns(world.path)[0].cause == "schedule"
    world.now = 1_045 * DAY
    assert world.runner.run().did == "nothing"
    world.now = 1_046 * DAY
    assert world.runner.run().did == "ended"


def test_of_two_that_would_run_it_one_does(world):
    world.propose("hand")
    world.runner.tick()
    with single_flight(world.runner.lock), pytest.raises(StoreLockedError, match="process"):
        world.runner.tick()
    assert len(world.steps["train"].asked) == 0
    assert world.runner.tick().did == "step"


def test_a_step_that_this_version_does_not_know_ends_the_campaign(world, tmp_path):
    world.propose("hand")
    world.runner.tick()
    other = CampaignRunner(world.path, {"retrain": [], "tune": []}, plan=lambda *_: {}, config=world.config, now=lambda: world.now)
    assert other.run().did == "ended"
    assert campaigns(world.path)[0].words == "train: there is no such step in this version"


def test_a_step_that_kills_whoever_runs_it_is_given_up(world):
    class Killed(BaseException):
        pass

    world.propose("hand")
    world.runner.tick()
    world.steps["train"].answers = [Killed()] * MOST_BEGUN  # type: ignore[list-item]
    world.steps["train"].__class__ = type("Killing", (Injected,), {"__call__": lambda self, work: (_ for _ in ()).throw(Killed())})
    for _ in range(MOST_BEGUN):
        with pytest.raises(Killed):
            world.runner.tick()
    assert world.runner.tick().did == "ended"
    assert campaigns(world.path)[0].outcome == "failed"


ANSWERS = st.sampled_from(["done", "wait", "refused", "raises"])


@settings(max_examples=30, deadline=None)
@given(
    script=st.lists(st.tuples(st.sampled_from(NAMES), ANSWERS), max_size=8), causes=st.lists(st.sampled_from(["drift", "hand"]), max_size=4)
)
def test_whatever_steps_answer_a_campaign_ends_and_only_after_every_step_is_anything_promoted(tmp_path_factory, script, causes):
    world = World(tmp_path_factory.mktemp("book"))
    for name, answer in script:
        made = {
            "done": Outcome("done"), "wait": Outcome("wait", again_at=world.now + MINUTE), "refused": Outcome("refused", "no"),
            "raises": ModelError("it failed"),
        }[answer]  # fmt: skip
        world.steps[name].answers.append(made)
    for cause in ("hand", *causes):
        world.propose(cause)
        for _ in range(200):
            standing = world.runner.run()
            if standing.did == "nothing":
                break
            world.now = max(world.now + 1, standing.again_at or world.now)
        assert open_campaign(world.path) is None
    for campaign in campaigns(world.path):
        verdicts = [step.verdict for step in campaign.steps]
        assert (campaign.outcome == "promoted") == (verdicts == ["done"] * len(verdicts))
        assert campaign.outcome in ("promoted", "refused", "failed")
        done = verdicts.count("done")
        assert verdicts[:done] == ["done"] * done  # never a step before the one in front of it
        assert verdicts.count("refused") == (campaign.outcome == "refused")
    assert len(world.steps["promote"].asked) >= sum(one.outcome == "promoted" for one in campaigns(world.path))
