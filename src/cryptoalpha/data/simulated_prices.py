"""Prices of the simulated market: slow hidden states, clustered volatility, fat-tailed correlated shocks, and bars made of them.

Axes: `T` bars, `A` assets. Row t of a hidden state is its value at the moment bar t is known; it moves bar t + 1, never bar t.

Sources: stochastic volatility, Taylor (1982); extremes of a Brownian bridge, Karatzas & Shreve (1991), §2.8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR, HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.store.tables import Floats, Times

SOURCES = ("news", "funding", "flow")
"""Where the edge is planted: tone of posts, funding (contrarian), net flow to exchanges (contrarian)."""

_GAP_SHARE = 0.02  # of a bar's variance falls between the close before and the open: a small gap that nobody can trade
_VOLATILITY_SPREAD = 0.4  # standard deviation of log volatility
_VOLATILITY_HALF_LIFE_HOURS = 72.0
_LARGEST_SHOCK = 12.0  # in standard deviations: nothing in the real data is larger
_DOLLARS_PER_HOUR = 3e7


@dataclass(frozen=True, eq=False)
class PricePath:
    """Everything about prices, hidden and seen. Shapes: `known_at`, `open_time` `[T]`; the rest `[T, A]`.

    `states` by source; `direction` is their weighted sum with unit variance; `expected_return` and `volatility` are of the NEXT bar.
    """

    open_time: Times
    known_at: Times
    states: dict[str, Floats]
    direction: Floats
    expected_return: Floats
    volatility: Floats
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    taker_buy_volume: Floats


def autoregression(noise: Floats, half_life: float | Floats) -> Floats:
    """Unit-variance AR(1) processes driven by standard `noise` `[T, K]`, started in their stationary state → `[T, K]`."""
    keep = np.broadcast_to(np.asarray(0.5 ** (1.0 / np.asarray(half_life, np.float64)), np.float64), noise.shape[1:])
    out = noise * np.sqrt(1.0 - keep**2)
    if len(out):
        out[0] = noise[0]
    for t in range(1, len(out)):
        out[t] += keep * out[t - 1]
    return out


def simulate_prices(config: SimulatedConfig, seed: int, *, names: tuple[str, ...], start: int, interval: int, strength: float) -> PricePath:
    """One path of the market. `strength` is the drift of the next bar in units of its volatility per unit of `direction`."""
    T, A = config.bars, len(names)
    shares = (config.news_share, config.funding_share, config.flow_share)
    draws = {name: stream(seed, "simulated", "prices", name) for name in names}
    raw = np.stack([draws[name].standard_normal((T + 1, 5)) for name in names], axis=2)  # [T + 1, 5, A]
    market = stream(seed, "simulated", "prices", "market")
    slow = _VOLATILITY_HALF_LIFE_HOURS * HOUR / interval
    half_lives = np.repeat([config.half_life_bars] * 3 + [slow, slow / 3], A)
    processes = autoregression(raw.reshape(T + 1, 5 * A), half_lives).reshape(T + 1, 5, A)
    states = {source: processes[:T, k] for k, source in enumerate(SOURCES)}
    direction = np.sum([math.sqrt(share) * states[source] for source, share in zip(SOURCES, shares, strict=True)], axis=0)

    open_time = start + np.arange(T, dtype=np.int64) * interval
    common = autoregression(market.standard_normal((T + 1, 1)), slow)
    volatility = _volatility(config, processes[:, 3], common, open_time, interval)
    shocks = _shocks(config, market, [draws[name] for name in names], T)
    drift = np.zeros((T, A))
    drift[1:] = strength * volatility[1:T] * direction[:-1]  # state of bar t − 1 moves bar t
    path = _bars(draws, names, volatility[:T], drift, shocks)
    volume, bought = _volumes(draws, names, path["close"], volatility[:T], shocks, processes[:T, 4], open_time, interval)
    return PricePath(
        open_time=open_time,
        known_at=open_time + interval,
        states=states,
        direction=direction,
        expected_return=strength * volatility[1:] * direction,
        volatility=volatility[1:],
        volume=volume,
        taker_buy_volume=bought,
        **path,
    )


def _volatility(config: SimulatedConfig, own: Floats, common: Floats, open_time: Times, interval: int) -> Floats:
    """Volatility of each bar and of the one after the last, per bar → `[T + 1, A]`: half the log moves with the market."""
    A = own.shape[1]
    per_bar = config.annual_volatility * math.sqrt(interval / (DAYS_PER_YEAR * DAY))
    level = per_bar * np.linspace(0.85, 1.15, A) if A > 1 else np.array([per_bar])
    log_move = _VOLATILITY_SPREAD * (common + own) / math.sqrt(2.0)
    hour = np.append(open_time, open_time[-1] + interval) % DAY / DAY
    season = 0.15 * np.sin(2 * np.pi * (hour - 0.35))[:, None]  # busiest in the afternoon, UTC
    return np.asarray(level * np.exp(log_move - _VOLATILITY_SPREAD**2 + season), np.float64)  # mean square ≈ level²


def _shocks(config: SimulatedConfig, market: np.random.Generator, own: list[np.random.Generator], T: int) -> Floats:
    """Unit-variance Student t shocks with one common factor → `[T, A]`."""
    scale = math.sqrt((config.shock_degrees - 2.0) / config.shock_degrees)
    factor = scale * market.standard_t(config.shock_degrees, (T, 1))
    single = scale * np.stack([rng.standard_t(config.shock_degrees, T) for rng in own], axis=1)
    mixed = math.sqrt(config.correlation) * factor + math.sqrt(1.0 - config.correlation) * single
    return np.clip(mixed, -_LARGEST_SHOCK, _LARGEST_SHOCK)


def _bars(
    draws: dict[str, np.random.Generator], names: tuple[str, ...], volatility: Floats, drift: Floats, shocks: Floats
) -> dict[str, Floats]:
    """Open, high, low, close `[T, A]`. Half the variance is taken off the log drift, so that without an edge the price is a fair game."""
    T = len(volatility)
    gap = volatility * math.sqrt(_GAP_SHARE) * np.stack([draws[n].standard_normal(T) for n in names], axis=1)
    body = drift - 0.5 * volatility**2 + volatility * math.sqrt(1.0 - _GAP_SHARE) * shocks
    first = np.log([100.0 * 4.0 ** (-a) if a % 2 else 100.0 * 3.0**a for a in range(len(names))])
    log_close = first + np.cumsum(gap + body, axis=0)
    log_open = log_close - body
    uniform = np.stack([draws[n].random((T, 2)) for n in names], axis=2)  # [T, 2, A]
    spread = -2.0 * (1.0 - _GAP_SHARE) * volatility[:, None] ** 2 * np.log1p(-uniform)  # of a bridge from open to close
    above = 0.5 * (body + np.sqrt(body**2 + spread[:, 0]))
    below = 0.5 * (body - np.sqrt(body**2 + spread[:, 1]))
    opened, closed = np.exp(log_open), np.exp(log_close)
    return {
        "open": opened,
        "high": np.maximum(np.exp(log_open + above), np.maximum(opened, closed)),
        "low": np.minimum(np.exp(log_open + below), np.minimum(opened, closed)),
        "close": closed,
    }


def _volumes(
    draws: dict[str, np.random.Generator],
    names: tuple[str, ...],
    close: Floats,
    volatility: Floats,
    shocks: Floats,
    busy: Floats,
    open_time: Times,
    interval: int,
) -> tuple[Floats, Floats]:
    """Traded volume (rises with the size of the move, with volatility, by day) and the part of it that takers bought, base units."""
    noise = np.stack([draws[n].standard_normal((len(close), 2)) for n in names], axis=2)  # [T, 2, A]
    season = 0.25 * np.sin(2 * np.pi * (open_time % DAY / DAY - 0.35))[:, None]
    typical = volatility / np.sqrt(np.mean(volatility**2, axis=0))
    log_dollars = math.log(_DOLLARS_PER_HOUR * interval / HOUR) + season + 0.6 * np.log(typical) + 0.3 * busy
    volume = np.exp(log_dollars + 0.35 * (np.abs(shocks) - 0.8) + 0.2 * noise[:, 0]) / close
    share = np.clip(0.5 + 0.06 * np.tanh(shocks) + 0.05 * noise[:, 1], 0.05, 0.95)
    return volume, volume * share
