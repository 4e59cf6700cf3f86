"""The tone of texts, and what they speak of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.signals.text.lexicon import mentions, read_words, tone, tone_of

BOOK = ("BTC", "ETH", "LINK", "SOL", "BCH", "SIM1")


def scale(total: float) -> float:
    return total / math.sqrt(total * total + 15.0)


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("Bitcoin rises", 1.5),
        ("Bitcoin sharply rises", 1.5 * 1.4),
        ("Bitcoin rises sharply", 1.5 * 1.4),
        ("Bitcoin may rise slightly", 1.5 * 0.55 * 0.55),
        ("Bitcoin did not rise", -0.74 * 1.5),
        ("Profit rises", 1.5),  # the movement speaks for its noun
        ("Profit falls", -1.5),
        ("Losses fall", 1.5),
        ("Losses grew no worse; inflation falls", 1.5 - 1.6 + 1.4 - 0.74 * -1.4),
        ("Losses", -1.6),
        ("Will bitcoin rise?", 0.5 * 1.5),
        ("Bitcoin rises despite hack", 1.5 + 0.2 * -3.2),
        ("Despite hack, bitcoin rises", 0.2 * -3.2 + 1.5),
        ("Bitcoin rises but analysts warn", 0.5 * 1.5 + 1.5 * -2.0),
        ("New all-time high", 3.2),
        ("new ALL TIME HIGH", 3.2),
        ("BTC +5%, ETH -2%", 1.5 - 1.5),
        ("sign up to read", 0.0),
    ],
)
def test_tone_follows_the_rules(text, total):
    assert tone_of(text) == pytest.approx(scale(total), abs=1e-12)


@pytest.mark.parametrize("text", ["", "   ", "?!.", "The meeting is on Tuesday", "比特币", "12,345.67 $ %", "\x00\ud800"])
def test_texts_without_a_known_word_have_no_tone(text):
    assert tone_of(text) == 0.0


def test_a_list_of_texts_gives_an_array():
    assert tone(["Bitcoin rises", "nothing"]).tolist() == [tone_of("Bitcoin rises"), 0.0]
    assert tone([]).shape == (0,)
    assert tone([]).dtype == np.float64


def test_negation_reaches_three_words_and_no_further():
    assert tone_of("not a quiet rally") < 0.0
    assert tone_of("not one of the many who rally") > 0.0


@pytest.mark.parametrize(
    ("text", "assets"),
    [
        ("Bitcoin and ether fall", ("BTC", "ETH")),
        ("BTCUSD chart", ()),
        ("the link in bio", ()),
        ("LINK rallies", ("LINK",)),
        ("buy $link and $sol", ("LINK", "SOL")),
        ("Bitcoin Cash forks", ("BCH",)),
        ("Solana's outage; ETH-based", ("ETH", "SOL")),
        ("SIM1 hack", ("SIM1",)),
        ("Sim1 hack", ()),
        ("Bİtcoin", ()),
        ("markets fall", ()),
    ],
)
def test_mentions_names_the_assets_of_the_book(text, assets):
    assert mentions(text, BOOK) == assets


def test_an_empty_book_is_never_mentioned():
    assert mentions("Bitcoin", ()) == ()


def test_endings_multiply_a_stem_and_the_first_meaning_stays():
    words = read_words("# a comment\n[tone 2]\nris/e/es up, gain\n[tone -2]\ngain//s\n")
    assert {term.words: term.weight for terms in words.values() for term in terms} == {
        ("rise", "up"): 2.0,
        ("rises", "up"): 2.0,
        ("gain",): 2.0,
        ("gains",): -2.0,
    }


@pytest.mark.parametrize("text", ["[mood 2]\nhappy\n", "happy, sad\n"])
def test_a_malformed_word_list_is_refused(text):
    with pytest.raises(ConfigError):
        read_words(text)
