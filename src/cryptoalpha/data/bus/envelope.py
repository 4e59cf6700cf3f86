"""The envelope every message travels in, and its bytes.

The id is made of the source and the publisher's own id, never drawn: who fetches or replays a message again gives it the same id, and
whoever consumes it can tell. `observed_time` is when it reached us; what a decision may use is judged by it, never by `event_time`.

Bytes are msgspec's MessagePack of the fields in order. `schema` is the version of the values inside (`SCHEMA`): a reader refuses a newer
one and takes older ones, because values grow at the end and with defaults.
"""

from __future__ import annotations

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Streamed

SCHEMA = 1
"""Raised when readers of the version before could misread what is written."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A message on its way."""

    id: str
    topic: str
    key: str
    """What keeps its order: `venue:instrument` for markets, the source for texts."""
    source: str
    kind: str
    """Tag of the value inside."""
    schema: int
    event_time: int
    """By the publisher's clock, UTC ns."""
    observed_time: int
    """By ours, UTC ns."""
    payload: bytes

    def value(self) -> Streamed:
        """The value inside.

        Raises:
            DataError: if the payload is no value of its kind.
        """
        try:
            return _DECODER.decode(self.payload)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise DataError(f"message {self.id} of {self.source} holds no {self.kind}: {error}") from None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Streamed] = msgspec.msgpack.Decoder(Streamed)
_ENVELOPES = msgspec.msgpack.Decoder(Envelope)


def sealed(value: Streamed, *, topic: str, key: str, source: str, native_id: str) -> Envelope:
    """A value in its envelope; the id is `source/native_id`."""
    return Envelope(
        id=f"{source}/{native_id}",
        topic=topic,
        key=key,
        source=source,
        kind=type(value).__name__,
        schema=SCHEMA,
        event_time=value.happened_at,
        observed_time=value.known_at,
        payload=_ENCODER.encode(value),
    )


def to_bytes(envelope: Envelope) -> bytes:
    """The bytes of an envelope."""
    return _ENCODER.encode(envelope)


def from_bytes(data: bytes) -> Envelope:
    """The inverse of `to_bytes`.

    Raises:
        DataError: if the bytes are no envelope, or of a newer schema.
    """
    try:
        envelope = _ENVELOPES.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(f"{len(data)} bytes are no message: {error}") from None
    if envelope.schema > SCHEMA:
        raise DataError(
            f"message {envelope.id} is of schema {envelope.schema}, this version reads up to {SCHEMA}",
            hint="update cryptoalpha wherever messages are read before where they are written",
        )
    return envelope
