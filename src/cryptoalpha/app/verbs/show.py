"""`demo`: what the system does, in three acts and under three minutes."""

from __future__ import annotations

from typing import Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.verbs.research import Data, Interval, Since, Until


def register(app: typer.Typer) -> None:
    verb(app)(demo)


def demo(
    frame: Frame,
    data: Data = None,
    since: Since = None,
    until: Until = None,
    interval: Interval = "1h",
    fetch: Annotated[bool, typer.Option("--fetch", help="Download two years of eight large coins first (public candles, no key).")] = False,
) -> None:
    """A market with a planted edge, one of pure noise, and real data, each judged against baselines: offline, no keys, no servers."""
    import sys

    from cryptoalpha.app.demo import Act, for_interval, noise_act, planted_act, real_act, real_data
    from cryptoalpha.app.period import period_of

    if fetch:
        from cryptoalpha.app.fetching import Wanted, fetch_history

        with frame.out.progress("fetching") as bar:
            fetch_history(frame.home, frame.settings, Wanted(interval=interval), note=frame.out.note, tell=bar.at)
    dataset = real_data(frame.settings, frame.home, data, interval)  # first, so that a wrong directory is told at once
    for found in dataset.notes:
        frame.out.note(found)
    period = period_of(dataset, since, until)
    settings, command = for_interval(frame.settings, dataset), " ".join(["cryptoalpha", *sys.argv[1:]])
    acts: list[Act] = []
    for number in (1, 2, 3):
        if number == 1:
            act = planted_act(frame.settings, frame.home, frame.out.note)
        elif number == 2:
            act = noise_act(frame.settings, frame.home, frame.out.note)
        else:
            act = real_act(settings, frame.home, dataset, period, frame.out.note, command=command)
        acts.append(act)
        frame.out.say([f"── act {number}: {act.title} " + "─" * 60, *act.lines, f"report {act.report}", ""])
    frame.out.result(
        {"acts": [act.as_dict() for act in acts]}, "Simulated figures say nothing about a real market; none of this is advice."
    )
