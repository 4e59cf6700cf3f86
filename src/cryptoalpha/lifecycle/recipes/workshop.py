"""Where a model is made: a folder beside the one it will be, kept until it is whole, so that a killed training goes on where it was.

    MODEL.partial/run.json            which training this is: another one does not go on with it
    MODEL.partial/fit_00.checkpoint   what a fold has reached; result_00.safetensors once it is done
    MODEL.partial/model/…             the folder to be, renamed to MODEL when every file of it is written

Killed at any moment, MODEL is the old folder, the new one, or (between two renames) lies whole beside its place under `.previous` and is
put back by whoever comes next.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.learn.workers import InProcess, LocalProcesses
from cryptoalpha.store.whole_file import sync, write_whole

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

UNITS = 1_000
"""Steps of a fold's progress."""

SECONDS_BETWEEN_LOOKS = 0.5

Tell = Callable[[int, int, str], None]
"""`tell(done, of, what)`: where training stands."""


@dataclass(frozen=True)
class Workshop:
    """The folder in which the model of `out` is made."""

    out: Path

    @property
    def place(self) -> Path:
        """Everything that is not finished."""
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def draft(self) -> Path:
        """The folder to be."""
        return self.place / "model"

    @property
    def _previous(self) -> Path:
        return self.out.with_name(f"{self.out.name}.previous")

    def finished(self, kind: str, *, fresh: bool = False) -> Mapping[str, Any] | None:
        """The lineage of the model that lies at `out`; None if nothing lies there.

        Raises:
            ConfigError: if something else lies there, or a damaged model that is not to be replaced (`fresh`).
        """
        self._mend()
        if not self.out.exists():
            return None
        try:
            content = json.loads((self.out / "model.json").read_text(encoding="utf-8"))
            if content["kind"] == kind:
                lineage, is_damaged = dict(content["lineage"]), self._is_damaged(content["folds"])
                if not is_damaged or fresh:
                    return lineage
                raise ConfigError(f"{self.out} holds a damaged {kind}: a fold is missing or was changed", hint="replace it with --fresh")
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if self.out.is_dir() and not any(self.out.iterdir()):
            return None
        raise ConfigError(
            f"{self.out} exists and is no {kind}", hint="choose another folder with --out, or remove this one if it is a damaged model"
        )

    def _is_damaged(self, folds: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a fold is missing or is not the file that `model.json` speaks of; then the model is no model and may be replaced."""
        files = [(self.out / str(fold["file"]), fold["sha256"]) for fold in folds]
        return any(not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected for file, expected in files)

    def begin(self, old: Mapping[str, Any] | None, identity: Mapping[str, Any], *, fresh: bool) -> Mapping[str, Any] | None:
        """The lineage `old` of what is `finished`, if it is of this very training; else None, and the workshop is open for it.

        Raises:
            ConfigError: if the finished model is of another training, or so is one that was interrupted.
        """
        if old is not None and not fresh:
            if old.get("identity") == identity:
                return old
            raise ConfigError(
                f"{self.out} holds a model of another training, which differs in {_differing(old.get('identity') or {}, identity)}",
                hint="choose another folder with --out, or replace it with --fresh",
            )
        self.open(identity, fresh=fresh)
        return None

    def open(self, identity: Mapping[str, Any], *, fresh: bool) -> None:
        """Begin, or go on with what an interrupted training of the same identity (JSON values) left.

        Raises:
            ConfigError: if another training was interrupted here, naming what differs.
            StoreError: if the place cannot be written.
        """
        self._mend()
        if fresh:
            self.discard()
        file = self.place / "run.json"
        wanted = json.loads(json.dumps(identity))
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found is not None and found != wanted:
            raise ConfigError(
                f"{self.place} holds an interrupted training that differs in {_differing(found, wanted)}",
                hint="undo the change to go on with it, begin anew with --fresh, or choose another folder with --out",
            )
        if found is None:
            self.discard()  # nobody can tell what lies there
            write_whole(file, json.dumps(wanted, indent=1, sort_keys=True))

    def publish(self) -> None:
        """Put the finished draft in its place, and clear away what led to it."""
        try:
            for file in self.draft.iterdir():
                sync(file)
            sync(self.draft)
            if self.out.exists():
                self.out.replace(self._previous)
            self.draft.replace(self.out)
            sync(self.out.parent)
        except OSError as error:
            raise StoreError(f"cannot put the model at {self.out}: {error.strerror}", hint="is the place writable?") from error
        self._mend()
        self.discard()

    def discard(self) -> None:
        """Forget what is unfinished."""
        shutil.rmtree(self.place, ignore_errors=True)

    def tell(self, number: int, done: int, what: str) -> None:
        """Say where a fold stands (of `UNITS`)."""
        write_whole(self.place / f"progress_{number:02d}.json", json.dumps([done, what]))

    def _mend(self) -> None:
        """Whoever was killed between two renames left the old folder beside its place."""
        if self._previous.exists():
            if self.out.exists():
                shutil.rmtree(self._previous, ignore_errors=True)
            else:
                self._previous.replace(self.out)

    def _standing(self, numbers: Sequence[int]) -> tuple[int, str]:
        """Units done by all folds, and what the busiest one does."""
        total, words = 0, []
        for number in numbers:
            try:
                done, what = json.loads((self.place / f"progress_{number:02d}.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            total += int(done)
            if 0 < done < UNITS:
                words.append(f"fold {number}: {what}")
        return total, ", ".join(words)

    @contextmanager
    def watched(self, numbers: Sequence[int], tell: Tell | None) -> Iterator[None]:
        """Report what the folds say, from a thread, while the block runs."""
        if tell is None:
            yield
            return
        over = threading.Event()

        def watch() -> None:
            while not over.wait(SECONDS_BETWEEN_LOOKS):
                done, words = self._standing(numbers)
                tell(done, UNITS * len(numbers), words or "starting")

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Names of what is not the same in two trainings."""
    return ", ".join(sorted(name for name in {*one, *other} if one.get(name) != other.get(name)))


def side_by_side(start: Callable[[], S], task: Callable[[S, I], R], items: Sequence[I], *, processes: int) -> list[R]:
    """`task` on each item in as many processes as are of use, one thread each; results in the order of the items.

    Raises:
        WorkerDiedError: if a process was killed; the others are stopped and leave their checkpoints.
        The task's own error.
    """
    count = min(processes, len(items))
    with InProcess(start) if count <= 1 else LocalProcesses(count, start) as workers:
        return workers.map(task, items)
