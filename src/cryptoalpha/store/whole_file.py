"""Files that are whole or not there: a reader sees the old content or the new one, never half of it, whoever was killed when.

Draft in the same folder → fsync → rename → fsync of the folder. The draft has one name, so a killed writer leaves at most one, which the
next writer takes over; two that write at the same time do not mix: the second is refused. Parquet partitions, which also note their intent
in a manifest, have their own way (`store.partition`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cryptoalpha.core.errors import StoreError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends without an error; otherwise nothing has happened.

    Folders on the way to it are made.

    Raises:
        StoreError: if the disk refuses, or another process is writing this file.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("ab") as file:  # not emptied before it is ours
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_still(file, draft):  # another writer has just put it in place: it is the live file now
                raise BlockingIOError
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            draft.replace(path)
        sync(path.parent)
    except BlockingIOError:
        raise StoreError(f"cannot write {path}: another process is writing it", hint="give each process a file of its own") from None
    except OSError as error:
        with suppress(OSError):  # there is nothing to remove where the folder is a file
            draft.unlink()
        raise StoreError(f"cannot write {path}: {error.strerror}", hint="is the place writable, and is there space?") from None
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _is_still(file: BinaryIO, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace `path` by this content; text is UTF-8.

    Raises:
        StoreError: if the disk refuses.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
