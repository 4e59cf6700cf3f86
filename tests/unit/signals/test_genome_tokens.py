"""Each of the 16 tokens appears at the very bar that a handmade market gives it, not before, and not where its rule is nearly met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.base_rates import base_rates, rates_table
from cryptoalpha.signals.genome.price_tokens import PriceEvidence, memory_of
from cryptoalpha.signals.genome.text_tokens import speaks_of_regulation
from cryptoalpha.signals.genome.tokens import genome_tokens
from cryptoalpha.signals.genome.vocabulary import NAMES, TOKENS, V, markdown_table
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import BarTable, Dataset, PostTable, ReadingTable

START = 20_000 * DAY
N, QUIET, BAR = 700, 600, 650
"""Bars; from where on the price stands almost still; the bar at which it happens."""

DOCS = Path(__file__).resolve().parents[3] / "docs" / "genome.md"
Posts = list[tuple[int, str]]
Readings = dict[str, list[tuple[int, float]]]


@dataclass
class Market:
    """Hourly bars of one asset around a price of 100: noise, then silence. Whoever makes one changes single bars of it."""

    close: np.ndarray = field(default_factory=lambda: np.empty(0))
    posts: Posts = field(default_factory=lambda: [(START + k * DAY, f"Nothing is going on, day {k}") for k in range(27)])
    readings: Readings = field(default_factory=dict)

    def __post_init__(self) -> None:
        noise = np.random.default_rng(7)
        self.close = 100.0 * np.exp(np.where(np.arange(N) < QUIET, 0.01 * noise.uniform(-2.0, 2.0, N), 1e-5 * (-1.0) ** np.arange(N)))
        self.volume = np.exp(0.1 * (np.arange(N) % 3 - 1.0))
        self.taker = 0.5 * self.volume * (1.0 + 0.01 * (np.arange(N) % 5 - 2.0))
        self.up, self.down = np.full(N, 0.002), np.full(N, 0.002)  # wicks beyond the body

    def jump(self, bar: int, factor: float) -> None:
        """All closes from this bar on times `factor`."""
        self.close[bar:] *= factor

    def frame(self) -> Frame:
        open_ = np.concatenate(([100.0], self.close[:-1]))
        high, low = np.maximum(open_, self.close) * (1.0 + self.up), np.minimum(open_, self.close) * (1.0 - self.down)
        time = START + HOUR * np.arange(N)
        table = BarTable("BTC/USDT", HOUR, time, open_, high, low, self.close, self.volume, self.taker)
        stamps = np.array([known for known, _ in self.posts], np.int64)
        texts, ids = (np.array(column, object) for column in ([text for _, text in self.posts], [f"p{i}" for i in range(len(stamps))]))
        posts = {"feed": PostTable("feed", stamps, stamps, texts, ids)} if self.posts else {}
        readings = {}
        for metric, rows in self.readings.items():
            known, value = (np.array(column) for column in zip(*rows, strict=True))
            readings["BTC", metric] = ReadingTable("BTC", metric, "hand", known.astype(np.int64) - DAY, known.astype(np.int64), value)
        dataset = Dataset("by hand", {"BTC/USDT": table}, readings, posts)
        return Frame(build_panel(dataset, since=0, until=2**62), dataset)


def column(market: Market, name: str) -> np.ndarray:
    return genome_tokens(market.frame()).tokens[:, 0, NAMES.index(name)]


def missing(market: Market, name: str) -> np.ndarray:
    return genome_tokens(market.frame()).missing[:, 0, NAMES.index(name)]


def close_of(bar: int) -> int:
    """When a bar closes."""
    return START + HOUR * (bar + 1)


def daily(days: int, last: float, at: int) -> list[tuple[int, float]]:
    """Readings of so many days that wander around 100, the last one known at `at`."""
    wander = 100.0 + np.random.default_rng(1).uniform(-5.0, 5.0, days)
    return [(at - (days - k) * DAY, float(value)) for k, value in enumerate(wander)] + [(at, last)]


def price_increase(m: Market) -> None:
    m.jump(BAR, 1.02)


def price_decrease(m: Market) -> None:
    m.jump(BAR, 0.98)


def high_volume(m: Market) -> None:
    m.volume[BAR] = 10.0


def low_volume(m: Market) -> None:
    m.volume[BAR] = 0.1


def silent_bar(m: Market) -> None:
    m.volume[BAR] = 0.0


def volatility_spike(m: Market) -> None:
    m.jump(BAR, 1.2)


def consolidation(m: Market) -> None:
    m.up[BAR - 24] = 0.03  # the wide bar leaves the window of 24 at BAR


def breakout(m: Market) -> None:
    m.jump(BAR, 1.05)


def breakdown(m: Market) -> None:
    m.jump(BAR, 0.95)


def accumulation(m: Market) -> None:
    m.up[BAR], m.down[BAR], m.volume[BAR] = 0.0, 0.004, 50.0  # closes at its high in a heavy bar that goes nowhere


def distribution(m: Market) -> None:
    m.up[BAR], m.down[BAR], m.volume[BAR] = 0.004, 0.0, 50.0


def news_positive(m: Market) -> None:
    m.posts.append((close_of(BAR), "Bitcoin surges to a record high"))


def news_negative(m: Market) -> None:
    m.posts.append((close_of(BAR - 1) + 1, "Bitcoin exchange hacked, funds stolen"))


def whale_movement(m: Market) -> None:
    m.readings["whale_transfers"] = daily(120, 130.0, close_of(BAR))


def whales_at_exchanges(m: Market) -> None:
    m.readings["exchange_inflow_usd"] = daily(120, 100.0, close_of(BAR))
    m.readings["exchange_outflow_usd"] = daily(120, 130.0, close_of(BAR))


def fomo_of_posts(m: Market) -> None:
    m.jump(BAR - 10, 1.2)
    m.posts += [(close_of(BAR) - k, f"Bitcoin rally number {k} surges to a record high") for k in range(3, 0, -1)]


def fomo_of_funding(m: Market) -> None:
    m.jump(BAR - 10, 1.2)
    times = [close_of(BAR) - 8 * HOUR * k for k in range(270, 0, -1)]
    m.readings["funding_rate"] = [(t, 1e-4 + 1e-5 * (k % 7)) for k, t in enumerate(times)] + [(close_of(BAR), 5e-4)]


def institutions_in_bars(m: Market) -> None:
    m.volume[BAR], m.taker[BAR] = 10.0, 9.0


def institutions_on_chain(m: Market) -> None:
    m.readings["exchange_inflow_usd"] = daily(120, 100.0, close_of(BAR))
    m.readings["exchange_outflow_usd"] = [(t, 100.0) for t, _ in m.readings["exchange_inflow_usd"][:-1]] + [(close_of(BAR), 150.0)]
    m.readings["market_cap_usd"] = [(t, 1e4) for t, _ in m.readings["exchange_inflow_usd"]]


def regulatory_news(m: Market) -> None:
    m.posts.append((close_of(BAR), "SEC opens a case against an exchange"))


CASES: list[tuple[str, Callable[[Market], None]]] = [
    *((make.__name__, make) for make in (price_increase, price_decrease, high_volume, low_volume, volatility_spike, consolidation)),
    *((make.__name__, make) for make in (breakout, breakdown, accumulation, distribution, news_positive, news_negative)),
    *((make.__name__, make) for make in (whale_movement, regulatory_news)),
    ("low_volume", silent_bar), ("whale_movement", whales_at_exchanges), ("retail_fomo", fomo_of_posts), ("retail_fomo", fomo_of_funding),
    ("institutional_entry", institutions_in_bars), ("institutional_entry", institutions_on_chain),
]  # fmt: skip


@pytest.mark.parametrize(("token", "happen"), CASES, ids=[make.__name__ for _, make in CASES])
def test_a_token_appears_at_its_bar_and_not_before(token, happen):
    market, before = Market(), Market()
    happen(market)
    on, otherwise = column(market, token), column(before, token)
    assert on[BAR]
    assert not on[BAR - 20 : BAR].any()
    assert not otherwise[BAR] or token == "consolidation", "it must be the event that turns it on"
    assert not missing(market, token)[BAR]


def test_a_wide_bar_keeps_24_bars_from_being_a_consolidation():
    market = Market()
    market.up[BAR - 23] = 0.03
    assert not column(market, "consolidation")[BAR]
    assert column(market, "consolidation")[BAR + 1]


def test_every_token_has_a_case():
    assert {token for token, _ in CASES} == set(NAMES)
    assert len(NAMES) == V == 16
    assert NAMES[2] == "high_volume"
    assert NAMES[8:10] == ("accumulation", "distribution")
    assert NAMES[12:] == ("whale_movement", "retail_fomo", "institutional_entry", "regulatory_news")


@pytest.mark.parametrize(("share", "expected"), [(0.5 + 1e-9, True), (0.5 - 1e-9, False)])
def test_half_a_volatility_of_the_bar_before_is_the_border_of_a_price_increase(share, expected):
    market = Market()
    sigma = Market().frame().sigma[BAR - 1, 0]
    market.close[BAR:] = market.close[BAR - 1] * np.exp(share * sigma)
    assert column(market, "price_increase")[BAR] == expected


@pytest.mark.parametrize(("nudge", "expected"), [(1e-9, True), (-1e-9, False)])
def test_a_quarter_of_the_range_above_the_highest_high_is_the_border_of_a_breakout(nudge, expected):
    bars = Market().frame().bars[0]
    ceiling = bars.high[BAR - 64 : BAR].max() + 0.25 * bars.atr[BAR - 1]
    market = Market()
    market.close[BAR:] = ceiling * (1.0 + nudge)
    assert column(market, "breakout")[BAR] == expected


def test_accumulation_needs_a_flat_price():
    market = Market()
    accumulation(market)
    market.jump(BAR, 1.3)
    assert not column(market, "accumulation")[BAR]


def test_a_crowd_without_a_rise_is_no_fomo_and_a_rise_without_a_crowd_is_none():
    talk, rise = Market(), Market()
    fomo_of_posts(talk)
    talk.jump(BAR - 10, 1.0 / 1.2)
    rise.jump(BAR - 10, 1.2)
    assert not column(talk, "retail_fomo")[BAR]
    assert not column(rise, "retail_fomo").any()


def test_a_text_belongs_to_the_bar_in_which_it_became_known():
    market = Market(posts=[(START, "Quiet"), (close_of(BAR) + 1, "Bitcoin surges to a record high")])
    on = column(market, "news_positive")
    assert np.flatnonzero(on).tolist() == [BAR + 1]


def test_a_repeated_text_is_no_news_and_one_about_another_asset_is_not_ours():
    twice = [(close_of(BAR - 5), "Bitcoin surges to a record high"), (close_of(BAR), "Bitcoin surges to a record high")]
    assert np.flatnonzero(column(Market(posts=twice), "news_positive")).tolist() == [BAR - 5]


def test_an_absent_source_leaves_its_tokens_off_and_says_so():
    market = Market(posts=[])
    market.taker[:] = np.nan
    sets = genome_tokens(market.frame())
    absent = [NAMES[k] for k in np.flatnonzero(sets.missing[BAR, 0])]
    assert absent == ["news_positive", "news_negative", "whale_movement", "retail_fomo", "institutional_entry", "regulatory_news"]
    assert not (sets.tokens & sets.missing).any()


def test_a_feed_that_has_been_silent_for_a_week_counts_as_missing():
    market = Market(posts=[(close_of(300), "Bitcoin surges to a record high")])
    gone = np.flatnonzero(missing(market, "news_positive"))
    assert gone.tolist() == [*range(300), *range(300 + 7 * 24, N)]


def test_a_reading_stands_for_three_days():
    market = Market(readings={"whale_transfers": daily(120, 100.0, close_of(500))})
    gone = np.flatnonzero(missing(market, "whale_movement"))
    assert gone.tolist() == list(range(500 + 3 * 24 + 1, N))


def test_while_history_is_short_tokens_are_missing_and_not_off():
    market = Market()
    assert missing(market, "high_volume")[:76].all()
    assert not missing(market, "high_volume")[78:].any()
    assert missing(market, "accumulation")[:400].all()


def test_an_absent_bar_has_neither_tokens_nor_missing_sources():
    frame = Market().frame()
    table = frame.dataset.bars["BTC/USDT"]
    kept = table.take(np.delete(np.arange(N), BAR))
    dataset = Dataset("by hand", {"BTC/USDT": kept}, posts=frame.dataset.posts)
    sets = genome_tokens(Frame(build_panel(dataset, since=0, until=2**62), dataset))
    assert sets.tokens.shape == (N, 1, 16), "one set per bar"
    assert not sets.tokens[BAR].any()
    assert not sets.missing[BAR].any()


def test_a_silent_bar_is_compared_with_the_bars_that_traded():
    market = Market()
    market.volume[BAR - 30 : BAR] = 0.0
    z = PriceEvidence(market.frame().bars[0], memory_of(HOUR)).volume_z
    assert np.isneginf(z[BAR - 15])
    assert np.isnan(z[BAR]), "30 of 96 bars did not trade: too few left to say what is usual"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SEC sues exchange", True),
        ("the second of the year", False),
        ("a few sec later", False),
        ("MiCA comes into force", True),
        ("Micah buys", False),
        ("New Licence for a bank", True),
        ("license granted", True),
        ("urban banks", False),
        ("China bans mining", True),
        ("Regulators meet", True),
    ],
)
def test_words_of_regulation(text, expected):
    assert speaks_of_regulation(text) == expected


def test_base_rates_count_what_could_be_told_and_warn_of_the_rare():
    market = Market()
    high_volume(market)
    frame = market.frame()
    rates = {rate.token: rate for rate in base_rates(frame.panel, genome_tokens(frame), edges=(0, 2**62))}
    volume = rates["high_volume"]
    assert (volume.on, volume.told, volume.bars) == (1, N - 77, N)
    assert volume.rate == pytest.approx(1 / (N - 77))
    assert volume.warning == ""
    assert rates["institutional_entry"].warning == "rarer than 0.1%"
    assert rates["whale_movement"].warning == "no source"
    assert np.isnan(rates["whale_movement"].rate)
    table = rates_table(tuple(rates.values()))
    assert "| high_volume | 0.16% |" in table
    assert "warning: whale_movement from 1970-01-01: no source" in table


def test_the_printed_table_is_the_one_in_the_documentation():
    assert markdown_table() in DOCS.read_text(encoding="utf-8")
    assert all(token.rule and token.needs for token in TOKENS)
