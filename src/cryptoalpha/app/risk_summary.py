"""What risk did in a backtest, as the report and `--json` show it: cuts, changes of state, alarms, and limits at the end."""

from __future__ import annotations

from collections.abc import Sequence

from cryptoalpha.app.recorder import Recorder
from cryptoalpha.app.report.risk_content import AlarmNote, CutCount, RiskRecord, StateChange
from cryptoalpha.app.run_risk import LimitUse
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import format_event_id
from cryptoalpha.monitoring.drift.config import DriftConfig

SHOWN_CHANGES, SHOWN_ALARMS = 120, 60
"""The newest ones that a report prints; it says how many there were."""


def risk_record(recorder: Recorder, drift: DriftConfig | None = None) -> RiskRecord:
    """What the recorder saw of the gate and the watchdog; `drift` says what the watchdog could see."""
    last = recorder.risk_states[-1] if recorder.risk_states else None
    return RiskRecord(
        cuts=tuple(
            CutCount(limit, times, recorder.cut_sizes[limit] / times, recorder.binding[limit])
            for limit, times in sorted(recorder.cuts.items(), key=lambda one: (-one[1], one[0]))
        ),
        changes=tuple(
            StateChange(format_event_id(event), one.happened_at, one.rule, one.state, one.message, one.instrument)
            for event, one in recorder.risk_events[-SHOWN_CHANGES:]
        ),
        changes_total=len(recorder.risk_events),
        alarms=tuple(
            AlarmNote(
                event=format_event_id(event),
                time=one.happened_at,
                detector=one.detector,
                subject=one.subject,
                tier=one.tier,
                statistic=one.statistic,
                threshold=one.threshold,
                run_length=one.run_length,
                message=one.message,
            )
            for event, one in recorder.alarms[-SHOWN_ALARMS:]
        ),
        alarms_total=len(recorder.alarms),
        limits=tuple(LimitUse(name, used, allowed) for name, used, allowed in last.limits) if last else (),
        mode=last.mode if last else "",
        exposure=last.exposure if last else 1.0,
        limits_at=last.known_at if last else None,
        watching=watch_note(drift, recorder.times) if drift else "",
    )


def watch_note(drift: DriftConfig, times: Sequence[int]) -> str:
    """Why no drift alarm, or hardly any, could have been raised in a run of these steps (ns); empty where all watches were at work."""
    if not drift.enabled:
        return "Nothing was watched: monitoring.drift.enabled is off."
    days = (times[-1] - times[0]) // DAY if times else 0
    if days >= drift.reference_days:
        return ""
    return (
        f"Most could not: watches over features, predictions and information coefficients learn what is normal from "
        f"{drift.reference_days} days, and this run has {days}; only those over returns and outcomes need no reference."
    )
