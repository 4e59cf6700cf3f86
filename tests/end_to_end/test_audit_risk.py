"""A risk gate that knows the future is planted, and the audit has to say so; its honest twin has to pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cryptoalpha.app.audit import AuditReport, Path, audit, default_path
from cryptoalpha.app.book import build_engine, show_the_past
from cryptoalpha.app.engine import Engine
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.risk.config import RiskConfig, TailConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.tables import Dataset, Floats

WINDOW = 480
"""Bars audited: the last twenty days of the market."""


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=3, bars=1500, posts_per_day=24.0), seed=3).dataset


def last_bars(dataset: Dataset, count: int = WINDOW) -> Period:
    table = next(iter(dataset.bars.values()))
    end = int(table.open_time[-1]) + table.interval
    return Period(end - count * table.interval, end)


def shifted(values: Floats, rows: int) -> Floats:
    """Row t holds what stood at row t − rows; negative `rows` look ahead."""
    out = np.full(values.shape, np.nan)
    if rows >= 0:
        out[rows:] = values[: len(values) - rows]
    else:
        out[:rows] = values[-rows:]
    return out


def names(report: AuditReport) -> set[str]:
    return {leak.what for leak in report.leaks}


HELD = Settings(
    signals=SignalsConfig(sources=("momentum_short",), keep_features=False),
    fusion=FusionConfig(method="equal"),
    risk=RiskConfig(volatility_target=None, tail=TailConfig(max_expected_shortfall=0.004), max_state_age_minutes=600.0),
)
"""Tail risk is what limits sizes, so whoever remembers wrongly sizes wrongly."""


class Foresight(RiskGate):
    """Learns the close of some bars later, or of earlier ones, in place of the present one."""

    def __init__(self, dataset: Dataset, tape: SignalTape, bars: int) -> None:
        super().__init__(HELD.risk, dataset.rules, account="audit")
        self._shown = dict(zip(tape.panel.known_at.tolist(), shifted(tape.panel.close, -bars).tolist(), strict=True))

    def observe(self, at: int, interval: int, instruments: Sequence[str], close: Sequence[float], volume: Sequence[float]) -> None:
        super().observe(at, interval, instruments, self._shown.get(at, close), volume)


def with_memory(market: Dataset, bars: int) -> Path:
    """A backtest's own path, but for a gate that is shown other bars."""
    period = last_bars(market)

    def engine(dataset: Dataset, tape: SignalTape, clock: VirtualClock, journal: Journal) -> Engine:
        names = tape.panel.instruments
        built = build_engine(HELD, dataset, names, clock=clock, journal=journal, auto_trading=True, account="audit")
        gate = Foresight(dataset, tape, bars)
        show_the_past(gate, dataset, period.since, names)
        return Engine(
            clock=clock, fusion=built.fusion, agent=built.agent, gate=gate, broker=built.broker, portfolio=built.portfolio, journal=journal
        )

    return Path(default_path(HELD, period).prepare, engine)


def test_a_memory_of_tomorrow_is_named_by_what_risk_says_first(market: Dataset) -> None:
    """Two days of bars ahead: the first row of a day tells the book's tail from closes that nobody knew."""
    report = audit(market, with_memory(market, 48), cuts=6)
    assert names(report) <= {"journal/RiskState", "journal/Sizing", "journal/Order", "journal/Refusal", "journal/RiskEvent"}
    assert "journal/RiskState" in names(report) or "journal/Sizing" in names(report)
    assert {leak.mode for leak in report.leaks} == {"remove", "poison"}
    honest = audit(market, with_memory(market, -48), cuts=6)
    assert honest.is_clean, [str(leak) for leak in honest.leaks]
    assert honest.compared["risk"] > 100


def test_a_past_that_reaches_into_the_run_is_named(market: Dataset) -> None:
    """Warmed up with the run itself, as one would by showing the gate all that is stored."""
    period = last_bars(market)
    usual = default_path(HELD, period)

    def engine(dataset: Dataset, tape: SignalTape, clock: VirtualClock, journal: Journal) -> Engine:
        names = tape.panel.instruments
        built = build_engine(HELD, dataset, names, clock=clock, journal=journal, auto_trading=True, account="audit")
        show_the_past(built.gate, dataset, period.until, names)
        return built

    found = names(audit(market, Path(usual.prepare, engine), cuts=3))
    assert found
    assert found <= {"journal/RiskEvent", "journal/RiskState", "journal/Sizing"}
