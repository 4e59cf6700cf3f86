"""Where a run stands against its limits, read from the end of its journal: fast however long that is, and beside a running writer.

The gate journals a `RiskState` with every order and at least once a day, so the newest is near the end; changes of limits and breakers,
and drift alarms, are looked for over the last thirty days. Rows are searched newest first for the names of these kinds and only those
that hold one are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptoalpha.core.time import DAY, iso
from cryptoalpha.core.values import Alarm, RiskEvent, RiskState, Travelling
from cryptoalpha.store.journal_reader import JournalReader

LOOK_BACK = 30 * DAY
SHOWN_ALARMS = 5
_SOUGHT = (RiskState, RiskEvent, Alarm)
_TAGS = tuple(bytes([0xA0 | len(kind.__name__)]) + kind.__name__.encode() for kind in _SOUGHT)  # msgpack's short texts
_FIRST_CHUNK, _LARGEST_CHUNK = 64, 8192


FRACTION = "fraction of equity"
UNITS = {
    "order_rate": "entries an hour",
    "max_notional": "quote currency",
    "liquidity": "days",
    "volatility_target": "fraction of equity a year",
    "risk_tolerance": "fraction of equity a day",
    "concentration": "sum of squared fractions",
    "max_drawdown": "fraction of the peak",
    "daily_loss": "fraction of the day's start",
    "daily_loss_kill": "fraction of the day's start",
}
"""Units of the limits that a `RiskState` names; of all others it is `FRACTION`."""
_DIGITS = {"order_rate": 0, "max_notional": 2, "liquidity": 2}


@dataclass(frozen=True)
class LimitUse:
    """One limit: what is used of it, how much it allows and what is left, in its own unit. `left` is negative where it is exceeded."""

    name: str
    used: float
    allowed: float

    @property
    def left(self) -> float:
        return self.allowed - self.used

    def as_dict(self) -> dict[str, object]:
        return {"name": self.name, "used": self.used, "allowed": self.allowed, "left": self.left, "unit": self.unit}

    @property
    def unit(self) -> str:
        return UNITS.get(self.name, FRACTION)

    def shown(self, value: float) -> str:
        """A value of this limit for people: fractions to a hundredth of a percent."""
        return f"{value:,.{_DIGITS.get(self.name, 4)}f}"


@dataclass(frozen=True)
class RunRisk:
    """What the end of a journal says about risk. Times are of the run's clock."""

    at: str
    """When the limits stood so."""
    mode: str
    exposure: float
    """Share of the wanted and allowed size that ladder and regime leave, 0–1."""
    value_at_risk: float
    expected_shortfall: float
    level: float
    limits: tuple[LimitUse, ...]
    states: tuple[RiskEvent, ...]
    """The last change of each limit, breaker and the kill switch within `LOOK_BACK`, by rule and instrument."""
    alarms: tuple[Alarm, ...]
    """The last drift alarms within `LOOK_BACK`, the newest first; one that says again what a newer one says is left out."""

    @property
    def ladder(self) -> str:
        """The rung of the drawdown ladder, `0` where it leaves all exposure."""
        return next((event.state for event in self.states if event.rule == "drawdown_ladder"), "0")

    @property
    def proposes_retraining(self) -> bool:
        """Whether one of these alarms is evidence for training anew."""
        return any(alarm.tier == "retrain" for alarm in self.alarms)

    def as_dict(self) -> dict[str, object]:
        return {
            "at": self.at,
            "mode": self.mode,
            "exposure": self.exposure,
            "ladder": self.ladder,
            "value_at_risk": self.value_at_risk,
            "expected_shortfall": self.expected_shortfall,
            "level": self.level,
            "limits": [limit.as_dict() for limit in self.limits],
            "states": [{"rule": e.rule, "instrument": e.instrument, "state": e.state, "at": iso(e.known_at)} for e in self.states],
            "alarms": [{"at": iso(a.known_at), "detector": a.detector, "subject": a.subject, "tier": a.tier} for a in self.alarms],
            "proposes_retraining": self.proposes_retraining,
        }


def run_risk(journal: JournalReader) -> RunRisk | None:
    """What the journal's end says; None where no limits were told, as in runs that decide only and in those of older versions.

    Raises:
        StoreError: if a row that is read is damaged.
    """
    state: RiskState | None = None
    events: dict[tuple[str, str], RiskEvent] = {}
    alarms: list[Alarm] = []
    for value in _newest_first(journal):
        if isinstance(value, RiskState):
            state = state or value
        elif isinstance(value, RiskEvent):
            events.setdefault((value.rule, value.instrument), value)
        elif isinstance(value, Alarm) and len(alarms) < SHOWN_ALARMS:
            said = (value.detector, value.subject, value.tier)
            if all(said != (other.detector, other.subject, other.tier) for other in alarms):
                alarms.append(value)
    if state is None:
        return None
    return RunRisk(
        at=iso(state.known_at),
        mode=state.mode,
        exposure=state.exposure,
        value_at_risk=state.value_at_risk,
        expected_shortfall=state.expected_shortfall,
        level=state.level,
        limits=tuple(LimitUse(*limit) for limit in state.limits),
        states=tuple(events[key] for key in sorted(events)),
        alarms=tuple(alarms),
    )


def _newest_first(journal: JournalReader) -> Iterator[Travelling]:
    """Risk states, risk events and alarms of the last rows, newest first, as far back as `LOOK_BACK`."""
    stop, size, since = len(journal) + 1, _FIRST_CHUNK, None
    while stop > 1:
        start = max(stop - size, 1)
        for row, at, body in reversed(list(journal.raw(start, stop))):
            since = at - LOOK_BACK if since is None else since
            if at < since:
                return
            if any(tag in body for tag in _TAGS):
                yield from (value for value in reversed(journal.read(row)[1]) if isinstance(value, _SOUGHT))
        stop, size = start, min(2 * size, _LARGEST_CHUNK)
