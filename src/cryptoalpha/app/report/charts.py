"""Charts as data: what the script draws, and for readers without it a static picture and a table.

Each chart holds at most about 1,500 points: a long series is thinned by keeping the lowest and the highest point of each stretch, so that
no peak and no trough is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.app.report.content import ReportContent
from cryptoalpha.app.report.decision_content import Deciders
from cryptoalpha.app.report.weight_history import WeightHistory
from cryptoalpha.core.time import DAY, SECOND, day_of
from cryptoalpha.monitoring.comparison import EquitySeries

POINTS = 1_500


@dataclass(frozen=True)
class Density:
    """How much of each thing is drawn or listed per run, so that the page stays below one megabyte."""

    points: int
    """Points of a line in the script's charts."""
    picture_points: int
    """Points of a line in a static picture."""
    table_rows: int
    trades: int
    tails: int
    """Charts of days worse than forecast: the book and its first instruments. The table has all. Beside other runs there are none."""

    @classmethod
    def for_runs(cls, runs: int) -> Density:
        """Everything for one run; a share of it for each of several."""
        alone = runs == 1
        points, trades = (POINTS, 200) if alone else (POINTS // (3 * runs), 120 // runs)
        return cls(points, max(60, 240 // runs), 24 if alone else 12, trades, 4)


Floats = NDArray[np.float64]
Times = NDArray[np.int64]
Kind = Literal["lines", "area", "stack"]


@dataclass(frozen=True)
class Line:
    """One series of a chart; `times` in UTC seconds. `dots` are single moments, and no line joins them."""

    name: str
    times: list[int]
    values: list[float]
    look: Literal["line", "thin", "dots"] = "line"


@dataclass(frozen=True)
class Chart:
    """One chart: how it is drawn, what it says in words, and its series.

    `unit` is how values are printed: `growth` (of 1), `percent` or `share`. Lines of one `stack` share their times.
    """

    key: str
    kind: Kind
    unit: Literal["growth", "percent", "share"]
    title: str
    description: str
    lines: tuple[Line, ...]
    can_be_logarithmic: bool = False
    moments: Literal["Day", "At 00:00 UTC"] = "Day"
    """What a date of the table means: a day, or a mark, which ends the day before it."""


def equity_chart(runs: Sequence[ReportContent], key: str, points: int) -> Chart:
    """Growth of 1 of the strategy and its baselines; of all strategies, if there are several runs (baselines of the first only)."""
    shown = [(run.card.name if len(runs) > 1 else run.comparison.strategy.name, run.strategy) for run in runs]
    if len(runs) == 1:
        shown += list(runs[0].baselines.items())
    else:
        shown += [(f"{name} (baseline)", one) for name, one in list(runs[0].baselines.items())[:1]]
    lines = tuple(_line(name, *_growth(one), points) for name, one in shown)
    ends = "; ".join(f"{line.name} ends at {line.values[-1]:.2f}" for line in lines)
    return Chart(
        key,
        "lines",
        "growth",
        "Equity against baselines",
        f"What 1 unit of money became, net of all costs, marked daily at 00:00 UTC. {ends}.",
        lines,
        can_be_logarithmic=True,
        moments="At 00:00 UTC",
    )


def drawdown_chart(run: ReportContent, key: str, points: int) -> Chart:
    """Loss from the peak of the strategy and of its first baseline."""
    shown = [(run.comparison.strategy.name, run.strategy), *list(run.baselines.items())[:1]]
    lines = []
    for name, one in shown:
        times, growth = _growth(one)
        lines.append(_line(name, times, growth / np.maximum.accumulate(growth) - 1.0, points))
    deepest = "; ".join(f"{line.name} at worst {-min(line.values):.1%} below its peak" for line in lines)
    return Chart(
        key, "area", "percent", "Drawdown", f"Loss from the highest equity so far. {deepest}.", tuple(lines), moments="At 00:00 UTC"
    )


def source_chart(weights: WeightHistory, key: str, points: int) -> Chart:
    """How the fusion weighed its sources."""
    means = weights.values.mean(axis=0) if weights.times.size else np.zeros(len(weights.names))
    order = np.argsort(-means, kind="stable")
    words = ", ".join(f"{weights.names[k]} {means[k]:.0%}" for k in order[:5])
    stacked = bool((weights.values >= 0.0).all())
    return _weights(
        weights, key, points, "stack" if stacked else "lines", "Weights of sources", f"How much each source counted. On average: {words}."
    )


def position_chart(weights: WeightHistory, key: str, points: int) -> Chart:
    """What the book held; stacked where nothing is short."""
    gross = np.abs(weights.values).sum(axis=1)
    words = f"Gross exposure was {gross.mean():.0%} of equity on average, {gross.max():.0%} at most" if gross.size else "Nothing was held"
    stacked = bool((weights.values >= 0.0).all())
    return _weights(weights, key, points, "stack" if stacked else "lines", "Position weights", f"Share of equity in each asset. {words}.")


def decider_charts(deciders: Deciders, key: str, points: int) -> list[Chart]:
    """Who was in charge, how families of evidence were weighed, what members of the council counted, which regime was believed in."""
    shown = (
        ("charge", deciders.in_charge, "Who was in charge", "Share of each day’s bars in which the weights of a fusion acted."),
        ("types", deciders.type_weights, "Weights of families of evidence", "How the searched fusion weighed them, once a day."),
        ("shares", deciders.shares, "Shares in the council", "How much each agent’s vote counted, once a day."),
        ("regimes", deciders.regime_beliefs, "Belief in regimes", "Mean over instruments; trends sum to one, so do volatilities."),
    )
    charts = []
    for name, weights, title, words in shown:
        if weights is not None and weights.times.size > 1:
            stacked = name != "regimes" and bool((weights.values >= 0.0).all())
            charts.append(_weights(weights, f"{key}-{name}", points, "stack" if stacked else "lines", title, words))
    return charts


def _weights(weights: WeightHistory, key: str, points: int, kind: Kind, title: str, description: str) -> Chart:
    rows = thin_rows(weights.values, points)
    seconds = (weights.times[rows] // SECOND).tolist()
    lines = tuple(
        Line(name, seconds, [round(float(v), 4) for v in weights.values[rows, column]]) for column, name in enumerate(weights.names)
    )
    return Chart(key, kind, "share", title, description, lines)


def _growth(series: EquitySeries) -> tuple[Times, Floats]:
    daily = series.daily
    times = np.append(daily.days, daily.days[-1] + DAY) if len(daily) else np.empty(0, np.int64)
    return times, (daily.equity / daily.equity[0])[: times.size]


def _line(name: str, times: Times, values: Floats, points: int) -> Line:
    rows = thin(values, points)
    return Line(name, (times[rows] // SECOND).tolist(), [float(f"{v:.5g}") for v in values[rows]])


def thin(values: Floats, points: int) -> NDArray[np.int64]:
    """Places of at most `points` values: first, last, and the lowest and highest of each of equal stretches, in order."""
    return thin_rows(values[:, None], points)


def thin_rows(values: Floats, points: int) -> NDArray[np.int64]:
    """As `thin`, for rows `[T, K]`: each stretch keeps the two rows at which its most-moving column is lowest and highest."""
    n = values.shape[0]
    if n <= points or values.shape[1] == 0:
        return np.arange(n, dtype=np.int64)
    edges = np.linspace(0, n, max(1, (points - 2) // 2) + 1).astype(np.int64)
    kept = {0, n - 1}
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = values[start:end]
        column = part[:, int(np.argmax(part.max(axis=0) - part.min(axis=0)))]
        kept.update((start + int(np.argmin(column)), start + int(np.argmax(column))))
    return np.array(sorted(kept), dtype=np.int64)


def chart_table(chart: Chart, most: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The chart as a table of at most `most` rows: header and rows of text. Evenly spaced days, or the newest dots."""
    header = (chart.moments, *(line.name for line in chart.lines if line.look != "dots"))
    base = chart.lines[0].times if chart.lines else []
    if dots := sorted({moment for line in chart.lines if line.look == "dots" for moment in line.times})[-most:]:
        return header, [(day_of(moment * SECOND), *_cells(chart, moment)) for moment in dots]
    rows: list[tuple[str, ...]] = []
    for place in np.unique(np.linspace(0, len(base) - 1, min(most, len(base))).astype(int)).tolist() if base else []:
        moment = base[place]
        rows.append((day_of(moment * SECOND), *_cells(chart, moment)))
    return header, rows


def _cells(chart: Chart, moment: int) -> list[str]:
    """What every line says at a moment: its newest value."""
    lines = [line for line in chart.lines if line.look != "dots"]
    return [say(line.values[max(0, int(np.searchsorted(line.times, moment, side="right")) - 1)], chart.unit) for line in lines]


def say(value: float, unit: str) -> str:
    """A chart value as text."""
    if unit == "growth":
        return f"{value:.3f}"
    return signed(f"{value:.1%}")


def signed(text: str) -> str:
    """A printed number with a real minus sign, and none where it was rounded to zero."""
    return text.replace("-", "−" if any(digit in text for digit in "123456789") else "")
