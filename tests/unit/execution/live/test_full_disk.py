"""A disk that is full in the middle of an order's path: nothing is sent unwritten, nobody goes on blindly, nothing is booked twice."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cryptoalpha.core.errors import StoreError

FRAME = 4096 + 24
"""Bytes by which one changed page lengthens the write-ahead log."""


@contextmanager
def full_after(folder: Path, frames: int) -> Iterator[None]:
    """A disk on which the run's files can grow by so many pages and no more."""
    longest = max(file.stat().st_size for file in folder.iterdir())
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest + frames * FRAME, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 5, 7, 9, 12, 16, 20, 1000])
def test_wherever_the_disk_is_full_the_next_start_books_everything_once(desk, frames):
    failed: list[StoreError] = []

    async def scenario() -> None:
        await desk.open()
        order = desk.order("ca1")
        with full_after(desk.path.parent, frames):
            try:
                await desk.submit(order)
                desk.venue.trade("ca1", "0.4")
                await desk.courier.look(1)
                desk.venue.trade("ca1", "0.6")
                await desk.courier.look(1)
            except StoreError as error:
                failed.append(error)
            await desk.die()
        was_sent = "ca1" in desk.venue.orders
        rest = 1 - desk.venue.orders["ca1"].filled if was_sent else 0
        if rest:
            desk.venue.trade("ca1", str(rest))
        desk.venue.stream = asyncio.Queue()
        await desk.open()
        await desk.courier.look(1)
        await desk.settle()
        assert (desk.state("ca1"), sum(quantity for _, quantity in desk.fills())) == (("filled", 1) if was_sent else ("absent", 0))
        assert len(desk.fills()) == len({fill.trade_id for fill in desk.told() if hasattr(fill, "trade_id")})
        await desk.close()

    asyncio.run(scenario())
    if frames <= 3 or frames == 1000:  # between them it depends on how many pages a step changes
        assert bool(failed) == (frames <= 3)


def test_an_intent_that_cannot_be_written_is_never_sent(desk):
    async def scenario() -> None:
        await desk.open()
        with full_after(desk.path.parent, 0), pytest.raises(StoreError):
            desk.order("ca1")  # the engine's row; its handing over is never reached
        assert desk.venue.orders == {}
        assert desk.ledger.unfinished() == []
        await desk.close()

    asyncio.run(scenario())
