"""Which versions' files are given up: never those of champions, of whom a champion comes or may give way to, of the newest, of the pinned.

A version goes from the book first, in one transaction with the decision; its folder leaves its place in a second one, if nobody registered
it again meanwhile, and is emptied last. Killed between any two, what remains is a folder that no book knows: the next `gc` clears it.
"""

from __future__ import annotations

import fcntl
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.lifecycle.registry import pointers
from cryptoalpha.lifecycle.registry.copying import away, empty
from cryptoalpha.lifecycle.registry.index import book, read_version
from cryptoalpha.lifecycle.registry.lines import LINES
from cryptoalpha.lifecycle.registry.version import Version


@dataclass(frozen=True)
class Collected:
    """What was given up (or would be, in a dry run), and how many remain."""

    versions: tuple[Version, ...]
    kept: int
    dry_run: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(version.size for version in self.versions)

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {"collected": [one.id for one in self.versions], "bytes": self.size, "kept": self.kept, "dry_run": self.dry_run}


def collect(root: Path, *, keep: int, held: frozenset[str], dry_run: bool, at: int) -> Collected:
    """Give up what nobody needs; see `ModelRegistry.gc`."""
    versions = root / "versions"
    with book(root, write=not dry_run) as connection:
        needed = _needed(connection, keep) | held
        rows = connection.execute("SELECT id FROM version WHERE removed_at IS NULL ORDER BY created_at, id").fetchall()
        gone = tuple(read_version(connection, identity, versions) for (identity,) in rows if identity not in needed)
        if not dry_run:
            connection.executemany("UPDATE version SET removed_at = ? WHERE id = ?", [(at, one.id) for one in gone])
    if not dry_run:
        clear(root)
    return Collected(gone, len(rows) - len(gone), dry_run)


def clear(root: Path) -> None:
    """Remove what no book knows, and what killed processes left; drafts only if nobody makes one."""
    trash = root / "trash"
    for kind in ("versions", "onnx"):
        place = root / kind
        with book(root, write=True) as connection:
            known = {name for (name,) in connection.execute("SELECT id FROM version WHERE removed_at IS NULL")}
            for folder in sorted(place.iterdir()) if place.is_dir() else ():
                if folder.name.split(".")[0] not in known:
                    away(folder, trash)
    empty(trash)
    if (root / "drafts").is_dir():
        with (root / "drafts.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            empty(root / "drafts")


def _needed(connection: sqlite3.Connection, keep: int) -> set[str]:
    needed = {version for (version,) in connection.execute("SELECT version FROM pin")}
    for line in LINES:
        rows = connection.execute(
            "SELECT id FROM version WHERE line = ? AND removed_at IS NULL ORDER BY created_at DESC, id LIMIT ?", (line, keep)
        )
        needed |= {identity for (identity,) in rows}
        top = pointers.newest(connection, line)
        if top is None:
            continue
        needed.add(top.version)
        parent: str | None = top.version
        under: pointers.Pointer | None = top
        for _ in range(keep):
            parent = _parent(connection, parent)
            under = pointers.below(connection, under) if under else None
            needed |= {one for one in (parent, under.version if under else None) if one is not None}
    return needed


def _parent(connection: sqlite3.Connection, identity: str | None) -> str | None:
    row = connection.execute("SELECT parent FROM version WHERE id = ?", (identity,)).fetchone()
    return None if row is None else row[0]
