"""The vocabulary of measurements that are not prices: what a `ChainReading.metric` may be called, its unit and its meaning.

Sources translate their own column names into these; features and signals read only these. A metric of asset `*` is market-wide.

A series is of one source: funding of two venues is two things. Of several sources the one that a data set holds keeps the plain name, and
the series of another is called `funding_rate.okx` (`series_name`), in the store as in memory; features and signals do not read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

MARKET = "*"
"""The asset of a market-wide reading."""

Scope = Literal["asset", "market"]


@dataclass(frozen=True)
class Metric:
    """One named measurement: its unit, what it means, and whether it belongs to an asset or to the whole market."""

    name: str
    unit: str
    description: str
    scope: Scope = "asset"
    whole_day: bool = True
    """Whether it is a reading of the day that holds `happened_at`, so that nobody can know it before that day is over."""


_ALL = (
    Metric("active_addresses", "count/day", "distinct addresses that sent or received"),
    Metric("new_addresses", "count/day", "addresses seen for the first time"),
    Metric("transactions", "count/day", "transactions in blocks of the day"),
    Metric("transfer_value_usd", "USD/day", "value moved, without change outputs where the source can tell"),
    Metric("mean_transfer_usd", "USD", "mean value of one transfer"),
    Metric("fees_usd", "USD/day", "fees paid to miners or validators"),
    Metric("exchange_inflow_usd", "USD/day", "value sent to addresses of exchanges"),
    Metric("exchange_outflow_usd", "USD/day", "value sent from addresses of exchanges"),
    Metric("exchange_reserve", "coins", "coins held by exchanges at the end of the day"),
    Metric("supply", "coins", "coins in existence at the end of the day"),
    Metric("market_cap_usd", "USD", "supply times price"),
    Metric("realised_cap_usd", "USD", "every coin valued at the price of its last move"),
    Metric("mvrv", "ratio", "market cap over realised cap"),
    Metric("nvt", "ratio", "market cap over the day's transfer value"),
    Metric("whale_transfers", "count/day", "transfers of at least 1M USD"),
    Metric("whale_to_exchange_usd", "USD/day", "transfers of at least 1M USD to exchanges less those from them"),
    Metric("top100_share", "fraction", "supply held by the hundred largest addresses"),
    Metric("dormant_1y_share", "fraction", "supply that has not moved for a year"),
    Metric("sopr", "ratio", "price at which moved coins were spent over the price at which they were got"),
    Metric("hash_rate", "TH/s", "hashes computed per second, mean of the day"),
    Metric("staked_share", "fraction", "supply locked in staking"),
    Metric("stablecoin_supply_usd", "USD", "dollar stablecoins in existence", "market"),
    Metric("stablecoin_exchange_flow_usd", "USD/day", "stablecoins sent to exchanges less those sent from them", "market"),
    Metric("funding_rate", "fraction per settlement", "paid by longs to shorts of the perpetual when positive", whole_day=False),
    Metric("fear_greed", "0..100", "mood index; 0 extreme fear, 100 extreme greed", "market", whole_day=False),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name."""

ASSET_METRICS: tuple[str, ...] = tuple(metric.name for metric in _ALL if metric.scope == "asset")
MARKET_METRICS: tuple[str, ...] = tuple(metric.name for metric in _ALL if metric.scope == "market")

LIVE_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("block_transactions", "count", "transactions in a block", whole_day=False),
        Metric("block_bytes", "bytes", "size of a block", whole_day=False),
        Metric("block_fees", "coins", "fees paid in a block", whole_day=False),
        Metric("block_gas", "gas", "gas used in a block", whole_day=False),
        Metric("mempool_transactions", "count", "transactions that wait for a block", whole_day=False),
        Metric("mempool_vbytes", "vbytes", "virtual size of what waits for a block", whole_day=False),
        Metric("fee_next_block", "sat/vB or gwei", "fee rate that should enter the next block; Ethereum: the base fee", whole_day=False),
        Metric("fee_half_hour", "sat/vB", "fee rate for half an hour", whole_day=False),
        Metric("fee_hour", "sat/vB", "fee rate for an hour", whole_day=False),
        Metric("funding_rate_expected", "fraction per settlement", "funding as it would be settled now", whole_day=False),
        Metric("fee_least", "sat/vB", "lowest fee rate that is relayed", whole_day=False),
    )
}
"""What chains say block by block, and perpetuals between settlements. Streams carry it; history has none, so no feature reads it."""

_MARKETS_OF: Final = {"binanceusdm": "binance", "bybitlinear": "bybit"}


def filed_under(source: str) -> str:
    """The name under which a source's readings are kept: a venue's, also where its perpetuals are listened to under a name of their own."""
    return _MARKETS_OF.get(source, source)


def series_name(metric: str, source: str, *, owner: str) -> str:
    """What a source's series of a metric is called, where the plain name belongs to `owner`."""
    return metric if filed_under(source) == filed_under(owner) else f"{metric}.{filed_under(source)}"
