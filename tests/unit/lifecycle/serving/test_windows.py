"""Windows of bars: both forms say the same, and nothing that is not one gets through."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.lifecycle.serving.faults import MalformedWindowError
from cryptoalpha.lifecycle.serving.windows import BINARY, JSON, as_json, encode_window, newest_rows, pack_arrays, read_window

START = parse_time("2021-01-01")
NOW = START + 100 * HOUR


@pytest.fixture(scope="module")
def market():
    """Three assets; one lacks bars in the midst, one begins late."""
    made = simulate(SimulatedConfig(assets=3, bars=80, start="2021-01-01", posts_per_day=6.0), seed=3).dataset
    names = sorted(made.bars)
    rows = np.arange(80)
    bars = {**made.bars, names[1]: made.bars[names[1]].take((rows < 40) | (rows > 43)), names[2]: made.bars[names[2]].take(rows >= 30)}
    return replace(made, bars=bars)


@pytest.mark.parametrize(("media", "encode"), [(JSON, as_json), (BINARY, encode_window)])
def test_both_forms_give_back_every_bar_and_every_text(media, encode, market):
    window = read_window(encode(market), media, now=NOW)
    assert (window.interval, window.newest, window.rows) == (HOUR, START + 79 * HOUR, 80)
    assert sorted(window.dataset.bars) == sorted(market.bars)
    for name, table in market.bars.items():
        found = window.dataset.bars[name]
        for column in ("open_time", "open", "high", "low", "close", "volume", "taker_buy_volume", "known_at"):
            np.testing.assert_array_equal(getattr(found, column), getattr(table, column), err_msg=f"{name} {column}")
    for source, posts in market.posts.items():
        found = window.dataset.posts[source]
        assert (found.text.tolist(), found.known_at.tolist()) == (posts.text.tolist(), posts.known_at.tolist())
    assert {key: table.value.tolist() for key, table in window.dataset.readings.items()} == {
        key: table.value.tolist() for key, table in market.readings.items() if len(table)
    }


def test_a_client_sends_the_bar_it_asks_about_and_those_before_it(market):
    sent = newest_rows(market, START + 50 * HOUR, 12)
    window = read_window(encode_window(sent), BINARY, now=NOW)
    assert (window.newest, window.rows) == (START + 49 * HOUR, 12)


def changed(market, **columns):
    """A body whose first asset's columns are changed: name → (row, value)."""
    content = json.loads(as_json(market))
    bars = content["bars"][min(content["bars"])]
    for name, (row, value) in columns.items():
        bars[name][row] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"close": (5, -1.0)}, "impossible_value"),
        ({"high": (5, 0.001)}, "impossible_range"),
        ({"open_time": (5, START + 4 * HOUR)}, "duplicate"),
        ({"open_time": (5, START + 1)}, "off_grid"),
        ({"taker_buy_volume": (5, 1e12)}, "taker_volume"),
    ],
)
def test_bars_that_cannot_be_are_refused_by_name(columns, word, market):
    with pytest.raises(MalformedWindowError, match=word):
        read_window(changed(market, **columns), JSON, now=NOW)


def test_a_bar_that_has_not_closed_is_refused(market):
    body, closes = encode_window(market), START + 80 * HOUR
    assert read_window(body, BINARY, now=closes).newest == START + 79 * HOUR
    with pytest.raises(MalformedWindowError, match="open_bar"):
        read_window(body, BINARY, now=closes - 1)


def test_binary_bodies_that_lie_about_their_arrays_are_refused(market):
    times, ones = np.arange(3) * HOUR, np.ones((3, 1))
    sound = {"open_time": times, **dict.fromkeys(("open", "high", "low", "close", "volume"), ones)}
    request = '{"interval":"1h","instruments":["A/B"]}'
    assert read_window(pack_arrays(sound, request), BINARY, now=NOW).rows == 3
    half = np.where(np.arange(3)[:, None] == 1, np.nan, ones)
    for arrays, said, word in (
        ({**sound, "open": np.ones((2, 1))}, request, "must be F64"),
        ({**sound, "secret": ones}, request, "unknown secret"),
        ({name: each for name, each in sound.items() if name != "volume"}, request, "missing volume"),
        ({**sound, "volume": half}, request, "bars with only some"),
        ({**sound, **dict.fromkeys(("open", "high", "low", "close", "volume"), np.full((3, 1), np.nan))}, request, "no bar"),
        ({**sound, "open_time": times.astype(float)}, request, "open_time must be I64"),
        (sound, '{"interval":"1h","instruments":["A/B","A/B"]}', "twice"),
        (sound, '{"interval":"0h","instruments":["A/B"]}', "cannot be read"),
    ):
        with pytest.raises(MalformedWindowError, match=word):
            read_window(pack_arrays(arrays, said), BINARY, now=NOW)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_body_with_any_bytes_changed_is_read_or_refused_and_nothing_else(data, market):
    """Cut off, lengthened or overwritten anywhere, in either form."""
    media, body = data.draw(st.sampled_from([(JSON, as_json(market)), (BINARY, encode_window(market))]))
    wounded = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, min(2_000, len(wounded) - 1)), st.integers(0, len(wounded) - 1)))
        wounded[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(wounded), len(wounded), data.draw(st.integers(0, len(wounded)))]))
    try:
        window = read_window(bytes(wounded[:cut]), media, now=NOW)
    except MalformedWindowError:
        return
    assert 1 <= window.rows <= 8_192
    assert all(np.isfinite(table.close).all() for table in window.dataset.bars.values())


@given(body=st.binary(max_size=300), media=st.sampled_from([JSON, BINARY, "text/plain"]))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused(body, media):
    with pytest.raises(MalformedWindowError):
        read_window(body, media, now=NOW)
