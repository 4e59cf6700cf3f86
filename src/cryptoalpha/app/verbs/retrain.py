"""`retrain`: ask for a campaign, run it, watch for reasons to, or say where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.output import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptoalpha.app.retraining import Retraining
    from cryptoalpha.lifecycle.retrain.runner import Standing

SHOWN = 5
LONGEST_PAUSE = 60.0
"""Seconds between two looks of `--watch` at what asks for retraining."""


def register(app: typer.Typer) -> None:
    verb(app)(retrain)


def retrain(
    frame: Frame,
    now: Annotated[bool, typer.Option("--now", help="Ask for a campaign yourself, whatever the cooldown says, and run it.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and run a campaign whenever something asks for one.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say what waits and where campaigns stand; runs nothing.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, with --now; kept in the book.")] = "asked for by hand",
    data: Annotated[Path | None, typer.Option("--data", help="Directory of history [else what the store holds].")] = None,
    until: Annotated[str | None, typer.Option("--until", help="End of the bars, exclusive [else the last there is].")] = None,
    interval: Annotated[str, typer.Option("--interval", help="Bar length, such as 1h.")] = "1h",
    instruments: Annotated[str | None, typer.Option("--instruments", help="Comma-separated [else all].")] = None,
    simulated: Annotated[bool, typer.Option("--simulated", help="Use the simulated market instead of data.")] = False,
    serve: Annotated[
        str,
        typer.Option("--serve", help="Address of the `serve` whose requests a canary is given [else lifecycle.retrain.serve]."),
    ] = "",
) -> None:
    """Train all models anew, judge them, try them on a share of requests and promote them; goes on where it was stopped.

    Without --now it runs what waits: drift alarms, the accuracy alert, the schedule. What it trains is a challenger until the gates and the
    canary have let it pass.
    """
    from cryptoalpha.core.errors import ConfigError
    from cryptoalpha.lifecycle.retrain.book import BOOK
    from cryptoalpha.lifecycle.retrain.campaign import open_campaign
    from cryptoalpha.lifecycle.retrain.triggers import propose

    path = frame.home / BOOK
    if status:
        if now or watch:
            raise ConfigError("--status runs nothing", hint="leave --now and --watch out")
        show(frame, path)
        return
    stopped = Stopped()
    campaigns = assembled(frame, (data, until, interval, instruments, simulated), serve, stopped)
    if now and (left := open_campaign(path)) is not None:  # of a process that was killed, most likely: another would train all again
        frame.out.note(f"campaign {left.number} is not over and is gone on with")
    elif now:
        propose(path, "hand", campaigns.now(), reason)
    with stopped.listening():
        standing = watched(campaigns, stopped, frame.out.note) if watch else campaigns.runner().run()
    ended(frame, standing, path)


class Stopped:
    """Whether SIGTERM came: what works is ended, and goes on with the next start."""

    def __init__(self) -> None:
        import threading

        self.event = threading.Event()

    def __call__(self) -> bool:
        return self.event.is_set()

    def listening(self) -> Any:
        import signal
        from contextlib import contextmanager

        @contextmanager
        def heard() -> Any:
            before = signal.signal(signal.SIGTERM, lambda number, place: self.event.set())
            try:
                yield
            finally:
                signal.signal(signal.SIGTERM, before)

        return heard()


def assembled(frame: Frame, data: tuple[Any, ...], serve: str, stopped: Callable[[], bool]) -> Retraining:
    """Campaigns over the data that were asked for."""
    from cryptoalpha.app.retraining import Retraining, Source
    from cryptoalpha.app.rolling_out import split_of
    from cryptoalpha.app.verbs.train import listed
    from cryptoalpha.core.clock import SystemClock

    where, until, interval, instruments, simulated = data
    names = listed(instruments)
    url = serve or frame.settings.lifecycle.retrain.serve
    split = split_of(frame.settings, "inprocess", url, hide=frame.out.hide) if url else None
    source = Source(where, simulated, interval, tuple(names) if names else None, until)
    return Retraining(frame.settings, frame.home, source, SystemClock().now, split, stopped=stopped, tell=frame.out.note)


def watched(campaigns: Retraining, stopped: Stopped, say: Callable[[str], None]) -> Standing:
    """Run campaigns as they are asked for, until told to stop."""
    from cryptoalpha.core.errors import StoreLockedError
    from cryptoalpha.core.time import SECOND
    from cryptoalpha.lifecycle.retrain.runner import Standing

    runner, standing, said = campaigns.runner(), Standing("nothing", "told to stop before anything asked"), ""
    while not stopped():
        try:
            standing = runner.run()
        except StoreLockedError as error:
            standing = Standing("nothing", str(error))
        except KeyboardInterrupt:
            if stopped():
                break
            raise
        if standing.words != said:
            said = standing.words
            say(said)
        pause = LONGEST_PAUSE if standing.again_at is None else (standing.again_at - campaigns.now()) / SECOND
        stopped.event.wait(min(max(pause, 0.0), LONGEST_PAUSE))
    return standing


def ended(frame: Frame, standing: Standing, path: Path) -> None:
    """Say how it ended; a candidate that was refused is a validation that failed, a campaign that failed is not one that was held.

    Raises:
        ValidationFailedError: if the candidate was refused.
        ModelError: if a step failed for good.
    """
    from cryptoalpha.core.errors import ModelError, ValidationFailedError

    show(frame, path, did=standing.did, words=standing.words)
    outcome = standing.campaign.outcome if standing.did == "ended" and standing.campaign else None
    if outcome == "refused":
        raise ValidationFailedError(f"campaign {standing.campaign.number}: {standing.words}", hint="the champion stays; see --status")  # type: ignore[union-attr]
    if outcome == "failed":
        raise ModelError(f"campaign {standing.campaign.number}: {standing.words}", hint="logs lie in HOME/lifecycle/campaigns")  # type: ignore[union-attr]


def show(frame: Frame, path: Path, **more: str) -> None:
    """What waits, and the newest campaigns step by step."""
    from dataclasses import asdict

    from cryptoalpha.core.time import iso_second
    from cryptoalpha.lifecycle.retrain.campaign import campaigns
    from cryptoalpha.lifecycle.retrain.triggers import waiting

    asked, found = waiting(path), campaigns(path, last=SHOWN)
    lines: list[str | Table] = [more["words"]] if more else []
    if asked:
        rows = [(one.cause, one.subject, str(one.times), iso_second(one.first_at), one.detail) for one in asked]
        lines.append(Table(("cause", "about", "times", "first", "what"), rows, "waiting"))
    for one in found[:1]:
        steps = [(step.name, step.verdict or ("begun" if step.begun_at else "-"), str(step.failed), step.words) for step in one.steps]
        lines.append(
            Table(("step", "", "failed", "words"), steps, f"campaign {one.number} ({one.kind}, {one.cause}): {one.outcome or 'goes on'}")
        )
    if not asked and not found:
        lines.append("nothing asks for retraining, and there was no campaign")
    told = [{**one.as_dict(), "plan": {name: value for name, value in one.plan.items() if name != "settings"}} for one in found]
    frame.out.result({**more, "waiting": [asdict(one) for one in asked], "campaigns": told}, lines)
