"""Single flight: of all processes that could run a campaign, one does.

The kernel holds the lock for an open file and gives it back when the last process that has it open is gone, however it went. A step's child
process has it open as well: while an orphan of a killed runner still lives nobody works in the folder it writes to.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptoalpha.core.errors import StoreError, StoreLockedError

PATIENCE_SECONDS = 5.0
"""How long an orphan is waited for: it looks for its parent several times a second."""


@contextmanager
def single_flight(path: Path, *, patience_seconds: float = PATIENCE_SECONDS, sleep: Callable[[float], None] = time.sleep) -> Iterator[int]:
    """Hold the lock `path`; gives the descriptor that children are to inherit (`subprocess.Popen(pass_fds=...)`).

    Raises:
        StoreLockedError: if another process holds it.
        StoreError: if the file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"the lock {path} cannot be opened: {error.strerror}", hint="check who owns the store") from None
    try:
        _take(descriptor, path, patience_seconds, sleep)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, patience_seconds: float, sleep: Callable[[float], None]) -> None:
    waited = 0.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if waited >= patience_seconds:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise StoreLockedError(
                    f"a campaign is being run by process {holder} already",
                    hint="`cryptoalpha retrain --status` says where it stands; one at a time is run",
                ) from None
        sleep(0.1)
        waited += 0.1
