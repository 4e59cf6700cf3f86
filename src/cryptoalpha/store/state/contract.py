"""What a state store promises: small values by name, in one place, for one process or many.

Values are bytes; a name is `area/name`. A write that returned is read by everybody. `swap` changes a value only if it is what the writer
believes, so two writers never overwrite each other unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class StateStore(Protocol):
    """Satisfied by SQLite (one machine) and Redis (many). An asynchronous context manager."""

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Values by name; None where there is none, or it has expired."""
        ...

    async def put(self, values: Mapping[str, bytes], *, expires_seconds: float | None = None) -> None:
        """Keep all of these, or none."""
        ...

    async def swap(self, name: str, expected: bytes | None, value: bytes | None) -> bool:
        """Set `name` to `value` (None: remove it) if it holds `expected` (None: nothing); whether it did."""
        ...

    async def add(self, name: str, amount: float, *, expires_seconds: float | None = None) -> float:
        """Add to a number (0 where there is none) and return the sum. Expiry is set when the number is made."""
        ...

    async def names(self, area: str) -> list[str]:
        """Names that begin with `area/`, sorted."""
        ...

    async def close(self) -> None: ...
