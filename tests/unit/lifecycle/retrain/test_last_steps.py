"""The last steps of a campaign against a real registry and a real router: who is compared with whom, and who wins where two promote."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cryptoalpha.app.retraining import LINE, Retraining, Source
from cryptoalpha.app.rolling_out import PLACE
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.registry import pointers
from cryptoalpha.lifecycle.registry.index import book
from cryptoalpha.lifecycle.registry.version import StoredFile, Version
from cryptoalpha.lifecycle.retrain.campaign import begin_campaign, begin_step, campaigns, end_step
from cryptoalpha.lifecycle.retrain.step import Outcome, Work
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.router import Router
from cryptoalpha.store.controls import request_control
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.whole_file import write_whole

SETTINGS = Settings(lifecycle={"canary": {"minimum_seconds": 10, "bake_seconds": 20, "look_seconds": 10}})


class Hand:
    def __init__(self) -> None:
        self.at = 1_000 * DAY

    def __call__(self) -> int:
        return self.at


def versions(home: Path, now: Hand) -> tuple[str, str, str]:
    """Three versions of the line, of one text file each: what models are in them nobody here asks."""
    root, found = home / "models" / "registry", []
    for name in ("old", "new", "other"):
        text = f"{name}\n"
        import hashlib

        stored = StoredFile("cryptoalpha.yaml", len(text), hashlib.sha256(text.encode()).hexdigest())
        made = Version.made(
            root / "versions",
            line=LINE,
            parent=None,
            created_at=now(),
            data="d",
            commit="c",
            config={},
            seed=0,
            metrics={},
            files=(stored,),
        )
        write_whole(made.path / "cryptoalpha.yaml", text)
        write_whole(made.path / "version.json", made.document())
        with book(root, write=True) as connection:
            connection.execute(
                "INSERT INTO version (id, line, parent, created_at, document) VALUES (?, ?, ?, ?, ?)",
                (made.id, LINE, None, now(), made.document()),
            )
        found.append(made.id)
    with book(root, write=True) as connection:
        pointers.put(connection, LINE, found[0], expected=None, at=now(), reason="the first")
    return found[0], found[1], found[2]


@pytest.fixture
def world(tmp_path):
    now = Hand()
    old, new, other = versions(tmp_path, now)
    work = Work(
        1, "retrain", "drift", now(), tmp_path / "c", {}, {"register": {"version": new, "champion": old}, "canary": {"words": "well"}}
    )
    return now, old, new, other, work, tmp_path


def retraining(home: Path, now: Hand, split: Router | None = None) -> Retraining:
    return Retraining(SETTINGS, home, Source(), now, split)


def test_whoever_became_champion_meanwhile_stays(world):
    now, old, new, other, work, home = world
    made = retraining(home, now)
    made.registry.promote(LINE, other, expected=old, reason="by hand")
    outcome = made.promote(work)
    assert outcome.verdict == "refused"
    assert other[:12] in outcome.words
    assert made.registry.champion_id(LINE) == other
    assert new != other


def test_a_promotion_that_was_done_and_not_written_down_is_done_again_without_harm(world):
    now, _, new, _, work, home = world
    made = retraining(home, now)
    assert made.promote(work).verdict == "done"
    assert made.promote(work).verdict == "done"
    assert [one.version for one in made.registry.history(LINE)][-1] == new
    assert len(made.registry.history(LINE)) == 2
    assert "drift" in made.registry.history(LINE)[-1].reason


def test_where_nothing_serves_the_canary_says_so_and_is_passed_over(world):
    now, _, _, _, work, home = world
    outcome = retraining(home, now).canary(work)
    assert (outcome.verdict, outcome.result["words"]) == ("done", "nothing serves (no --serve): there are no requests to divide")


def test_the_canary_keeps_its_version_from_being_collected_until_it_is_over(world):
    now, old, new, _, work, home = world
    router: Router[float] = Router(stable=old, salt="s", now=now, check=lambda answer: None if answer == answer else "nan")
    made = retraining(home, now, router)
    first = made.canary(work)
    assert (first.verdict, first.again_at) == ("wait", now() + 10 * 10**9)
    assert made.registry.pins(new) == ("campaign 1",)

    async def ask() -> None:
        async def call(version: str) -> float:
            return float("nan") if version == new else 1.0

        for k in range(100):
            assert (await router.answer(str(k), call)).answer == 1.0
        await router.drain()

    asyncio.run(ask())
    now.at += 60 * 10**9
    outcome = made.canary(work)
    assert outcome.verdict == "refused"
    assert "nan" in outcome.words
    assert made.registry.pins(new) == ()
    assert made.registry.champion_id(LINE) == old


def serving(old: str, now: Hand) -> Router[float]:
    return Router(stable=old, salt="s", now=now, check=lambda answer: None if answer == answer else "nan")


def asked_well(router: Router[float], count: int) -> None:
    async def ask() -> None:
        async def call(version: str) -> float:
            return 1.0

        for k in range(count):
            await router.answer(str(k), call)
            await router.drain()  # else most shadow requests are dropped: only so many are under way at once

    asyncio.run(ask())


def killed(home: Path, now: Hand) -> None:
    with Journal(home / "journal.sqlite", durable=True, header={"mode": "paper"}):
        pass
    request_control(home / "journal.sqlite", "kill", by="test", reason="a test", at=now())


def test_while_a_kill_stands_nothing_is_promoted_and_no_step_is_left(world):
    now, old, _new, _, work, home = world
    router = serving(old, now)
    made = retraining(home, now, router)
    made.canary(work)
    killed(home, now)
    asked_well(router, 500)
    now.at += 60 * 10**9
    outcome = made.canary(work)
    assert outcome.verdict == "wait"
    assert "no kill stands" in outcome.words
    assert router.split.canary_share == 0.0
    promoted = made.promote(work)
    assert (promoted.verdict, promoted.again_at) == ("wait", now() + 10 * 10**9)
    assert made.registry.champion_id(LINE) == old


def test_a_second_process_looks_as_soon_as_the_first_would_have(world):
    """The first may have been killed with the lease in its hands: it belongs to the campaign, which runs once."""
    now, old, _new, _, work, home = world
    router = serving(old, now)
    retraining(home, now, router).canary(work)
    with RolloutBook(home / PLACE) as kept:
        kept.lease(1, "campaign 1", now=now(), until=now() + 60 * 10**9)
    asked_well(router, 500)
    now.at += 11 * 10**9
    assert retraining(home, now, router).canary(work).words.startswith("step 1")
    with RolloutBook(home / PLACE) as kept:
        kept.lease(1, "somebody", now=now(), until=now() + 1)  # it was given back


def test_a_campaign_waits_for_another_rollout_and_begins_its_own_afterwards(world):
    now, old, new, other, work, home = world
    router = serving(old, now)
    with RolloutBook(home / PLACE) as kept:
        by_hand = CanaryController(router, kept, SETTINGS.lifecycle.canary, now=now)
        asyncio.run(by_hand.begin(old, other))
        by_hand.release()
        made = retraining(home, now, router)
        outcome = made.canary(work)
        assert (outcome.verdict, outcome.again_at) == ("wait", now() + 10 * 10**9)
        assert other in outcome.words
        assert kept.newest("inference").canary == other
        asyncio.run(by_hand.abort("enough"))
        by_hand.release()
        assert made.canary(work).verdict == "wait"
        assert (kept.newest("inference").canary, kept.newest("inference").stage) == (new, "shadow")


def test_of_a_campaign_that_fails_neither_rollout_nor_pin_is_left(world):
    now, old, new, _other, work, home = world
    router = serving(old, now)
    made = retraining(home, now, router)
    begun = begin_campaign(made.book, "retrain", "drift", now(), {}, ("register", "canary"), answers=())
    end_step(made.book, begun.number, "register", now(), Outcome("done", "", {"version": new, "champion": old}))
    made.canary(work)
    begin_step(made.book, begun.number, "canary", now())
    (campaign,) = campaigns(made.book)
    for _ in range(2):  # killed before it was closed, it is done again
        made.take_back(campaign)
        with RolloutBook(home / PLACE) as kept:
            found = kept.newest("inference")
        assert (found.stage, found.reason) == ("rolled_back", "by hand: campaign 1 failed")
        assert made.registry.pins(new) == ()
        assert router.split.canary == ""


def test_what_is_not_the_campaign_s_own_goes_on_when_it_fails(world):
    now, old, new, other, _work, home = world
    router = serving(old, now)
    with RolloutBook(home / PLACE) as kept:
        by_hand = CanaryController(router, kept, SETTINGS.lifecycle.canary, now=now)
        asyncio.run(by_hand.begin(old, other))
        made = retraining(home, now, router)
        begun = begin_campaign(made.book, "retrain", "drift", now(), {}, ("register", "canary"), answers=())
        end_step(made.book, begun.number, "register", now(), Outcome("done", "", {"version": new, "champion": old}))
        made.take_back(campaigns(made.book)[0])
        assert (kept.newest("inference").canary, kept.newest("inference").stage) == (other, "shadow")


def test_days_that_were_looked_at_end_a_campaign_before_it_trains_and_it_says_until_when(world):
    now, _old, new, _, _work, home = world
    made = retraining(home, now)
    plan = {"settings": SETTINGS.model_dump(mode="json", exclude={"credentials"})}

    def asked(until: int) -> Outcome:
        locked = {"market": "recorded", "since": (until - 90) * DAY, "until": until * DAY}
        return made.unseen(Work(2, "retrain", "drift", now(), home / "c", {**plan, "locked": locked}, {}))

    assert asked(1_000).verdict == "done"
    assert made.registry.holdout_touches("recorded", 910 * DAY, 1_000 * DAY, by=new) == 1
    assert made.registry.holdout_touches("SIMULATED", 955 * DAY, 1_045 * DAY, by=new) == 1
    for until in (1_000, 1_007, 1_044):
        outcome = asked(until)
        assert outcome.verdict == "refused"
        assert new[:12] in outcome.words
        assert "1972-11-11" in outcome.words  # 1,045 days after 1970-01-01: 45 of the 90 days are new then
    assert asked(1_045).verdict == "done"
    assert made.registry.holdout_look("recorded", 910 * DAY, 1_000 * DAY).until == 1_000 * DAY  # asking is no look
    without = Settings(lifecycle={"gates": {"required": ("walk_forward",)}})
    plan["settings"] = without.model_dump(mode="json", exclude={"credentials"})
    assert asked(1_000).verdict == "done"


def test_versions_in_a_rollout_are_not_collected(world, monkeypatch, capsys):
    from cryptoalpha.app.cli import main

    now, old, new, _other, _work, home = world
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(home))
    monkeypatch.chdir(home)
    with RolloutBook(home / PLACE) as kept:
        asyncio.run(CanaryController(serving(old, now), kept, SETTINGS.lifecycle.canary, now=now).begin(old[:12], new[:12]))
    assert main(["models", "gc", "--keep", "1"]) == 0
    left = {one.id for one in retraining(home, now).registry.versions()}
    assert {old, new} <= left
