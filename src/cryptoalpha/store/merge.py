"""Adding rows to rows that are stored already: new ones join, equal ones are skipped, differing ones are reported and not believed.

What is stored stays as it is: runs that used it must be reproducible, and of two claims about the past the one heard first was the one
that could be acted on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.time import iso
from cryptoalpha.store.partition import Columns, Kind

KEYS: dict[Kind, tuple[str, ...]] = {
    "bars": ("happened_at",),
    "readings": ("happened_at", "known_at"),  # a revision is known later: both vintages are kept
    "posts": ("post_id",),
}
ORDER: dict[Kind, tuple[str, ...]] = {
    "bars": ("happened_at",),
    "readings": ("known_at", "happened_at"),
    "posts": ("known_at", "happened_at", "post_id"),
}


@dataclass(frozen=True)
class Conflict:
    """A row that differs from the stored one with the same key. The stored one stays."""

    subject: str
    happened_at: int
    stored: str
    offered: str

    def __str__(self) -> str:
        return f"{self.subject} at {iso(self.happened_at)}: stored {self.stored}, offered {self.offered}"


@dataclass(frozen=True, eq=False)
class Merged:
    """Sorted rows, how many are new, and what contradicted."""

    columns: dict[str, npt.NDArray[np.generic]]
    added: int
    conflicts: tuple[Conflict, ...]


def merge(kind: Kind, subject: str, stored: Columns | None, offered: Columns) -> Merged:
    """Join rows of one partition. `stored` is None where there is none yet."""
    keys = list(zip(*(offered[name].tolist() for name in KEYS[kind]), strict=True))
    known: dict[tuple[object, ...], tuple[Columns, int]] = {}
    if stored is not None:
        for i, key in enumerate(zip(*(stored[name].tolist() for name in KEYS[kind]), strict=True)):
            known[key] = (stored, i)
    fresh: list[int] = []
    conflicts: list[Conflict] = []
    for i, key in enumerate(keys):
        if key not in known:
            known[key] = (offered, i)
            fresh.append(i)
            continue
        there, j = known[key]
        differing = [name for name in offered if not _same(there[name][j], offered[name][i])]
        if differing:
            conflicts.append(
                Conflict(
                    subject,
                    int(offered["happened_at"][i]),
                    ", ".join(f"{name} {there[name][j]}" for name in differing),
                    ", ".join(f"{name} {offered[name][i]}" for name in differing),
                )
            )
    joined = {name: column[fresh] if stored is None else np.concatenate([stored[name], column[fresh]]) for name, column in offered.items()}
    order = np.lexsort([joined[name] for name in reversed(ORDER[kind])])
    return Merged({name: column[order] for name, column in joined.items()}, len(fresh), tuple(conflicts))


def _same(a: object, b: object) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and a != a and b != b)
