"""News tone: ages, mentions, repeats, and what is usual."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.news import NewsTone
from cryptoalpha.signals.text.lexicon import tone_of

BOOK = {"BTC/USDT": [100.0] * 1_000, "ETH/USDT": [100.0] * 1_000}
GOOD, BAD, MARKET = "Bitcoin surges", "Ether hacked", "Markets rally"


def news(**changes: float) -> NewsTone:
    settings = {
        "half_life_hours": 6.0, "window_hours": 24.0, "market_weight": 0.5, "shrinkage": 1.0, "history_days": 30.0, "repeat_days": 7.0,
        "horizon_days": 1.0, "typical_ic": 0.02,
    }  # fmt: skip
    return NewsTone(**{**settings, **changes})


def background(start: int) -> list[tuple[int, str]]:
    """A text about the market every twelve hours, tones that differ, none twice."""
    words = ("gains", "falls", "steady", "rally", "slump")
    return [(start + 12 * HOUR * i, f"Markets {words[i % 5]} on day {'x' * i}") for i in range(83)]


def test_value_is_the_standing_of_the_weighed_tone_among_the_past_month(make_frame, start):
    posts = [*background(start), (start + 990 * HOUR, GOOD), (start + 996 * HOUR, MARKET)]
    frame = make_frame(BOOK, posts={"wire": sorted(posts)})
    formed = news().compute(frame)
    levels = np.full((1_000, 2), np.nan)
    for t in range(1_000):
        at, total, weight = start + (t + 1) * HOUR, np.zeros(2), np.zeros(2)
        for known, text in posts:
            if at - DAY < known <= at:
                relevance = np.array([1.0, 0.0]) if text == GOOD else np.array([0.5, 0.5])
                fresh = 0.5 ** ((at - known) / (6 * HOUR)) * relevance
                total, weight = total + fresh * tone_of(text), weight + fresh
        levels[t] = total / (weight + 1.0)
    window = levels[280:]
    z = (levels[-1] - window.mean(axis=0)) / window.std(axis=0, ddof=1)
    assert formed.value[-1].tolist() == [pytest.approx(math.tanh(v / 2)) for v in z]
    assert formed.value[-1, 0] > formed.value[-1, 1]


def test_the_reference_names_the_newest_text_about_the_asset(make_frame, start):
    posts = [*background(start), (start + 997 * HOUR, GOOD)]
    formed = news().compute(make_frame(BOOK, posts={"wire": posts}))
    names = [formed.references[i] for i in formed.reference[-1]]
    assert names == ["wire:p83", "wire:p82"]


def test_a_text_about_another_asset_does_not_count(make_frame, start):
    quiet, loud = (
        news().compute(make_frame(BOOK, posts={"wire": [*background(start), *extra]})) for extra in ([], [(start + 997 * HOUR, BAD)])
    )
    assert loud.value[-1, 0] == quiet.value[-1, 0]
    assert loud.value[-1, 1] < quiet.value[-1, 1]


def test_a_repeated_text_counts_once_and_again_after_a_week(make_frame, start):
    def after(*extra: tuple[int, str]) -> float:
        return float(news().compute(make_frame(BOOK, posts={"wire": [*background(start), *extra]})).value[-1, 0])

    once = after((start + 996 * HOUR, GOOD))
    assert after((start + 996 * HOUR, GOOD), (start + 998 * HOUR, f" {GOOD.upper()} ")) == once
    assert after((start + 998 * HOUR, GOOD)) > once  # fresher


def test_the_same_text_in_two_sources_counts_once(make_frame, start):
    one = {"wire": [*background(start), (start + 996 * HOUR, GOOD)]}
    two = {**one, "other": [(start + 996 * HOUR, GOOD)]}
    first, second = (news().compute(make_frame(BOOK, posts=posts)).value for posts in (one, two))
    assert first.tobytes() == second.tobytes()


def test_no_text_in_the_last_day_is_no_opinion(make_frame, start):
    formed = news().compute(make_frame(BOOK, posts={"wire": background(start)[:70]}))
    last = 69 * 12 - 1  # the bar whose close is the last text
    assert np.isfinite(formed.value[last : last + 24]).all()
    assert np.isnan(formed.value[last + 24 :]).all()


@pytest.mark.parametrize("posts", [None, {"wire": []}])
def test_without_texts_there_is_no_opinion(posts, make_frame):
    assert np.isnan(news().compute(make_frame(BOOK, posts=posts)).value).all()


def test_confidence_grows_with_the_weight_of_texts(make_frame, start):
    few, many = (
        news().compute(make_frame(BOOK, posts={"wire": [*background(start), *((start + 999 * HOUR, f"{GOOD} {i}") for i in range(n))]}))
        for n in (1, 5)
    )
    # weights at the last close: the market's last text, 16 hours old, at 0.5, and n about bitcoin, one hour old
    market = 0.5 * 0.5 ** (16 / 6)
    for formed, n in ((few, 1), (many, 5)):
        assert formed.confidence[-1, 0] == pytest.approx(1.0 - 0.5 ** ((market + n * 0.5 ** (1 / 6)) / 2.0))
