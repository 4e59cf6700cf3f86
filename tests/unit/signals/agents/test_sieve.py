"""The sieve: language, relevance, repeats, authors, reach."""

from __future__ import annotations

import math

import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Post
from cryptoalpha.signals.agents.config import OFF, SieveConfig
from cryptoalpha.signals.agents.sieve import Sieve

DISTINCT = ("Bitcoin rallies on inflows", "Ether slides after a hack", "Solana halts for hours", "Ripple wins in court", "Doge doubles")


def post(text, known_at=0, **changes):
    return Post(happened_at=known_at, known_at=known_at, post_id="1", source="x", text=text, **changes)


def test_the_threshold_is_where_relevance_begins_to_count():
    sieve = Sieve(SieveConfig(relevance_threshold=0.3))
    assert [sieve.weigh(post(text), relevance) for text, relevance in zip(DISTINCT, (0.29, 0.3, 0.9), strict=False)] == [0.0, 1.0, 1.0]
    assert sieve.verdicts == {"counted": 2, "language": 0, "irrelevant": 1, "repeat": 0, "author": 0}


def test_a_language_nobody_reads_does_not_count_one_that_is_not_told_does():
    sieve = Sieve()
    assert [sieve.weigh(post(DISTINCT[i], language=language), 1.0) for i, language in enumerate(("de", "", "en"))] == [0.0, 1.0, 1.0]


def test_a_repeat_counts_again_after_the_days_it_is_looked_for():
    sieve = Sieve(SieveConfig(repeat_days=1.0))
    assert [sieve.weigh(post(DISTINCT[0], moment), 1.0) for moment in (0, DAY - 1, DAY)] == [1.0, 0.0, 1.0]


def test_an_author_counts_so_often_within_the_hours_and_then_again():
    sieve = Sieve(SieveConfig(posts_per_author=2, author_hours=24.0))
    said = [sieve.weigh(post(text, HOUR * i, author="a", reach=1e6), 1.0) for i, text in enumerate(DISTINCT[:3])]
    assert said == [1.0, 1.0, 0.0]
    assert sieve.weigh(post(DISTINCT[3], DAY, author="a", reach=1e6), 1.0) == 1.0  # the first is a day old
    assert sieve.weigh(post(DISTINCT[4], DAY, author="b", reach=1e6), 1.0) == 1.0  # another author


def test_what_the_cap_stops_is_not_remembered_and_hides_nothing():
    sieve = Sieve(SieveConfig(posts_per_author=1))
    assert sieve.weigh(post(DISTINCT[0], 0, author="a", reach=1e6), 1.0) == 1.0
    assert sieve.weigh(post(DISTINCT[1], 1, author="a", reach=1e6), 1.0) == 0.0
    assert sieve.weigh(post(DISTINCT[1], 2, author="b", reach=1e6), 1.0) == 1.0


@pytest.mark.parametrize(
    ("author", "reach", "weight"),
    [
        ("", 0.0, 1.0),  # a newspaper: nobody says who and how many
        ("a", 0.0, 0.1),  # an account that nobody follows
        ("a", 99.0, math.log(100.0) / math.log1p(10_000.0)),
        ("a", 10_000.0, 1.0),
        ("a", 1e9, 1.0),
        ("", 99.0, math.log(100.0) / math.log1p(10_000.0)),
        ("a", math.nan, 0.1),  # a number that is none says nothing
        ("a", math.inf, 0.1),
        ("a", -5.0, 0.1),
    ],
)
def test_reach_weighs_by_its_logarithm(author, reach, weight):
    assert Sieve().weigh(post(DISTINCT[0], author=author, reach=reach), 1.0) == pytest.approx(weight)


def test_who_repeats_himself_weighs_less():
    sieve = Sieve()
    said = [sieve.weigh(post(text, i, author="a", reach=1e4), 1.0) for i, text in enumerate((DISTINCT[0], DISTINCT[0], DISTINCT[1]))]
    assert said == [1.0, 0.0, 0.5]


def test_each_repeat_weighs_on_him_until_the_hours_are_over():
    sieve = Sieve(SieveConfig(author_hours=24.0, posts_per_author=0, least_weight=0.01))
    said = [sieve.weigh(post(DISTINCT[0], HOUR * i, author="a", reach=1e4), 1.0) for i in range(4)]
    assert said == [1.0, 0.0, 0.0, 0.0]
    assert sieve.weigh(post(DISTINCT[1], 4 * HOUR, author="a", reach=1e4), 1.0) == 1 / 4
    assert sieve.weigh(post(DISTINCT[2], 2 * HOUR + DAY, author="a", reach=1e4), 1.0) == 1 / 2  # one of them is younger than a day


def test_the_same_name_at_two_publishers_is_two_authors():
    sieve = Sieve(SieveConfig(posts_per_author=1))
    said = [sieve.weigh(Post(happened_at=0, known_at=0, post_id="1", source=source, text=text, author="a", reach=1e4), 1.0)
            for source, text in (("x", DISTINCT[0]), ("reddit", DISTINCT[1]), ("x", DISTINCT[2]))]  # fmt: skip
    assert said == [1.0, 1.0, 0.0]


def test_of_too_many_authors_the_one_heard_least_recently_is_forgotten(monkeypatch):
    monkeypatch.setattr("cryptoalpha.signals.agents.sieve.AUTHORS", 2)
    sieve = Sieve(SieveConfig(posts_per_author=1, near_duplicate=1.0))
    said = [sieve.weigh(post(DISTINCT[0], i, author=author, reach=1e4), 1.0) for i, author in enumerate("abacab")]
    assert said == [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]  # c takes the place of b, because a was heard after him


def test_switched_off_everything_weighs_one():
    sieve = Sieve(OFF)
    assert sieve.is_off
    assert [sieve.weigh(post("x", author="a", language="de"), 0.0) for _ in range(9)] == [1.0] * 9
    assert not Sieve().is_off
