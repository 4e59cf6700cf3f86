"""Turns journal rows into metrics: the same figures from a loop at work and from a journal read afterwards.

Everything counted is counted from the run's first row. A `trade` that is started again takes its old steps once more, so its counters go
on from where they were instead of from zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import nan
from typing import Any

from cryptoalpha.app.book_forecasts import BookForecasts, JudgedDay
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR, HOUR, SECOND, parse_interval
from cryptoalpha.core.values import (
    Alarm,
    Fill,
    FundingPayment,
    FusedSignal,
    MarketState,
    ObservationRef,
    Order,
    PortfolioState,
    Refusal,
    RiskEvent,
    RiskState,
    Sizing,
    Travelling,
)
from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.monitoring.accuracy_watch import AccuracyWatch
from cryptoalpha.monitoring.config import MonitoringConfig
from cryptoalpha.monitoring.metrics import Metrics
from cryptoalpha.monitoring.ratios import sharpe_ratio
from cryptoalpha.monitoring.streaming import StreamingMetrics
from cryptoalpha.risk.kill_switch import NAME as KILL_SWITCH
from cryptoalpha.risk.ladder import NAME as LADDER
from cryptoalpha.risk.tail.backtests import kupiec_pof
from cryptoalpha.store.journal_reader import JournalReader

MAX_DRAWDOWN = "max_drawdown"
"""The limit at which everything is closed, as `RiskState` names it."""
MODES = ("armed", "reduce_only", "tripping", "tripped")


class RunMeter:
    """Feed it every row of a run, in order.

    Args:
        instruments: the book; references to other observations are passed over.
        interval: length of a bar, ns.
        accuracy: by what directions are judged; None does not judge them.
    """

    def __init__(self, config: MonitoringConfig, instruments: Sequence[str], interval: int, accuracy: AccuracyWatch | None = None) -> None:
        self.metrics = Metrics()
        self._alarm_days = config.alerts.alarm_days
        self._newest = dict.fromkeys(instruments, 0)
        self._held: set[str] = set()
        self._states: dict[tuple[str, str], str] = {}
        self._alarms: dict[str, int] = {}
        self._accuracy = None if accuracy is None else _Accuracy(self.metrics, accuracy)
        self._days = _Days(self.metrics, config.metrics.window_days)
        self._forecasts = BookForecasts()
        self._judged = self._exceeded = 0
        self._funding = 0.0
        self._equity = nan
        self._peak: float | None = None
        """Equity from which the drawdown counts since a resume that let it count anew; None where there was none."""
        self._is_resumed = False
        self._takers: dict[type, Callable[[Any], None]] = {
            ObservationRef: self._observation, PortfolioState: self._portfolio, Fill: self._fill, FundingPayment: self._funded,
            Order: self._order, Refusal: self._refusal, Sizing: self._sizing, RiskEvent: self._risk_event, RiskState: self._risk_state,
            Alarm: self._alarm,
        }  # fmt: skip
        if self._accuracy is not None:
            self._takers |= {MarketState: self._accuracy.state, FusedSignal: self._accuracy.said}
        self.metrics.set("cryptoalpha_bar_interval_seconds", interval / SECOND)
        self.metrics.set("cryptoalpha_kill_switch", 0.0)

    def take(self, at: int, values: Sequence[Travelling]) -> None:
        """One row: its time and what it holds."""
        takers = self._takers
        for value in values:
            taker = takers.get(type(value))
            if taker is not None:
                taker(value)
        if self._accuracy is not None:
            self._accuracy.close(at)
        judged = self._forecasts.take(at, values)
        if judged is not None:
            self._judge(judged)
        self.metrics.add("cryptoalpha_journal_rows_total")

    def mark(self, portfolio: PortfolioState) -> None:
        """The book between the rows that hold it. Its drawdown is what `max_drawdown` judges: since a resume, from the equity then."""
        metrics = self.metrics
        metrics.set("cryptoalpha_equity_quote", float(portfolio.equity))
        metrics.set("cryptoalpha_cash_quote", float(portfolio.cash))
        equity = self._equity = float(portfolio.equity)
        if self._peak is None:
            metrics.set("cryptoalpha_drawdown_ratio", portfolio.drawdown)
        else:
            self._peak = max(self._peak, equity)
            metrics.set("cryptoalpha_drawdown_ratio", 1.0 - equity / self._peak if self._peak > 0.0 else 0.0)

    def refresh(self, at: int) -> None:
        """Bring what ages up to the run's clock: bars and alarms."""
        metrics = self.metrics
        for name, known in self._newest.items():
            if known:
                metrics.set("cryptoalpha_bar_age_seconds", max(at - known, 0) / SECOND, name)
        metrics.set("cryptoalpha_bar_timestamp_seconds", max(self._newest.values(), default=0) / SECOND)
        for tier, raised in self._alarms.items():
            metrics.set("cryptoalpha_alarm_age_seconds", max(at - raised, 0) / SECOND, tier)
        if self._accuracy is not None:
            self._accuracy.refresh(at)
        proposed = at - self._alarms.get("retrain", at - DAY * DAYS_PER_YEAR) < self._alarm_days * DAY
        metrics.set("cryptoalpha_retraining_proposed", float(proposed))

    def _observation(self, reference: ObservationRef) -> None:
        if self._newest.get(reference.subject, reference.known_at) < reference.known_at:
            self._newest[reference.subject] = reference.known_at

    def _portfolio(self, portfolio: PortfolioState) -> None:
        self.mark(portfolio)
        self._days.close(portfolio.known_at, float(portfolio.equity))
        held = {name for name, _ in portfolio.positions}
        for name, quantity in portfolio.positions:
            self.metrics.set("cryptoalpha_position_base", float(quantity), name)
        for name in self._held - held:
            self.metrics.set("cryptoalpha_position_base", 0.0, name)
        self._held |= held

    def _fill(self, fill: Fill) -> None:
        metrics = self.metrics
        metrics.add("cryptoalpha_fills_total", 1.0, fill.side)
        metrics.add("cryptoalpha_traded_quote_total", float(fill.quantity * fill.price))
        for cost, paid in (("fee", fill.fee), ("spread", fill.spread_cost), ("impact", fill.impact_cost)):
            metrics.add("cryptoalpha_costs_quote_total", max(float(paid), 0.0), cost)  # a rebate is no cost, and counters only rise

    def _funded(self, payment: FundingPayment) -> None:
        self._funding += float(payment.amount)
        self.metrics.set("cryptoalpha_funding_received_quote", self._funding)

    def _order(self, order: Order) -> None:
        self.metrics.add("cryptoalpha_orders_total", 1.0, order.side)

    def _refusal(self, refusal: Refusal) -> None:
        self.metrics.add("cryptoalpha_refusals_total", 1.0, refusal.rule)

    def _sizing(self, sizing: Sizing) -> None:
        if sizing.binding:
            self.metrics.add("cryptoalpha_cuts_total", 1.0, sizing.binding)

    def _risk_event(self, event: RiskEvent) -> None:
        metrics, key = self.metrics, (event.rule, event.instrument)
        metrics.add("cryptoalpha_risk_events_total", 1.0, event.rule)
        before = self._states.get(key)
        if before is not None:
            metrics.set("cryptoalpha_risk_state", 0.0, *key, before)
        metrics.set("cryptoalpha_risk_state", 1.0, *key, event.state)
        self._states[key] = event.state
        if event.rule == LADDER:
            metrics.set("cryptoalpha_ladder_rung", float(event.state))
        if event.rule == KILL_SWITCH:
            metrics.set("cryptoalpha_kill_switch", float(event.state != "armed"))
            self._is_resumed = event.state == "armed"

    def _risk_state(self, state: RiskState) -> None:
        metrics = self.metrics
        for name, used, allowed in state.limits:
            metrics.set("cryptoalpha_limit_used", used, name)
            metrics.set("cryptoalpha_limit_allowed", allowed, name)
            if name == MAX_DRAWDOWN:
                metrics.set("cryptoalpha_drawdown_allowed_ratio", allowed)
                metrics.set("cryptoalpha_drawdown_ratio", used)
                if self._is_resumed and used <= 0.0:  # what the limit judges counts anew, from the book this row ends with
                    self._peak = 0.0
                self._is_resumed = False
        for mode in MODES:
            metrics.set("cryptoalpha_mode", float(mode == state.mode), mode)
        metrics.set("cryptoalpha_exposure_ratio", state.exposure)
        metrics.set("cryptoalpha_value_at_risk_ratio", state.value_at_risk)
        metrics.set("cryptoalpha_expected_shortfall_ratio", state.expected_shortfall)

    def _judge(self, day: JudgedDay) -> None:
        self._judged += 1
        self._exceeded += day.is_exceeded
        self.metrics.add("cryptoalpha_value_at_risk_forecasts_total")
        self.metrics.add("cryptoalpha_value_at_risk_exceedances_total", float(day.is_exceeded))
        self.metrics.set("cryptoalpha_exceedance_p_ratio", too_many(self._exceeded, self._judged, day.level))

    def _alarm(self, alarm: Alarm) -> None:
        self.metrics.add("cryptoalpha_alarms_total", 1.0, alarm.detector, alarm.tier)
        self._alarms[alarm.tier] = alarm.known_at


class _Accuracy:
    """Directions of the book, judged a horizon later."""

    def __init__(self, metrics: Metrics, watch: AccuracyWatch) -> None:
        self._metrics, self._watch = metrics, watch
        self._prices: dict[str, float] = {}
        self._directions: dict[str, float] = {}
        metrics.set("cryptoalpha_accuracy_promised_ratio", watch.promise)
        metrics.set("cryptoalpha_accuracy_evidence_ratio", 0.0)

    def state(self, state: MarketState) -> None:
        self._prices[state.instrument] = state.price

    def said(self, fused: FusedSignal) -> None:
        if fused.weights:
            self._directions[fused.instrument] = fused.direction

    def close(self, at: int) -> None:
        """The row is whole."""
        if self._prices:
            hit = self._watch.take(at, self._directions, self._prices)
            if hit is not None:
                self._metrics.add("cryptoalpha_accuracy_labels_total")
                self._metrics.add("cryptoalpha_accuracy_hits_total", float(hit))
                self._metrics.set("cryptoalpha_accuracy_ratio", self._watch.rate or 0.0)
                self._metrics.set("cryptoalpha_accuracy_evidence_ratio", self._watch.evidence)
            self._prices, self._directions = {}, {}

    def refresh(self, at: int) -> None:
        if self._watch.raised_at is not None:
            self._metrics.set("cryptoalpha_accuracy_alarm_age_seconds", max(at - self._watch.raised_at, 0) / SECOND)


class _Days:
    """Returns from day to day (UTC)."""

    def __init__(self, metrics: Metrics, window_days: int) -> None:
        self._metrics = metrics
        self._returns: deque[float] = deque(maxlen=window_days)
        self._since_start = StreamingMetrics()
        self._day, self._equity = -1, nan

    def close(self, at: int, equity: float) -> None:
        """The book as it is; the first of a day ends the day before."""
        if at // DAY == self._day:
            return
        if self._equity > 0.0:
            gain = equity / self._equity - 1.0
            self._returns.append(gain)
            self._metrics.set("cryptoalpha_rolling_sharpe_ratio", sharpe_ratio(list(self._returns), periods_per_year=DAYS_PER_YEAR))
            self._measure(gain)
        self._day, self._equity = at // DAY, equity

    def _measure(self, gain: float) -> None:
        whole, metrics = self._since_start, self._metrics
        whole.update(gain)
        metrics.set("cryptoalpha_run_sharpe_ratio", whole.sharpe_ratio(periods_per_year=DAYS_PER_YEAR))
        metrics.set("cryptoalpha_run_drawdown_ratio", whole.max_drawdown())
        metrics.set("cryptoalpha_run_underwater_seconds", whole.longest_underwater() * DAY / SECOND)


def too_many(exceeded: int, days: int, level: float) -> float:
    """Kupiec's p value of that many exceedances in so many days, 1 where there are not more than the level promises."""
    return kupiec_pof(exceeded, days, level).p_value if exceeded > days * (1.0 - level) else 1.0


def accuracy_watch(config: AlertConfig, interval: int, *, bet: float) -> AccuracyWatch:
    """The test that these settings ask for, of bars of this length (ns)."""
    horizon = max(round(config.accuracy_hours * HOUR), interval)
    promise = max(config.accuracy_baseline - config.accuracy_drop, 0.0)
    return AccuracyWatch(promise=promise, run_length=max(config.accuracy_run_length_days * DAY / horizon, 1.0), horizon=horizon, bet=bet)


def metrics_of_journal(journal: JournalReader, config: MonitoringConfig, served: AlertConfig | None = None) -> Metrics:
    """The figures of a run as its journal tells them; those of a process (time per step, memory) and of
    the market's own days (`tail_meter`) are not among them."""
    header = journal.header
    intervals = [parse_interval(text) for text in header.get("interval", "").split(",") if text]
    names = [name for name in header.get("instruments", "").split(",") if name]
    interval = min(intervals, default=DAY)
    accuracy = None if served is None else accuracy_watch(served, interval, bet=config.drift.bet)
    meter = RunMeter(config, names, interval, accuracy)
    newest = 0
    for _, at, values in journal.rows():
        meter.take(at, values)
        newest = at
    meter.refresh(newest)
    return meter.metrics
