"""An agent, or a sieve, after a restart: it reads again what the bus still holds of what its group had handled.

What the group had not handled comes to it by itself. Bars that may have been read and not yet spoken of are spoken of again, under the ids
they had: whoever listens can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from cryptoalpha.core.time import SECOND
from cryptoalpha.data.bus.contract import Bus, Place, Progress
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.signals.agents.config import AgentsConfig

AT_ONCE = 1_000
PATIENCE_SECONDS = 15.0
"""How long to wait for the next messages before what is missing counts as gone: joining a group of Kafka takes seconds, and a member that
was killed is waited for."""


class Remembers(Protocol):
    """An agent, wherever it lives."""

    async def remember(self, messages: Iterable[Envelope], *, said_until: int | None = None) -> None:
        """Take what happened before a restart."""
        ...


async def rebuild(
    agent: Remembers,
    config: AgentsConfig,
    bus: Bus,
    topics: Sequence[str],
    handled: Mapping[Place, Progress],
    *,
    group: str,
    patience_seconds: float = PATIENCE_SECONDS,
) -> int:
    """Let an agent remember what its group handled before; how many messages the bus still held.

    Args:
        agent: fresh, with the stored history as its start.
        config: its own: how long bars wait to be spoken of.
        handled: how far the group has come (`Inbox.progress`).
        group: a name for this reading, used for nothing else: it commits nothing.
        patience_seconds: how long to wait where the log ends before what was handled does, because it was lost.
    """
    held = await still_held(bus, topics, handled, group=group, patience_seconds=patience_seconds)
    newest = max((envelope.observed_time for envelope in held), default=0)
    waited = round((config.grace_seconds + config.settle_seconds) * SECOND)
    await agent.remember(held, said_until=newest - waited)
    return len(held)


async def still_held(
    bus: Bus, topics: Sequence[str], handled: Mapping[Place, Progress], *, group: str, patience_seconds: float = PATIENCE_SECONDS
) -> list[Envelope]:
    """What the bus still holds of what a group had handled, as it lies there; arguments as for `rebuild`."""
    wanted = {place: progress.following for place, progress in handled.items() if place.topic in topics}
    if not wanted:
        return []
    consumer = await bus.subscribe(group, topics, kept={place: Progress(0) for place in wanted})
    held: list[Envelope] = []
    unread = {place for place, following in wanted.items() if following > 0}
    try:
        while unread and (records := await consumer.take(AT_ONCE, wait_seconds=patience_seconds)):
            before = [record for record in records if record.offset < wanted.get(record.place, 0)]
            held += [record.envelope for record in before if record.envelope is not None]
            unread -= {record.place for record in records if record.offset + 1 >= wanted.get(record.place, 0)}
            unread -= {lost.place for lost in consumer.regressed() if lost.start >= wanted.get(lost.place, 0)}
    finally:
        await consumer.close()
    return held
