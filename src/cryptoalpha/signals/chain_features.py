"""The 30 on-chain features of every asset and bar.

Readings are joined by the moment they became known: the row of day D counts at a bar only once its `known_at` has passed, and for at most
three days. Features are computed on the readings' own clock and then joined onto the bars', so they do not depend on the bars' length.
A metric that an asset does not have masks (NaN) the features that need it.

z is the distance from the mean of the last 90 days in standard deviations; it is masked where the window does not vary. Changes are against
what was known the stated number of days before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from cryptoalpha.signals.chain_series import EMPTY, Series, combine, either, series
from cryptoalpha.signals.features import FeatureSpec
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Dataset, Floats, ReadingTable

MARKET = "*"
"""The asset that market-wide readings are filed under."""

_ACTIVITY_METRICS = ("active_addresses", "new_addresses", "transactions", "transfer_value_usd", "mean_transfer_usd", "fees_usd")
_FLOWS = ("exchange_inflow_usd", "exchange_outflow_usd", "market_cap_usd")

ACTIVITY = tuple(
    spec
    for metric in _ACTIVITY_METRICS
    for spec in (
        FeatureSpec(f"{metric}_z", "activity", f"z of ln {metric}", "standard deviations", (metric,)),
        FeatureSpec(f"{metric}_change_7d", "activity", f"7-day change of ln {metric}", "ln ratio", (metric,)),
    )
)

EXCHANGE = (
    FeatureSpec("exchange_net_flow_1d", "exchange", "(inflow − outflow) / market cap", "fraction of supply", _FLOWS),
    FeatureSpec("exchange_net_flow_7d", "exchange", "7 · 7-day mean of exchange_net_flow_1d", "fraction of supply", _FLOWS),
    FeatureSpec("exchange_inflow_z", "exchange", "z of ln exchange_inflow_usd", "standard deviations", ("exchange_inflow_usd",)),
    FeatureSpec("exchange_outflow_z", "exchange", "z of ln exchange_outflow_usd", "standard deviations", ("exchange_outflow_usd",)),
    FeatureSpec("exchange_reserve_share", "exchange", "exchange_reserve / supply", "fraction", ("exchange_reserve", "supply")),
    FeatureSpec(
        "exchange_reserve_change_30d", "exchange", "30-day change of exchange_reserve_share", "fraction", ("exchange_reserve", "supply")
    ),
)

HOLDERS = (
    FeatureSpec("whale_transfers_z", "holders", "z of ln(1 + whale_transfers)", "standard deviations", ("whale_transfers",)),
    FeatureSpec(
        "whale_net_flow", "holders", "whale_to_exchange_usd / market cap", "fraction of supply", ("whale_to_exchange_usd", "market_cap_usd")
    ),
    FeatureSpec("top100_share_change_30d", "holders", "30-day change of top100_share", "fraction", ("top100_share",)),
    FeatureSpec("dormant_1y_share", "holders", "dormant_1y_share", "fraction", ("dormant_1y_share",)),
    FeatureSpec("dormant_1y_change_30d", "holders", "30-day change of dormant_1y_share", "fraction", ("dormant_1y_share",)),
)

VALUATION = (
    FeatureSpec("mvrv_z", "valuation", "z of ln mvrv", "standard deviations", ("mvrv",)),
    FeatureSpec("log_nvt_z", "valuation", "z of ln nvt", "standard deviations", ("nvt",)),
    FeatureSpec("sopr_minus_1", "valuation", "sopr − 1", "ratio", ("sopr",)),
    FeatureSpec("realised_cap_change_30d", "valuation", "30-day change of ln realised_cap_usd", "ln ratio", ("realised_cap_usd",)),
)

SUPPLY = (
    FeatureSpec(
        "stablecoin_supply_change_7d", "supply", "7-day change of ln stablecoin_supply_usd", "ln ratio", ("stablecoin_supply_usd",)
    ),
    FeatureSpec(
        "stablecoin_flow_z", "supply", "z of stablecoin_exchange_flow_usd", "standard deviations", ("stablecoin_exchange_flow_usd",)
    ),
    FeatureSpec(
        "security_change_30d",
        "supply",
        "30-day change of ln hash_rate, or of ln staked_share while there is no hash rate",
        "ln ratio",
        ("hash_rate|staked_share",),
    ),
)

CHAIN_FEATURES: tuple[FeatureSpec, ...] = (*ACTIVITY, *EXCHANGE, *HOLDERS, *VALUATION, *SUPPLY)
"""The 30 on-chain features in the order of the last axis of `chain_features`."""

MEMORY_DAYS = 100
"""Days of readings before a bar that its features can depend on: 90 of a window, and the ages of the readings in it."""

_Metric = Callable[[str], Series]


def chain_features(panel: Panel, dataset: Dataset) -> Floats:
    """All 30 features. Shapes: bars `[T, A]` → `[T, A, 30]`; NaN where masked, never infinite.

    The asset of an instrument is the base of its rules, or what stands before the `/` of its name.
    """
    values = np.full((len(panel), len(panel.instruments), len(CHAIN_FEATURES)), np.nan)
    with np.errstate(invalid="ignore", over="ignore"):  # absurd readings overflow here and are masked below
        for a, instrument in enumerate(panel.instruments):
            for f, feature in enumerate(asset_series(dataset, base_of(dataset, instrument))):
                values[:, a, f] = feature.at(panel.known_at)
    values[~np.isfinite(values)] = np.nan
    return values


def base_of(dataset: Dataset, instrument: str) -> str:
    """The asset whose chain an instrument trades: `BTC/USDT` → `BTC`."""
    rules = dataset.rules.get(instrument)
    return rules.base if rules is not None else instrument.partition("/")[0]


def asset_series(dataset: Dataset, asset: str) -> tuple[Series, ...]:
    """The features of `CHAIN_FEATURES` for one asset, on their own clocks."""
    return _features(asset, tuple((key, dataset.readings[key]) for key in sorted(dataset.readings) if key[0] in (asset, MARKET)))


@lru_cache(maxsize=64)
def _features(asset: str, tables: tuple[tuple[tuple[str, str], ReadingTable], ...]) -> tuple[Series, ...]:
    """`asset_series` of these very tables, which never change: readings come once a day, bars each hour."""
    readings = dict(tables)

    def metric(name: str, of: str = asset) -> Series:
        table = readings.get((of, name))
        return EMPTY if table is None else series(table)

    activity = tuple(feature for name in _ACTIVITY_METRICS for log in (metric(name).log(),) for feature in (log.z(), log.change(7)))
    return (*activity, *_exchange(metric), *_holders(metric), *_valuation(metric), *_supply(metric, lambda name: metric(name, MARKET)))


def _exchange(metric: _Metric) -> tuple[Series, ...]:
    inflow, outflow = metric("exchange_inflow_usd"), metric("exchange_outflow_usd")
    net = combine(lambda i, o, cap: (i - o) / cap, inflow, outflow, metric("market_cap_usd"))
    week = net.mean(7)
    reserve = combine(lambda coins, supply: coins / supply, metric("exchange_reserve"), metric("supply"))
    return net, week.with_value(7.0 * week.value), inflow.log().z(), outflow.log().z(), reserve, reserve.change(30)


def _holders(metric: _Metric) -> tuple[Series, ...]:
    whales = combine(lambda flow, cap: flow / cap, metric("whale_to_exchange_usd"), metric("market_cap_usd"))
    dormant = metric("dormant_1y_share")
    return metric("whale_transfers").log_of_count().z(), whales, metric("top100_share").change(30), dormant, dormant.change(30)


def _valuation(metric: _Metric) -> tuple[Series, ...]:
    sopr = metric("sopr")
    return metric("mvrv").log().z(), metric("nvt").log().z(), sopr.with_value(sopr.value - 1.0), metric("realised_cap_usd").log().change(30)


def _supply(metric: _Metric, market: _Metric) -> tuple[Series, ...]:
    # chosen moment by moment: whether a hash rate will be published one day must not decide what is used today
    security = either(metric("hash_rate").log().change(30), metric("staked_share").log().change(30))
    flow = market("stablecoin_exchange_flow_usd")
    return market("stablecoin_supply_usd").log().change(7), flow.z(), security
