"""What the template needs of one run, worked out beforehand: rows, marks and numbers that all come from the metrics."""

from __future__ import annotations

import json
from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import quote

from markupsafe import Markup

from cryptoalpha.app.report.charts import Chart, Density, chart_table, signed
from cryptoalpha.app.report.content import ReportContent, Trade
from cryptoalpha.app.report.decision_content import ChargeChange
from cryptoalpha.app.report.metrics import Plain, look_up, plain
from cryptoalpha.app.report.picture import Picture, draw
from cryptoalpha.app.report.risk_content import AlarmNote, StateChange
from cryptoalpha.app.run_risk import LimitUse
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import TRENDS, VOLATILITIES
from cryptoalpha.monitoring.comparison import Difference, Outcome
from cryptoalpha.monitoring.period_tables import PeriodRow

_LOOKS: dict[Outcome, tuple[str, str]] = {
    "beats": ("good", "▲"),
    "ahead, within the noise": ("even", "△"),
    "behind, within the noise": ("even", "▽"),
    "loses to": ("bad", "▼"),
    "cannot be compared with": ("even", "–"),
}
STATES_NOTE = (
    "States are told from what was known at the beginning of each day: the mean of the instruments above or below its level 50 days "
    "before, its volatility of 20 days above or below the median of all days so far."
)
REGIMES_NOTE = (
    "Regimes are those that the run's regime model believed in at the beginning of each day: a day stands under its likeliest trend and "
    "once more under its likelier volatility, or under uncertain where no belief reaches one half; days without a belief are left out."
)
_HEAT = (0.02, 0.06, 0.12)


class Numbers:
    """Prints numbers of one run's metrics, each with its exact value and its path beside it."""

    def __init__(self, metrics: dict[str, Plain], run: int) -> None:
        self._metrics, self._run = metrics, run

    def __call__(self, style: str, *path: str, at: tuple[str, ...] = ()) -> Markup:
        """The number at the path `at` followed by `path`; a dash where it is undefined."""
        return self._marked((*at, *path), lambda value: number(value, style))

    def limit(self, one: LimitUse, *path: str) -> Markup:
        """A figure of a limit, with the digits of its unit."""
        return self._marked(path, lambda value: signed(one.shown(value)))

    def count(self, name: str, *path: str) -> Markup:
        """A number of things, `1 day` or `2 days`."""
        shown = self("count", *path)
        return Markup("{} {}{}").format(shown, name, "" if look_up(self._metrics, path) == 1 else "s")

    def _marked(self, path: tuple[str, ...], say: Callable[[float], str]) -> Markup:
        value = look_up(self._metrics, path)
        if value is None:
            return Markup("–")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"the metric at {' / '.join(path)} is no number")
        where = "/".join(quote(key, safe=" ") for key in (str(self._run), *path))
        return Markup('<data value="{}" data-metric="{}">{}</data>').format(repr(value), where, say(value))

    def interval(self, style: str, *path: str, at: tuple[str, ...] = ()) -> Markup:
        """An estimate and, on a second line, its bounds."""
        path = (*at, *path)
        estimate = self(style, *path, "estimate")
        if look_up(self._metrics, (*path, "low")) is None:
            return estimate
        return estimate + Markup('<span class="range">{} to {}</span>').format(self(style, *path, "low"), self(style, *path, "high"))


def number(value: float, style: str) -> str:
    """A number as people read it, with a real minus sign."""
    text = {
        "ratio": f"{value:.2f}",
        "signed_ratio": f"{value:+.2f}",
        "signed_fine": f"{value:+.4f}",
        "percent": f"{value:.1%}",
        "signed_percent": f"{value:+.1%}",
        "money": f"{value:,.2f}",
        "times": f"{value:.1f}×",
        "count": f"{value:,.0f}",
        "one_decimal": f"{value:.1f}",
        "probability": f"{value:.3f}",
        "fine": f"{value:,.3f}",
    }[style]
    return signed(text)


@dataclass(frozen=True)
class ChartView:
    """A chart with everything that is drawn or listed of it."""

    key: str
    chart: Chart
    picture: Picture | None
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    rows_are: str
    data: Markup


@dataclass(frozen=True)
class HeatCell:
    """A month or a year: where its number stands, its colour class and its mark."""

    path: tuple[str, ...]
    look: str
    mark: str
    is_partial: bool


@dataclass(frozen=True)
class YearRow:
    """Twelve months (None where there is none) and the year."""

    year: int
    cells: list[HeatCell | None]
    total: HeatCell


@dataclass(frozen=True)
class CostRow:
    """One part of the way from gross to net; `x` and `width` place its bar around the middle of 140 units."""

    name: str
    key: str
    sign: str
    share: str
    look: str
    x: float
    width: float
    is_total: bool


@dataclass(frozen=True)
class TradeRow:
    """A fill as text."""

    fill_id: str
    time: str
    instrument: str
    side: str
    quantity: str
    price: str
    value: str
    fee: str
    spread: str
    impact: str
    reason: str


@dataclass(frozen=True)
class DifferenceRow:
    """One line of the verdict."""

    look: str
    sign: str
    words: str


@dataclass(frozen=True)
class RunView:
    """One run as the template walks through it."""

    content: ReportContent
    metrics: dict[str, Plain]
    num: Numbers
    level: str
    charts: list[ChartView]
    differences: list[DifferenceRow]
    measured: list[tuple[str, ...]]
    undefined: list[tuple[str, str, str]]
    years: list[YearRow]
    cost_rows: list[CostRow]
    trades: list[TradeRow]
    families: list[str]
    liveness: list[tuple[str, list[str], str]]
    facts: list[tuple[str, str, bool]]
    limit_rows: list[tuple[LimitUse, float]]
    changes: list[tuple[StateChange, str]]
    alarms: list[tuple[AlarmNote, str]]
    charge_changes: list[tuple[ChargeChange, str]]
    tail_charts: list[ChartView]
    tails_drawn: str
    limits_at: str
    regime_note: str
    stressed_at: str


def json_block(value: Plain) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def chart_view(chart: Chart, density: Density) -> ChartView:
    """Picture, table and script data of a chart."""
    header, rows = chart_table(chart, density.table_rows)
    things = "days" if chart.moments == "Day" else "marks"
    has_dots = any(line.look == "dots" and line.times for line in chart.lines)
    rows_are = (
        f"evenly spaced {things}" if not has_dots else "marked days, the newest" if things == "days" else "marks with a change, the newest"
    )
    return ChartView(chart.key, chart, draw(chart, density.picture_points), header, rows, rows_are, json_block(_chart_data(chart)))


def _chart_data(chart: Chart) -> Plain:
    """A chart for the script; times as their first value and steps, once for all lines that share them (a third of the size)."""
    clocks: list[list[int]] = []
    lines: list[Plain] = []
    for line in chart.lines:
        if line.times not in clocks:
            clocks.append(line.times)
        lines.append({"name": line.name, "clock": clocks.index(line.times), "values": plain(line.values), "look": line.look})
    steps: list[Plain] = [[b - a for a, b in pairwise([0, *clock])] for clock in clocks]
    return {"kind": chart.kind, "unit": chart.unit, "clocks": steps, "lines": lines}


def run_view(
    content: ReportContent, metrics: dict[str, Plain], place: int, charts: list[Chart], tails: list[Chart], density: Density
) -> RunView:
    """Everything the template prints of one run."""
    compared = (content.comparison.strategy, *content.comparison.baselines)
    families = list(dict.fromkeys(one.family for one in content.liveness))
    return RunView(
        content=content,
        metrics=metrics,
        num=Numbers(metrics, place),
        level=f"{content.comparison.strategy.sharpe.level:.0%}",
        charts=[chart_view(chart, density) for chart in charts],
        differences=[_difference(one) for one in content.comparison.differences],
        measured=[("strategy",), *(("baselines", one.name) for one in content.comparison.baselines)],
        undefined=[(one.name, measure.replace("_", " "), why) for one in compared for measure, why in one.undefined],
        years=_years(metrics),
        cost_rows=_cost_rows(content),
        trades=[_trade(one) for one in reversed(content.trades[-density.trades :])],
        families=families,
        liveness=_liveness(content, families),
        facts=_facts(content),
        limit_rows=limit_rows(content),
        changes=[(one, _moment(one.time)) for one in content.risk.changes] if content.risk else [],
        alarms=[(one, _moment(one.time)) for one in content.risk.alarms] if content.risk else [],
        charge_changes=[(one, _moment(one.time)) for one in content.deciders.changes[-density.trades :]] if content.deciders else [],
        tail_charts=[chart_view(chart, density) for chart in tails],
        tails_drawn=_tails_drawn(content, len(tails)),
        limits_at=_moment(content.risk.limits_at) if content.risk and content.risk.limits_at is not None else "",
        regime_note=regime_note(content.regimes),
        stressed_at=_moment(content.stress.at) if content.stress and content.stress.at is not None else "",
    )


def regime_note(rows: Sequence[PeriodRow]) -> str:
    """How the days of a table by state of the market were told apart: by a regime model, or by the plain rule that stands in for one."""
    return REGIMES_NOTE if any(row.label in (*TRENDS, *VOLATILITIES) for row in rows) else STATES_NOTE


def limit_rows(content: ReportContent) -> list[tuple[LimitUse, float]]:
    """Limits, and how wide a bar of 140 units shows what is used of each."""
    limits = content.risk.limits if content.risk else ()
    return [(one, round(140.0 * min(max(one.used / one.allowed, 0.0), 1.0), 1) if one.allowed > 0.0 else 140.0) for one in limits]


def _tails_drawn(content: ReportContent, drawn: int) -> str:
    """Which series have no chart, where some have none."""
    series = content.tail.series if content.tail else ()
    if drawn in (0, len(series)):
        return ""
    return f"Charts show the first {drawn} of {len(series)} series; not drawn: {', '.join(one.subject for one in series[drawn:])}."


def _moment(time: int) -> str:
    return iso(time)[:19].replace("T", " ").rstrip("Z")


def _difference(one: Difference) -> DifferenceRow:
    look, sign = _LOOKS[one.outcome]
    return DifferenceRow(look, sign, one.words)


def _heat(path: tuple[str, ...], value: float, is_partial: bool) -> HeatCell:
    if abs(value) < 0.0005:  # prints as 0.0%
        return HeatCell(path, "flat", "·", is_partial)
    depth = 1 + sum(abs(value) >= step for step in _HEAT)
    return HeatCell(path, f"{'gain' if value > 0 else 'loss'}-{depth}", "▲" if value > 0 else "▼", is_partial)


def _years(metrics: dict[str, Plain]) -> list[YearRow]:
    months, years = metrics["months"], metrics["years"]
    if not isinstance(months, list) or not isinstance(years, dict):
        raise ConfigError("metrics hold no months")
    rows: dict[int, list[HeatCell | None]] = {}
    for place, one in enumerate(months):
        if isinstance(one, dict):
            year, month, days, value = (one[key] for key in ("year", "month", "days", "value"))
            if isinstance(year, int) and isinstance(month, int) and isinstance(days, int) and isinstance(value, float):
                cells = rows.setdefault(year, [None] * 12)
                cells[month - 1] = _heat(("months", str(place), "value"), value, days < monthrange(year, month)[1])
    totals = {year: value for year, value in years.items() if isinstance(value, float)}
    return [YearRow(year, cells, _heat(("years", str(year)), totals[str(year)], False)) for year, cells in rows.items()]


def _cost_rows(content: ReportContent) -> list[CostRow]:
    costs = content.costs
    parts = (
        ("Gross, at mid prices", "gross", costs.gross, "", True),
        ("Fees", "fees", -costs.fees, "−", False),
        ("Half spread", "spread", -costs.spread, "−", False),
        ("Market impact", "impact", -costs.impact, "−", False),
        ("Funding received", "funding_received", costs.funding_received, "", False),
        ("Net", "net", costs.net, "", True),
    )
    largest = max(max(abs(value) for _, _, value, _, _ in parts), 1e-12)
    rows = []
    for name, key, value, sign, is_total in parts:
        width = round(68.0 * abs(value) / largest, 1)
        share = number(value / content.card.initial_equity, "signed_percent")
        look = "plus" if value >= 0 else "minus"
        rows.append(CostRow(name, key, sign, share, look, 70.0 if value >= 0 else round(70.0 - width, 1), width, is_total))
    return rows


def _trade(one: Trade) -> TradeRow:
    return TradeRow(
        fill_id=one.fill_id,
        time=_moment(one.time),
        instrument=one.instrument,
        side="▲ buy" if one.side == "buy" else "▼ sell",
        quantity=f"{one.quantity:,.8g}",
        price=f"{one.price:,.8g}",
        value=f"{one.quantity * one.price:,.2f}",
        fee=f"{one.fee:,.2f}",
        spread=f"{one.spread_cost:,.2f}",
        impact=f"{one.impact_cost:,.2f}",
        reason=one.reason,
    )


def _liveness(content: ReportContent, families: list[str]) -> list[tuple[str, list[str], str]]:
    rows = []
    for asset in dict.fromkeys(one.asset for one in content.liveness):
        own = [one for one in content.liveness if one.asset == asset]
        cells = [" ".join(f"{one.live} of {one.total}" for one in own if one.family == family) or "–" for family in families]
        rows.append((asset, cells, "; ".join(dict.fromkeys(one.note for one in own if one.note))))
    return rows


def _facts(content: ReportContent) -> list[tuple[str, str, bool]]:
    card = content.card
    facts = [
        ("Run", card.run_id, False),
        ("Data", f"{card.data_origin}{' (SIMULATED)' if card.is_simulated else ''}", False),
        ("Window", f"{iso(card.since)} to {iso(card.until)}", False),
        ("Days measured", f"{content.comparison.first_day} to {content.comparison.last_day}", False),
        ("Bars", card.interval, False),
        ("Instruments", ", ".join(card.instruments), False),
        ("Initial equity", f"{card.initial_equity:,.2f} {card.quote}", False),
        ("Seed", str(card.seed), False),
        ("Trials counted", str(content.comparison.trials), False),
        ("Version", card.version, False),
        ("Git commit", card.git_sha, False),
        *((name, value, False) for name, value in card.extra),
        ("Data hash", card.data_hash, True),
        ("Config hash", card.config_hash, True),
        ("Journal digest", card.journal_digest, True),
        ("Again with", card.command, True),
    ]
    return [(name, value, wide) for name, value, wide in facts if value]
