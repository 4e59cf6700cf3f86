"""Watches a `trade` while it runs: keeps its metrics, serves them where a port is set, and says when an alert fires or is over.

It is a listener of the loop and of its waits. The loop never waits for it: scrapes are answered from copies in threads of their own, and
alerts are judged between steps. On a replay they are judged by the run's clock, on live bars by the wall clock, so that silence counts too;
bars shorter than `LEAST_STALE_SECONDS / stale_bars` are given that long, which a rule file for Prometheus does not know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, perf_counter
from types import TracebackType
from typing import Self

import numpy as np

from cryptoalpha.app.alarms import Alarms
from cryptoalpha.app.engine import Step, StepOutcome
from cryptoalpha.app.run_metrics import RunMeter, accuracy_watch
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.tail_meter import TailMeter
from cryptoalpha.core.clock import Clock
from cryptoalpha.core.time import SECOND, iso_second
from cryptoalpha.core.values import Alarm
from cryptoalpha.execution.orders.states import TRANSITIONS
from cryptoalpha.lifecycle.alerts.rules import every_rule
from cryptoalpha.monitoring.alerts import AlertBoard, AlertChange
from cryptoalpha.monitoring.metrics import Metrics, SetMetric
from cryptoalpha.monitoring.metrics_exposition import MetricsEndpoint
from cryptoalpha.monitoring.process import disk_room, memory_allowed, memory_used
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.store.order_ledger import LedgerSummary

_REMEMBERED_STEPS = 1000
_MEASURE_SECONDS = 1.0
"""Time and memory of the process are measured this often at most: it takes as long as the rest of the work here."""

LEAST_STALE_SECONDS = 30.0
"""Live bars of seconds come seconds late and nothing is wrong: however short they are, no alert speaks of stale data before this."""


class LiveMonitor:
    """One for each session of `trade`; a context manager that stops the endpoint.

    Args:
        say: told in words what fires and what is over.
        alarms: sends what fires on to people.
        act: told of what fires and what is over, after people; it must return at once.
        home: the store, whose disk is watched.
        drift: told of every alarm of drift, of steps taken again too; it must return at once.

    Raises:
        ConfigError: if the port that was set cannot be had; nothing else has begun by then.
    """

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None],
        alarms: Alarms | None = None,
        *,
        act: Callable[[AlertChange], None] | None = None,
        home: Path | None = None,
        drift: Callable[[Alarm], None] | None = None,
    ) -> None:
        self._config, self._served = settings.monitoring, settings.lifecycle.alerts
        self._say, self._alarms, self._act, self._home, self._drift = say, alarms, act, home, drift
        self._board = AlertBoard(every_rule(self._config.alerts, self._served) if self._config.alerts.enabled else ())
        self._meter: RunMeter | None = None
        self._tails: TailMeter | None = None
        self._streams: Callable[[SetMetric], None] | None = None
        self._wall: Clock | None = None
        self._begun = perf_counter()
        self._took: float | None = None
        self._stepped: float | None = None
        self._measured = -_MEASURE_SECONDS
        self._steps: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        self._memory_allowed = memory_allowed()
        port, address = self._config.metrics.port, str(self._config.metrics.address)
        self.endpoint = MetricsEndpoint(port, self.now, address=address) if port is not None else None
        if self.endpoint is not None:
            say(f"metrics at {self.endpoint.url}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.endpoint is not None:
            self.endpoint.close()

    def follow(
        self,
        instruments: Sequence[str],
        interval: int,
        *,
        step_seconds: float | None,
        wall: Clock | None = None,
        market: MarketMemory | None = None,
    ) -> None:
        """Say which run this is, before its first step.

        Args:
            interval: length of a bar, ns.
            step_seconds: time meant between two steps; None where they come as fast as they can.
            wall: the clock alerts are judged by; None takes the run's own.
            market: what the gate remembers; with it, value at risk of each instrument is judged day by day.
        """
        self._wall = wall
        alerts = self._config.alerts
        if wall is not None and alerts.enabled:
            least = LEAST_STALE_SECONDS * SECOND / interval
            lag = max(alerts.journal_lag_bars, least)
            patient = alerts.model_copy(update={"stale_bars": max(alerts.stale_bars, least), "journal_lag_bars": lag})
            self._board = AlertBoard(every_rule(patient, self._served))
        self._meter = RunMeter(self._config, instruments, interval, accuracy_watch(self._served, interval, bet=self._config.drift.bet))
        self._tails = None if market is None else TailMeter(market, self._meter.metrics)
        if step_seconds is not None:
            self._meter.metrics.set("cryptoalpha_step_interval_seconds", step_seconds)

    def begin(self) -> None:
        """A step is about to be taken."""
        self._begun, self._took = perf_counter(), None

    def taken(self) -> None:
        """The step is taken; what is said of it before `watch` is not part of its time."""
        self._took = perf_counter() - self._begun

    def watch(self, step: Step, outcome: StepOutcome, *, recovering: bool) -> None:
        """A step was taken. While old steps are taken again nothing is said."""
        meter = self._meter
        if meter is None:
            return
        seconds = perf_counter() - self._begun if self._took is None else self._took
        meter.take(step.bar.at, outcome.values)
        if self._drift is not None:
            for value in outcome.values:
                if isinstance(value, Alarm):
                    self._drift(value)
        meter.mark(outcome.portfolio)
        if self._tails is not None:
            self._tails.look()
        if not recovering:
            self._steps.append(seconds)
            self._stepped = monotonic()
            meter.metrics.observe("cryptoalpha_step_seconds", seconds)
            if self._wall is not None and not step.is_interim:
                meter.metrics.set("cryptoalpha_journal_lag_seconds", max(self._wall.now() - step.bar.at, 0) / SECOND)
        self._judge(meter, step.bar.at if recovering or self._wall is None else self._wall.now(), aloud=not recovering)

    def idle(self) -> None:
        """The loop is waiting for bars: silence ages what is known."""
        if self._meter is not None and self._wall is not None and self._stepped is not None:
            self._judge(self._meter, self._wall.now(), aloud=True)

    def at_venue(self, now: int, ledger: LedgerSummary | None, standing: Mapping[str, object]) -> None:
        """How a live run stands with its venue (`execution.live`): told now and then by the loop."""
        if self._meter is None:
            return
        metrics = self._meter.metrics
        counted = {} if ledger is None else ledger.states
        for state in TRANSITIONS:
            metrics.set("cryptoalpha_venue_orders", float(counted.get(state, 0)), state)
        oldest = ledger.unknown[0].since if ledger is not None and ledger.unknown else now
        metrics.set("cryptoalpha_venue_unknown_seconds", max(now - oldest, 0) / SECOND)
        metrics.set("cryptoalpha_venue_waiting_outcomes", float(ledger.waiting) if ledger is not None else 0.0)
        metrics.set("cryptoalpha_venue_halted", float(bool(standing.get("halted"))))
        metrics.set("cryptoalpha_venue_listening", float(bool(standing.get("is_listening"))))
        compared = standing.get("compared_at")
        if isinstance(compared, int) and compared:
            metrics.set("cryptoalpha_venue_compared_seconds", max(now - compared, 0) / SECOND)

    def listen_to(self, tell: Callable[[SetMetric], None]) -> None:
        """Ask this, whenever figures are asked for, how the live sources fare."""
        self._streams = tell

    def now(self) -> Metrics:
        """The metrics as they are, for a reader in another thread."""
        if self._meter is None:
            return Metrics()
        metrics = self._meter.metrics.copy()
        self._of_the_process(metrics)
        return metrics

    def _judge(self, meter: RunMeter, at: int, *, aloud: bool) -> None:
        meter.refresh(at)
        metrics = meter.metrics
        if not self._board.rules:
            return
        if monotonic() - self._measured >= _MEASURE_SECONDS:
            self._measured = monotonic()
            self._of_the_process(metrics)
        for change in self._board.judge(at, metrics):
            if change.state == "firing":
                metrics.add("cryptoalpha_alerts_fired_total", 1.0, change.rule.name)
            if aloud:
                self._say(f"{iso_second(change.at)}  {change.text}")
                if self._alarms is not None:
                    self._alarms.of_rule(change)
                if self._act is not None:
                    self._act(change)
        standing = list(self._board.standing.items())
        for rule in self._board.rules:
            firing = [each.is_firing for (name, _), each in standing if name == rule.name]
            metrics.set("cryptoalpha_alerts", float(sum(firing)), rule.name, "firing")
            metrics.set("cryptoalpha_alerts", float(len(firing) - sum(firing)), rule.name, "pending")

    def _of_the_process(self, metrics: Metrics) -> None:
        if self._stepped is not None:
            metrics.set("cryptoalpha_idle_seconds", monotonic() - self._stepped)
        if self._steps:
            metrics.set("cryptoalpha_step_p99_seconds", float(np.quantile(self._steps.copy(), 0.99)))
        used = memory_used()
        if used is not None:
            metrics.set("cryptoalpha_memory_bytes", used)
            if self._memory_allowed:
                metrics.set("cryptoalpha_memory_ratio", used / self._memory_allowed)
        room = disk_room(self._home) if self._home is not None else None
        if room is not None:
            metrics.set("cryptoalpha_disk_used_ratio", room.used_share)
            metrics.set("cryptoalpha_disk_free_bytes", float(room.free))
        if self._streams is not None:
            self._streams(metrics.set)
