"""Was a run kept out of the market? What a reader must know before the figures: they may be those of a book that stood still.

Told from what the run recorded: how long the kill switch stood, and for how much of the run the daily loss, breakers or the ladder let
nothing be entered; and where nothing was ever filled, which limits or refusals left nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import ceil

from cryptoalpha.app.recorder import Recorder
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.core.values import RiskEvent, RiskState
from cryptoalpha.risk import daily_loss, kill_switch

MUCH = 0.5
"""Share of the run, 0–1, from which on being held out is told."""

_SHUT = frozenset({"reduce_only", "open"})
"""States of the daily loss and of breakers in which nothing may be entered."""


def held_out_notes(recorder: Recorder, *, no_trade_band: float, quote: str) -> tuple[str, ...]:
    """Sentences to put before the result; none where the run could trade most of its time, and did.

    Args:
        no_trade_band: smallest change that is traded, fraction of equity.
        quote: currency of the book.
    """
    if not recorder.times:
        return ()
    begin, end = recorder.times[0], recorder.times[-1]
    events = [event for _, event in recorder.risk_events]
    killed = _kills(events, begin, end)
    return (
        *killed,
        *_shut(events, recorder.instruments, begin, end),
        *_scaled_away(recorder, end),
        *_nothing_filled(recorder, no_trade_band, quote),
    )


def _kills(events: Sequence[RiskEvent], begin: int, end: int) -> list[str]:
    """One sentence per time the kill switch tripped; the last one may still stand."""
    notes, tripped = list[str](), None
    for event in [*(one for one in events if one.rule == kill_switch.NAME), None]:
        if event is not None and event.state != "armed":
            tripped = tripped or event
        elif tripped is not None:
            until = end if event is None else event.happened_at
            reason = tripped.message.split(";")[0].removeprefix("by ")
            still = "; the figures are of a book that stood still" if until - tripped.happened_at >= MUCH * (end - begin) else ""
            for_how_long = f"for the last {_of(until - tripped.happened_at, end - begin)}" if event is None else f"until {_moment(until)}"
            notes.append(
                f"The kill switch tripped at {_moment(tripped.happened_at)} ({reason}): nothing was entered {for_how_long}{still}."
            )
            tripped = None
    return notes


def _shut(events: Sequence[RiskEvent], instruments: Sequence[str], begin: int, end: int) -> list[str]:
    """Daily loss and breakers that let nothing be entered for most of the run; those of one instrument count for their part of the book."""
    since, stood = dict[tuple[str, str], int](), defaultdict[str, float](float)
    for event in events:
        if event.rule == kill_switch.NAME:
            continue
        key = event.rule, event.instrument
        if event.state in _SHUT:
            since.setdefault(key, event.happened_at)
        elif key in since:
            stood[event.rule] += (event.happened_at - since.pop(key)) / (len(instruments) if event.instrument else 1)
    for (rule, instrument), at in since.items():
        stood[rule] += (end - at) / (len(instruments) if instrument else 1)
    return [
        f"{'The daily loss' if rule == daily_loss.NAME else f'The breaker {rule}'} let nothing be entered for {_of(time, end - begin)}."
        for rule, time in sorted(stood.items())
        if time >= MUCH * (end - begin) > 0
    ]


def _scaled_away(recorder: Recorder, end: int) -> list[str]:
    """Ladder and regime that left nothing of any size."""
    states: Sequence[RiskState] = recorder.risk_states
    ends = [*(one.known_at for one in states[1:]), end]
    time = sum(until - one.known_at for one, until in zip(states, ends, strict=False) if one.exposure == 0.0)
    whole = end - recorder.times[0]
    return [f"Ladder and regime left nothing of any size for {_of(time, whole)}."] if time >= MUCH * whole > 0 else []


def _nothing_filled(recorder: Recorder, no_trade_band: float, quote: str) -> list[str]:
    """Why a run in which something was wanted has no fill."""
    if recorder.fills:
        return []
    if recorder.orders:
        return [f"Nothing was filled: {_count(recorder.orders, 'order')} went out and none came to a fill."]
    if recorder.refusals:
        rules = ", ".join(f"{rule} {count:,}×" for rule, count in recorder.refusals.most_common(3))
        rule = recorder.refusals.most_common(1)[0][0]
        return [f"Nothing was traded: risk refused every order ({rules}; the last by {rule}: {recorder.refusal_examples[rule]})."]
    if recorder.cuts:
        equity = recorder.equity[-1]
        limits = ", ".join(f"{limit} to {recorder.cut_to[limit]:.2%} of equity at most" for limit, _ in recorder.cuts.most_common(3))
        return [
            f"Nothing was traded: limits cut what was wanted ({limits}), and changes below risk.no_trade_band, {no_trade_band:.2%} of "
            f"equity or {no_trade_band * equity:,.0f} {quote}, are not sent."
        ]
    return []


def _of(part: float, whole: float) -> str:
    """`60 of 61 days`; in hours where the whole is shorter than three days."""
    unit, name = (DAY, "day") if whole >= 3 * DAY else (DAY // 24, "hour")
    return f"{int(part // unit)} of {_count(ceil(whole / unit), name)}"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _moment(at: int) -> str:
    return iso(at)[:16].replace("T", " ")
