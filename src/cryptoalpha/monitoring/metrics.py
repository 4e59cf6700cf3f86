"""The figures of a run as Prometheus reads them: every name with its help text and unit, the values now, and their text form.

Names follow Prometheus: base units at the end (`_seconds`, `_bytes`, `_ratio`), `_total` for counters; money ends in `_quote`, for it is
in the quote currency of the run. Labels are names that a configuration bounds (instruments, rules, detectors), never ids.

`Metrics` is written by one thread and may be read by others at any time: values are replaced, never changed in place, and readers take a
copy. Two runs in one process do not mix. `metrics_exposition` writes and serves them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cryptoalpha.core.errors import ConfigError

Kind = Literal["gauge", "counter", "histogram"]
Labels = tuple[str, ...]
"""The values of a metric's labels, in the order of `Metric.labels`."""

SetMetric = Callable[..., None]
"""`set` of some `Metrics`: a name, a value, labels."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper edges of the histograms, seconds: from a row in memory to a planner's search."""


@dataclass(frozen=True)
class Metric:
    """What a name means. `unit` is how its values read; `labels` are the names of its labels."""

    name: str
    kind: Kind
    help: str
    unit: str
    labels: Labels = ()


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS: Mapping[str, Metric] = _table(
    Metric("cryptoalpha_equity_quote", "gauge", "Cash and positions, marked to market, quote currency.", "quote"),
    Metric("cryptoalpha_cash_quote", "gauge", "Cash, quote currency.", "quote"),
    Metric("cryptoalpha_position_base", "gauge", "Position in an instrument, base units, negative where short.", "base", ("instrument",)),
    Metric(
        "cryptoalpha_drawdown_ratio",
        "gauge",
        "Loss from the equity peak, since a resume from the peak after it: what max_drawdown judges.",
        "ratio",
    ),
    Metric("cryptoalpha_drawdown_allowed_ratio", "gauge", "Drawdown at which everything is closed, fraction of the peak.", "ratio"),
    Metric("cryptoalpha_rolling_sharpe_ratio", "gauge", "Sharpe ratio per year of the last days' returns (365 days).", "ratio"),
    Metric("cryptoalpha_run_sharpe_ratio", "gauge", "Sharpe ratio per year of all days' returns since the run began (365 days).", "ratio"),
    Metric(
        "cryptoalpha_run_drawdown_ratio", "gauge", "Deepest loss from a peak since the run began, by the first equity of each day.", "ratio"
    ),
    Metric("cryptoalpha_run_underwater_seconds", "gauge", "Longest time below a peak since the run began, in whole days.", "seconds"),
    Metric("cryptoalpha_exposure_ratio", "gauge", "Share of the wanted and allowed size that ladder and regime leave, 0 to 1.", "ratio"),
    Metric("cryptoalpha_limit_used", "gauge", "How much of a risk limit is used, in the limit's own unit.", "used", ("limit",)),
    Metric("cryptoalpha_limit_allowed", "gauge", "How much a risk limit allows, in the limit's own unit.", "allowed", ("limit",)),
    Metric("cryptoalpha_ladder_rung", "gauge", "Rung of the drawdown ladder, 0 while it leaves everything.", "rung"),
    Metric("cryptoalpha_kill_switch", "gauge", "1 while the kill switch stands, else 0.", "switch"),
    Metric("cryptoalpha_mode", "gauge", "1 for the mode the risk gate is in, 0 for the others.", "mode", ("mode",)),
    Metric(
        "cryptoalpha_risk_state",
        "gauge",
        "1 for the state a limit, a breaker or the kill switch is in, 0 for those it was in before.",
        "state",
        ("rule", "instrument", "state"),
    ),
    Metric("cryptoalpha_value_at_risk_ratio", "gauge", "Value at risk of the book over the next day, fraction of equity.", "ratio"),
    Metric("cryptoalpha_expected_shortfall_ratio", "gauge", "Expected shortfall of the book over the next day, fraction.", "ratio"),
    Metric(
        "cryptoalpha_value_at_risk_forecasts_total",
        "counter",
        "Days whose value at risk, said at their start, was compared with what the book held then made of the day.",
        "total",
    ),
    Metric(
        "cryptoalpha_value_at_risk_exceedances_total",
        "counter",
        "Those on which that book lost more, fills of the day left aside.",
        "total",
    ),
    Metric("cryptoalpha_exceedance_p_ratio", "gauge", "Kupiec's p value of the exceedances where there are too many, else 1.", "ratio"),
    Metric(
        "cryptoalpha_instrument_forecasts_total",
        "counter",
        "Forecasts of an instrument's value at risk that were compared with the day they were about.",
        "total",
        ("instrument", "method"),
    ),
    Metric(
        "cryptoalpha_instrument_exceedances_total",
        "counter",
        "Days on which an instrument lost more than its value at risk before.",
        "total",
        ("instrument", "method"),
    ),
    Metric(
        "cryptoalpha_instrument_test_p_ratio",
        "gauge",
        "P value of a test of the last year's forecasts; Christoffersen's asks whether exceedances come alone.",
        "ratio",
        ("instrument", "method", "test"),
    ),
    Metric(
        "cryptoalpha_instrument_exceedance_p_ratio",
        "gauge",
        "Kupiec's p value of the last year's exceedances by the gate's method where there are too many, else 1.",
        "ratio",
        ("instrument",),
    ),
    Metric("cryptoalpha_orders_total", "counter", "Orders sent.", "total", ("side",)),
    Metric("cryptoalpha_fills_total", "counter", "Fills.", "total", ("side",)),
    Metric("cryptoalpha_traded_quote_total", "counter", "Value of all fills, quote currency.", "total"),
    Metric("cryptoalpha_costs_quote_total", "counter", "Costs paid with fills, quote currency.", "total", ("cost",)),
    Metric("cryptoalpha_funding_received_quote", "gauge", "Funding received less paid since the start, quote currency.", "quote"),
    Metric("cryptoalpha_refusals_total", "counter", "Decisions and orders refused, by the rule that refused them.", "total", ("rule",)),
    Metric("cryptoalpha_cuts_total", "counter", "Sizes told as cut, by the limit that decided.", "total", ("limit",)),
    Metric("cryptoalpha_risk_events_total", "counter", "Changes of a limit, a breaker or the kill switch.", "total", ("rule",)),
    Metric("cryptoalpha_alarms_total", "counter", "Drift alarms.", "total", ("detector", "tier")),
    Metric(
        "cryptoalpha_alarm_age_seconds",
        "gauge",
        "Time since the last drift alarm of a tier, by the clock alerts are judged by.",
        "seconds",
        ("tier",),
    ),
    Metric("cryptoalpha_retraining_proposed", "gauge", "1 while a drift alarm proposes to train anew, else 0.", "proposed"),
    Metric("cryptoalpha_accuracy_ratio", "gauge", "Share of the newest labels whose direction came true; of one horizon each.", "ratio"),
    Metric("cryptoalpha_accuracy_promised_ratio", "gauge", "Accuracy below which a model is trained anew: baseline less margin.", "ratio"),
    Metric("cryptoalpha_accuracy_labels_total", "counter", "Directions of the book that came true or did not.", "total"),
    Metric("cryptoalpha_accuracy_hits_total", "counter", "Those that came true.", "total"),
    Metric(
        "cryptoalpha_accuracy_evidence_ratio",
        "gauge",
        "Evidence that accuracy lies below what is promised, as a share of what is needed to say so; from 1 on it is said.",
        "ratio",
    ),
    Metric("cryptoalpha_accuracy_alarm_age_seconds", "gauge", "Time since accuracy was found below what is promised.", "seconds"),
    Metric("cryptoalpha_bar_timestamp_seconds", "gauge", "When the newest bar was known, seconds since 1970.", "seconds"),
    Metric("cryptoalpha_bar_interval_seconds", "gauge", "Length of a bar.", "seconds"),
    Metric(
        "cryptoalpha_bar_age_seconds",
        "gauge",
        "Age of an instrument's newest bar: of a replay by the run's clock, live by the wall clock.",
        "seconds",
        ("instrument",),
    ),
    Metric("cryptoalpha_journal_rows_total", "counter", "Rows of the journal, one for each step.", "total"),
    Metric("cryptoalpha_journal_lag_seconds", "gauge", "From the close of the newest bar taken to its row on disk, wall clock.", "seconds"),
    Metric(
        "cryptoalpha_disk_used_ratio", "gauge", "Share of the disk under the store that is in use, as this process may use it.", "ratio"
    ),
    Metric("cryptoalpha_disk_free_bytes", "gauge", "Space on the disk under the store that this process may still use.", "bytes"),
    Metric("cryptoalpha_venue_orders", "gauge", "Orders of a live run by what is known of them.", "orders", ("state",)),
    Metric(
        "cryptoalpha_venue_unknown_seconds", "gauge", "How long the fate of an order has been unknown; 0 where that of all is.", "seconds"
    ),
    Metric("cryptoalpha_venue_halted", "gauge", "1 while the live broker sends no entries, else 0.", "halted"),
    Metric("cryptoalpha_venue_listening", "gauge", "1 while the account's stream is up, else 0.", "listening"),
    Metric("cryptoalpha_venue_compared_seconds", "gauge", "Time since the venue's books were compared with ours.", "seconds"),
    Metric("cryptoalpha_venue_waiting_outcomes", "gauge", "What the venue did that no step has taken yet.", "outcomes"),
    Metric("cryptoalpha_source_up", "gauge", "1 while a live source is connected, else 0.", "up", ("source",)),
    Metric("cryptoalpha_source_messages", "gauge", "Messages of a live source since the session began.", "messages", ("source",)),
    Metric("cryptoalpha_source_unreadable", "gauge", "Messages of a live source that nobody could read.", "unreadable", ("source",)),
    Metric("cryptoalpha_source_reconnects", "gauge", "Times a live source was connected to anew.", "reconnects", ("source",)),
    Metric("cryptoalpha_source_age_seconds", "gauge", "Time since the newest message of a live source came.", "seconds", ("source",)),
    Metric(
        "cryptoalpha_source_lag_seconds",
        "gauge",
        "Newest message of a live source: when it came less when it happened; negative where the publisher's clock runs ahead.",
        "seconds",
        ("source",),
    ),
    Metric(
        "cryptoalpha_source_least_lag_seconds",
        "gauge",
        "Least lag of a live source so far; below 0, our clock is at least so far behind the publisher's.",
        "seconds",
        ("source",),
    ),
    Metric("cryptoalpha_source_part_up", "gauge", "1 while a family of an exchange's streams is connected.", "up", ("source", "part")),
    Metric(
        "cryptoalpha_source_part_age_seconds",
        "gauge",
        "Time since the newest message of a family of an exchange's streams came.",
        "seconds",
        ("source", "part"),
    ),
    Metric("cryptoalpha_source_spent", "gauge", "What a live source has used up today.", "spent", ("source", "unit")),
    Metric("cryptoalpha_stream_open", "gauge", "1 while the bus and the state of live streams are open, else 0.", "open"),
    Metric("cryptoalpha_stream_lost_logs", "gauge", "Times a log of the bus was found lost or cut off.", "lost"),
    Metric("cryptoalpha_stream_dropped", "gauge", "Texts dropped because too many waited.", "dropped"),
    Metric("cryptoalpha_idle_seconds", "gauge", "Time since the last step, on the wall clock.", "seconds"),
    Metric("cryptoalpha_step_interval_seconds", "gauge", "Time meant between two steps, on the wall clock.", "seconds"),
    Metric("cryptoalpha_step_seconds", "histogram", "Time from one bar in hand to its row written and its orders sent.", "seconds"),
    Metric("cryptoalpha_step_p99_seconds", "gauge", "99th percentile of the last thousand steps' time.", "seconds"),
    Metric(
        "cryptoalpha_prediction_seconds", "histogram", "From a request's last byte to its answer, by who answered.", "seconds", ("arm",)
    ),
    Metric(
        "cryptoalpha_predictions_total",
        "counter",
        "Requests by who was asked (stable, canary, shadow) and what came of it (ok, error, timeout, nan, out_of_range, schema).",
        "total",
        ("arm", "outcome"),
    ),
    Metric("cryptoalpha_serving_refused_total", "counter", "Requests that nobody computed, by why.", "total", ("reason",)),
    Metric("cryptoalpha_serving_waiting", "gauge", "Requests that wait for a free worker.", "waiting"),
    Metric("cryptoalpha_serving_memory_ratio", "gauge", "Memory of a serving process as a fraction of what it may use.", "ratio"),
    Metric("cryptoalpha_serving_weight_ratio", "gauge", "Share of the requests that an arm is given.", "ratio", ("arm",)),
    Metric("cryptoalpha_memory_bytes", "gauge", "Memory this process has in use.", "bytes"),
    Metric("cryptoalpha_memory_ratio", "gauge", "The same as a fraction of what it may use.", "ratio"),
    Metric("cryptoalpha_alerts", "gauge", "Alerts pending or firing in the process itself.", "alerts", ("alert", "state")),
    Metric("cryptoalpha_alerts_fired_total", "counter", "Alerts that fired in the process itself.", "total", ("alert",)),
)
"""All metrics by name, in the order they are written."""


class Histogram(NamedTuple):
    """Observations by bucket (`BUCKETS`, then everything above) and their sum."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    total: float = 0.0

    def plus(self, value: float) -> Histogram:
        place = bisect_left(BUCKETS, value)
        counts = self.counts
        return Histogram((*counts[:place], counts[place] + 1, *counts[place + 1 :]), self.total + value)


class Metrics:
    """The values of one run now. A metric has no value until one is given."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], Histogram] = {}

    def set(self, name: str, value: float, *labels: str) -> None:
        """Give a gauge its value."""
        _check(name, "gauge", labels)
        self._values[name, labels] = float(value)

    def add(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Count on.

        Raises:
            ConfigError: if `amount` is negative or NaN: counters only rise.
        """
        _check(name, "counter", labels)
        if not amount >= 0.0:
            raise ConfigError(f"the counter {name} cannot rise by {amount}")
        key = (name, labels)
        self._values[key] = self._values.get(key, 0.0) + float(amount)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Put one observation into a histogram."""
        _check(name, "histogram", labels)
        key = (name, labels)
        self._histograms[key] = self._histograms.get(key, Histogram()).plus(value)

    def value(self, name: str, *labels: str) -> float | None:
        """The value of a gauge or counter, None where none was given."""
        return self._values.get((name, labels))

    def labelled(self, name: str) -> Iterator[tuple[Labels, float]]:
        """All values of a metric by its labels, in order of the labels."""
        return iter(sorted((labels, value) for (each, labels), value in self._values.copy().items() if each == name))

    def histogram(self, name: str, *labels: str) -> Histogram | None:
        """The observations of a histogram."""
        return self._histograms.get((name, labels))

    def histograms(self, name: str) -> Iterator[tuple[Labels, Histogram]]:
        """All observations of a histogram by its labels, in order of the labels."""
        return iter(sorted((labels, seen) for (each, labels), seen in self._histograms.copy().items() if each == name))

    def copy(self) -> Metrics:
        """The values as they are now; later changes do not show."""
        other = Metrics()
        other._values, other._histograms = self._values.copy(), self._histograms.copy()
        return other


def _check(name: str, kind: Kind, labels: Labels) -> None:
    metric = METRICS.get(name)
    if metric is None or metric.kind != kind or len(labels) != len(metric.labels):
        wanted = "no metric has this name" if metric is None else f"it is a {metric.kind} with the labels {list(metric.labels)}"
        raise ConfigError(f"{kind} {name}{list(labels)}: {wanted}")
