"""What every live source promises: messages in order, where it stands, and how it fares.

A source yields arrivals. Each holds the messages that came together, what could not be read (with the reason; it goes to the dead letters,
never past anybody), and the position after them. Whoever runs the source keeps the position once the messages are kept, and gives it back
after a restart: what was fetched twice has the same ids. Reconnecting, waiting and respecting limits is the source's own business; it ends
only when it is closed, or with a `ConfigError` when what it was given can never work (a key that is refused).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from cryptoalpha.data.bus.envelope import Envelope

State = Literal["starting", "connected", "waiting", "paused", "closed"]


@dataclass(frozen=True)
class DeadLetter:
    """A message nobody can read."""

    source: str
    reason: str
    data: bytes
    observed_time: int
    """UTC ns."""


@dataclass(frozen=True)
class Arrival:
    """What came together."""

    envelopes: tuple[Envelope, ...]
    position: str
    """Where to go on after this; opaque, the source's own."""
    dead: tuple[DeadLetter, ...] = ()


@dataclass
class Health:
    """How a source fares; it counts here itself. Times are UTC ns, 0 = never."""

    state: State = "starting"
    reason: str = ""
    """Why it waits or is paused, for people."""
    messages: int = 0
    dead: int = 0
    repeats: int = 0
    """Messages the publisher sent again, told apart by their id and not passed on."""
    reconnects: int = 0
    last_message: int = 0
    """When the newest message came, by our clock."""
    last_event: int = 0
    """When it happened, by the publisher's."""
    lag_seconds: float = 0.0
    """Of the newest message: came less happened. Negative where the publisher's clock runs ahead of ours."""
    spent: dict[str, float] = field(default_factory=dict)
    """Units (posts, requests) and money of today, by name."""
    least_lag_seconds: float | None = None
    """Least lag of any message so far, where the source measures it: below 0, our clock is at least so far behind the publisher's."""
    parts: dict[str, Health] = field(default_factory=dict)
    """How each part of it fares that has a connection of its own, such as an exchange's trades."""


class Source(Protocol):
    """A live source."""

    name: str
    topics: tuple[str, ...]
    health: Health

    def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """Everything from `position` on (empty: from now), for ever.

        Raises (while iterating):
            ConfigError: if it can never work as it is configured.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; the iterator ends."""
        ...
