"""What a session heard before it was stopped: how far it had come, kept in the state, and the texts, which the bus still holds.

A sieve that begins anew would let through again what it has stopped, on either side of a restart: repeats, and what an author wrote beyond
his share. So it judges again, to no other end, what the group of the book had handled, in the order in which that became known.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec

from cryptoalpha.core.errors import StoreError
from cryptoalpha.data.bus.contract import Bus, Consumer, Place, Progress, Record, Regress
from cryptoalpha.signals.agents.intake import Intake
from cryptoalpha.signals.agents.rebuilding import still_held
from cryptoalpha.store.state.contract import StateStore

AREA = "heard"
TEXTS = ("texts",)
PATIENCE_SECONDS = 5.0
_LOGGER = logging.getLogger(__name__)
_KEPT = msgspec.json.Decoder(list[tuple[str, int, Progress]])


class Kept:
    """A consumer that also writes down how far its group has come, where the next session finds it.

    A state that cannot be written holds nobody up: the next session then knows of fewer texts.
    """

    def __init__(self, consumer: Consumer, state: StateStore, group: str) -> None:
        self._consumer, self._state, self._group = consumer, state, group
        self._known: dict[Place, Progress] | None = None

    async def take(self, most: int, *, wait_seconds: float) -> Sequence[Record]:
        return await self._consumer.take(most, wait_seconds=wait_seconds)

    async def commit(self, progress: Mapping[Place, Progress]) -> None:
        try:
            known = await kept_progress(self._state, self._group) if self._known is None else self._known
            self._known = {**known, **progress}
            entries = [(place.topic, place.partition, one) for place, one in sorted(self._known.items())]
            await self._state.put({f"{AREA}/{self._group}": msgspec.json.encode(entries)})
        except StoreError as error:
            _LOGGER.debug("how far %s has come is not written down: %s", self._group, error)
        await self._consumer.commit(progress)

    async def lag(self) -> Mapping[Place, int]:
        return await self._consumer.lag()

    def regressed(self) -> Sequence[Regress]:
        return self._consumer.regressed()

    async def close(self) -> None:
        await self._consumer.close()


async def kept_progress(state: StateStore, group: str) -> dict[Place, Progress]:
    """How far a group had come when it last said so; what is damaged counts as nothing.

    Raises:
        StoreError: if the state cannot be read.
    """
    (data,) = await state.get([f"{AREA}/{group}"])
    try:
        entries = [] if data is None else _KEPT.decode(data)
    except msgspec.MsgspecError as error:
        _LOGGER.debug("how far %s had come is damaged: %s", group, error)
        return {}
    return {Place(topic, partition): progress for topic, partition, progress in entries}


async def remember(intake: Intake, bus: Bus, state: StateStore, group: str) -> int:
    """Let an intake and its sieve stand where they stood when the group of the book was stopped; how many texts that took.

    All that is held is judged, however old: of a text that comes again and again, which ones count hangs on the first.

    Raises:
        StoreError: if the state or the bus cannot be read.
        VenueError: if the broker does not answer.
    """
    handled = await kept_progress(state, group)
    held = await still_held(bus, TEXTS, handled, group=f"remember/{group}", patience_seconds=PATIENCE_SECONDS)
    await intake.remember(held)
    return len(held)
