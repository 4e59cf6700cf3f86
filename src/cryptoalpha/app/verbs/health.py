"""`check` and `status`: is this machine ready, and is what runs on it alive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.output import Table

_MARKS = {"ok": "✓", "note": "•", "fault": "✗"}


def register(app: typer.Typer) -> None:
    verb(app)(check)
    verb(app)(status)


def check(frame: Frame) -> None:
    """Check Python, packages, settings, secrets, disk, store, clock and data gaps; name the command that mends each fault."""
    from cryptoalpha.app.checks import check_machine, worst
    from cryptoalpha.core.clock import SystemClock

    checks = check_machine(frame.home, lambda: frame.settings, frame.out.hide, now=SystemClock().now(), directory=Path())
    lines = []
    for each in checks:
        lines.append(f"{_MARKS[each.state]} {each.name}: {each.found}")
        if each.fix:
            lines.append(f"    → {each.fix}")
    rows = [{"name": each.name, "state": each.state, "found": each.found, "fix": each.fix} for each in checks]
    frame.out.result({"checks": rows}, lines)
    first = worst(checks)
    if first is not None:
        faults = sum(each.state == "fault" for each in checks)
        raise first.error(f"{faults} of {len(checks)} checks found a fault, first: {first.name}", hint=first.fix)


def status(
    frame: Frame,
    max_age: Annotated[float | None, typer.Option("--max-age", min=0.0, help="Exit with 3 if the newest row is older, seconds.")] = None,
) -> None:
    """Print every run's state and the age of its last journal row."""
    from cryptoalpha.app.run_status import lock_holder, run_statuses
    from cryptoalpha.core.clock import SystemClock
    from cryptoalpha.core.errors import DataError, DataMissingError
    from cryptoalpha.store.home import Home

    runs = run_statuses(frame.home, now=SystemClock().now())
    holder = lock_holder(Home(frame.home))
    shown = [(run.run, run.state, f"{run.rows:,}", run.last_at or "–", _age(run.age_seconds)) for run in runs]
    table = Table(("run", "state", "rows", "last row speaks of", "written"), shown)
    who = f"the store {frame.home} is in use by process {holder}" if holder else f"the store {frame.home} is not in use"
    frame.out.result({"home": str(frame.home), "in_use_by": holder, "runs": runs}, [who, *([table] if runs else ["no runs yet"])])
    damaged = [run for run in runs if run.state == "damaged"]
    if damaged:
        raise DataError(f"run {damaged[0].run} cannot be read: {damaged[0].problem}", hint="move its folder away")
    if max_age is not None and not runs:
        raise DataMissingError(f"no runs under {frame.home}", hint="start one with `cryptoalpha trade`")
    if max_age is not None and runs[0].age_seconds > max_age:
        raise DataError(f"the newest row of {runs[0].run} was written {_age(runs[0].age_seconds)}", hint="is the process still running?")


def _age(seconds: float) -> str:
    for size, name in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} ago"
    return f"{seconds:.0f} s ago"
