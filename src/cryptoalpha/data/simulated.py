"""A simulated market with an edge of known strength, for tests and demonstrations. Everything made from it is labelled SIMULATED.

Three hidden states per asset (unit variance, AR(1) with half-life `half_life_bars`) add up to a direction d[t]; the next bar drifts by
strength · volatility · d[t]. What can be seen carries them: the tone of posts, funding (contrarian), net flow to exchanges (contrarian).
Fear & greed and all other readings carry nothing. What is known at t concerns returns after t.

`edge` is the oracle's information coefficient: the correlation of d[t] with the sum of the next h returns, each in units of its bar's
volatility. With keep factor φ, G = Σ_{i<h} φ^i and V = h + 2 Σ_{0<j<h} (h − j) φ^j it is

    IC = s·G / √(h + s²·V)        hence        s = IC·√(h / (G² − IC²·V))

and each source's own IC is √share of it. Whoever adds up one day of posts, the last funding and the last day's flow, best weighted, finds
about 0.12 of the oracle's 0.15 (mean of five markets): noise in what is seen, and its age, cost the rest.

Pure noise keeps every draw and sets s = 0: without drift the price is a fair game.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, parse_interval, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.rules import rules_for
from cryptoalpha.data.simulated_chain import SETTLEMENT, simulate_readings
from cryptoalpha.data.simulated_posts import simulate_posts
from cryptoalpha.data.simulated_prices import SOURCES, PricePath, simulate_prices
from cryptoalpha.store.tables import BarTable, Dataset, Floats, Times

_VERSION = 1
"""Part of the fingerprint; raise it when the same seed would give another market."""


@dataclass(frozen=True, eq=False)
class SimulatedMarket:
    """A dataset and the truth behind it. Axes: `T` bars, `A` instruments in the order of `instruments`.

    Shapes: `known_at` `[T]`; `expected_return`, `volatility` (of the bar after t, given all that is hidden at `known_at[t]`) and
    `oracle_direction` (unit variance) `[T, A]`. `planted` is the IC over `config.horizon_bars` of each source's hidden state; 0 in noise.
    """

    dataset: Dataset
    config: SimulatedConfig
    seed: int
    instruments: tuple[str, ...]
    known_at: Times
    expected_return: Floats
    volatility: Floats
    oracle_direction: Floats
    states: Mapping[str, Floats]
    planted: Mapping[str, float]

    @property
    def oracle_ic(self) -> float:
        """The IC that was planted, all sources together."""
        return math.sqrt(sum(ic**2 for ic in self.planted.values()))

    def realised_ic(self, direction: Floats | None = None, rows: Times | None = None) -> float:
        """Correlation of a direction (the oracle's by default) with the returns that followed, pooled over bars and assets.

        Args:
            direction: `[R, A]`, one row per entry of `rows`.
            rows: bars to judge by, ascending; all by default. Those with less than the horizon left do not count.

        0 where the direction never changes. Its standard error is about 1/√(R·(A + 1)/(2h)): windows overlap and assets move together.
        """
        places = np.arange(len(self.known_at)) if rows is None else rows
        chosen = self.oracle_direction[places] if direction is None else direction
        close = np.stack([self.dataset.bars[name].close for name in self.instruments], axis=1)
        scaled = np.diff(np.log(close), axis=0) / self.volatility[:-1]  # row t: return of bar t + 1
        total = np.cumsum(np.vstack([np.zeros(close.shape[1]), scaled]), axis=0)
        h = self.config.horizon_bars
        ahead = total[h:] - total[:-h]  # row t: bars t + 1 … t + h
        judged = places < len(ahead)
        said, came = chosen[judged].ravel(), ahead[places[judged]].ravel()
        return float(np.corrcoef(said, came)[0, 1]) if said.std() > 0.0 else 0.0


def drift_strength(ic: float, horizon: int, half_life: float) -> float:
    """Drift per bar, in volatilities per unit of direction, at which the oracle has this IC over the horizon.

    Raises:
        ConfigError: if no drift is strong enough: a state that changes within the horizon cannot foretell all of it.
    """
    keep = 0.5 ** (1.0 / half_life)
    powers = keep ** np.arange(horizon)
    G = float(powers.sum())
    V = horizon + 2.0 * float(((horizon - np.arange(1, horizon)) * powers[1:]).sum())
    if ic**2 * V >= G**2:
        raise ConfigError(
            f"an edge of {ic:g} over {horizon} bars cannot be planted: states of half-life {half_life:g} bars "
            f"allow less than {G / math.sqrt(V):.2f}",
            hint="lower data.simulated.edge, or raise half_life_bars",
        )
    return ic * math.sqrt(horizon / (G**2 - ic**2 * V))


def simulate(config: SimulatedConfig | None = None, seed: int = 0) -> SimulatedMarket:
    """One simulated market; the same settings and seed give the same bytes.

    Raises:
        ConfigError: if settings contradict each other.
    """
    config = config or SimulatedConfig()
    interval, start = parse_interval(config.interval), parse_time(config.start)
    _check(config, interval, start)
    assets = tuple(f"SIM{a + 1}" for a in range(config.assets))
    names = tuple(f"{asset}/USDT" for asset in assets)
    edge = 0.0 if config.pure_noise else config.edge
    strength = drift_strength(edge, config.horizon_bars, config.half_life_bars)
    fingerprint = hashlib.sha256(f"simulated {_VERSION} {seed} {config.model_dump_json()}".encode()).hexdigest()
    path = simulate_prices(config, seed, names=names, start=start, interval=interval, strength=strength)
    bars = {name: _table(path, a, name, interval, _partition(fingerprint, name)) for a, name in enumerate(names)}
    posts = simulate_posts(
        seed, assets, path.states["news"], path.known_at, interval, per_day=config.posts_per_day, partition=_partition(fingerprint, "news")
    )
    kind = "pure noise" if edge == 0.0 else f"edge {edge:g} over {config.horizon_bars} bars"
    dataset = Dataset(
        origin=f"SIMULATED market, {kind}, seed {seed}: {config.assets} assets, {config.bars} {config.interval} bars",
        bars=bars,
        readings=simulate_readings(seed, assets, path, partition=_partition(fingerprint, "readings")),
        posts={"news": posts},
        rules={name: rules_for(table, venue="simulated", perpetual=True) for name, table in bars.items()},
        simulated=True,
        fingerprint=fingerprint,
        notes=(f"SIMULATED: {kind}; no figure made from this says anything about a real market",),
    )
    shares = (config.news_share, config.funding_share, config.flow_share)
    return SimulatedMarket(
        dataset=dataset,
        config=config,
        seed=seed,
        instruments=names,
        known_at=path.known_at,
        expected_return=path.expected_return,
        volatility=path.volatility,
        oracle_direction=path.direction,
        states=path.states,
        planted={source: edge * math.sqrt(share) for source, share in zip(SOURCES, shares, strict=True)},
    )


def _check(config: SimulatedConfig, interval: int, start: int) -> None:
    """Refuse settings that contradict each other."""
    total = config.news_share + config.funding_share + config.flow_share
    if abs(total - 1.0) > 1e-9:
        raise ConfigError(f"the planted shares sum to {total:g}, not 1", hint="set data.simulated.news_share, funding_share and flow_share")
    if SETTLEMENT % interval:
        raise ConfigError(
            f"bars of {config.interval} do not divide eight hours", hint="choose data.simulated.interval 1m, 5m, 15m, 1h, 4h or 8h"
        )
    if start % DAY:
        raise ConfigError(f"data.simulated.start {config.start!r} is not a date", hint="write YYYY-MM-DD")
    if config.bars <= config.horizon_bars + 1:
        raise ConfigError(
            f"{config.bars} bars are too few for a horizon of {config.horizon_bars}", hint="raise data.simulated.bars above the horizon"
        )


def _partition(fingerprint: str, part: str) -> str:
    return hashlib.sha256(f"{fingerprint} {part}".encode()).hexdigest()[:16]


def _table(path: PricePath, a: int, name: str, interval: int, partition: str) -> BarTable:
    return BarTable(
        instrument=name,
        interval=interval,
        open_time=path.open_time,
        open=path.open[:, a],
        high=path.high[:, a],
        low=path.low[:, a],
        close=path.close[:, a],
        volume=path.volume[:, a],
        taker_buy_volume=path.taker_buy_volume[:, a],
        partition=np.full(len(path.open_time), partition, "U16"),
        row=np.arange(len(path.open_time)),
    )
