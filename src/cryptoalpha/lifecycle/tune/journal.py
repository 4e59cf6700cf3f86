"""Where a study is kept: a journal that many processes append to, and locks that a killed process cannot leave behind.

    studies/forecaster.journal       every trial, as Optuna writes it; `optuna-dashboard studies/forecaster.journal` shows it
    studies/forecaster.lock          one search of a study at a time
    studies/forecaster.workers       held by every process that works on it, so that nobody takes over while an orphan still writes

Optuna's own lock files outlive a killed process and hold up the next for half a minute, and half a line that a killed process wrote
makes its reader refuse the journal for good. Here the kernel holds the locks, and who appends next cuts half a line off.

Source: Optuna 5.0, `optuna.storages.journal` (`JournalFileBackend.append_logs` appends under the lock).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptoalpha.core.errors import ConfigError, StoreError, StoreLockedError

if TYPE_CHECKING:
    import optuna

PATIENCE_SECONDS = 10.0
"""How long the workers of a search that was killed are waited for; they look for their parent all the time."""


@dataclass(frozen=True)
class Place:
    """Where a study of this name lies in `folder`."""

    folder: Path
    name: str

    @property
    def journal(self) -> Path:
        return self.folder / f"{self.name}.journal"

    @property
    def page(self) -> Path:
        return self.folder / f"{self.name}.html"

    @property
    def settings(self) -> Path:
        """The winner's settings as YAML."""
        return self.folder / f"{self.name}.yaml"

    def storage(self) -> optuna.storages.JournalStorage:
        """The study's trials, as they stand and as they come.

        Raises:
            StoreError: if the journal cannot be opened.
        """
        needed()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            mend(self.journal)
            return JournalStorage(JournalFileBackend(str(self.journal), lock_obj=KernelLock(self.journal)))  # type: ignore[arg-type]
        except OSError as error:
            raise StoreError(f"the study {self.journal} cannot be opened: {error.strerror}", hint="is the place writable?") from None
        except ValueError:
            raise StoreError(f"{self.journal} is no journal of a study", hint="begin anew with --fresh, which puts it aside") from None

    @contextmanager
    def alone(self, *, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
        """The right to search this study, once the last worker of an earlier search has ended.

        Raises:
            StoreLockedError: if another process searches it, or a worker does not end.
        """
        with _held(self.folder / f"{self.name}.lock", fcntl.LOCK_EX, 0.0, f"the study {self.name} is being searched already"):
            with _held(self._workers, fcntl.LOCK_EX, patience_seconds, f"a worker of the study {self.name} has not ended"):
                pass
            yield

    def join(self) -> int:
        """Count as a worker for as long as this process lives, or until the descriptor is closed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._workers, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return descriptor

    def put_aside(self) -> None:
        """Keep the journal under another name: the next search begins anew."""
        if self.journal.exists():
            self.journal.replace(self.journal.with_suffix(".previous.journal"))

    @property
    def _workers(self) -> Path:
        return self.folder / f"{self.name}.workers"


def needed() -> None:
    """Make sure that Optuna is there, and let it speak of warnings only: progress is told by the verb.

    Raises:
        ConfigError: if it is not installed, naming the extra.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("a search of settings needs the package optuna", hint='pip install "cryptoalpha[tune]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def mend(journal: Path) -> None:
    """Cut off half a line that a killed process wrote: nobody was told that it is there."""
    if not journal.exists():
        return
    with journal.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _cut(file.fileno())


def _cut(descriptor: int) -> None:
    size = end = os.fstat(descriptor).st_size
    while end and os.pread(descriptor, 1, end - 1) != b"\n":
        chunk = os.pread(descriptor, min(end, 65536), max(0, end - 65536))
        end = end - len(chunk) + chunk.rfind(b"\n") + 1
    if end < size:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)


class KernelLock:
    """The right to append, held on the journal itself and gone with the process that holds it; what Optuna asks of a lock."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Wait for it; then what a killed process left half is cut off."""
        descriptor = os.open(self._journal, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _cut(descriptor)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def _held(path: Path, kind: int, patience_seconds: float, refusal: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"the lock {path} cannot be opened: {error.strerror}", hint="check who owns the store") from None
    try:
        waited = 0.0
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited >= patience_seconds:
                    raise StoreLockedError(refusal, hint="wait until it ends, or search under another --name") from None
            sleep(0.1)
            waited += 0.1
        yield
    finally:
        os.close(descriptor)
