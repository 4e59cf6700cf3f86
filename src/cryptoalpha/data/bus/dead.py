"""Dead letters: messages nobody could read or handle, kept with the reason on `<topic>.dead`, never passed over unseen.

The id is made of the bytes, so what is put away twice is told apart no less than any other message.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.data.bus.contract import Place, Record
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope

SUFFIX = ".dead"
KIND = "dead"


class Dead(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a dead letter holds."""

    reason: str
    data: bytes
    """The message as it came."""
    origin: str = ""
    """Where it lay: `topic/partition/offset`; empty where it never reached the bus."""
    failures: int = 0
    """How often it was tried; 0 where it could not be read at all."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Dead)


def dead_topic(topic: str) -> str:
    """Where the dead letters of a topic go."""
    return topic if topic.endswith(SUFFIX) else topic + SUFFIX


def dead_letter(
    *,
    topic: str,
    source: str,
    reason: str,
    data: bytes,
    observed_time: int,
    place: Place | None = None,
    offset: int = -1,
    failures: int = 0,
) -> Envelope:
    """A dead letter, ready to be published.

    Args:
        topic: the topic it came from or was meant for; it goes to `<topic>.dead`.
        source: who sent it.
        observed_time: when it came, UTC ns.
        place: where it lay, if it had reached the bus.
    """
    origin = "" if place is None else f"{place.topic}/{place.partition}/{offset}"
    mark = blake2b(data, digest_size=12, key=source.encode()[:64]).hexdigest()
    return Envelope(
        id=f"{dead_topic(topic)}/{mark}",
        topic=dead_topic(topic),
        key=source,
        source=source,
        kind=KIND,
        schema=SCHEMA,
        event_time=observed_time,
        observed_time=observed_time,
        payload=_ENCODER.encode(Dead(reason=reason, data=data, origin=origin, failures=failures)),
    )


def letter_of(record: Record, *, reason: str, observed_time: int, failures: int = 0) -> Envelope:
    """The dead letter of a message that lies on the bus and could not be read, or not handled; see `dead_letter`."""
    return dead_letter(
        topic=record.place.topic,
        source="" if record.envelope is None else record.envelope.source,
        reason=reason,
        data=record.data,
        observed_time=observed_time,
        place=record.place,
        offset=record.offset,
        failures=failures,
    )


def read_dead(envelope: Envelope) -> Dead:
    """The inverse of `dead_letter`.

    Raises:
        DataError: if the message is no dead letter.
    """
    if envelope.kind != KIND:
        raise DataError(f"message {envelope.id} is of kind {envelope.kind}, not a dead letter")
    try:
        return _DECODER.decode(envelope.payload)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(f"message {envelope.id} holds no dead letter: {error}") from None
