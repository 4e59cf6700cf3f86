"""Files of a version: copied, proven to be what was copied, put in their place in one step, and looked at again whenever they are used.

A draft is a folder of its own; its files are written through to the disk before it is renamed. A version's folder therefore is not there,
or holds everything.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cryptoalpha.core.errors import ModelError, StoreError
from cryptoalpha.lifecycle.registry.lines import SETTINGS, without_place
from cryptoalpha.lifecycle.registry.version import DOCUMENT, StoredFile, Version
from cryptoalpha.store.whole_file import sync

CHUNK = 1 << 20


@contextmanager
def drafted(root: Path) -> Iterator[Path]:
    """A folder to make something in; gone afterwards, unless it was put in its place. `gc` leaves drafts alone while anybody makes one.

    Raises:
        StoreError: if the disk refuses.
    """
    drafts = root / "drafts"
    try:
        drafts.mkdir(parents=True, exist_ok=True)
        with (root / "drafts.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            draft = Path(tempfile.mkdtemp(dir=drafts))
            draft.chmod(0o755)  # others may read models, as they may where they were trained
            try:
                yield draft
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"the registry {root} cannot be written: {error}", hint="is it writable, and is there space?") from error


def copy_files(folder: Path, files: Iterable[Path], draft: Path, *, line: str) -> tuple[StoredFile, ...]:
    """Copy files of `folder` into a draft; what is returned describes the copies, read back from where they lie.

    Raises:
        StoreError: if one cannot be read or written, or the copy is not what was read.
    """
    found = []
    for source in files:
        name = source.relative_to(folder).as_posix()
        target = draft / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as read, target.open("xb") as written:
                read_digest = _settled(read, written, folder) if (line, name) == ("loop", SETTINGS) else _copied(read, written)
                written.flush()
                os.fsync(written.fileno())
        except OSError as error:
            raise StoreError(
                f"{source} cannot be copied to {target}: {error.strerror}", hint="is there space, and may it be read?"
            ) from error
        except UnicodeDecodeError:
            raise ModelError(f"{source} is damaged: it is no text", hint="train the models again") from None
        digest = sha256(target)
        if digest != read_digest:
            raise StoreError(f"{target} is not what was written there", hint="check the disk")
        found.append(StoredFile(name, target.stat().st_size, digest))
    return tuple(found)


def _copied(read: BinaryIO, written: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := read.read(CHUNK):
        digest.update(chunk)
        written.write(chunk)
    return digest.hexdigest()


def _settled(read: BinaryIO, written: BinaryIO, folder: Path) -> str:
    content = without_place(read.read().decode(), folder).encode()
    written.write(content)
    return hashlib.sha256(content).hexdigest()


def finish_draft(draft: Path, version: Version) -> None:
    """Write `version.json`, and wait until everything is on the disk."""
    with (draft / DOCUMENT).open("xb") as file:
        file.write(version.document().encode())
        file.flush()
        os.fsync(file.fileno())
    for folder in (*(path for path in draft.rglob("*") if path.is_dir()), draft):
        sync(folder)


def demand_sound(version: Version) -> None:
    """Look at every file of a version: none may be missing, changed or more than was registered.

    Raises:
        ModelError: naming the first fault.
    """
    hint = "restore the folder from a copy, register the model again, or go back to another version: cryptoalpha models rollback"
    if not version.path.is_dir():
        raise ModelError(f"version {version.short} is gone: there is no {version.path}", hint=hint)
    try:
        document = (version.path / DOCUMENT).read_text(encoding="utf-8")
        found = Version.read(document, version.path)
    except (OSError, UnicodeDecodeError):
        raise ModelError(f"version {version.short} is half there: {version.path / DOCUMENT} cannot be read", hint=hint) from None
    if found.id != version.id or document != version.document():
        raise ModelError(f"version {version.short} was changed: {version.path / DOCUMENT} is of {found.short}", hint=hint)
    wanted = {file.name: file for file in version.files}
    there = {path.relative_to(version.path).as_posix(): path for path in version.path.rglob("*") if path.is_symlink() or not path.is_dir()}
    there.pop(DOCUMENT, None)
    for name in sorted({*wanted, *there}):
        place = version.path / name
        if name not in there:
            raise ModelError(f"version {version.short} is half there: {place} is missing", hint=hint)
        if name not in wanted:
            raise ModelError(f"version {version.short} was changed: {place} does not belong to it", hint=hint)
        if place.is_symlink() or not place.is_file() or place.stat().st_size != wanted[name].size or sha256(place) != wanted[name].sha256:
            raise ModelError(f"version {version.short} was changed: {place} is not the file that was registered", hint=hint)


def is_sound(version: Version) -> bool:
    """Whether every file of it is what was registered."""
    try:
        demand_sound(version)
    except ModelError:
        return False
    return True


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def away(path: Path, trash: Path) -> None:
    """Take a folder out of its place in one step; whoever empties the trash removes it."""
    trash.mkdir(parents=True, exist_ok=True)
    number = 0
    while (target := trash / f"{path.name}.{number}").exists():
        number += 1
    path.rename(target)
    sync(path.parent)


def empty(folder: Path) -> None:
    """Remove all that lies in a folder; what cannot be removed stays for the next time."""
    for path in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)
