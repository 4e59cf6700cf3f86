"""Where runs are kept: `runs/{id}/` with journal, metrics, configuration and report.

A run is written beside its place and moved there when it is complete, so a killed backtest leaves nothing that looks finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptoalpha.core.errors import DataMissingError, StoreError
from cryptoalpha.store.home import Home

JOURNAL = "journal.sqlite"
METRICS = "metrics.json"
CONFIG = "config.json"
CONTENT = "report.msgpack"
REPORT = "report.html"
ASIDE = ".old"


def digest_of(value: object) -> str:
    """First 16 hex digits of the sha256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_directory(home: Path, run: str) -> Path:
    """Where the run of that id lies or will lie.

    Raises:
        ConfigError: if the id is not a plain name.
    """
    return Home(home).run(run)


@contextmanager
def new_run(home: Path, run: str) -> Iterator[Path]:
    """A directory to write a run into; on success it replaces an earlier run of the same id, on failure it is removed.

    What killed processes left of that run is cleared away first.

    Raises:
        StoreError: if the directory cannot be written or put in its place.
    """
    final = run_directory(home, run)
    draft = final.with_name(f".{run}.{os.getpid()}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(final)
        draft.mkdir()
    except OSError as error:
        raise StoreError(f"cannot write runs under {home}: {error.strerror}", hint="set CRYPTOALPHA_HOME to a writable directory") from None
    try:
        yield draft
        _put(draft, final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(draft: Path, final: Path) -> None:
    """Move a finished draft to its place. A directory cannot replace another in one step: the old one is set aside, and put back by
    `_clear_leftovers` if the process dies in between."""
    stale = draft.with_name(f"{draft.name}{ASIDE}")
    try:
        if final.exists():
            final.rename(stale)
        draft.rename(final)
    except OSError as error:
        if stale.exists() and not final.exists():
            stale.rename(final)
        raise StoreError(
            f"cannot put the run {final.name} in its place: {error.strerror}", hint="run one backtest of a name at a time"
        ) from None
    shutil.rmtree(stale, ignore_errors=True)


def _clear_leftovers(final: Path) -> None:
    """Remove drafts of this run whose process is gone, and put back a finished run that was set aside and never replaced."""
    for path in sorted(final.parent.glob(f".{final.name}.*")):
        owner, _, kind = path.name.removeprefix(f".{final.name}.").partition(".")
        if not owner.isdecimal() or kind not in ("", ASIDE[1:]) or (int(owner) != os.getpid() and _is_running(int(owner))):
            continue
        if kind and not final.exists():
            path.rename(final)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def written_at(journal: Path) -> int:
    """When a journal's rows were last written, UTC ns, by its files. Ask before the journal is opened.

    The rows of a writer at work lie in its write-ahead log. A reader makes such a log too, an empty one: that is no row.
    """
    about = [journal.stat()]
    with suppress(FileNotFoundError):
        log = journal.with_name(journal.name + "-wal").stat()
        about += [log] if log.st_size else []
    return max(file.st_mtime_ns for file in about)


def list_runs(home: Path) -> list[str]:
    """Ids of the kept runs, the one written last at the end."""
    root = home / "runs"
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if not path.name.startswith(".") and (path / JOURNAL).exists()]
    return [path.name for path in sorted(found, key=lambda path: (written_at(path / JOURNAL), path.name))]


def find_run(home: Path, run: str | None) -> Path:
    """The directory of a run, or of the newest one.

    Raises:
        DataMissingError: if there is none.
    """
    runs = list_runs(home)
    if run is None:
        if not runs:
            raise DataMissingError(f"no runs under {home}", hint="make one with `cryptoalpha demo` or `cryptoalpha backtest`")
        run = runs[-1]
    elif run not in runs:
        raise DataMissingError(f"no run {run!r} under {home}", hint=f"there are: {', '.join(runs[-8:]) or 'none'}")
    return run_directory(home, run)
