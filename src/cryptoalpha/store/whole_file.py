"""Files that are whole or not there: a reader sees the old content or the new one, never half of it, whoever was killed when.

Temporary file in the same folder → fsync → rename → fsync of the folder. Parquet partitions, which also note their intent in a manifest,
have their own way (`store.partition`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cryptoalpha.core.errors import StoreError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends without an error; otherwise nothing has happened.

    Raises:
        StoreError: if the disk refuses.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync(path.parent)
    except OSError as error:
        with suppress(OSError):  # there is nothing to remove where the folder is a file
            draft.unlink()
        raise StoreError(f"cannot write {path}: {error.strerror}", hint="name a file in a folder that exists and is writable") from None
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


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
