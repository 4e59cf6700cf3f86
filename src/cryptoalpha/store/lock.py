"""One writer per store. The lock belongs to the process: the kernel releases it when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import weakref
from types import TracebackType
from typing import Self

from cryptoalpha.core.errors import StoreError, StoreLockedError
from cryptoalpha.store.home import HOME_VARIABLE, Home


class StoreLock:
    """Exclusive right to write a store, held from `acquire` (or `with`) to `release` or the end of the process.

    The file `lock` in the store names the holder's process id; its mere presence means nothing, so a crash leaves nothing to clean up.
    Children made by `fork` do not inherit the lock.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._file: int | None = None

    @property
    def is_held(self) -> bool:
        return self._file is not None

    @property
    def home(self) -> Home:
        return self._home

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StoreLockedError: if another process, or another lock of this one, holds it.
            StoreError: if the store cannot be written.
        """
        if self._file is not None:
            return
        self._home.prepare()
        try:
            file = os.open(self._home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"the lock {self._home.lock} cannot be opened: {error.strerror}", hint="check who owns the store") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise StoreLockedError(
                f"the store {self._home.root} is in use by process {holder}",
                hint=f"wait until it ends, stop it, or use another store by setting {HOME_VARIABLE}",
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        _HELD.add(self)

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            _HELD.discard(self)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


_HELD: weakref.WeakSet[StoreLock] = weakref.WeakSet()


def _forget_in_child() -> None:
    """A forked child shares the open file, and with it the lock; an orphaned worker must not keep a store shut."""
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
