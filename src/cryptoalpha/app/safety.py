"""Kill and resume of runs in a store, by name. What carries them to the engine is `store.controls`."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.app.runs import JOURNAL, METRICS, run_directory
from cryptoalpha.core.errors import ConfigError, DataMissingError, RiskHaltError, StoreError
from cryptoalpha.store.controls import Control, ControlState, control_state, request_control
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal_reader import JournalReader

TRADE_MARK = "auto_trading"
"""Header key that journals of `trade` have and those of backtests do not."""
STORE_RUN = "trade"
"""What the journal in the store's own folder is called."""


@dataclass(frozen=True)
class Killed:
    """A run that was killed, and what that means until its engine takes it."""

    run: str
    control: Control
    means: str


def kill_runs(home: Path, run: str | None, *, flatten: bool, reason: str, at: int) -> tuple[list[Killed], list[tuple[str, StoreError]]]:
    """Kill one run, or every run of `trade` that has not come to its end; returns those killed and those that could not be.

    A journal that cannot be read does not keep the others from being killed.

    Raises:
        DataMissingError: if there is no such run, or no run at all.
        ConfigError: if the run is not one that trades.
    """
    done: list[Killed] = []
    failed: list[tuple[str, StoreError]] = []
    for name, path in _chosen(home, run):
        if _is_backtest(path):
            if run is None:
                continue
            raise ConfigError(f"run {run!r} is a backtest: there is nothing to kill", hint="`cryptoalpha status` lists the runs")
        try:
            control = request_control(path, "kill", by=_author(), reason=reason, at=at, flatten=flatten)
        except StoreError as error:
            failed.append((name, error))
            continue
        done.append(Killed(name, control, _meaning(control)))
    if not done and not failed:
        raise DataMissingError(f"no run of `cryptoalpha trade` under {home}", hint="name one with --run; `cryptoalpha status` lists them")
    return done, failed


def phrase(run: str) -> str:
    """What a person types to resume a run."""
    return f"resume {run}"


def resume_run(home: Path, run: str, *, reason: str, confirm: str | None, at: int) -> Control:
    """Let a killed run go on.

    Raises:
        ConfigError: if the phrase is wrong, no reason is given, or the run is not killed.
        RiskHaltError: while the kill is not carried out.
        DataMissingError: if there is no such run.
        StoreError: if its journal cannot be read or written.
    """
    ((_, path),) = _chosen(home, run)
    if not reason.strip():
        raise ConfigError("a resume needs a reason", hint='say why it is safe again: --reason "…"')
    if confirm is None or confirm.strip() != phrase(run):
        given = "nothing" if confirm is None else repr(confirm)
        raise ConfigError(
            f"{given} does not confirm it", hint=f"type the phrase exactly: {phrase(run)}; in a script --confirm '{phrase(run)}'"
        )
    return request_control(path, "resume", by=_author(), reason=reason, at=at)


def halt(run: str, state: ControlState) -> RiskHaltError:
    """How `trade` ends when its run is killed."""
    left = "" if state.mode == "tripped" else "; not all it asks for is done yet, start it again"
    return RiskHaltError(
        f"run {run} is killed by {state.by}: {state.reason}{left}",
        hint=f"`cryptoalpha resume --run {run} --reason …` lets it enter again",
    )


def told_at_start(path: Path) -> str | None:
    """What `trade` says of a run that is killed when it starts; None where nothing stands.

    Raises:
        StoreError: if the journal is there and cannot be read: then nothing may be traded.
    """
    if not path.is_file():
        return None
    state = control_state(path)
    if not state.stands:
        return None
    closing = "everything it holds is closed" if state.flatten else "what it holds may only be reduced"
    return (
        f"the run is killed by {state.by}: {state.reason}; it enters nothing, {closing}. "
        f"`cryptoalpha resume --run {path.parent.name} --reason …` lets it go on once that is done"
    )


def _chosen(home: Path, run: str | None) -> list[tuple[str, Path]]:
    """Name and journal of the runs that are meant."""
    store = Home(home)
    if run is not None:
        path = run_directory(home, run) / JOURNAL
        if not path.is_file() and run == STORE_RUN:
            path = store.journal
        if not path.is_file():
            raise DataMissingError(f"no run {run!r} under {home}", hint="`cryptoalpha status` lists the runs")
        return [(run, path)]
    found = sorted(path for path in (home / "runs").glob("*/" + JOURNAL) if not path.parent.name.startswith("."))
    live = [(path.parent.name, path) for path in found if not (path.parent / METRICS).exists()]  # a finished one trades no more
    return [*live, (STORE_RUN, store.journal)] if store.journal.is_file() else live


def _is_backtest(path: Path) -> bool:
    """Whether it is sure to be one; a journal that cannot be read now might be anything."""
    try:
        with JournalReader(path) as journal:
            header = journal.header
    except StoreError:
        return False
    return bool(header) and TRADE_MARK not in header


def _meaning(control: Control) -> str:
    what = "nothing is entered, pending entries are cancelled" + (", what it holds is closed" if control.flatten else "")
    held = "" if control.id else "; its journal is locked, so the kill lies in a file beside it"
    return f"{what}, at once if it runs, else as soon as it is started{held}"


def _author() -> str:
    """Who asks, as far as the machine knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
