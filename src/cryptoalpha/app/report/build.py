"""Put a report together: one self-contained HTML page, under 1 MB, that asks nothing of the network.

The page works without JavaScript (static pictures and tables), on a phone, on paper, in light and dark. Scripts and styles are inline and
allowed by hash; everything that comes from data is escaped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from cryptoalpha import __version__
from cryptoalpha.app.report import assets
from cryptoalpha.app.report.charts import Chart, Density, decider_charts, drawdown_chart, equity_chart, position_chart, source_chart
from cryptoalpha.app.report.content import ReportContent
from cryptoalpha.app.report.metrics import Plain, metrics_of
from cryptoalpha.app.report.risk_charts import tail_charts, with_changes
from cryptoalpha.app.report.risk_content import BOOK
from cryptoalpha.app.report.view import chart_view, json_block, run_view
from cryptoalpha.core.errors import ConfigError

SHOWN_BESIDE = 20
"""Changes of state and alarms of a run that stands beside others."""

MOST_RUNS = 5
"""More runs than this are unreadable side by side and would outgrow one megabyte."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_COMPARED = (
    ("Return, net", "signed_percent", ("strategy", "total_return")),
    ("Sharpe", "ratio", ("strategy", "sharpe", "*")),
    ("Growth per year", "signed_percent", ("strategy", "cagr", "*")),
    ("Deepest loss from peak", "percent", ("strategy", "max_drawdown", "*")),
    ("Volatility per year", "percent", ("strategy", "volatility")),
    ("Sortino", "ratio", ("strategy", "sortino")),
    ("Turnover per year", "times", ("strategy", "turnover")),
    ("Costs, of initial equity", "percent", ("strategy", "costs")),
    ("Deflated Sharpe", "ratio", ("strategy", "deflated_sharpe")),
    ("Trials", "count", ("trials",)),
    ("Fills", "count", ("trades",)),
    ("Days", "count", ("strategy", "days")),
)


def build_report(content: ReportContent | Sequence[ReportContent]) -> str:
    """The HTML page of one run, or of several runs side by side.

    Args:
        content: one run, or two to five of them: equity overlaid, measures beside each other, then each run on its own.

    Raises:
        ConfigError: for no run, too many, or a run that has no full day.
    """
    contents = (content,) if isinstance(content, ReportContent) else tuple(content)
    if not 1 <= len(contents) <= MOST_RUNS:
        raise ConfigError(f"a report shows 1 to {MOST_RUNS} runs, not {len(contents)}", hint="choose fewer run ids")
    density = Density.for_runs(len(contents))
    if len(contents) > 1:
        contents = tuple(_shortened(one) for one in contents)
    metrics = [metrics_of(one) for one in contents]
    runs = [
        run_view(one, numbers, place, _charts(one, place, density.points), tail_charts(one, place, density.points, density.tails), density)
        for place, (one, numbers) in enumerate(zip(contents, metrics, strict=True))
    ]
    overlay = chart_view(equity_chart(contents, "overlay", 2 * density.points), density) if len(contents) > 1 else None
    charts = [*([overlay] if overlay is not None else []), *(chart for run in runs for chart in (*run.charts, *run.tail_charts))]
    scripts = [assets.package_asset(*assets.LIGHTWEIGHT_CHARTS), assets.package_asset(*assets.UPLOT_SCRIPT), assets.own_asset("report.js")]
    styles = [assets.package_asset(*assets.UPLOT_STYLE), assets.own_asset("report.css")]
    names = " · ".join(one.card.name for one in contents)
    simulated = "; ".join(dict.fromkeys(one.card.data_origin for one in contents if one.card.is_simulated))
    document: Plain = metrics[0] if len(metrics) == 1 else list(metrics)
    return _template().render(
        title=f"{names}: backtest report",
        subtitle=_subtitle(contents),
        version=__version__,
        simulated=simulated,
        runs=runs,
        overlay=overlay,
        charts=charts,
        compared=_COMPARED,
        month_names=_MONTHS,
        metrics_json=json_block(document),
        policy=assets.content_security_policy(scripts, styles),
        scripts=[Markup(text) for text in scripts],
        styles=[Markup(text) for text in styles],
        attribution=assets.ATTRIBUTION_URL,
        notices=assets.own_asset("NOTICES.txt"),
    )


def _shortened(content: ReportContent) -> ReportContent:
    """A run beside others: the newest changes of risk, and of the tail only what concerns the book. Its own report has all."""
    risk, tail = content.risk, content.tail
    if risk is not None:
        risk = dataclasses.replace(risk, changes=risk.changes[-SHOWN_BESIDE:], alarms=risk.alarms[-SHOWN_BESIDE:])
    if tail is not None:
        tail = dataclasses.replace(tail, tests=tuple(one for one in tail.tests if one.subject == BOOK), series=())
    return dataclasses.replace(content, risk=risk, tail=tail)


def _charts(content: ReportContent, place: int, points: int) -> list[Chart]:
    charts = [equity_chart((content,), f"equity-{place}", points), _drawdown(content, place, points)]
    if content.source_weights is not None and content.source_weights.names:
        charts.append(source_chart(content.source_weights, f"sources-{place}", points))
    if content.position_weights is not None and content.position_weights.names:
        charts.append(position_chart(content.position_weights, f"positions-{place}", points))
    if content.deciders is not None:
        charts += decider_charts(content.deciders, f"deciders-{place}", points)
    return charts


def _drawdown(content: ReportContent, place: int, points: int) -> Chart:
    return with_changes(drawdown_chart(content, f"drawdown-{place}", points), content.risk)


def _subtitle(contents: Sequence[ReportContent]) -> str:
    if len(contents) > 1:
        return f"{len(contents)} runs side by side"
    card, comparison = contents[0].card, contents[0].comparison
    instruments = f"{len(card.instruments)} instruments" if len(card.instruments) != 1 else card.instruments[0]
    trials = "1 trial" if comparison.trials == 1 else f"{comparison.trials} trials"
    return (
        f"{comparison.first_day} to {comparison.last_day} · {instruments} · {card.interval} bars · {card.data_origin} · "
        f"seed {card.seed} · {trials} counted"
    )


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(assets.own_asset)
    )
    return environment.get_template("page.html.j2")
