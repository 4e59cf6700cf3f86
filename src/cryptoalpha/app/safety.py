"""Kill and resume of runs in a store, by name. What carries them to the engine is `store.controls`.

A run that came to its end takes no step any more, so nobody could carry out a kill of it: it is refused.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.app.runs import JOURNAL, METRICS, run_directory
from cryptoalpha.core.errors import ConfigError, DataMissingError, RiskHaltError, StoreError
from cryptoalpha.store.controls import Control, ControlState, control_state, request_control
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal_reader import JournalReader

TRADE_MARK = "auto_trading"
"""Header key that journals of `trade` have and those of backtests do not."""
LIVE_MARK = "begun"
"""Header key that journals of live bars have and those of replays do not."""
ANEW = (
    "if it was the drawdown or the day's loss that tripped it, that counts anew from the equity of that step: all of `risk.max_drawdown` "
    "may be lost once more; after any other kill both go on counting"
)
"""What a resume means for the limits."""
STORE_RUN = "trade"
"""What the journal in the store's own folder is called."""


@dataclass(frozen=True)
class Killed:
    """A run that was killed, and what that means until its engine takes it."""

    run: str
    control: Control
    means: str

    def as_dict(self) -> dict[str, object]:
        return {"run": self.run, "control": self.control.as_dict(), "means": self.means}


def kill_runs(home: Path, run: str | None, *, flatten: bool, reason: str, at: int) -> tuple[list[Killed], list[tuple[str, StoreError]]]:
    """Kill one run, or every run of `trade` that has not come to its end; returns those killed and those that could not be.

    A journal that cannot be read does not keep the others from being killed.

    Raises:
        DataMissingError: if there is no such run, or none that could still trade.
        ConfigError: if no reason is given, or the run is not one that trades or has come to its end.
    """
    _demand_reason(reason, "a kill", "say why")
    done: list[Killed] = []
    failed: list[tuple[str, StoreError]] = []
    finished = 0
    for name, path in _chosen(home, run):
        if _is_backtest(path):
            if run is None:
                continue
            raise ConfigError(f"run {run!r} is a backtest: there is nothing to kill", hint="`cryptoalpha status` lists the runs")
        if is_finished(path):
            if run is None:
                finished += 1
                continue
            raise ConfigError(
                f"run {run!r} has finished: there is nothing to kill", hint="it takes no step any more; a new run has another name"
            )
        try:
            control = request_control(path, "kill", by=_author(), reason=reason, at=at, flatten=flatten)
        except StoreError as error:
            failed.append((name, error))
            continue
        done.append(Killed(name, control, _meaning(control)))
    if not done and not failed and finished:
        raise DataMissingError(
            f"nothing to kill under {home}: all runs of `cryptoalpha trade` have finished ({finished})",
            hint="they take no step any more; `cryptoalpha status` lists them",
        )
    if not done and not failed:
        raise DataMissingError(f"no run of `cryptoalpha trade` under {home}", hint="name one with --run; `cryptoalpha status` lists them")
    return done, failed


def phrase(run: str) -> str:
    """What a person types to resume a run."""
    return f"resume {run}"


def resume_run(home: Path, run: str, *, reason: str, confirm: str | None, at: int) -> Control:
    """Let a killed run go on (`ANEW` says what that means for its limits).

    Raises:
        ConfigError: if the phrase is wrong, no reason is given, the run is not killed, or has finished.
        RiskHaltError: while the kill is not carried out.
        DataMissingError: if there is no such run.
        StoreError: if its journal cannot be read or written.
    """
    ((_, path),) = _chosen(home, run)
    _demand_reason(reason, "a resume", "say why it is safe again")
    if confirm is None or confirm.strip() != phrase(run):
        given = "nothing" if confirm is None else repr(confirm)
        raise ConfigError(
            f"{given} does not confirm it", hint=f"type the phrase exactly: {phrase(run)}; in a script --confirm '{phrase(run)}'"
        )
    if is_finished(path):
        raise ConfigError(
            f"run {run!r} has finished: there is nothing to resume",
            hint="it takes no step any more; start a new run under another name",
        )
    return request_control(path, "resume", by=_author(), reason=reason, at=at)


def halt(run: str, state: ControlState, *, finished: bool = False) -> RiskHaltError:
    """How `trade` ends when its run is killed.

    Args:
        finished: whether its source came to its end: then it takes no step any more.
    """
    if finished:
        undone = "" if state.mode == "tripped" else ", so what the kill asks for is done no more"
        return RiskHaltError(
            f"run {run} is killed {state.why}; it has finished{undone}", hint="start a new run under another name: --run NAME"
        )
    left = "" if state.mode == "tripped" else "; not all it asks for is done yet, start it again"
    return RiskHaltError(f"run {run} is killed {state.why}{left}", hint=f"{resume_command(run)} lets it enter again")


def resume_command(run: str) -> str:
    """What a person runs, in full."""
    return f"`cryptoalpha resume --run {run} --reason TEXT`"


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
        f"the run is killed {state.why}; it enters nothing, {closing}. {resume_command(path.parent.name)} lets it go on once that is done"
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
    named = [(path.parent.name, path) for path in found]
    return [*named, (STORE_RUN, store.journal)] if store.journal.is_file() else named


def is_finished(journal: Path) -> bool:
    """Whether the run came to its end: then its figures lie beside its journal."""
    return journal.name == JOURNAL and journal.parent.parent.name == "runs" and (journal.parent / METRICS).exists()


def is_trade(header: Mapping[str, str]) -> bool:
    """Whether a journal is one of `trade`."""
    return TRADE_MARK in header


def is_live(header: Mapping[str, str]) -> bool:
    """Whether a journal is one of live bars: its rows hold the time they were written at."""
    return LIVE_MARK in header


def _demand_reason(reason: str, what: str, hint: str) -> None:
    if not reason.strip():
        raise ConfigError(f"{what} needs a reason", hint=f'{hint}: --reason "…"')


def _is_backtest(path: Path) -> bool:
    """Whether it is sure to be one; a journal that cannot be read now might be anything."""
    try:
        with JournalReader(path) as journal:
            header = journal.header
    except StoreError:
        return False
    return bool(header) and not is_trade(header)


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
