"""`deploy canary|ab`: a new version takes over step by step, and two versions are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.verbs.deploy_render import render

Backend = Annotated[str, typer.Option("--backend", help="What divides the traffic: inprocess, httproute, argo, rayserve.")]
Url = Annotated[str, typer.Option("--url", help="Where `serve` listens.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Put it on a cluster, let a new version take over, and compare versions.")
    verb(group)(canary)
    verb(group)(ab)
    verb(group)(render)
    app.add_typer(group, name="deploy")


def canary(
    frame: Frame,
    canary_: Annotated[str, typer.Option("--canary", help="Version that shall take over; begins a rollout.")] = "",
    stable: Annotated[str, typer.Option("--stable", help="Version that answers now [else what the back end says].")] = "",
    backend: Backend = "inprocess",
    url: Url = "http://127.0.0.1:8100",
    once: Annotated[bool, typer.Option("--once", help="Look once and end, for a timer.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only say where the newest rollout stands.")] = False,
    resume: Annotated[str, typer.Option("--resume", metavar="WHY", help="End a hold: the step begins anew.")] = "",
    abort: Annotated[str, typer.Option("--abort", metavar="WHY", help="Everything back to stable.")] = "",
) -> None:
    """Move a version from shadow over 5, 10, 25, 50 and 100 % to stable, or back. Killed, it goes on where it stood. Exit code 6 if it
    was rolled back."""
    import asyncio

    from cryptoalpha.app.rolling_out import as_dict, drive, known_state, rolling, split_of, tables
    from cryptoalpha.app.trade_session import stopping
    from cryptoalpha.core.errors import ConfigError, ValidationFailedError

    if sum(map(bool, (canary_, status, resume, abort))) > 1:
        raise ConfigError("--canary, --status, --resume and --abort exclude one another", hint="give one of them, or none to go on")

    if canary_ and frame.settings.lifecycle.canary.quality == "require":
        raise ConfigError(
            "no labels reach a rollout of `deploy canary`, so lifecycle.canary.quality: require is never met",
            hint="set it to veto; `require` is for programs that call record_brier",
        )

    async def run() -> None:
        split = split_of(frame.settings, backend, url, hide=frame.out.hide)
        async with rolling(frame.settings, frame.home, split, say=frame.out.note) as controller:
            if canary_:
                answering = stable or (await split.read()).stable
                if not answering:
                    raise ConfigError(f"the back end {backend} does not say which version answers", hint="name it with --stable")
                await controller.begin(answering, canary_)
            elif resume:
                await controller.resume(resume)
            elif abort:
                await controller.abort(abort)
            elif once:
                await controller.step()
            if not once and not abort:
                await drive(
                    controller, look_seconds=frame.settings.lifecycle.canary.look_seconds, stop=stop.event.is_set, note=frame.out.note
                )

    with stopping() as stop:
        if not status:
            asyncio.run(run())
    state, story = known_state(frame.home)
    frame.out.result(as_dict(state, story), tables(state, story))
    if state.stage == "promoted" and not status:
        frame.out.note(
            f"a restarted `serve` begins with the champion: `cryptoalpha models promote {state.canary} --reason …` makes it last"
        )
    if stop.by_keyboard:
        raise KeyboardInterrupt
    if state.stage == "rolled_back" and not status and not abort:
        raise ValidationFailedError(f"{state.canary} was rolled back: {state.reason}", hint=f"{state.stable} answers")


def ab(
    frame: Frame,
    backend: Backend = "inprocess",
    url: Url = "http://127.0.0.1:8100",
    outcomes: Annotated[Path | None, typer.Option("--outcomes", help="CSV of key,value: what became of each key, in order.")] = None,
    salt: Annotated[
        str, typer.Option("--salt", help="With --outcomes: the salt of the keys [else `salt` of GET /v1/split, if the back end says it].")
    ] = "",
    share: Annotated[
        float | None, typer.Option("--share", min=0.0, max=1.0, help="With --outcomes: the canary's share [else the back end's].")
    ] = None,
    lowest: Annotated[float | None, typer.Option("--lowest", help="With --outcomes: no value is below; needs --highest.")] = None,
    highest: Annotated[float | None, typer.Option("--highest", help="With --outcomes: no value is above; needs --lowest.")] = None,
    smaller: Annotated[bool, typer.Option("--smaller", help="With --outcomes: smaller is better.")] = False,
    alpha: Annotated[float, typer.Option("--alpha", min=1e-6, max=0.5, help="Probability of being wrong at any look.")] = 0.05,
) -> None:
    """Compare two versions that answer side by side, by intervals that hold however often one looks."""
    import asyncio

    from cryptoalpha.app.rolling_out import ab_table, compare, split_of
    from cryptoalpha.core.errors import ConfigError

    if (lowest is None) != (highest is None) or (lowest is not None and highest is not None and lowest >= highest):
        raise ConfigError(f"--lowest {lowest} and --highest {highest} name no range", hint="give both, rising, or neither")
    split = split_of(frame.settings, backend, url, hide=frame.out.hide)
    bounds = None if lowest is None or highest is None else (lowest, highest)
    report = asyncio.run(
        compare(split, outcomes=outcomes, salt=salt, share=share, bounds=bounds, alpha=alpha, larger_is_better=not smaller)
    )  # fmt: skip
    frame.out.result(report.as_dict(), ab_table(report))
