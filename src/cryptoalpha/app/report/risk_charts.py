"""Charts of risk as data: days that were worse than forecast, and where on the way down limits changed their state."""

from __future__ import annotations

import dataclasses

import numpy as np

from cryptoalpha.app.report.charts import Chart, Line, thin_rows
from cryptoalpha.app.report.content import ReportContent
from cryptoalpha.app.report.risk_content import RiskRecord, TailSeries
from cryptoalpha.core.time import DAY, SECOND

MARKED = {"drawdown_ladder": "ladder", "daily_loss": "daily loss", "kill_switch": "kill switch"}
"""Rules whose changes are marked on the drawdown, and what the legend calls them."""


def tail_charts(content: ReportContent, place: int, points: int, most: int) -> list[Chart]:
    """The book's and the first instruments' returns with the value at risk forecast for each day, `most` charts at most."""
    if content.tail is None:
        return []
    level, shown = content.tail.level, content.tail.series[:most]
    return [tail_chart(one, level, f"tail-{place}-{number}", points) for number, one in enumerate(shown)]


def tail_chart(series: TailSeries, level: float, key: str, points: int) -> Chart:
    """Daily returns, minus the value at risk of the day, and a dot on every day that lost more."""
    exceeded = -series.returns > series.value_at_risk
    rows = thin_rows(np.column_stack((series.returns, -series.value_at_risk)), points)
    seconds = (series.times // SECOND).tolist()
    kept = [seconds[row] for row in rows.tolist()]
    worst = f"; the worst day lost {-series.returns.min():.1%}" if series.returns.size else ""
    return Chart(
        key,
        "lines",
        "percent",
        f"Days worse than forecast: {series.subject}",
        f"Daily return, the loss that a day should exceed once in {1 / (1 - level):.0f} ({series.method} value at risk, "
        f"{level:.0%}), and the {int(exceeded.sum())} of {series.returns.size} days that lost more{worst}.",
        (
            Line(f"value at risk {level:.0%}, as a loss", kept, _rounded(-series.value_at_risk[rows])),
            Line("return of the day", kept, _rounded(series.returns[rows]), "thin"),
            Line("worse than forecast", [seconds[row] for row in np.flatnonzero(exceeded)], _rounded(series.returns[exceeded]), "dots"),
        ),
    )


def with_changes(chart: Chart, risk: RiskRecord | None) -> Chart:
    """A drawdown chart with a dot for each change of ladder, daily loss and kill switch, at the mark that ends its day."""
    if risk is None or not chart.lines or not chart.lines[0].times:
        return chart
    base = chart.lines[0]
    times, values = np.array(base.times), np.array(base.values)
    marked = []
    for rule, name in MARKED.items():
        ends = sorted({-(-one.time // DAY) * DAY // SECOND for one in risk.changes if one.rule == rule})
        places = np.minimum(np.searchsorted(times, ends), times.size - 1)
        if ends:
            moments = np.unique(times[places])
            marked.append(Line(name, moments.tolist(), values[np.searchsorted(times, moments)].tolist(), "dots"))
    return dataclasses.replace(chart, lines=(*chart.lines, *marked)) if marked else chart


def _rounded(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
