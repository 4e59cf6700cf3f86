"""Quality of a source in a backtest: the IC it had, how much of the market it spoke about, and how old its opinions were."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cryptoalpha.app.skill import opinion_age, source_skill
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.signals.labels import forward_return
from cryptoalpha.signals.tape import SourceTape

BARS, ASSETS = 400, 6


def tape_of(**values: np.ndarray) -> SimpleNamespace:
    """A random market and sources that look two bars ahead."""
    rng = stream(1, "skill")
    shape = (BARS, ASSETS)
    opened = 100.0 * np.cumprod(1.0 + 0.01 * rng.standard_normal(shape), axis=0)
    at = HOUR * np.arange(1, BARS + 1)
    panel = SimpleNamespace(open=opened, present=np.ones(shape, bool), known_at=at, interval=HOUR)
    nothing = np.zeros(shape)
    sources = [SourceTape(name, "price", 2 * HOUR, value, nothing, nothing, None, (), {}) for name, value in values.items()]
    return SimpleNamespace(panel=panel, sigma=np.full(shape, 0.01), sources=sources)


def test_an_opinion_ages_while_it_is_repeated_and_is_new_when_it_changes():
    nan = np.nan
    value = np.array([[0.1, nan], [0.1, nan], [0.1, 0.5], [0.2, 0.5], [nan, 0.5], [0.2, 0.4]])
    assert opinion_age(value).T.tolist() == [[0, 1, 2, 0, 0, 0], [0, 0, 0, 1, 2, 0]]
    assert opinion_age(np.empty((0, 2))).shape == (0, 2)


def test_quality_is_the_ic_less_silence_and_age():
    market = tape_of()
    outcome = forward_return(market.panel, 2, market.sigma).value
    helpful = np.where(np.isfinite(outcome), outcome, 0.0) + 2.0 * stream(2, "skill").standard_normal(outcome.shape)
    silent_half = np.where(np.arange(BARS)[:, None] % 2, np.nan, helpful)
    held = helpful[np.arange(BARS) // 2 * 2]  # said anew every second bar: ages 0 and 1, half-life 2
    rows = {one.name: one for one in source_skill(tape_of(every=helpful, half=silent_half, held=held), {"every": 0.7})}
    every, half, old = rows["every"], rows["half"], rows["held"]
    assert (every.mean_weight, half.mean_weight, every.reason) == (0.7, 0.0, "")
    assert (every.coverage, every.freshness) == (1.0, 1.0)
    assert every.quality.estimate == pytest.approx(every.ic)
    assert 0.0 < every.quality.low < every.quality.estimate < every.quality.high
    assert half.coverage == pytest.approx(0.5, abs=0.01)
    assert half.quality.estimate == pytest.approx(half.ic * half.coverage)
    assert old.freshness == pytest.approx((1.0 + 2.0**-0.5) / 2.0, abs=0.001)
    assert old.quality.estimate == pytest.approx(old.ic * old.coverage * old.freshness)


def test_a_source_that_never_spoke_says_why_it_has_no_quality():
    (found,) = source_skill(tape_of(mute=np.full((BARS, ASSETS), np.nan)), {})
    assert (found.observations, found.coverage) == (0, 0.0)
    assert np.isnan(found.quality.estimate)
    assert found.reason == "the source never spoke about a known outcome"
