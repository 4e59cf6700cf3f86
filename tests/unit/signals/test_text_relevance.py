"""Which texts concern a book, by hand-written examples and real headlines and tweets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.signals.config import TextConfig
from cryptoalpha.signals.text.relevance import relevance

BOOK = ("BTC", "ETH", "SOL")
THRESHOLD = TextConfig().relevance_threshold

READ = [
    "Bitcoin Drops Below $40K for First Time Since September",
    "Ethereum developers delay the merge",
    "SOL down 12% after network outage",
    "$eth looking weak here",
    "Crypto Exchange FTX Files for Bankruptcy",
    "Tether loses its peg",
    "SEC sues Coinbase and Binance",
    "Fed raises interest rates by 75 basis points",
    "Silicon Valley Bank collapse sends stocks falling",
    "Stablecoin issuer Circle has $3.3B of its reserves stuck at SVB",
    "Whales move 10,000 coins to exchanges",
    "Inflation falls more than expected, futures rally",
    "Miners sell as hash rate falls",
]
LEFT = [
    "",
    "🚀🚀🚀",
    "gm",
    "good morning everyone, have a great day",
    "Apple unveils a new phone",
    "My cat is sleeping on the sofa again",
    "GIVEAWAY! Follow me and retweet to win 1 BTC",
    "Join our telegram group for free signals, promo code MOON",
    "Happy birthday to my best friend",
    "The chef cooked dinner in the kitchen",
    "Play dice and win a free bitcoin spin, sign up with my referral link",
    "The football match ended in a draw",
]


@pytest.mark.parametrize("text", READ)
def test_what_an_agent_must_read(text):
    assert relevance(text, BOOK) >= THRESHOLD


@pytest.mark.parametrize("text", LEFT)
def test_what_an_agent_may_leave(text):
    assert relevance(text, BOOK) < THRESHOLD


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We talked about SOL all day", 0.7),
        ("We talked about BTC all day", 1.0 - 0.3 * 0.65),  # an asset of the book, and a word of crypto
        ("We talked about BTC and ETH all day", 1.0 - 0.3 * 0.3 * 0.65),
        ("We talked about a blockchain all day", 0.35),
        ("We talked about the treasury all day", 0.2),
        ("We talked about dinner all day", 0.0),
        ("ETH today", 0.6 * 0.7),
        ("We talked about SOL all day, subscribe now", 0.35 * 0.7),
    ],
)
def test_the_rule_by_hand(text, expected):
    assert relevance(text, BOOK) == pytest.approx(expected, abs=1e-12)


def test_naming_an_asset_counts_only_for_its_book():
    text = "We talked about Cardano all day"
    assert relevance(text, ("ADA",)) == pytest.approx(0.7)
    assert relevance(text, BOOK) == 0.0


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=300))
def test_any_text_has_a_relevance_between_0_and_1(text):
    assert 0.0 <= relevance(text, BOOK) <= 1.0


def test_real_news_of_crypto_is_read_and_news_of_companies_is_mostly_left(market_data):
    """Shares at the default threshold: crypto news > 90 %, tweets of a crypto search > 50 %, company reports < 25 %."""
    import duckdb

    def share(query: str) -> float:
        texts = [row[0] for row in duckdb.sql(query).fetchall()]
        assert len(texts) == 1500
        return sum(relevance(text, ("BTC", "ETH", "XRP", "ADA", "SOL", "DOGE", "LTC", "LINK")) >= THRESHOLD for text in texts) / len(texts)

    crypto = share(f"select title || '. ' || text from '{market_data}/text/cryptonews_titles_202110_202207.parquet' limit 1500")
    tweets = share(f"select text from '{market_data}/text/tweets_202303_svb.parquet' limit 1500")
    companies = share(f"select text from '{market_data}/text_labelled/financial_phrasebank.parquet' limit 1500")
    assert crypto > 0.9
    assert tweets > 0.5
    assert companies < 0.25
