"""The canary controller against the real router: stage by stage, and what it does when others interfere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cryptoalpha.core.errors import ConfigError, ModelError, StoreLockedError
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.router import Router, assigned
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, Split, SplitConflictError, SplitUnreachableError

SECOND = 1_000_000_000
CONFIG = CanaryConfig(minimum_seconds=60.0, bake_seconds=120.0, look_seconds=10.0)


class World:
    """A router, a book in memory and a clock; requests of each look are recorded without chance: every `canary_fails`-th fails."""

    def __init__(self, *, config: CanaryConfig = CONFIG, book: RolloutBook | None = None, **given) -> None:
        self.ns = 1_000 * SECOND
        self.router: Router[float] = Router(stable="old", salt="s", now=lambda: self.ns, **given)
        self.book = book or RolloutBook(None)
        self.config, self.said = config, []
        self.controller = self.made("one")
        self.asked = 0

    def made(self, holder: str, split=None, guards=dict) -> CanaryController:
        return CanaryController(
            split or self.router, self.book, self.config, now=lambda: self.ns, holder=holder, say=self.said.append, guards=guards
        )

    def traffic(self, requests: int, *, canary_fails: int = 0, stable_fails: int = 0, cause: str = "error", seconds: float = 0.01) -> None:
        """Every n-th request of an arm fails; 0: none."""
        epoch, split = self.router._tally.epoch, self.router.split
        for number in range(requests):
            self.asked += 1
            bad = {
                STABLE: cause if stable_fails and number % stable_fails == 0 else None,
                CANARY: cause if canary_fails and number % canary_fails == 0 else None,
            }
            if split.shadow:
                epoch.record_pair(bad[STABLE], bad[CANARY], 0.01, seconds)
            else:
                arm = assigned("s", str(self.asked), split.canary_share)
                epoch.record(arm, bad[arm], seconds if arm == CANARY else 0.01)

    async def look(self, requests: int = 100, **given) -> str:
        self.traffic(requests, **given)
        self.ns += 10 * SECOND
        return (await self.controller.step()).stage


def told(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())


async def until(world: World, stage: str, *, step: int | None = None, looks: int = 400, **given) -> None:
    for _ in range(looks):
        state = world.controller.state
        if state.stage == stage and step in (None, state.step):
            return
        await world.look(**given)
    raise AssertionError(f"still {world.controller.state.stage}: {world.controller.state.reason}")


def test_a_good_canary_goes_through_every_step_and_becomes_stable():
    async def story() -> None:
        world = World()
        state = await world.controller.begin("old", "new")
        assert (state.stage, world.router.split.shadow, world.router.split.canary_share) == ("shadow", True, 0.0)
        await until(world, "promoted")
        went = [(line.before, line.stage, line.step) for line in world.book.story(1)]
        steps = [("step", "step", number) for number in range(1, 5)]
        assert went == [("idle", "shadow", -1), ("shadow", "step", 0), *steps, ("step", "bake", 4), ("bake", "promoted", 4)]
        assert all(line.settled_at is not None for line in world.book.story(1))
        assert (world.router.split.stable, world.router.split.canary, world.router.split.canary_share) == ("new", "", 0.0)
        assert len(world.said) == 8
        before = world.router.split
        assert (await world.controller.step()).stage == "promoted"  # once more changes nothing
        assert world.router.split == before

    told(story)


def test_no_step_is_left_before_its_time_and_sample():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        for _ in range(5):
            assert await world.look(1000) == "shadow"  # 50 s of the 60
        assert await world.look(1000) == "step"
        for _ in range(40):
            await world.look(20)  # about one request of the canary each: 112 clean ones are not reached
        assert world.controller.state.step == 0
        assert "more requests" in world.controller.state.reason

    told(story)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"canary_fails": 2}, "fails more often than stable"),
        ({"canary_fails": 1, "cause": "nan"}, "fails more often than stable"),
        ({"seconds": 0.3}, "is late more often than stable"),
        ({"seconds": 0.09}, "is slower than stable"),
    ],
)
def test_a_bad_canary_is_rolled_back_in_shadow_at_the_first_look(given, words):
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        assert await world.look(**given) == "rolled_back"
        assert words in world.controller.state.reason
        assert (world.router.split.stable, world.router.split.canary) == ("old", "")

    told(story)


def test_a_fault_that_begins_late_is_seen_at_each_step_and_in_bake():
    async def story() -> None:
        for stage, step in (("step", 0), ("step", 3), ("step", 4), ("bake", 4)):
            world = World()
            await world.controller.begin("old", "new")
            await until(world, stage, step=step)
            await world.look(5000)
            await until(world, "rolled_back", looks=6, canary_fails=3)
            assert world.router.split.stable == "old"

    told(story)


def test_a_worse_brier_score_rolls_back_and_a_turned_sign_does_too():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        for _ in range(200):
            world.router.record_brier(0.2, 0.3)
        assert await world.look(10) == "rolled_back"
        assert "Brier score is worse by 0.1000 over 200 labels" in world.controller.state.reason
        world = World(differ=lambda one, other: True)
        await world.controller.begin("old", "new")

        async def call(version: str) -> float:
            return 0.5

        for number in range(60):
            await world.router.answer(str(number), call)
        await world.router.drain()
        assert await world.look(0) == "rolled_back"
        assert "contradicts stable" in world.controller.state.reason

    told(story)


def test_labels_may_be_required_before_shadow_is_left():
    async def story() -> None:
        world = World(config=CONFIG.model_copy(update={"quality": "require"}))
        await world.controller.begin("old", "new")
        for _ in range(20):
            assert await world.look() == "shadow"
        assert "labels that show" in world.controller.state.reason
        for _ in range(400):
            world.router.record_brier(0.25, 0.24)
        assert await world.look() == "step"

    told(story)


def test_an_outage_of_both_holds_and_a_person_resumes_or_ends_it():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        await until(world, "step", step=1)
        weights = world.router.split.weights
        assert await world.look(2000, canary_fails=2, stable_fails=2) == "hold"
        assert world.router.split.weights == weights
        with pytest.raises(ConfigError):
            await world.controller.begin("old", "other")
        state = await world.controller.resume("the network is back")
        assert (state.stage, state.step, state.held_from) == ("step", 1, None)
        await until(world, "promoted")
        world = World()
        await world.controller.begin("old", "new")
        await world.look(2000, canary_fails=2, stable_fails=2)
        assert world.controller.state.stage == "hold"
        assert (await world.controller.abort("we wait")).stage == "rolled_back"
        with pytest.raises(ConfigError):
            await world.controller.abort("again")

    told(story)


@pytest.mark.parametrize("step", [None, 0, 3, 4], ids=["shadow", "5 %", "50 %", "100 %"])
def test_a_hold_outlasts_the_outage_and_what_follows_counts_afresh(step):
    """When the outage is over, stable's own counts soon look sound again and the canary's do not yet: that blames nobody."""

    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        if step is not None:
            await until(world, "step", step=step)
        for _ in range(2):
            world.traffic(100, canary_fails=2, stable_fails=2)
            if step == 4:  # stable is only asked for what the canary failed at
                for _ in range(50):
                    world.router._tally.epoch.record_fallback(failed=True)
        assert await world.look(0) == "hold"
        held = world.controller.state
        for _ in range(400):
            assert await world.look(100, canary_fails=100, stable_fails=100) == "hold"
        assert world.controller.state.reason == held.reason
        state = await world.controller.resume("the network is back")
        assert state.since > held.since
        assert (state.carried.failed, (await world.router.counts(state.since))[CANARY].requests) == (0, 0)
        await until(world, "promoted")

    told(story)


def test_a_hold_that_nobody_ends_is_rolled_back_in_time():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        await world.look(2000, canary_fails=2, stable_fails=2)
        world.ns += 25 * 3600 * SECOND
        assert await world.look(10) == "rolled_back"

    told(story)


def test_a_red_guard_keeps_the_step_and_time_ends_it():
    async def story() -> None:
        world = World()
        world.controller = world.made("one", guards=lambda: {"memory": True, "kill switch": False})
        await world.controller.begin("old", "new")
        for _ in range(30):
            assert await world.look() == "shadow"
        assert world.controller.state.reason == "waits for guards: kill switch"
        world.ns += 73 * 3600 * SECOND
        assert await world.look() == "rolled_back"

    told(story)


def test_weights_set_by_another_hand_hold_it_and_are_left_alone():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        await until(world, "step", step=0)
        await world.router.write({STABLE: 0.2, CANARY: 0.8}, expected_version=world.router.split.version)
        assert await world.look() == "hold"
        assert "another hand set the split to 80.0% to the canary, not 5.0%" in world.controller.state.reason
        world.ns += 30 * 3600 * SECOND
        assert await world.look(canary_fails=2) == "hold"
        assert world.router.split.canary_share == 0.8
        state = await world.controller.resume("that was I")
        assert (state.stage, world.router.split.canary_share) == ("step", 0.05)

    told(story)


def test_requests_that_do_not_go_where_the_weights_say_hold_it():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        await until(world, "step", step=0)
        for _ in range(400):
            world.router._tally.epoch.record(STABLE if _ % 2 else CANARY, None, 0.01)
        assert await world.look(0) == "hold"
        assert "weights do not act as set" in world.controller.state.reason

    told(story)


class Faulty:
    """A split in front of the real one that loses writes, answers 409, or is away, as often as told."""

    def __init__(self, inner: Router[float]) -> None:
        self.inner, self.lose, self.conflict, self.away = inner, 0, 0, 0

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    async def read(self) -> Split:
        if self.away:
            self.away -= 1
            raise SplitUnreachableError("nobody answers")
        return await self.inner.read()

    async def write(self, weights, *, expected_version, shadow=False) -> Split:
        if self.lose:
            self.lose -= 1
            return Split(weights=dict(weights), shadow=shadow, version="lost", since=1)
        if self.conflict:
            self.conflict -= 1
            raise SplitConflictError("409")
        return await self.inner.write(weights, expected_version=expected_version, shadow=shadow)


@pytest.mark.parametrize("kind", ["lose", "conflict"])
def test_a_lost_write_is_repeated_and_too_many_hold(kind):
    async def story() -> None:
        for times, ends in ((2, "step"), (3, "hold")):
            world = World()
            faulty = Faulty(world.router)
            world.controller = world.made("one", faulty)
            await world.controller.begin("old", "new")
            setattr(faulty, kind, times)
            for _ in range(10):
                await world.look(300)
                if world.controller.trouble:
                    break
            assert world.controller.state.stage == "shadow"
            await world.look(10)
            assert (await world.look(10)) == ends

    told(story)


def test_nobody_answering_changes_nothing_and_it_goes_on_afterwards():
    async def story() -> None:
        world = World()
        faulty = Faulty(world.router)
        world.controller = world.made("one", faulty)
        await world.controller.begin("old", "new")
        faulty.away = 1
        assert await world.look(1000) == "shadow"
        assert world.controller.trouble == "nobody answers"
        await until(world, "step")
        assert world.controller.trouble == ""

    told(story)


def test_a_canary_that_cannot_be_loaded_is_rolled_back_before_any_request():
    async def story() -> None:
        async def prepare(version: str) -> None:
            if version == "new":
                raise ModelError("half written")

        world = World(prepare=prepare)
        state = await world.controller.begin("old", "new")
        assert state.stage == "rolled_back"
        assert "half written" in state.reason
        assert (world.router.split.stable, world.router.split.canary) == ("old", "")

    told(story)


def test_of_two_controllers_one_acts_and_the_other_follows_when_the_lease_lapses():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        other = world.made("two")
        with pytest.raises(StoreLockedError, match="controller one"):
            await other.step()
        world.ns += 61 * SECOND
        await other.step()
        with pytest.raises(StoreLockedError, match="controller two"):
            await world.controller.step()
        other.release()
        await world.controller.step()

    told(story)


class Slow:
    """A split in front of the real one that keeps its caller waiting, before or after one call of a kind, until it is let go."""

    def __init__(self, inner: Router[float], name: str, side: str) -> None:
        self.inner, self.name, self.side = inner, name, side
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str):
        found = getattr(self.inner, name)
        if name != self.name or self.reached.is_set():
            return found

        async def around(*given, **named):
            result = await found(*given, **named) if self.side == "after" else None
            self.reached.set()
            await self.go.wait()
            return result if self.side == "after" else await found(*given, **named)

        return around


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("call", ["ensure", "read", "counts", "write"])
def test_an_abort_takes_the_lease_of_a_controller_under_way_which_writes_no_split_again(call, side):
    async def story() -> None:
        world = World()
        slow = Slow(world.router, call, side)
        running, other = world.made("running", slow), world.made("person")
        if call in ("ensure", "write"):
            under_way = asyncio.create_task(running.begin("old", "new"))
        else:
            await other.begin("old", "new")
            other.release()
            under_way = asyncio.create_task(running.step())
        await slow.reached.wait()
        assert (await other.abort("stop it")).reason == "by hand: stop it"
        slow.go.set()
        with pytest.raises(StoreLockedError, match="in the hands of person"):
            await under_way
        assert (world.router.split.stable, world.router.split.canary_share, world.router.split.shadow) == ("old", 0.0, False)
        assert [(line.stage, line.settled_at is not None) for line in world.book.story(1)][-1] == ("rolled_back", True)
        other.release()
        assert (await running.step()).stage == "rolled_back"  # it may look again, and changes nothing

    told(story)


def test_a_write_that_slips_in_before_the_aborts_own_is_taken_back():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        await until(world, "step", step=0)
        slow = Slow(world.router, "read", "after")
        person = world.made("person", slow)
        aborting = asyncio.create_task(person.abort("stop it"))
        await slow.reached.wait()
        await world.router.write({STABLE: 0.9, CANARY: 0.1}, expected_version=world.router.split.version)
        slow.go.set()
        assert (await aborting).stage == "rolled_back"
        assert (world.router.split.stable, world.router.split.canary) == ("old", "")

    told(story)


def test_resume_takes_the_lease_too():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        await world.look(2000, canary_fails=2, stable_fails=2)
        person = world.made("person")
        assert (await person.resume("it is over")).stage == "shadow"
        with pytest.raises(StoreLockedError, match="controller person"):
            await world.controller.step()
        with pytest.raises(ConfigError, match="is not on hold but shadow"):
            await world.controller.resume("again")  # refused, so the lease stays where it is
        await person.step()

    told(story)


def test_a_hold_before_the_first_stage_is_resumed_into_it():
    async def story() -> None:
        for shadow, stage in ((True, "shadow"), (False, "step")):
            world = World(config=CONFIG.model_copy(update={"shadow": shadow}))
            faulty = Faulty(world.router)
            world.controller = world.made("one", faulty)
            faulty.lose = 3
            await world.controller.begin("old", "new")
            assert await world.look(0) == "idle"
            assert await world.look(0) == "hold"
            assert world.controller.state.held_from == "idle"
            state = await world.controller.resume("writes stay now")
            assert (state.stage, state.held_from, world.router.split.shadow) == (stage, None, shadow)
            await until(world, "promoted")

    told(story)


def test_a_restarted_server_holds_it():
    async def story() -> None:
        world = World()
        await world.controller.begin("old", "new")
        await until(world, "step", step=2)
        world.router = Router(stable="old", salt="s", now=lambda: world.ns)
        world.controller = world.made("one")
        assert await world.look() == "hold"
        state = await world.controller.resume("it was restarted")
        assert (state.stage, state.step, world.router.split.canary_share) == ("step", 2, 0.25)

    told(story)


def test_a_server_that_is_busy_changing_versions_is_asked_again():
    async def story() -> None:
        busy = [True]

        async def prepare(version: str) -> None:
            if busy:
                raise SplitConflictError("versions are being changed")

        world = World(prepare=prepare)
        state = await world.controller.begin("old", "new")
        assert (state.stage, world.controller.trouble) == ("idle", "versions are being changed")
        busy.clear()
        assert await world.look(0) == "shadow"
        assert world.router.split.shadow

    told(story)
