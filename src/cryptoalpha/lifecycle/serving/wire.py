"""What server and model process say to each other over the process's pipes: a length of four bytes, then MessagePack.

A process answers one question after another. Its first word is `Ready` or `CannotStart`; its questions end with the pipe.
"""

from __future__ import annotations

import msgspec

from cryptoalpha.lifecycle.serving.messages import ModelAbout

LENGTH = 4
LARGEST = 1 << 28


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What to load; the first thing a process is told."""

    folder: str
    version: str
    text: dict[str, object]
    """`signals.text`."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came, and the moment (UTC ns) after which a bar is of the future."""

    media: str
    body: bytes
    now: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """Loaded and warm."""

    about: ModelAbout
    memory: int


class CannotStart(msgspec.Struct, frozen=True, kw_only=True, tag="cannot_start"):
    """Not loaded, and why."""

    message: str
    hint: str


class Told(msgspec.Struct, frozen=True, kw_only=True, tag="told"):
    """An answer (`ForecastAnswer`, not yet checked), what it took, and the process's memory in bytes."""

    answer: msgspec.Raw
    seconds: float
    memory: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The question's own fault. `malformed`: no model could answer it; else this one cannot."""

    malformed: bool
    message: str
    hint: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The model's fault."""

    message: str


Word = Ready | CannotStart | Told | Refused | Failed


def framed(word: object) -> bytes:
    """A message with its length in front."""
    data = msgspec.msgpack.encode(word)
    return len(data).to_bytes(LENGTH, "little") + data
