"""Small things that mislead a reader of a report: signs of zero, one `days`, digits, missing charts, silence of what cannot see."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from cryptoalpha.app.report.build import build_report
from cryptoalpha.app.report.content import CostSplit, ReportContent, RunCard
from cryptoalpha.app.report.risk_content import RiskRecord, TailSeries, TailStudy
from cryptoalpha.app.report.view import number
from cryptoalpha.app.run_risk import LimitUse
from cryptoalpha.core.time import DAY, parse_time
from cryptoalpha.monitoring.comparison import EquitySeries, compare

START = parse_time("2021-11-05")
LIMITS = (LimitUse("expected_shortfall", 0.0312, 0.05), LimitUse("max_drawdown", 0.42, 0.35), LimitUse("order_rate", 2.0, 60.0))


def content(days: int = 40, **fields: object) -> ReportContent:
    """A bare run."""
    growth = np.cumprod(1.0 + np.random.default_rng(1).normal(0.0, 0.02, days))
    series = EquitySeries.of_marks("strategy", START + DAY * np.arange(1, days + 1), 1_000.0 * growth, 1_000.0)
    card = RunCard(
        name="bare", run_id="r", data_origin="files", is_simulated=False, data_hash="0", since=START, until=START + days * DAY,
        interval="1h", instruments=("A",), quote="USDT", initial_equity=1_000.0, seed=0, version="0", git_sha="0", config_hash="0",
        cost_model=(),
    )  # fmt: skip
    costs = CostSplit(net=0.0, fees=0.0, spread=0.0, impact=0.0, funding_received=0.0)
    whole = ReportContent(card=card, comparison=compare(series, {}, trials=1, resamples=50), strategy=series, baselines={}, costs=costs)
    return dataclasses.replace(whole, **fields)


def text_of(one: ReportContent) -> str:
    """The page without its marks."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", re.sub(r"<(script|style).*?</\\1>", "", build_report(one), flags=re.DOTALL)))


@pytest.mark.parametrize(
    ("value", "style", "text"),
    [(-0.0, "percent", "0.0%"), (-4e-4, "percent", "0.0%"), (-6e-4, "percent", "−0.1%"), (-1e-3, "ratio", "0.00"), (-12.0, "count", "−12")],
)
def test_what_rounds_to_zero_has_no_sign(value, style, text):
    assert number(value, style) == text


def test_limits_have_the_digits_and_the_name_of_their_unit_and_the_time_they_were_told():
    html = build_report(content(risk=RiskRecord(limits=LIMITS, limits_at=START + 2 * DAY)))
    shown = dict(re.findall(r'data-metric="0/risk/limits/([^"]+)">([^<]+)<', html))
    assert (shown["0/used"], shown["0/left"], shown["1/left"], shown["2/allowed"]) == ("0.0312", "0.0188", "−0.0700", "60")
    for words in ("fraction of the peak", "entries an hour", "As told last, at 2021-11-07 00:00:00 UTC"):
        assert words in html


def test_one_day_is_one_day():
    text = text_of(content(days=1))
    assert "over 1 day " in text
    assert "1 days" not in text
    assert "over 40 days" in text_of(content())


def test_series_without_a_chart_are_named():
    names = tuple("ABCDEFGH")
    series = tuple(TailSeries(name, "filtered", START + DAY * np.arange(20), np.zeros(20), np.full(20, 0.01)) for name in names)
    assert "Charts show the first 4 of 8 series; not drawn: E, F, G, H." in text_of(content(tail=TailStudy(0.99, (), series)))
    assert "Charts show" not in text_of(content(tail=TailStudy(0.99, (), series[:4])))


def test_the_silence_of_a_watch_that_could_not_see_is_explained():
    silent = text_of(content(risk=RiskRecord(watching="Most could not: 61 days.")))
    assert "No detector raised an alarm. Most could not: 61 days." in silent


def test_a_date_is_a_day_or_a_mark_and_the_table_says_which():
    series = TailSeries("A", "filtered", START + DAY * np.arange(20), np.zeros(20), np.full(20, 0.01))
    html = build_report(content(tail=TailStudy(0.99, (), (series,))))
    tables = dict(re.findall(r'<figure data-chart="([^"]+)".*?<thead><tr><th scope="col">([^<]+)</th>', html, flags=re.DOTALL))
    assert tables == {"equity-0": "At 00:00 UTC", "drawdown-0": "At 00:00 UTC", "tail-0-0": "Day"}
    assert "evenly spaced marks" in html
