"""What is running and how fresh it is: every journal of a store, its last row and its age. Reads only; never takes the store's lock.

How old a row is: of live bars, by the time the row itself holds; of a replay, whose rows speak of the past, by the journal's files as they
were before anybody looked. So looking makes nothing younger; a `kill` of a replay that stands still does, once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptoalpha.app.run_book import RunBook, run_book
from cryptoalpha.app.run_risk import RunRisk, run_risk
from cryptoalpha.app.runs import JOURNAL, METRICS, written_at
from cryptoalpha.app.safety import STORE_RUN, is_live, is_trade
from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.time import SECOND, iso
from cryptoalpha.store.controls import ControlState, control_state
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal_reader import JournalReader

RunState = Literal["running", "stopped", "finished", "damaged"]


@dataclass(frozen=True)
class RunStatus:
    """One journal. `last_at` is the time its last row speaks of, `age_seconds` how long ago that row was written."""

    run: str
    state: RunState
    rows: int
    last_at: str | None
    age_seconds: float
    problem: str = ""
    kill: ControlState | None = None
    """Whether people or limits have stopped it; None where that cannot be read."""
    risk: RunRisk | None = None
    """Where it stands against its limits; None where it never said."""
    trades: bool = False
    """Whether it is one of `trade`, not a backtest."""
    book: RunBook | None = None
    """What it holds and did lately; None where it was not asked for, or is not one of `trade`."""

    @property
    def mode(self) -> str:
        """What it may do: what people asked for comes first, they may have asked after its last row."""
        if self.kill is not None and self.kill.stands:
            return f"kill {self.kill.mode}"
        return self.risk.mode if self.risk is not None else "–"

    def as_dict(self) -> dict[str, object]:
        fields: dict[str, object] = {name: getattr(self, name) for name in ("run", "state", "rows", "last_at", "age_seconds", "problem")}
        kill = self.kill.as_dict() if self.kill else None
        book = self.book.as_dict() if self.book else None
        return {**fields, "trades": self.trades, "kill": kill, "risk": self.risk.as_dict() if self.risk else None, "book": book}


def run_statuses(home: Path, *, now: int, books: bool = False) -> list[RunStatus]:
    """All runs of a store, the one written last first; with `books` what those of `trade` hold and did lately."""
    store = Home(home)
    holder = lock_holder(store)
    found = [path for path in (home / "runs").glob("*/" + JOURNAL) if not path.parent.name.startswith(".")]
    if store.journal.is_file():
        found.append(store.journal)
    statuses = [_status(path, store, holder is not None, now, books) for path in found]
    return sorted(statuses, key=lambda status: (status.age_seconds, status.run))


def chief(runs: Sequence[RunStatus]) -> RunStatus | None:
    """The run to look at where none is named: the trade at work, else the one written last. `runs` as `run_statuses` gives them."""
    return next((each for each in runs if each.trades and each.state == "running"), next(iter(runs), None))


def watched(runs: Sequence[RunStatus]) -> RunStatus | None:
    """The run whose age tells whether trading is alive: of the trades that have not come to their end the one written last, else `chief`.

    A backtest made meanwhile does not stand in for a trade that has died.
    """
    return next((each for each in runs if each.trades and each.state in ("running", "stopped")), chief(runs))


def lock_holder(store: Home) -> int | None:
    """The process that holds the store, as far as its lock file and the process table tell."""
    try:
        pid = int(store.lock.read_text(encoding="ascii").strip() or "0")
    except (OSError, ValueError):
        return None
    return pid if pid and _is_alive(pid) else None


def _status(path: Path, store: Home, locked: bool, now: int, books: bool) -> RunStatus:
    name = STORE_RUN if path == store.journal else path.parent.name
    written = written_at(path)
    try:
        with JournalReader(path) as journal:
            header = journal.header
            rows = len(journal)
            at = journal.read(rows)[0] if rows else None
            risk = run_risk(journal)
            book = run_book(journal, now=now if is_live(header) else None) if books and is_trade(header) else None
        kill = control_state(path)
    except StoreError as error:
        return RunStatus(name, "damaged", 0, None, max(now - written, 0) / SECOND, str(error))
    if at is not None and is_live(header):
        written = at
    finished = (path.parent / METRICS).exists() and path != store.journal
    state: RunState = "finished" if finished else "running" if locked else "stopped"
    return RunStatus(
        name, state, rows, None if at is None else iso(at), max(now - written, 0) / SECOND, kill=kill, risk=risk, trades=is_trade(header),
        book=book,
    )  # fmt: skip


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
