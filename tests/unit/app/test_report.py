"""The report: self-contained, escaped, small, readable without scripts, and every number equal to the metrics."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest

from cryptoalpha.app.report.build import build_report
from cryptoalpha.app.report.charts import POINTS
from cryptoalpha.app.report.content import (
    Check,
    CostSplit,
    GateFinding,
    Liveness,
    RefusalCount,
    ReportContent,
    RunCard,
    SourceSkill,
    Trade,
)
from cryptoalpha.app.report.metrics import look_up, metrics_of
from cryptoalpha.app.report.risk_content import (
    AlarmNote,
    CutCount,
    InstrumentRow,
    RiskRecord,
    StateChange,
    Stress,
    StressStudy,
    TailSeries,
    TailStudy,
    TailTest,
)
from cryptoalpha.app.report.storage import dump_content, load_content
from cryptoalpha.app.report.view import limit_rows
from cryptoalpha.app.report.weight_history import WeightHistory
from cryptoalpha.app.result_tables import by_year
from cryptoalpha.app.run_risk import LimitUse
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.monitoring.bootstrap import Interval
from cryptoalpha.monitoring.comparison import EquitySeries, compare
from cryptoalpha.monitoring.period_tables import period_table

START = parse_time("2021-11-05")
BASELINES = ("hold", "equal-weight hold", "volatility-targeted hold", "50-day trend", "28-day momentum", "multi-speed trend", "random")
ASSETS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "ADA/USDT", "DOGE/USDT", "LTC/USDT", "XRP/USDT", "BNB/USDT")
SOURCES = ("momentum", "trend", "volatility", "funding", "mood", "news")


def curve(name: str, seed: int, days: int, *, drift: float = 0.0005) -> EquitySeries:
    returns = drift + np.random.default_rng(seed).normal(0.0, 0.02, days)
    times = START + DAY * np.arange(1, days + 1)
    return EquitySeries.of_marks(name, times, 10_000.0 * np.cumprod(1.0 + returns), 10_000.0, costs=0.031, turnover=14.0)


def make_card(days: int, seed: int, *, simulated: bool, name: str) -> RunCard:
    return RunCard(
        name=name,
        run_id=f"20260101-{seed}",
        data_origin="simulated market of 8 assets, edge planted" if simulated else "files: 8 assets with text, chain and funding",
        is_simulated=simulated,
        data_hash="0c9f" * 16,
        since=START,
        until=START + days * DAY,
        interval="1h",
        instruments=ASSETS,
        quote="USDT",
        initial_equity=10_000.0,
        seed=seed,
        version="0.1.0",
        git_sha="a1b2c3d4e5f6",
        config_hash="77aa" * 16,
        cost_model=(
            ("taker fee", "0.10% of notional"),
            ("half spread", "0.02%"),
            ("impact", "0.5 · σ_day · √(q / ADV)"),
            ("funding", "as paid"),
        ),
        journal_digest="beef" * 16,
        command="cryptoalpha backtest --data DIR --since 2021-11-05 --until 2023-12-14 --seed 0",
        extra=(("Look-back of features", "720 bars"),),
    )


def make_content(
    *, days: int = 770, seed: int = 0, simulated: bool = False, hours: int | None = None, name: str = "rule agent"
) -> ReportContent:
    """A run as rich as a real one, from random numbers."""
    rng = np.random.default_rng(seed)
    strategy = curve("strategy", 100 + seed, days)
    baselines = {other: curve(other, place, days) for place, other in enumerate(BASELINES)}
    rows = days * 24 if hours is None else hours
    times = START + HOUR * np.arange(rows)
    raw = np.exp(np.cumsum(rng.normal(0.0, 0.02, (rows, len(SOURCES))), axis=0))
    held = np.clip(0.12 + np.cumsum(rng.normal(0.0, 0.004, (rows, len(ASSETS))), axis=0), 0.0, 0.25)
    trades = tuple(
        Trade(
            f"{1000 + k}.{k % 9}",
            START + k * HOUR,
            ASSETS[k % 8],
            "buy" if k % 2 else "sell",
            0.0123 * (k + 1),
            31_234.5,
            1.25,
            0.5,
            0.21,
            "trend up",
        )
        for k in range(260)
    )
    return ReportContent(
        card=make_card(days, seed, simulated=simulated, name=name),
        comparison=compare(strategy, baselines, trials=24, seed=seed, resamples=200),
        strategy=strategy,
        baselines=baselines,
        costs=CostSplit(net=1_234.56, fees=210.0, spread=70.5, impact=31.25, funding_received=-44.0),
        trades=trades,
        trades_total=1_417,
        source_weights=WeightHistory(SOURCES, times, raw / raw.sum(axis=1, keepdims=True)),
        position_weights=WeightHistory(ASSETS, times, held),
        source_skill=tuple(make_skill(k, one) for k, one in enumerate(SOURCES)),
        checks=(
            Check("features keep their prefix", True, "8 cuts, 1,920 values compared"),
            Check("future poisoned", True, "8 cuts, bit-equal"),
            Check("trained parts", None, "no trained part in this run"),
        ),
        refusals=(RefusalCount("max_gross", 31, "gross 1.04 would exceed 1.00", "977.41"), RefusalCount("min_notional", 12)),
        bar_gate=(GateFinding("DOGE/USDT", "gap", 7, "left out"), GateFinding("BTC/USDT", "zero volume", 2, "kept")),
        bar_gate_summary="147,840 bars checked, 9 findings.",
        liveness=tuple(
            Liveness(family, asset, live, total) for asset in ASSETS for family, live, total in (("price", 48, 50), ("on-chain", 11, 30))
        ),
        notes=("No text before 2022-01-01: the news source abstains until then.",),
        risk=make_risk(),
        tail=make_tail(),
        stress=make_stress(),
        years=by_year(strategy.daily, seed=0),
        regimes=tuple(period_table(strategy.daily.returns, ["falling, calm"] * len(strategy.daily), periods_per_year=365, resamples=100)),
        instruments=(InstrumentRow("BTC/USDT", 1_200.0, 60.0, 8.0, 4.0, -3.0, 61_000.0, 41, 3.25),),
    )


def make_skill(k: int, name: str) -> SourceSkill:
    """A source; the first of them never spoke."""
    if k == 0:
        return SourceSkill(name, math.nan, math.nan, 0, 0.0, "24h", coverage=0.0, reason="the source never spoke about a known outcome")
    quality = Interval(0.008 * k, -0.001, 0.03, 0.95, 24.0, 500, 0.04)
    return SourceSkill(name, 0.01 * k - 0.02, 0.7 * k - 1.0, 18_000, 1 / 6, "24h", quality=quality, coverage=0.9, freshness=0.75)


def make_stress() -> StressStudy:
    """A book that is long one and short another."""
    results = (
        Stress("gap", -0.06, (("BTC/USDT", -0.08), ("ETH/USDT", 0.02)), "prices jump by -20% at once"),
        Stress("covid_2020", -0.021, (("BTC/USDT", -0.041), ("ETH/USDT", 0.02)), "every market falls at once; lowest after day 7 of 7"),
    )
    return StressStudy(START + 9 * DAY, (("BTC/USDT", 0.4), ("ETH/USDT", -0.1)), results, (("ftx_2022", "0 of 16 days are there"),))


def make_risk() -> RiskRecord:
    """A ladder that was stepped down, a kill, an alarm, and a limit that is exceeded."""
    noon = START + 5 * DAY + 12 * HOUR
    return RiskRecord(
        cuts=(CutCount("volatility_target", 1_204, 0.083, 37), CutCount("gross_cap", 3, 0.4, 1)),
        changes=(
            StateChange("120.9", noon, "drawdown_ladder", "1", "11.70% below the peak: 75% of every size is left"),
            StateChange("131.9", noon + DAY, "bad_tick", "open", "it moved by 61%", "DOGE/USDT"),
            StateChange("144.9", noon + 2 * DAY, "kill_switch", "tripping", "by risk: equity fell 35% below its peak"),
        ),
        changes_total=3,
        alarms=(AlarmNote("150.7", noon, "psi", "volatility", "retrain", 0.41, 0.2, 365.0, "volatility is not as it was"),),
        alarms_total=9,
        limits=(LimitUse("gross_cap", 0.49, 0.98), LimitUse("max_drawdown", 0.42, 0.35), LimitUse("order_rate", 2.0, 60.0)),
        mode="tripped",
        exposure=0.75,
        limits_at=noon + 2 * DAY,
    )


def make_tail() -> TailStudy:
    """Sixty days, of which two are worse than forecast."""
    returns = np.where(np.arange(60) % 25 == 7, -0.09, 0.004)
    times = START + DAY * np.arange(1, 61)
    series = TailSeries("BTC/USDT", "filtered", times, returns, np.full(60, 0.05))
    refused = TailTest("BTC/USDT", "cornish_fisher", 0.99, 0, 60, 0, 0.0, math.nan, math.nan, math.nan, math.nan, "cannot be told: no days")
    passed = TailTest(
        "BTC/USDT", "filtered", 0.99, 60, 0, 3, 0.6, 0.05, 0.0305, 0.58, 0.09, "too many: days were worse than forecast", -6.5, 0.002
    )
    return TailStudy(0.99, (passed, refused), (series,))


class Page(HTMLParser):
    """What a test asks about the page: links, elements, scripts, numbers, visible text."""

    VOID = frozenset(("meta", "line", "path", "rect", "br", "link", "img"))

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.inline_styles = 0
        self.handlers: list[str] = []
        self.scripts: dict[str, str] = {}
        self.numbers: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.ids: list[str] = []
        self._script = ""
        self._number: tuple[str, str] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [found[name] for name in ("src", "href", "srcset", "data", "action", "poster") if name in found]
        self.inline_styles += "style" in found
        self.handlers += [name for name in found if name.startswith("on")]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self._script = found.get("id") or f"code {len(self.scripts)}"
            self.scripts[self._script] = ""
        if tag == "data":
            self._number = (found["value"], found["data-metric"])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.scripts[self._script] += data
        elif inside != "style":
            self.text += data
            if self._number is not None and data.strip():
                self.numbers.append((*self._number, data.strip()))
                self._number = None


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return make_content()


@pytest.fixture(scope="module")
def html(content: ReportContent) -> str:
    return build_report(content)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_is_well_formed_and_smaller_than_a_megabyte(html, page):
    assert html.startswith("<!DOCTYPE html>")
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert len(html.encode()) < 1_000_000


def test_the_only_address_is_the_attribution(page):
    assert page.addresses == ["https://www.tradingview.com/"]
    assert not {"link", "img", "iframe", "object", "embed", "form", "base"} & set(page.tags)


def test_nothing_runs_but_what_the_policy_names(html, page):
    import base64
    import hashlib

    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    allowed = policy[1].replace("&#39;", "'")
    assert allowed.startswith("default-src 'none';")
    assert "unsafe" not in allowed
    for name, text in page.scripts.items():
        if name.startswith("code"):
            assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in allowed
    for text in re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in allowed
    assert page.inline_styles == 0
    assert page.handlers == []


def test_every_number_equals_the_metrics(content, page):
    metrics = json.loads(page.scripts["metrics"])
    assert metrics == json.loads(json.dumps(metrics_of(content)))
    assert len(page.numbers) > 150
    for exact, where, shown in page.numbers:
        _, *path = (unquote(key) for key in where.split("/"))
        value = look_up(metrics, tuple(path))
        assert float(exact) == value
        text = shown.replace("−", "-").replace(",", "").rstrip("×")
        tolerance = 0.0005 if text.endswith("%") else 0.5 if re.fullmatch(r"[-+]?\d+", text) else 0.5 * 10.0 ** -len(text.partition(".")[2])
        spoken = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
        assert spoken == pytest.approx(value, abs=tolerance * 1.001 + (0.05 if shown.endswith("×") else 0.0))


def test_measures_in_the_metrics_are_those_of_the_comparison(content):
    metrics = metrics_of(content)
    assert look_up(metrics, ("strategy", "sharpe", "estimate")) == content.comparison.strategy.sharpe.estimate
    assert look_up(metrics, ("baselines", "hold", "drawdown", "depth")) == content.comparison.baselines[0].drawdown.depth
    assert look_up(metrics, ("costs", "gross")) == pytest.approx(1_234.56 + 210.0 + 70.5 + 31.25 + 44.0)
    years = look_up(metrics, ("years",))
    assert isinstance(years, dict)
    total = np.prod([1 + float(value) for value in years.values()])  # type: ignore[arg-type]
    assert total - 1 == pytest.approx(content.comparison.strategy.total_return)


@pytest.mark.parametrize(
    "words",
    [
        "What this run shows", "Equity against baselines", "Drawdown", "Measures", "Monthly returns", "From gross to net",
        "What each source knew", "Weights of sources", "Position weights", "Last 200 of 1,417 fills",
        "cryptoalpha explain FILL", "Look-ahead and leak checks",
        "Orders stopped by risk rules", "Bar gate", "Features that had data", "Run card", "0.10% of notional", "48 of 50", "✓ passed",
        "– not run", "max_gross", "No text before 2022-01-01", "Deflated Sharpe", "Copyright (c) Leon Sorokin", "Apache License",
    ],
)  # fmt: skip
def test_the_page_says(page, words):
    assert words in page.text


def test_the_verdict_comes_before_the_numbers_and_names_what_is_not_beaten(content, page):
    assert content.comparison.verdict in page.text
    assert page.text.index(content.comparison.verdict) < page.text.index("Monthly returns")
    for difference in content.comparison.differences:
        assert difference.words in page.text


def test_each_chart_has_a_picture_a_label_and_a_table(html, page):
    assert html.count("<figure data-chart=") == 5
    assert html.count('class="still"') == html.count('class="live"') == html.count("This chart as a table") == 5
    assert len(re.findall(r'role="img" aria-label="[^"]{40,}"', html)) == 10
    for key in re.findall(r'<figure data-chart="([^"]+)"', html):
        chart = json.loads(page.scripts[key])
        assert all(len(chart["clocks"][line["clock"]]) == len(line["values"]) <= POINTS for line in chart["lines"])
        assert all(min(clock) > 0 for clock in chart["clocks"])  # steps: times increase


def test_days_worse_than_forecast_are_dots_and_their_table_lists_them(html, page):
    lines = json.loads(page.scripts["tail-0-0"])["lines"]
    assert [line["look"] for line in lines] == ["line", "thin", "dots"]
    assert lines[2]["values"] == [-0.09] * 3
    figure = html[html.index('<figure data-chart="tail-0-0"') :]
    figure = figure[: figure.index("</figure>")]
    (dots,) = re.findall(r'<path class="p2 dots" d="([^"]+)"', figure)
    assert dots.count("M") == dots.count("h0") == 3
    assert re.findall(r'<tr><th scope="row">([^<]+)</th>', figure) == ["2021-11-13", "2021-12-08", "2022-01-02"]
    assert "the 3 of 60 days that lost more; the worst day lost 9.0%" in figure


def test_changes_of_ladder_and_switch_are_marked_on_the_drawdown(page):
    lines = {line["name"]: line for line in json.loads(page.scripts["drawdown-0"])["lines"]}
    assert list(lines)[-2:] == ["ladder", "kill switch"]  # a breaker is not marked
    clocks = json.loads(page.scripts["drawdown-0"])["clocks"]
    assert clocks[lines["ladder"]["clock"]] == [(START + 6 * DAY) // 1_000_000_000]  # the mark that ends its day


@pytest.mark.parametrize(
    "words",
    [
        "What limits did", "volatility_target", "Where limits stood at the end", "Gate tripped", "When risk changed its state",
        "by risk: equity fell 35% below its peak", "Last 1 of 9", "volatility is not as it was", "Bad days beside their forecasts",
        "60 days without a forecast. cannot be told: no days", "too many: days were worse than forecast",
        "Days worse than forecast: BTC/USDT", "By year and by state of the market", "falling, calm", "Profit, costs and turnover",
        "What if", "50.0% of equity at 2021-11-14 00:00:00", "covid 2020", "cannot be told: 0 of 16 days are there",
        "the source never spoke about a known outcome", "977.41", "cryptoalpha explain EVENT", "As told last, at 2021-11-12 12:00:00 UTC",
        "fraction of the peak", "entries an hour", "daily marks; ", "−6.50", "0.002",
    ],
)  # fmt: skip
def test_the_page_says_of_risk(page, words):
    assert words in page.text


def test_an_exceeded_limit_has_negative_headroom_and_a_full_bar(content):
    metrics = metrics_of(content)
    assert look_up(metrics, ("risk", "limits", "1", "left")) == pytest.approx(-0.07)
    assert [width for _, width in limit_rows(content)] == [70.0, 140.0, 4.7]


def test_content_of_an_earlier_version_has_no_risk_and_says_so(content):
    old = dataclasses.replace(content, risk=None, tail=None, stress=None, years=(), regimes=(), instruments=())
    assert "Not recorded in this run" in Page(build_report(old)).text
    calm = dataclasses.replace(content, risk=RiskRecord(), stress=StressStudy(None))
    for words in (
        "No limit cut a size",
        "No rung of the drawdown ladder was touched",
        "No detector raised an alarm",
        "Nothing was ever held",
    ):
        assert words in Page(build_report(calm)).text


def test_risk_is_stored_and_read_back(content):
    again = load_content(dump_content(content))
    assert again.risk == content.risk
    assert again.stress == content.stress
    assert repr(again.source_skill) == repr(content.source_skill)
    assert repr(again.tail.tests) == repr(content.tail.tests)
    assert np.array_equal(again.tail.series[0].returns, content.tail.series[0].returns)
    assert repr(again.years) == repr(content.years)


def test_a_simulated_run_is_called_simulated_first_thing():
    page = Page(build_report(make_content(simulated=True, days=60, hours=100)))
    assert page.text.index("SIMULATED: simulated market of 8 assets, edge planted") < page.text.index("What this run shows")
    assert "(SIMULATED)" in page.text


def test_text_from_data_cannot_become_markup(content):
    evil = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
    trade = dataclasses.replace(content.trades[0], reason=evil, instrument=evil)
    card = dataclasses.replace(content.card, name=evil, data_origin=evil, command=evil)
    weights = WeightHistory((evil,), np.array([START, START + DAY]), np.ones((2, 1)))
    html = build_report(dataclasses.replace(content, card=card, trades=(trade,), source_weights=weights, notes=(evil,)))
    page = Page(html)
    assert page.handlers == []
    assert "img" not in page.tags
    assert len([name for name in page.scripts if name.startswith("code")]) == 3
    assert evil in page.text
    assert json.loads(page.scripts["metrics"])["card"]["name"] == evil


def test_a_bare_run_says_what_is_missing_and_what_makes_it(content):
    bare = ReportContent(
        card=dataclasses.replace(content.card, cost_model=(), journal_digest="", command=""),
        comparison=compare(content.strategy, {}, trials=1, resamples=100),
        strategy=content.strategy,
        baselines={},
        costs=content.costs,
    )
    text = Page(build_report(bare)).text
    for words in (
        "No baseline was compared",
        "cryptoalpha audit",
        "No trade was made",
        "No order was refused",
        "free of costs",
        "cryptoalpha data list",
    ):
        assert words in text


def test_a_short_run_prints_dashes_and_reasons():
    page = Page(build_report(make_content(days=10, hours=1)))
    assert "Undefined (–): sharpe ratio of strategy, 10 returns, fewer than the 30 it needs" in page.text
    assert "Fewer than two points: nothing to draw." in page.text
    assert "nan" not in page.text.lower()


def test_several_runs_are_overlaid_and_set_side_by_side():
    runs = [make_content(seed=k, days=200, hours=500, name=f"run {k}") for k in range(3)]
    html = build_report(runs)
    page = Page(html)
    assert "Side by side" in page.text
    assert html.count("<figure data-chart=") == 1 + 3 * 4
    assert [line["name"] for line in json.loads(page.scripts["overlay"])["lines"]] == ["run 0", "run 1", "run 2", "hold (baseline)"]
    assert len(json.loads(page.scripts["metrics"])) == 3
    assert {where.split("/")[0] for _, where, _ in page.numbers} == {"0", "1", "2"}
    assert len(html.encode()) < 1_000_000
    assert len(page.ids) == len(set(page.ids))


def test_five_full_runs_still_fit_in_a_megabyte():
    run = make_content()
    assert len(build_report([run] * 5).encode()) < 1_000_000


def test_no_runs_or_too_many_are_refused(content):
    with pytest.raises(ConfigError, match="1 to 5 runs, not 0"):
        build_report([])
    with pytest.raises(ConfigError, match="not 6"):
        build_report([content] * 6)


def test_content_that_contradicts_itself_is_refused(content):
    with pytest.raises(ConfigError, match="equity curves"):
        dataclasses.replace(content, baselines={})
    with pytest.raises(ConfigError, match="2 times and 1 names"):
        WeightHistory(("a",), np.array([1, 2]), np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="2 times, 1 returns"):
        TailSeries("a", "normal", np.array([1, 2]), np.zeros(1), np.zeros(2))
    with pytest.raises(ConfigError, match="NaN"):
        WeightHistory(("a",), np.array([1]), np.array([[np.nan]]))
