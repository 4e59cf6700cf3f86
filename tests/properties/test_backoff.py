"""Waits grow, are spread, stay below their limit, and are never shorter than what was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream


@settings(max_examples=50, deadline=None)
@given(
    first=st.floats(0.01, 5.0),
    factor=st.floats(1.0, 1000.0),
    asked=st.lists(st.one_of(st.just(0.0), st.floats(0.0, 300.0)), min_size=1, max_size=80),
    seed=st.integers(0, 1000),
)
def test_each_wait_lies_where_it_must(first, factor, asked, seed):
    limit = first * factor
    backoff, again = (Backoff(first, limit, random=stream(seed, "x")) for _ in range(2))
    for failures, seconds in enumerate(asked):
        assert backoff.failures == failures
        wait = backoff.wait(seconds)
        full = min(limit, first * 2.0**failures)
        assert wait >= max(seconds, full / 2) * (1 - 1e-12)
        assert wait <= max(full, seconds + full / 2) * (1 + 1e-12)
        assert again.wait(seconds) == wait  # the same seed waits the same


def test_waits_double_to_the_limit_and_begin_anew_after_a_success():
    backoff = Backoff(1.0, 10.0, random=stream(1, "x"))
    waits = [backoff.wait() for _ in range(2000)]
    for wait, full in zip(waits, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0], strict=False):
        assert full / 2 <= wait <= full
    late = waits[4:]
    assert sum(late) / len(late) == pytest.approx(7.5, rel=0.02)  # uniform on [5, 10]
    assert len(set(late)) > 1900  # spread: clients that fail together do not return together
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.wait() <= 1.0


def test_a_wait_that_was_asked_for_is_spread_upwards_only():
    waits = [Backoff(1.0, 1.0, random=stream(seed, "x")).wait(60.0) for seed in range(50)]
    assert min(waits) >= 60.0
    assert max(waits) <= 60.5
    assert len(set(waits)) == 50


@pytest.mark.parametrize(("first", "limit"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0)])
def test_waits_without_sense_are_refused(first, limit):
    with pytest.raises(ConfigError, match="first wait"):
        Backoff(first, limit, random=stream(1, "x"))
