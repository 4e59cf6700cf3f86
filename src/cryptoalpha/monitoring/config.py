"""Settings of the `monitoring` room: what is watched, where it can be read, and when somebody is told."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated

from pydantic import Field, IPvAnyAddress

from cryptoalpha.core.config import Count, NonNegative, Positive, PositiveFraction, Section
from cryptoalpha.monitoring.drift.config import DriftConfig

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]+$")]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]


class MetricsConfig(Section):
    """[monitoring.metrics] Figures of a running `trade`, for Prometheus."""

    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """TCP port under which `trade` serves its metrics (0–65535; 0 takes a free one, none = not served). None: a port is
    opened only when somebody asks for it."""

    address: IPvAnyAddress = IPv4Address("127.0.0.1")
    """Address it listens on. This machine's own, because the figures tell what is held; 0.0.0.0 in a container, whose network says who may
    come (deploy/helm does)."""

    window_days: Count = 90
    """Days over which the rolling Sharpe ratio is taken. 90: a quarter; shorter ones are mostly noise."""


class AlertsConfig(Section):
    """[monitoring.alerts] When a person is told. An alert only speaks; what acts are the limits of `risk`."""

    enabled: bool = True
    """Whether `trade` judges the rules itself and says on stderr what fires. The rule file for Prometheus is there either way."""

    job: Name = "cryptoalpha"
    """`job` under which Prometheus scrapes `trade`. In the rule file it tells whose silence means that the process is gone, which the
    process itself cannot say."""

    stale_bars: Positive = 3.0
    """Bar lengths without a new bar of an instrument, or without a step of the loop (> 0), after which data count as stale."""

    drawdown: PositiveFraction = 0.5
    """Share of `risk.max_drawdown` used (0–1) from which a drawdown is told. One half: there the ladder has halved the exposure."""

    limit_used: PositiveFraction = 0.9
    """Share of the cap on expected shortfall used (0–1) from which it is told."""

    exceedance_p: Probability = 0.01
    """Probability, under a right model, of so many losses beyond value at risk (0–1, Kupiec's test) below which it is told, of the
    book and of each instrument. 0.01: the test is looked at every day. A right model of the book (level 0.975) is told without cause
    in 6 of 100 first years and 8 of 100 runs of five years, with 0.05 in 18 and 24; of each instrument, whose test looks back over one
    year, in 16 of 100 runs of five years, with 0.05 in 43."""

    alarm_days: Positive = 7.0
    """Days for which a drift alarm stands (> 0)."""

    step_seconds: Positive = 1.0
    """99th percentile of the time one step takes, seconds (> 0), from which the loop counts as slow. One second: bars of a minute leave
    room for it, and a durable row takes milliseconds."""

    unknown_seconds: Positive = 30.0
    """Seconds for which the fate of an order may be unknown (> 0) before a person is told. Thirty: asking the venue again, with growing
    waits, answers most within ten."""

    journal_lag_bars: Positive = 1.0
    """Bar lengths from the close of a bar to its row on disk (> 0) from which the loop counts as behind. One: by then
    the next bar waits."""

    disk: PositiveFraction = 0.9
    """Share of the disk under the store in use (0–1) from which it is told: nothing is traded that cannot be written down first."""

    memory: PositiveFraction = 0.8
    """Share of the memory this process may use (0–1) from which it is told, before the system ends it."""

    hold_minutes: NonNegative = 5.0
    """Minutes a condition that may pass by itself must have held before it fires (≥ 0): open breakers, slowness, lag, memory, sources and
    the bus away."""


class MonitoringConfig(Section):
    """[monitoring] Is it any good, and is it still what it was?"""

    drift: DriftConfig = DriftConfig()
    """When something counts as no longer what it was."""

    metrics: MetricsConfig = MetricsConfig()
    """Figures for Prometheus."""

    alerts: AlertsConfig = AlertsConfig()
    """When a person is told."""
