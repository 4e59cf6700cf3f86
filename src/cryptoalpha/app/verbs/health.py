"""`check` and `status`: is this machine ready, and is what runs on it alive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.output import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptoalpha.app.run_status import RunStatus
    from cryptoalpha.core.errors import CryptoAlphaError

_MARKS = {"ok": "✓", "note": "•", "fault": "✗"}


def register(app: typer.Typer) -> None:
    verb(app)(check)
    verb(app)(status)


AskVenue = Annotated[
    bool, typer.Option("--venue", help="Ask execution.live.venue too: clock, key, balances, open orders. Needs the network and keys.")
]


def check(frame: Frame, venue: AskVenue = False) -> None:
    """Check Python, packages, settings, secrets, disk, store, clock and data gaps; name the command that mends each fault."""
    from cryptoalpha.app.checks import check_machine, worst
    from cryptoalpha.core.clock import SystemClock

    checks = check_machine(frame.home, lambda: frame.settings, frame.out.hide, now=SystemClock().now(), directory=Path())
    if venue:
        from cryptoalpha.app.live.venue_checks import check_venue

        checks += check_venue(frame.home, lambda: frame.settings, frame.out.hide, now=SystemClock().now())
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
    run: Annotated[
        str | None, typer.Option("--run", help="The run to look at more closely [else the trade at work, else the newest].")
    ] = None,
    max_age: Annotated[
        float | None,
        typer.Option("--max-age", min=0.0, help="Exit with 3 if the last row of --run [else of the newest trade] is older, seconds."),
    ] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="The run's figures instead, as Prometheus reads them.")] = False,
    alert_rules: Annotated[bool, typer.Option("--alert-rules", help="The alert rules instead, as a rule file for Prometheus.")] = False,
    venue: AskVenue = False,
) -> None:
    """Print every run's state and age, what trades hold and did lately, one run's limits (used, allowed, left), orders of live runs."""
    from cryptoalpha.app.run_status import chief, lock_holder, run_statuses, watched
    from cryptoalpha.core.clock import SystemClock
    from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError
    from cryptoalpha.store.home import Home

    if metrics and alert_rules:
        raise ConfigError("--metrics and --alert-rules are two different things", hint="ask for one of them")
    if alert_rules:
        return _show_alert_rules(frame)
    if metrics:
        return _show_metrics(frame, run)
    runs = run_statuses(frame.home, now=SystemClock().now(), books=True)
    if run is not None and run not in {each.run for each in runs}:
        raise DataMissingError(
            f"no run {run!r} under {frame.home}", hint=f"there are: {', '.join(each.run for each in runs[:8]) or 'none'}"
        )
    holder = lock_holder(Home(frame.home))
    shown = [(each.run, each.state, each.mode, f"{each.rows:,}", each.last_at or "–", _age(each.age_seconds)) for each in runs]
    table = Table(("run", "state", "risk", "rows", "last row speaks of", "written"), shown)
    who = f"the store {frame.home} is in use by process {holder}" if holder else f"the store {frame.home} is not in use"
    named = next((each for each in runs if run == each.run), None)
    chosen = named or chief(runs)
    found: dict[str, object] = {"home": str(frame.home), "in_use_by": holder, "runs": [each.as_dict() for each in runs]}
    real, said, failed = _at_venue(frame, venue)
    sources, heard, unheard = _sources(frame)
    frame.out.result(
        {**found, **real, "sources": sources},
        [who, *([table] if runs else ["no runs yet"]), *_books(runs, chosen), *(_standing(chosen) if chosen else []), *said, *heard],
    )
    if (error := failed or unheard) is not None:  # after what is known here, which is wanted most when the venue or a server is away
        raise error
    damaged = [each for each in runs if each.state == "damaged"]
    if damaged:
        raise DataError(f"run {damaged[0].run} cannot be read: {damaged[0].problem}", hint="move its folder away")
    if max_age is not None and not runs:
        raise DataMissingError(f"no runs under {frame.home}", hint="start one with `cryptoalpha trade`")
    judged = named or watched(runs)
    if max_age is not None and judged is not None and judged.age_seconds > max_age:
        raise DataError(f"the last row of {judged.run} was written {_age(judged.age_seconds)}", hint="is the process still running?")
    return None


def _at_venue(frame: Frame, ask: bool) -> tuple[dict[str, object], list[str | Table], CryptoAlphaError | None]:
    """The live runs of the store, and, where asked for, what the venue says of the account, or why it says nothing."""
    from cryptoalpha.app.live.status import live_statuses
    from cryptoalpha.core.clock import SystemClock

    runs = live_statuses(frame.home, now=SystemClock().now())
    lines: list[str | Table] = [line for each in runs for line in each.lines()]
    found: dict[str, object] = {"live": [each.as_dict() for each in runs]}
    if ask:
        from cryptoalpha.app.live.venue_checks import look_for
        from cryptoalpha.core.errors import ConfigError, VenueError

        try:
            look = look_for(frame.home, frame.settings, frame.out.hide, now=SystemClock().now())
        except (VenueError, ConfigError) as error:
            return found, lines, error
        found["venue"] = look.as_dict()
        lines += look.lines()
    return found, lines, None


def _sources(frame: Frame) -> tuple[list[dict[str, object]], list[str | Table], CryptoAlphaError | None]:
    """How the live sources fare that a session of this store listens to, or why nobody can tell."""
    from cryptoalpha.app.streams.standing import COLUMNS, source_standings
    from cryptoalpha.core.clock import SystemClock
    from cryptoalpha.core.errors import ConfigError, StoreError, VenueError

    try:
        found = source_standings(frame.settings, frame.home, now=SystemClock().now())
    except (ConfigError, StoreError, VenueError) as error:
        return [], [f"how live sources fare is not known: {error}"], error
    lines: list[str | Table] = [Table(COLUMNS, [row for one in found for row in one.rows()], "live sources")] if found else []
    return [one.as_dict() for one in found], lines, None


def _show_alert_rules(frame: Frame) -> None:
    from cryptoalpha.lifecycle.alerts.rules import every_rule
    from cryptoalpha.monitoring.alert_rule_file import prometheus_rule_file

    config = frame.settings.monitoring.alerts
    text = prometheus_rule_file(every_rule(config, frame.settings.lifecycle.alerts), job=config.job)
    frame.out.result({"rule_file": text}, text.rstrip("\n"))


def _show_metrics(frame: Frame, run: str | None) -> None:
    from cryptoalpha.app.run_metrics import metrics_of_journal
    from cryptoalpha.app.run_status import chief, run_statuses
    from cryptoalpha.app.runs import JOURNAL, find_run
    from cryptoalpha.app.safety import STORE_RUN
    from cryptoalpha.core.clock import SystemClock
    from cryptoalpha.monitoring.metrics_exposition import exposition
    from cryptoalpha.store.journal_reader import JournalReader

    if run is None:
        first = chief([each for each in run_statuses(frame.home, now=SystemClock().now()) if each.run != STORE_RUN])
        run = first.run if first is not None else None
    folder = find_run(frame.home, run)
    with JournalReader(folder / JOURNAL) as journal:
        text = exposition(metrics_of_journal(journal, frame.settings.monitoring, frame.settings.lifecycle.alerts))
    frame.out.result({"run": folder.name, "exposition": text}, text.rstrip("\n"))


def _books(runs: Sequence[RunStatus], chosen: RunStatus | None) -> list[str]:
    """What the trades hold and did lately: those that have not come to their end, and the one looked at."""
    wanted = [each for each in runs if each.book is not None and (each is chosen or each.state != "finished")]
    return [line for each in wanted if each.book is not None for line in each.book.lines(each.run)]


def _standing(run: RunStatus) -> list[str | Table]:
    """One run's limits, and what is not as it should be."""
    from cryptoalpha.core.time import iso

    blocks: list[str | Table] = []
    if run.kill is not None and run.kill.stands:
        how = " and flattened" if run.kill.flatten else ""
        blocks.append(f"run {run.run} is killed{how} ({run.kill.mode}) {run.kill.why}")
    risk = run.risk
    if risk is None:
        return blocks
    blocks.append(
        f"run {run.run} at {risk.at}: {risk.mode}, exposure {risk.exposure:.0%} (ladder rung {risk.ladder}), one day's value at risk "
        f"{risk.value_at_risk:.2%} and expected shortfall {risk.expected_shortfall:.2%} of equity at {risk.level:.1%}"
    )
    rows = [(each.name, each.shown(each.used), each.shown(each.allowed), each.shown(each.left), each.unit) for each in risk.limits]
    blocks.append(Table(("limit", "used", "allowed", "left", "unit"), rows))
    for event in risk.states:
        if event.state not in ("closed", "normal", "armed", "0"):
            about = f" of {event.instrument}" if event.instrument else ""
            blocks.append(f"{iso(event.known_at)}  {event.rule}{about}: {event.state}: {event.message}")
    blocks += [f"{iso(alarm.known_at)}  drift alarm ({alarm.tier}): {alarm.message}" for alarm in risk.alarms]
    if risk.proposes_retraining:
        blocks.append("retraining is proposed: train anew and compare before anything is replaced")
    return blocks


def _age(seconds: float) -> str:
    for size, name in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} ago"
    return f"{seconds:.0f} s ago"
