"""The right to use a file, among the processes and tasks of one machine.

It is held until the descriptor is closed or the process ends, so a crash leaves nothing to clean up. It lies in a file of its own beside
the one it guards: SQLite closes and reopens that one as it likes, and with it would lose the right.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cryptoalpha.core.errors import StoreError, StoreLockedError


def take_hold(path: Path, what: str, *, shared: bool = False, hint: str) -> int:
    """A descriptor that holds `path` for as long as it is open.

    Args:
        what: lies there, as an error calls it.
        shared: hold it beside others that share it; otherwise alone.
        hint: what to do where somebody else holds it.

    Raises:
        StoreLockedError: if another holds it.
        StoreError: if the lock cannot be made.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"the lock {lock} cannot be opened: {error.strerror}", hint="choose a writable folder") from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreLockedError(f"the {what} {path} is in use by another process", hint=hint) from None
    return descriptor
