"""`kill` and `resume`: stop a run from entering, and let it go on.

They work whether the run's engine works, hangs or is stopped, and take no lock of the store.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cryptoalpha.app.frame import Frame, verb


def register(app: typer.Typer) -> None:
    verb(app)(kill)
    verb(app)(resume)


def kill(
    frame: Frame,
    run: Annotated[str | None, typer.Option("--run", help="The run to stop [else every run of `trade`, on paper or real].")] = None,
    flatten: Annotated[bool, typer.Option("--flatten", help="Close everything it holds as well.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the journal.")] = "no reason given",
) -> None:
    """Stop entries at once, with the next step cancel pending ones, with --flatten close everything; holds through restarts till `resume`.

    A pending entry may still be filled by the bar being worked on, as at any venue until its cancel arrives; by none after it.
    """
    from cryptoalpha.app.safety import kill_runs
    from cryptoalpha.core.clock import SystemClock
    from cryptoalpha.core.errors import StoreError

    done, failed = kill_runs(frame.home, run, flatten=flatten, reason=reason, at=SystemClock().now())
    lines = [f"run {each.run} is killed: {each.means}" for each in done]
    frame.out.result(
        {"killed": [each.as_dict() for each in done], "failed": [{"run": name, "problem": str(error)} for name, error in failed]}, lines
    )
    if failed:
        name, error = failed[0]
        raise StoreError(f"run {name} could not be killed ({len(failed)} of {len(failed) + len(done)}): {error}", hint=error.hint)


def resume(
    frame: Frame,
    run: Annotated[str, typer.Option("--run", help="The run to let go on.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it may go on; kept in the journal.")],
    confirm: Annotated[str | None, typer.Option("--confirm", help="The phrase `resume NAME` [else asked on the terminal].")] = None,
) -> None:
    """Let a killed run enter again, once its pending entries are gone; asks for a typed phrase and says what counts anew."""
    import sys

    from cryptoalpha.app.safety import ANEW, phrase, resume_run
    from cryptoalpha.core.clock import SystemClock

    if confirm is None and sys.stdin.isatty():
        confirm = typer.prompt(f"{ANEW[0].upper()}{ANEW[1:]}. Type `{phrase(run)}` to let it trade again", err=True)
    done = resume_run(frame.home, run, reason=reason, confirm=confirm, at=SystemClock().now())
    frame.out.result({"run": run, "control": done.as_dict()}, [f"run {run} may enter again from its next step on: {done.reason}", ANEW])
