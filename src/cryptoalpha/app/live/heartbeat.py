"""A sign of life of a live run between its rows: a small file beside the journal, replaced every few seconds.

Bars of a day write a row a day; who watches the process (`status --max-age`) looks here. Nothing is decided by it. Once an hour it gives
back memory that is free.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from cryptoalpha.app.live.memory import give_back_memory
from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.store.whole_file import write_whole

FILE = "heartbeat.json"
EVERY_SECONDS = 5.0


class Heartbeat:
    """Writes the file, at most every `EVERY_SECONDS`.

    Args:
        journal: of the run; the file lies beside it.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(FILE)
        self._next = self._tidy_at = 0

    def beat(self, now: int, standing: Mapping[str, object] | None = None, *, is_last: bool = False) -> bool:
        """Say that the process lives and how it stands. A disk that refuses is no reason to leave orders alone: the next row says so.

        Args:
            now: UTC ns, by the clock on the wall.
            standing: how it stands with the venue, for people.
            is_last: whether the session is over: written at once, and marked.

        Returns:
            Whether it was said.
        """
        if now < self._next and not is_last:
            return False
        self._next = now + int(EVERY_SECONDS * SECOND)
        if now >= self._tidy_at:
            self._tidy_at = now + HOUR
            give_back_memory()
        text = json.dumps({"at": now, "pid": os.getpid(), "ended": is_last, "standing": dict(standing or {})}, default=str)
        try:
            write_whole(self._path, text)
        except StoreError:
            return False
        return True


def read_heartbeat(folder: Path) -> dict[str, object] | None:
    """What the run last said of itself; None where it never did or the file cannot be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("at"), int) else None
