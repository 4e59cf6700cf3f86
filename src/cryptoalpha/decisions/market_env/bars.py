"""Bars of the past, or of a simulated market, as a market to live in.

Only bars known by `until` are kept: what lies behind the window is not there to be seen. Episodes start at any bar of any instrument from
`since` on behind which as many bars stand without a gap, features known, as the episode is long; bars before `since` only warm up the
estimates. A bar that came late is a gap as long as it holds back: nobody decides on what is not known yet, or trades at an open gone by.

What is known of a bar's liquidity (daily volatility and volume) is estimated as the brokers do, by `execution.costs.Liquidity`, and so is
the variance that a risk penalty is charged on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.decisions.market_env.market import Array, Known, Period
from cryptoalpha.execution.broker import funding_by_bar
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.costs import Liquidity, decay_per_bar
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import Dataset

LOOK_BACKS = (1, 4, 24, 168)
"""Bars over which `bar_features` adds up returns: an hour, four, a day and a week of hourly bars."""

WIDEST = 10.0
"""Largest feature in absolute value; ten standard deviations of a return say all there is to say."""

Features = Callable[[Panel, Array], Array]
"""A panel and the volatilities of its bars `[T, A]` → features `[T, A, F]`, row t from bars up to t, NaN where not known."""


def bar_features(panel: Panel, volatility: Array) -> Array:
    """Log returns over `LOOK_BACKS` in units of their standard deviation, and the log of the volatility of a bar: `[T, A, 5]`.

    A look back that ends in a gap reads the last close before it, which is what was known then.
    """
    rows = np.maximum.accumulate(np.where(panel.present, np.arange(len(panel))[:, None], -1), axis=0)
    logs = np.log(np.where(rows >= 0, np.take_along_axis(panel.close, np.maximum(rows, 0), axis=0), np.nan))
    columns = []
    for bars in LOOK_BACKS:
        change = np.full(logs.shape, np.nan)
        change[bars:] = logs[bars:] - logs[:-bars]
        columns.append(change / (volatility * math.sqrt(bars)))
    return np.stack([*columns, np.log(volatility)], axis=2)


class BarMarket:
    """Bars `[T, A]` behind an environment; see the module header.

    Args:
        panel: bars; gaps marked, never filled.
        execution: how liquidity is estimated, and whether funding is paid.
        funding: rates settled at the open and inside each bar `[T, A]`, NaN where none; None: none at all.
        since: episodes start at bars known at or after this, UTC ns.
        features: what is seen of the bars.

    A place is a row and an instrument.

    Raises:
        ConfigError: features that do not fit the panel.
    """

    by_chance = False

    def __init__(
        self,
        panel: Panel,
        execution: ExecutionConfig,
        *,
        funding: tuple[Array, Array] | None = None,
        since: int | None = None,
        features: Features = bar_features,
    ) -> None:
        self.panel = panel
        daily_volatility, daily_volume = _liquidity(panel, execution)
        bar_volatility = daily_volatility * math.sqrt(panel.interval / DAY)
        self._features = np.asarray(features(panel, bar_volatility), dtype=np.float64)
        if self._features.ndim != 3 or self._features.shape[:2] != panel.close.shape:
            raise ConfigError(f"features of shape {self._features.shape} for bars of {panel.close.shape}", hint="give one row per bar")
        self._liquidity = daily_volatility, daily_volume * panel.close
        self._variance = bar_volatility**2
        paid = funding if funding is not None and execution.funding else (np.zeros(panel.close.shape),) * 2
        self._funding = np.nan_to_num(paid[0]), np.nan_to_num(paid[1])
        known_at = np.maximum.accumulate(panel.known_at)  # what a row builds on may have come later than its own bar
        in_time = known_at <= panel.open_time + panel.interval  # else the open it would be filled at is past when it decides
        self._ready = panel.present & in_time[:, None] & np.isfinite(self._features).all(axis=2) & np.isfinite(bar_volatility)
        self._begun = known_at >= (known_at[0] if since is None else since)
        self._starts: dict[int, NDArray[np.int64]] = {}
        self.low = np.full(self._features.shape[2], -WIDEST)
        self.high = np.full(self._features.shape[2], WIDEST)

    def starts(self, horizon: int) -> NDArray[np.int64]:
        """All places `[S, 2]` from which an episode of `horizon` steps meets no gap, oldest first.

        Raises:
            DataMissingError: if there is none.
        """
        if horizon not in self._starts:
            counted = np.vstack([np.zeros((1, self._ready.shape[1]), dtype=np.int64), np.cumsum(self._ready, axis=0)])
            whole = np.zeros(self._ready.shape, dtype=np.bool_)
            last = len(self.panel) - horizon
            if last > 0:
                whole[:last] = counted[horizon + 1 :] - counted[: -horizon - 1] == horizon + 1
            self._starts[horizon] = np.argwhere(whole & self._begun[:, None])
        if len(self._starts[horizon]) == 0:
            raise DataMissingError(
                f"no {horizon + 1} bars without a gap between {iso(int(self.panel.known_at[0]))} and {iso(int(self.panel.known_at[-1]))}",
                hint="shorten the horizon of the EnvironmentConfig, or give a longer history",
            )
        return self._starts[horizon]

    def begin(self, uniforms: Array, horizon: int) -> Array:
        """Places drawn evenly from `starts`."""
        starts = self.starts(horizon)
        return starts[(uniforms * len(starts)).astype(np.int64)].astype(np.float64)

    def known(self, places: Array) -> Known:
        """Rows of what was computed from bars up to there."""
        at = _index(places)
        seen = np.clip(self._features[at], -WIDEST, WIDEST)
        return Known(seen, self._variance[at], self._liquidity[0][at], self._liquidity[1][at])

    def follow(self, places: Array, uniforms: Array) -> tuple[Array, Period]:
        """The next bar.

        Raises:
            ConfigError: if there is none.
        """
        rows, instruments = _index(places)
        if (rows + 1 >= len(self.panel)).any() or not self.panel.present[rows + 1, instruments].all():
            raise ConfigError("an episode ran past its bars or into a gap", hint="start from a place in `starts`, end with the horizon")
        last, after = self.panel.close[rows, instruments], (rows + 1, instruments)
        opened, high, low, close = (column[after] / last for column in (self.panel.open, self.panel.high, self.panel.low, self.panel.close))
        ended = np.zeros(len(rows), dtype=np.bool_)
        period = Period(opened, high, low, close, self.panel.volume[after] * last, self._funding[0][after], self._funding[1][after], ended)
        return np.stack([rows + 1, instruments], axis=1).astype(np.float64), period


def bar_market(
    dataset: Dataset,
    execution: ExecutionConfig,
    *,
    since: int,
    until: int,
    warm_up: int = 30 * DAY,
    instruments: Sequence[str] | None = None,
    features: Features = bar_features,
) -> BarMarket:
    """Bars of a store or of a simulated market (`data.simulated.simulate(...).dataset`), those that are known by `until` and no others.

    Args:
        since, until: when decisions may be made, UTC ns; the last reward is known at `until`.
        warm_up: how much earlier bars are read, ns.
    """
    panel = build_panel(dataset, since=since - warm_up, until=until, instruments=instruments)
    panel = panel.rows(0, int(np.searchsorted(np.maximum.accumulate(panel.known_at), until, side="right")))
    return BarMarket(panel, execution, funding=funding_by_bar(panel, dataset), since=since, features=features)


def _index(places: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    whole = places.astype(np.int64)
    return whole[:, 0], whole[:, 1]


def _liquidity(panel: Panel, execution: ExecutionConfig) -> tuple[Array, Array]:
    """Daily volatility and volume (base units) as a broker knows them after each bar: `[T, A]` each, NaN where too little was seen."""
    names = range(len(panel.instruments))
    running = Liquidity(len(names), decay_per_bar(execution.liquidity_half_life_days, panel.interval), panel.interval)
    out = np.full((len(panel), len(names), 2), np.nan)
    for row, (close, volume) in enumerate(zip(panel.close.tolist(), panel.volume.tolist(), strict=True)):
        running.update(close, volume)
        for a in names:
            known = running.daily(a)
            if known is not None:
                out[row, a] = known
    return out[:, :, 0], out[:, :, 1]
