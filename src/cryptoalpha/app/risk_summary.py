"""What risk did in a backtest, as the report and `--json` show it: cuts, changes of state, alarms, and limits at the end."""

from __future__ import annotations

from cryptoalpha.app.recorder import Recorder
from cryptoalpha.app.report.risk_content import AlarmNote, CutCount, LimitUse, RiskRecord, StateChange
from cryptoalpha.core.values import format_event_id

SHOWN_CHANGES, SHOWN_ALARMS = 120, 60
"""The newest ones that a report prints; it says how many there were."""


def risk_record(recorder: Recorder) -> RiskRecord:
    """What the recorder saw of the gate and the watchdog."""
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
    )
