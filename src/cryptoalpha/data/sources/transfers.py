"""Large transfers: which movements of coins are worth telling, and whether they go to an exchange or come from one.

A transfer is large if it is worth at least so many dollars and, once enough have been seen, a multiple of a quantile of the asset's recent
ones. The quantile is read off counts in buckets of 10 % width over the newest `window` to `2 · window` transfers: memory is bounded, and
the counts go into the source's position, so that a restart judges the same blocks exactly as before.

Sources: buckets after Masson, Rim & Lee (2019), "DDSketch" (relative error 5 % at this width); two generations instead of decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.streamed import Transfer
from cryptoalpha.data.sources.chain_config import TransfersSection

Prices = Callable[[str], float]
"""Dollars for one unit of an asset; NaN where nobody knows."""

Flow = Literal["to_exchange", "from_exchange", "between_exchanges", "inside_exchange", "other"]

_WIDTH = math.log(1.1)
_LEAST, _MOST = -100, 400  # buckets, 1.1^−100 ≈ 7e−5 to 1.1^400 ≈ 4e16 dollars: both ends collect what lies beyond


class Labels:
    """Labels of known addresses.

    Args:
        exchanges: addresses by label. Hexadecimal ones are told apart without regard to case, others with it.

    Raises:
        ConfigError: if an address stands under two labels.
    """

    def __init__(self, exchanges: Mapping[str, tuple[str, ...]]) -> None:
        self._label: dict[str, str] = {}
        self._exchanges = frozenset(exchanges)
        for label, addresses in exchanges.items():
            for address in addresses:
                if self._label.setdefault(plain(address), label) != label:
                    raise ConfigError(
                        f"address {address} belongs to {self._label[plain(address)]} and {label}",
                        hint="name it once in data.streams.sources.transfers.exchanges",
                    )

    def of(self, address: str) -> str:
        """The label of an address, else the address itself."""
        return self._label.get(plain(address), address)

    def flow(self, transfer: Transfer) -> Flow:
        """Where a transfer goes, seen from the exchanges."""
        out, into = transfer.sender in self._exchanges, transfer.receiver in self._exchanges
        if out and into:
            return "inside_exchange" if transfer.sender == transfer.receiver else "between_exchanges"
        return "to_exchange" if into else "from_exchange" if out else "other"


def plain(address: str) -> str:
    """An address as it is compared: hexadecimal in small letters, all others as they are (base58 tells case apart)."""
    return address.lower() if address[:2] in ("0x", "0X") else address


class Sketch(msgspec.Struct):
    """Counts of worths by bucket, in two generations. What is asked about is both together."""

    older: dict[int, int] = {}
    newer: dict[int, int] = {}
    seen: int = 0
    """Worths in `newer`."""

    def add(self, worth: float, *, window: int) -> None:
        """Count one worth; nothing and less is left out."""
        if not 0.0 < worth < math.inf:
            return
        if self.seen >= window:
            self.older, self.newer, self.seen = self.newer, {}, 0
        bucket = min(max(math.floor(math.log(worth) / _WIDTH), _LEAST), _MOST)
        self.newer[bucket] = self.newer.get(bucket, 0) + 1
        self.seen += 1

    def quantile(self, share: float) -> float:
        """The worth that `share` of those counted do not exceed, to within 5 %; NaN if there are none."""
        total = self.seen + sum(self.older.values())
        if not total:
            return math.nan
        wanted, passed = share * total, 0
        for bucket in sorted(self.older.keys() | self.newer.keys()):
            passed += self.older.get(bucket, 0) + self.newer.get(bucket, 0)
            if passed >= wanted:
                return math.exp((bucket + 0.5) * _WIDTH)
        raise AssertionError("a share above one")


class LargeTransfers:
    """Tells large transfers from the rest.

    Args:
        prices: asked for every asset without a price of its own in the messages.
        sketches: what an earlier run had seen, by asset.
    """

    def __init__(self, config: TransfersSection, prices: Prices, *, sketches: Mapping[str, Sketch] | None = None) -> None:
        self._config, self._prices = config, prices
        self.most_per_block = config.most_per_block
        self.labels = Labels(config.exchanges)
        self.sketches: dict[str, Sketch] = dict(sketches or {})

    def worth(self, asset: str, amount: float) -> float:
        """Dollars; NaN where the price is not known."""
        worth = amount * self._prices(asset)
        return worth if 0.0 < worth < math.inf else math.nan

    def least(self, asset: str) -> float:
        """Dollars from which a transfer is large now."""
        floor = self._config.least_usd_of.get(asset, self._config.least_usd)
        sketch = self.sketches.get(asset)
        if sketch is None or self._config.multiple == 0.0 or (sketch.seen < self._config.window and not sketch.older):
            return floor
        return max(floor, self._config.multiple * sketch.quantile(self._config.quantile))

    def is_large(self, asset: str, amount: float, worth: float, least: float) -> bool:
        """Whether a transfer is large, by the dollars `least` or, where it has no worth, by its coins."""
        return worth >= least if not math.isnan(worth) else amount >= self._config.least_coins_of.get(asset, math.inf)

    def count(self, asset: str, worth: float) -> None:
        """Remember a transfer, large or not; it moves the quantile from the next question on."""
        self.sketches.setdefault(asset, Sketch()).add(worth, window=self._config.window)
