"""Files beside a journal that stand for a kill: for when the journal itself cannot be written, or a person has only a shell.

Whatever lies beside `journal.sqlite` under a name that begins with `journal.sqlite.kill` is a kill: a file of `leave_kill_file`, one of
`touch`, a folder, a link that leads nowhere. What is in it matters only for who, why and how. The engine moves it into its table of
controls and removes it; where it cannot be removed it holds once. A new one of the same name, or one that was touched, is a new kill.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from cryptoalpha.core.errors import StoreError
from cryptoalpha.store.whole_file import write_whole

LARGEST = 65_536
"""Bytes that are read of one."""

_Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Content(msgspec.Struct):
    at: _Nanoseconds
    by: str
    reason: str
    flatten: bool


@dataclass(frozen=True)
class KillFile:
    """One that was found."""

    path: Path
    token: str
    """Tells it from every other, also of its name: it is taken once however often it is found."""
    at: int
    by: str
    reason: str
    flatten: bool

    def remove(self) -> None:
        """As far as that is possible: once its token is in the table it is not taken again."""
        with suppress(OSError):
            if self.path.is_dir() and not self.path.is_symlink():
                self.path.rmdir()
            else:
                self.path.unlink()


def one_line(text: str) -> str:
    """The text with everything that is not printable (line ends, control characters, halves of characters) as its escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def leave_kill_file(journal: Path, *, at: int, by: str, reason: str, flatten: bool) -> None:
    """Ask for a kill without touching the journal; returns once that will survive a power cut.

    Raises:
        StoreError: if the disk refuses.
    """
    place = journal.with_name(f"{journal.name}.kill-{at}-{os.getpid()}")
    write_whole(place, msgspec.json.encode(_Content(at, by, reason, flatten)))


def kill_files(journal: Path) -> list[Path]:
    """Whatever has such a name, in the order of names.

    Raises:
        StoreError: if the folder cannot be looked through: nobody knows then whether the run is killed.
    """
    start = f"{journal.name}.kill"
    try:
        return sorted(found for found in journal.parent.iterdir() if found.name.startswith(start))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unknown(journal.parent, error) from error


def read_kill_files(journal: Path) -> list[KillFile]:
    """The same with what they ask for.

    Raises:
        StoreError: if the folder cannot be looked through.
    """
    return [found for found in map(_read, kill_files(journal)) if found is not None]


def _read(path: Path) -> KillFile | None:
    """None if it is gone by now."""
    try:
        about = path.lstat()  # of a link itself, wherever it leads
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unknown(path, error) from error
    token = f"{path.name}:{about.st_ino}:{about.st_mtime_ns}:{about.st_ctime_ns}"  # an inode is used again, `touch` can set the time
    said = _content(path) if stat.S_ISREG(about.st_mode) else None  # a pipe would wait for its writer
    if said is None:
        return KillFile(path, token, about.st_mtime_ns, "file", f"{one_line(path.name)} lies beside the journal", False)
    return KillFile(path, token, said.at, one_line(said.by), one_line(said.reason), said.flatten)


def _content(path: Path) -> _Content | None:
    """None where it cannot be read or is not ours: that somebody put it there is enough."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(LARGEST), type=_Content)
    except (OSError, msgspec.DecodeError):
        return None


def _unknown(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot look for kills at {path}: {error.strerror}", hint="nothing is traded until that can be read")
