"""Settings of the sources. Each is frozen, refuses unknown keys, and says unit, range and reason of its defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section

Correlation = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
Degrees = Annotated[float, Field(gt=2.0, allow_inf_nan=False)]


class FilesConfig(Section):
    """[data.files] When the rows of a directory of history became known."""

    market: Literal["spot", "perp"] = "spot"
    """Which bars to read, `price_*` or `perp_*`. Never both: one instrument has one price."""

    chain_lag_hours: NonNegative = 1.0
    """Hours after the end of a day at which its on-chain row counts as published. Assumed: the files carry no publication time."""

    mood_lag_hours: NonNegative = 1.0
    """Hours after 00:00 at which the day's fear & greed value counts as published."""

    text_embargo_hours: NonNegative = 1.0
    """Hours added to the stamp of every text, because stamps are cut, edited and of unsure time zone."""


class SimulatedConfig(Section):
    """[data.simulated] A made-up market with an edge of known strength planted in some signals and none in the others."""

    assets: Count = 6
    """Number of instruments, `SIM1/USDT` upwards."""

    bars: Count = 26_280
    """Length in bars; three years of hours: one to learn on, two to be judged by."""

    interval: str = "1h"
    """Bar length; must divide eight hours, the time between funding settlements."""

    start: str = "2022-01-01"
    """Open of the first bar, a UTC date."""

    edge: Fraction = 0.15
    """Correlation of the oracle's direction with the return of the next `horizon_bars`, in volatility units. 0.15 over a day leaves about
    50 bp of expected move at one standard deviation, five times a usual cost of trading; real edges are nearer 0.03."""

    pure_noise: bool = False
    """Keep every observation as it is but take the drift away: whatever still earns money here is luck or a leak."""

    horizon_bars: Count = 24
    """Bars over which `edge` is stated."""

    half_life_bars: Positive = 48.0
    """Bars after which half of a planted state has decayed; slow enough to be traded after costs."""

    news_share: Fraction = 0.4
    """Share of the planted variance that the tone of posts carries."""

    funding_share: Fraction = 0.3
    """Share carried by funding, contrarian: high funding comes before falls."""

    flow_share: Fraction = 0.3
    """Share carried by the net flow of coins to exchanges: inflow comes before falls. The three shares must sum to 1."""

    annual_volatility: Positive = 0.65
    """Typical annualised volatility (365 days); that of a large coin."""

    correlation: Correlation = 0.5
    """Correlation of shocks between any two assets, through one market factor (0 up to but not 1)."""

    shock_degrees: Degrees = 5.0
    """Degrees of freedom of the Student t shocks (> 2); five gives the fat tails of hourly crypto returns."""

    posts_per_day: Positive = 8.0
    """Mean number of posts per asset and day."""


class ExchangeConfig(Section):
    """[data.exchange] Public candles by ccxt. No key is used."""

    venues: tuple[str, ...] = ("binance", "okx", "bybit")
    """ccxt ids, tried in order. Only venues that serve years of history are useful (Kraken keeps the newest 720 bars)."""

    funding_venue: str = "binanceusdm"
    """ccxt id of the venue that is asked for funding rates of perpetuals; empty for none."""

    endpoint: str = ""
    """Address on this machine that stands in for all venues, such as http://127.0.0.1:8400 (`cryptoalpha fake-exchange`); empty: the real
    ones. Only loopback addresses are taken. Orders go there too."""

    page_bars: Annotated[int, Field(ge=10, le=1000)] = 1000
    """Bars asked for in one request (10 to 1000); venues that allow fewer return fewer, which is noticed."""

    attempts: Count = 4
    """How often one page is asked for before the next venue is tried."""

    backoff_seconds: NonNegative = 1.0
    """Wait before the second attempt at a page; doubles each time, and a venue's Retry-After counts if it is longer."""

    timeout_seconds: Positive = 20.0
    """Longest wait for one reply."""

    venue_lag_seconds: NonNegative = 2.0
    """Time after a bar's end before a live poll trusts the venue to have closed it."""

    grace_seconds: NonNegative = 120.0
    """Time after a bar's end for which a live feed waits for the slowest instrument before it goes on without it."""
