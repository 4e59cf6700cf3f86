"""Funding, on-chain readings and mood of the simulated market: every metric of the vocabulary, of which two carry an edge.

Planted, both contrarian: `funding_rate` (state `funding`) and the difference of exchange inflow and outflow (state `flow`). All the
rest is noise, or follows from past prices by its definition (market cap, realised cap, MVRV, NVT). Day D is known an hour after it
has ended.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.metrics import MARKET
from cryptoalpha.data.simulated_prices import PricePath, autoregression
from cryptoalpha.store.tables import Floats, ReadingTable, Times

SETTLEMENT = 8 * HOUR
LAG = HOUR
SOURCE = "simulated"

_FUNDING_BASE, _FUNDING_SWING = 1e-4, 1.5e-4
_FUNDING_NOISE = 0.5  # standard deviation relative to the state's
_FLOW_SWING, _FLOW_NOISE = 0.12, 0.06  # net flow as a share of the gross


def simulate_readings(seed: int, assets: tuple[str, ...], path: PricePath, *, partition: str) -> dict[tuple[str, str], ReadingTable]:
    """All readings of all assets and of the market."""
    days, last = np.unique((path.known_at - 1) // DAY, return_index=True)  # day a bar ends in; its first row
    complete = np.flatnonzero(np.append(path.known_at[last[1:] - 1], path.known_at[-1]) % DAY == 0)  # days that have ended
    bounds = np.append(last, len(path.known_at))
    readings: dict[tuple[str, str], ReadingTable] = {}

    def add(asset: str, metric: str, happened: Times, known: Times, value: Floats) -> None:
        size = len(value)
        readings[asset, metric] = ReadingTable(
            asset, metric, SOURCE, happened, known, value, np.full(size, partition, "U16"), len(readings) * 1_000_000 + np.arange(size)
        )

    day = days[complete] * DAY
    for a, asset in enumerate(assets):
        rng = stream(seed, "simulated", "chain", asset)
        at = np.flatnonzero(path.known_at % SETTLEMENT == 0)
        heat = path.states["funding"][at, a] + _FUNDING_NOISE * rng.standard_normal(len(at))
        add(asset, "funding_rate", path.known_at[at], path.known_at[at], _FUNDING_BASE - _FUNDING_SWING * heat)
        state = np.array([float(path.states["flow"][bounds[d] : bounds[d + 1], a].mean()) for d in complete], np.float64)
        close = path.close[bounds[complete + 1] - 1, a]
        for metric, value in _asset_metrics(rng, close, state).items():
            add(asset, metric, day, day + DAY + LAG, value)
    rng = stream(seed, "simulated", "chain", MARKET)
    walk = _waves(rng, len(day), (30.0, 2.0, 5.0))
    add(MARKET, "stablecoin_supply_usd", day, day + DAY + LAG, 1e11 * np.exp(0.0003 * np.arange(len(day)) + 0.05 * walk[:, 0]))
    add(MARKET, "stablecoin_exchange_flow_usd", day, day + DAY + LAG, 2e8 * walk[:, 1])
    add(MARKET, "fear_greed", day, day + LAG, np.rint(np.clip(50.0 + 20.0 * walk[:, 2], 0.0, 100.0)))
    return readings


def _waves(rng: np.random.Generator, days: int, half_lives: tuple[float, ...]) -> Floats:
    """Independent AR(1) noises, half-lives in days → `[days, len(half_lives)]`."""
    return autoregression(rng.standard_normal((days, len(half_lives))), np.array(half_lives))


def _asset_metrics(rng: np.random.Generator, close: Floats, state: Floats) -> dict[str, Floats]:
    """One asset's daily metrics. Shapes: `close`, `state` (mean of the flow state over the day) and every value `[D]`."""
    D = len(close)
    wave = _waves(rng, D, (5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 3.0, 3.0, 60.0, 60.0, 2.0, 30.0, 60.0, 20.0))
    noise = rng.standard_normal((D, 4))
    week = 0.1 * np.sin(2 * np.pi * np.arange(D) / 7.0)
    supply = 1e9 / close[:1] * np.exp(0.00005 * np.arange(D)) if D else np.empty(0)
    cap = supply * close
    realised = _smooth(cap, half_life=120.0) * np.exp(0.01 * wave[:, 14])
    transfer = 0.03 * realised * np.exp(0.3 * wave[:, 0] + week)
    transactions = 2e5 * np.exp(0.2 * wave[:, 1] + week + 0.05 * noise[:, 0])
    gross = 0.01 * realised * np.exp(0.3 * wave[:, 2])
    net = np.tanh(-_FLOW_SWING * state + _FLOW_NOISE * noise[:, 1])
    active = 5e5 * np.exp(0.2 * wave[:, 3] + week)
    return {
        "active_addresses": np.round(active),
        "new_addresses": np.round(0.3 * active * np.exp(0.2 * wave[:, 4])),
        "transactions": np.round(transactions),
        "transfer_value_usd": transfer,
        "mean_transfer_usd": transfer / transactions,
        "fees_usd": transactions * np.exp(0.5 * wave[:, 5]),
        "exchange_inflow_usd": 0.5 * gross * (1.0 + net),
        "exchange_outflow_usd": 0.5 * gross * (1.0 - net),
        "exchange_reserve": 0.12 * supply * np.exp(0.05 * wave[:, 9]),
        "supply": supply,
        "market_cap_usd": cap,
        "realised_cap_usd": realised,
        "mvrv": cap / realised,
        "nvt": cap / transfer,
        "whale_transfers": rng.poisson(60.0 * np.exp(0.3 * wave[:, 6])).astype(np.float64),
        "whale_to_exchange_usd": 0.002 * realised * wave[:, 7],
        "top100_share": 0.35 + 0.02 * wave[:, 10],
        "dormant_1y_share": 0.5 + 0.03 * wave[:, 13],
        "sopr": 1.0 + 0.02 * wave[:, 11],
        "hash_rate": 1e6 * np.exp(0.001 * np.arange(D) + 0.1 * wave[:, 8]),
        "staked_share": 0.3 + 0.02 * wave[:, 12],
    }


def _smooth(value: Floats, *, half_life: float) -> npt.NDArray[np.float64]:
    """Exponential mean that starts at the first value."""
    keep = 0.5 ** (1.0 / half_life)
    out = value.copy()
    for d in range(1, len(out)):
        out[d] = keep * out[d - 1] + (1.0 - keep) * value[d]
    return out
