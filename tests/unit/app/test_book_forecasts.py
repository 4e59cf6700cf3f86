"""Value at risk of the book judged by the book it was said of: hand-made days, and a right model whose sizes change every day."""

from __future__ import annotations

import math
from decimal import Decimal
from statistics import NormalDist

import numpy as np
import pytest

from cryptoalpha.app.book_forecasts import BookForecasts, JudgedDay
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.core.values import MarketState, PortfolioState, RiskState, Travelling
from cryptoalpha.risk.tail.backtests import kupiec_pof

START = parse_time("2024-01-01")
BTC, ETH = "BTC/USDT", "ETH/USDT"


def row(
    at: int, *, held: dict[str, float], equity: float, prices: dict[str, float], var: float | None, level: float = 0.99
) -> list[Travelling]:
    """A row as the engine writes it at the first step of a day."""
    worth = Decimal(repr(equity))
    positions = tuple((name, Decimal(repr(quantity))) for name, quantity in held.items())
    values: list[Travelling] = [
        PortfolioState(happened_at=at, known_at=at, cash=worth, positions=positions, equity=worth, peak_equity=worth),
        *(MarketState(happened_at=at, known_at=at, instrument=name, price=price, volatility=0.5) for name, price in prices.items()),
    ]
    if var is not None:
        said = {"value_at_risk": var, "expected_shortfall": 1.2 * var, "level": level}
        values.append(RiskState(happened_at=at, known_at=at, limits=(), exposure=1.0, mode="armed", **said))
    return values


def test_a_day_is_judged_by_the_positions_that_the_forecast_was_of():
    judge = BookForecasts()
    assert judge.take(START, row(START, held={BTC: 2.0, ETH: -10.0}, equity=1000.0, prices={BTC: 100.0, ETH: 10.0}, var=0.01)) is None
    # within the day the book is turned round and gains: that is another book's profit
    later = row(START + HOUR, held={BTC: -9.0}, equity=5000.0, prices={BTC: 1.0}, var=0.9)
    assert judge.take(START + HOUR, later) is None
    ended = row(START + DAY, held={}, equity=7000.0, prices={BTC: 92.0, ETH: 9.5}, var=0.0)
    # 2 × (92 − 100) − 10 × (9.5 − 10) = −11 of 1000
    assert judge.take(START + DAY, ended) == JudgedDay(START, pytest.approx(0.011), 0.01, 0.012, 0.99)
    assert judge.take(START + 2 * DAY, row(START + 2 * DAY, held={}, equity=7000.0, prices={BTC: 80.0}, var=0.0)) is None  # nothing held


@pytest.mark.parametrize(
    "broken",
    [
        {"var": 0.0},
        {"var": math.nan},
        {"var": None},
        {"held": {}},
        {"prices": {ETH: 10.0}},
    ],
)
def test_without_a_forecast_or_a_price_a_day_is_left_out(broken):
    whole = {"held": {BTC: 1.0}, "equity": 100.0, "prices": {BTC: 100.0}, "var": 0.02}
    judge = BookForecasts()
    judge.take(START, row(START, **(whole | broken)))
    assert judge.take(START + DAY, row(START + DAY, **whole)) is None
    assert judge.take(START + 2 * DAY, row(START + 2 * DAY, **(whole | {"prices": {BTC: 90.0}}))) is not None  # the next one is whole


def test_a_price_that_is_missing_at_the_end_and_a_day_that_is_no_day_are_left_out():
    whole = {"held": {BTC: 1.0}, "equity": 100.0, "prices": {BTC: 100.0}, "var": 0.02}
    judge = BookForecasts()
    judge.take(START + 5 * HOUR, row(START + 5 * HOUR, **whole))  # a run that began at five o'clock
    assert judge.take(START + DAY, row(START + DAY, **whole)) is None
    assert judge.take(START + 3 * DAY, row(START + 3 * DAY, **whole)) is None  # two days passed
    assert judge.take(START + 4 * DAY, row(START + 4 * DAY, **(whole | {"prices": {ETH: 1.0}}))) is None
    assert judge.take(START + 5 * DAY, row(START + 5 * DAY, **whole)) is None
    judged = judge.take(START + 6 * DAY + HOUR, row(START + 6 * DAY + HOUR, **whole))  # as late as is allowed
    assert judged is not None
    assert not judged.is_exceeded


def trade(seed: int, days: int, level: float) -> tuple[list[JudgedDay], list[bool]]:
    """A book whose sizes are drawn anew every day and fill after midnight, under a model that knows the law of the market.

    Returns the judged days, and whether the day's own return, that of the new book, exceeded what was said: the comparison that is wrong.
    """
    rng = np.random.default_rng(seed)
    spread, names = np.array([0.02, 0.04, 0.06]), ("A", "B", "C")
    quantile = NormalDist().inv_cdf(level)
    prices, equity, held = np.full(3, 100.0), 1000.0, np.zeros(3)
    judge, judged, own = BookForecasts(), list[JudgedDay](), list[bool]()
    for day in range(days + 1):
        weights = held * prices / equity
        var = quantile * float(np.sqrt(np.sum((weights * spread) ** 2)))
        at = START + day * DAY
        positions = {name: float(q) for name, q in zip(names, held, strict=True) if q}
        values = row(at, held=positions, equity=equity, prices=dict(zip(names, prices.tolist(), strict=True)), var=var, level=level)
        if (found := judge.take(at, values)) is not None:
            judged.append(found)
        held = equity * rng.uniform(-0.5, 0.5, 3) * (rng.random() < 0.7) / prices  # the orders of this step fill after it
        moves = spread * rng.standard_normal(3)
        gain = float(np.sum(held * prices * moves))
        own.append(-gain / equity > var)
        prices, equity = prices * (1.0 + moves), equity + gain
    return judged, own


def test_a_right_model_is_accepted_about_as_often_as_the_test_promises_although_sizes_change_daily():
    level, seeds, days = 0.95, 200, 250
    accepted = accepted_own = judged_days = 0
    for seed in range(seeds):
        judged, own = trade(seed, days, level)
        hits = sum(one.is_exceeded for one in judged)
        accepted += kupiec_pof(hits, len(judged), level).accepts()
        accepted_own += kupiec_pof(sum(own), len(own), level).accepts()
        judged_days += len(judged)
    assert judged_days / seeds == pytest.approx(0.7 * days, rel=0.05)  # nothing was held on the others
    assert 0.90 <= accepted / seeds <= 0.99  # 95 %, give or take three standard errors
    assert accepted_own / seeds < 0.05  # the day's own return is that of another book
