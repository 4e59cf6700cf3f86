"""The registry: a model goes in once, cannot change in it, and becomes champion or ceases to be in one step.

    ROOT/versions/ID/…        folders of versions (`version.py`)
    ROOT/registry.sqlite      which there are, who is champion (`index.py`)
    ROOT/drafts, ROOT/trash   what is being made or removed; whatever a killed process left there is cleared by `gc`

Killed at any moment, a version is registered whole or not at all, and the champion is the old or the new one. Any number of processes may
use one registry; of concurrent promotions that expect the same champion, one wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.registry import following, pointers
from cryptoalpha.lifecycle.registry.collecting import Collected, collect
from cryptoalpha.lifecycle.registry.copying import away, copy_files, demand_sound, drafted, finish_draft, is_sound
from cryptoalpha.lifecycle.registry.following import in_use
from cryptoalpha.lifecycle.registry.index import book, find, read_version
from cryptoalpha.lifecycle.registry.judgements import Judgement, Look, count_look, look_taken, read_judgements, write_judgement
from cryptoalpha.lifecycle.registry.lines import belonging, demand_line, demand_whole
from cryptoalpha.lifecycle.registry.pointers import ANY, Expected, Pointer
from cryptoalpha.lifecycle.registry.version import Version
from cryptoalpha.store.whole_file import sync

PLACE = Path("models") / "registry"
"""Where the registry lies in the store's home."""


class ModelRegistry:
    """The registry in the folder `root` (`HOME/models/registry`), which is made when something is registered.

    Args:
        now: the time, UTC ns.
    """

    def __init__(self, root: Path, *, now: Callable[[], int]) -> None:
        self.root, self._now = root, now
        self.places = root / "versions"

    # ---- versions

    def register(
        self,
        folder: Path,
        *,
        line: str,
        data: str,
        commit: str,
        config: Mapping[str, Any],
        seed: int,
        metrics: Mapping[str, float],
        parent: str | None = None,
    ) -> Version:
        """Copy a trained model into the registry; one of this very content that is there already is returned as it is.

        Args:
            folder: a model folder of the kind of `line`, or what `train all` left (`loop`); not changed.
            data: hash of the data it learned from.
            commit: of the code that trained it.
            config: settings it was trained with, JSON values.
            metrics: finite numbers.
            parent: id (or its beginning) of the version it is to follow.

        Raises:
            ConfigError: if there is no such line or parent, or something said is no JSON value.
            ModelError: if the folder is unfinished, damaged or of another kind.
            StoreError: if the disk refuses.
        """
        demand_whole(folder, line)
        with book(self.root) as connection:
            above = None if parent is None else find(connection, parent, removed=True)
        with drafted(self.root) as draft:
            files = copy_files(folder, belonging(folder, line), draft, line=line)
            demand_whole(draft, line)
            version = Version.made(
                self.places, line=line, parent=above, created_at=self._now(), data=data, commit=commit, config=config, seed=seed,
                metrics=metrics, files=files,
            )  # fmt: skip
            return self._place(version, draft)

    def _place(self, version: Version, draft: Path) -> Version:
        """Put a draft in its place and write it down; a version whose files are sound stays as it is."""
        finish_draft(draft, version)
        with book(self.root, write=True) as connection:
            known = self._known(connection, version.id)
            if known is not None and known.removed_at is None and is_sound(known):
                return known
            if version.path.exists():  # nobody wrote it down, or it is damaged: this one is whole
                away(version.path, self.root / "trash")
            self.places.mkdir(exist_ok=True)
            draft.rename(version.path)
            sync(self.places)
            connection.execute(
                "INSERT INTO version (id, line, parent, created_at, document) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "created_at = excluded.created_at, document = excluded.document, removed_at = NULL",
                (version.id, version.line, version.parent, version.created_at, version.document()),
            )
        return version

    def get(self, id_or_prefix: str) -> Version:
        """A version, every file of it verified.

        Raises:
            ConfigError: if there is none, or several begin so.
            ModelError: if a file is missing, changed, or more than was registered.
        """
        with book(self.root) as connection:
            version = read_version(connection, find(connection, id_or_prefix), self.places)
        demand_sound(version)
        return version

    def versions(self, line: str | None = None) -> tuple[Version, ...]:
        """All versions whose files are kept, newest first; their files are not looked at.

        Raises:
            ConfigError: if there is no such line.
        """
        if line is not None:
            demand_line(line)
        where, values = ("AND line = ?", (line,)) if line else ("", ())
        with book(self.root) as connection:
            rows = connection.execute(
                f"SELECT id FROM version WHERE removed_at IS NULL {where} ORDER BY created_at DESC, id", values
            ).fetchall()
            return tuple(read_version(connection, identity, self.places) for (identity,) in rows)

    def lineage(self, id_or_prefix: str) -> tuple[Version, ...]:
        """A version, its parent, that one's parent and so on; `removed_at` says whose files are gone. Files are not looked at.

        Raises:
            ConfigError: if there is no such version.
        """
        with book(self.root) as connection:
            found = [read_version(connection, find(connection, id_or_prefix, removed=True), self.places)]
            while (parent := found[-1].parent) is not None:  # ends: an id depends on its parent's, so none is its own ancestor
                found.append(read_version(connection, parent, self.places))
        return tuple(found)

    def _known(self, connection: Any, identity: str) -> Version | None:
        there = connection.execute("SELECT 1 FROM version WHERE id = ?", (identity,)).fetchone()
        return read_version(connection, identity, self.places) if there else None

    # ---- champions

    def champion_id(self, line: str) -> str | None:
        """Who is champion; its files are not looked at.

        Raises:
            ConfigError: if there is no such line.
        """
        demand_line(line)
        with book(self.root) as connection:
            top = pointers.newest(connection, line)
        return top.version if top else None

    def champion(self, line: str) -> Version | None:
        """The champion of a line, verified; None as long as nobody was promoted.

        Raises:
            ConfigError: if there is no such line.
            ModelError: if its files are not what was registered.
        """
        identity = self.champion_id(line)
        return None if identity is None else self.get(identity)

    def history(self, line: str) -> tuple[Pointer, ...]:
        """Every change of a champion, oldest first."""
        demand_line(line)
        with book(self.root) as connection:
            return pointers.all_of(connection, line)

    def promote(self, line: str, id_or_prefix: str, *, expected: Expected = ANY, reason: str) -> Version:
        """Make a version champion of its line.

        Args:
            expected: who must be champion now: an id or its beginning, None for nobody, `ANY` for whoever it is.
            reason: kept in the history.

        Returns:
            the champion. One that is champion already is returned, whatever was expected: the promotion was done before.

        Raises:
            ConfigError: if another is champion than was expected, naming it; if there is no such version in this line.
            ModelError: if its files are not what was registered.
        """
        demand_line(line)
        _demand_reason(reason)
        version = self.get(id_or_prefix)
        if version.line != line:
            raise ConfigError(f"version {version.short} is of the line {version.line}, not {line}", hint=f"promote it in {version.line}")
        with book(self.root, write=True) as connection:
            find(connection, version.id)  # it may have been collected meanwhile
            pointers.put(connection, line, version.id, expected=_resolved(connection, expected), at=self._now(), reason=reason)
        return version

    def rollback(self, line: str, *, reason: str, expected: Expected = ANY) -> Version:
        """Make the champion before the present one champion again.

        Args:
            expected: who must be champion now, as in `promote`; naming it makes a rollback that is done twice be one.

        Raises:
            ConfigError: if there is none to go back to, its files were collected, or another is champion than was expected.
            ModelError: if the files of the one before are not what was registered; the champion stays.
        """
        demand_line(line)
        _demand_reason(reason)
        with book(self.root, write=True) as connection:
            pointers.take_off(connection, line, expected=_resolved(connection, expected), at=self._now(), reason=reason)
            top = pointers.newest(connection, line)
            assert top is not None
            version = read_version(connection, find(connection, top.version), self.places)
            demand_sound(version)
        return version

    # ---- what is said and kept

    def report(self, id_or_prefix: str, judgement: Mapping[str, Any]) -> Judgement:
        """Attach a report (`GateReport.as_dict()`, or anything that says `passed`); the newest decides. Reports are never changed.

        Raises:
            ConfigError: if there is no such version, or the report does not say whether it passed.
        """
        with book(self.root, write=True) as connection:
            return write_judgement(connection, find(connection, id_or_prefix), judgement, self._now())

    def reports(self, id_or_prefix: str) -> tuple[Judgement, ...]:
        """All reports on a version, oldest first."""
        with book(self.root) as connection:
            return read_judgements(connection, find(connection, id_or_prefix, removed=True))

    def holdout_touches(self, data: str, since: int, until: int, *, by: str) -> int:
        """Write down a look at a holdout, and say the how manieth it is (`judgements.py`). Times are UTC ns; `by`: who looks."""
        with book(self.root, write=True) as connection:
            return count_look(connection, data, since, until, by=by, at=self._now())

    def holdout_look(self, data: str, since: int, until: int) -> Look | None:
        """Who looked at a holdout last; None while it is unseen. Writes nothing."""
        with book(self.root) as connection:
            return look_taken(connection, data, since, until)

    def pin(self, id_or_prefix: str, by: str) -> None:
        """Keep a version's files until `unpin`; pinning twice is pinning once."""
        with book(self.root, write=True) as connection:
            identity = find(connection, id_or_prefix)
            connection.execute("INSERT OR IGNORE INTO pin (version, by, at) VALUES (?, ?, ?)", (identity, by, self._now()))

    def unpin(self, id_or_prefix: str, by: str) -> None:
        """Let a version go; nothing happens if `by` did not hold it."""
        with book(self.root, write=True) as connection:
            identity = find(connection, id_or_prefix, removed=True)
            connection.execute("DELETE FROM pin WHERE version = ? AND by = ?", (identity, by))

    def pins(self, id_or_prefix: str) -> tuple[str, ...]:
        """Who holds a version."""
        with book(self.root) as connection:
            identity = find(connection, id_or_prefix, removed=True)
            return tuple(by for (by,) in connection.execute("SELECT by FROM pin WHERE version = ? ORDER BY by", (identity,)))

    def gc(self, keep: int, *, dry_run: bool, held: frozenset[str] = frozenset()) -> Collected:
        """Give up the files of versions that nobody needs; runs that follow champions need those of all that are in their series.

        Args:
            keep: of each line, this many newest versions, ancestors of the champion, and champions before it stay (1 or more).
            dry_run: say what would go, and leave everything.
            held: versions that are in use elsewhere, by id or its beginning; names of none are let be.

        Raises:
            ConfigError: if `keep` is below 1: there would be no way back.
        """
        if keep < 1:
            raise ConfigError(f"gc must keep at least 1 version beside a champion, not {keep}", hint="else there is no way back")
        used = {one.id for one in self.versions() for name in held if name and one.id.startswith(name)}
        followed = in_use(self.root.parent / following.PLACE.name)
        return collect(self.root, keep=keep, held=followed | used, dry_run=dry_run, at=self._now())


def _resolved(connection: Any, expected: Expected) -> Expected:
    return find(connection, expected, removed=True) if isinstance(expected, str) else expected


def _demand_reason(reason: str) -> None:
    if not reason.strip():
        raise ConfigError("a champion changes for a reason, and none is given", hint="say why: it is kept in the history")
