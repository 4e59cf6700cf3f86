"""The inbox: all of a batch is kept, or nothing."""

from __future__ import annotations

import asyncio

import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import StoreError, StoreLockedError
from cryptoalpha.data.bus.config import WorkerConfig
from cryptoalpha.data.bus.contract import Place, Progress
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope
from cryptoalpha.data.bus.inbox import Inbox, OvertakenError

PLACE = Place("texts", 2)


def output(number: int) -> Envelope:
    return Envelope(
        id=f"a/{number}", topic="signals", key="k", source="a", kind="Signal", schema=SCHEMA, event_time=1, observed_time=1, payload=b""
    )


def opened(path, *, shared: bool = False):
    return Inbox(path, "g", WorkerConfig(), shared=shared, clock=VirtualClock(10**18))


def run(story) -> None:
    asyncio.run(asyncio.wait_for(story, 30))


def test_what_was_settled_is_there_after_opening_again(tmp_path):
    async def story():
        async with opened(tmp_path / "in.sqlite") as inbox:
            await inbox.settle(["m1", "m2"], {PLACE: Progress(8, 7, "m2", 55)}, [output(1), output(2)])
        async with opened(tmp_path / "in.sqlite") as inbox:
            assert await inbox.handled(["m0", "m1", "m2"]) == {"m1", "m2"}
            assert await inbox.progress() == {PLACE: Progress(8, 7, "m2", 55)}
            numbers, left = await inbox.outbox()
            assert left == [output(1), output(2)]
            await inbox.forget(numbers)
            assert await inbox.outbox() == ([], [])

    run(story())


def test_a_batch_another_member_settled_in_part_leaves_no_trace(tmp_path):
    async def story():
        async with opened(tmp_path / "in.sqlite", shared=True) as one, opened(tmp_path / "in.sqlite", shared=True) as other:
            await one.settle(["m1"], {PLACE: Progress(2)}, [output(1)])
            with pytest.raises(OvertakenError):
                await other.settle(["m0", "m1"], {PLACE: Progress(1)}, [output(9)])
            assert await other.handled(["m0", "m1"]) == {"m1"}
            assert await other.progress() == {PLACE: Progress(2)}
            assert (await other.outbox())[1] == [output(1)]

    run(story())


def test_published_outputs_go_with_the_next_settlement_and_only_ones_own(tmp_path):
    async def story():
        async with opened(tmp_path / "in.sqlite", shared=True) as one, opened(tmp_path / "in.sqlite", shared=True) as other:
            await other.settle(["n1"], {}, [output(7)])
            last = await one.settle(["m1"], {}, [output(1)])
            await other.settle(["n2"], {}, [output(8)])
            await one.settle(["m2"], {}, [output(2)], published=last)
            assert (await one.outbox())[1] == [output(7), output(8), output(2)]

    run(story())


def test_ids_are_kept_as_many_and_as_long_as_the_settings_say(tmp_path):
    async def story():
        clock = VirtualClock(10**18)
        async with Inbox(None, "g", WorkerConfig(remembered_ids=100, remembered_hours=1.0), clock=clock) as inbox:
            for batch in range(64):
                await inbox.settle([f"m{batch}/{n}" for n in range(4)], {}, [])
            names = [f"m{batch}/{n}" for batch in range(64) for n in range(4)]
            assert await inbox.handled(names) == set(names[-100:])
            clock.advance_to(10**18 + 2 * 3_600 * 10**9)
            for batch in range(64):
                await inbox.settle([f"late{batch}"], {}, [])
            assert await inbox.handled([*names, "late0", "late63"]) == {"late0", "late63"}

    run(story())


def test_a_file_belongs_to_one_group(tmp_path):
    async def story():
        async with opened(tmp_path / "in.sqlite"):
            pass
        with pytest.raises(StoreError, match="belongs to group g"):
            await Inbox(tmp_path / "in.sqlite", "another", WorkerConfig()).__aenter__()

    run(story())


@pytest.mark.parametrize("shares", [(False, False), (False, True), (True, False)])
def test_a_second_worker_is_refused_until_the_first_has_left_unless_both_share(tmp_path, shares):
    async def story():
        first, second = (opened(tmp_path / "in.sqlite", shared=shared) for shared in shares)
        async with first:
            with pytest.raises(StoreLockedError, match=r"in\.sqlite is in use"):
                await second.__aenter__()
            await first.settle(["m1"], {}, [])
        async with opened(tmp_path / "in.sqlite", shared=shares[1]) as later:
            assert await later.handled(["m1"]) == {"m1"}

    run(story())


def test_a_file_that_cannot_be_used_is_let_go_of(tmp_path):
    async def story():
        (tmp_path / "in.sqlite").write_bytes(b"no database" * 100)
        with pytest.raises(StoreError, match="corrupt"):
            await opened(tmp_path / "in.sqlite").__aenter__()
        (tmp_path / "in.sqlite").unlink()
        async with opened(tmp_path / "in.sqlite") as inbox:
            assert await inbox.handled(["m1"]) == set()

    run(story())
