"""What the fake exchange tells its streams: an order changed, an account changed, a bar of the market moved.

Plain values in the exchange's own terms. `user_stream` and `streams_market` say how Binance words them for spot and for USD-M futures.
Times are milliseconds of the exchange's clock, amounts `Decimal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from cryptoalpha.execution.money import ZERO


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderUpdate:
    """One order after one change: `execution` is what happened, `status` how it stands now; from `trade_id` on, the trade."""

    symbol: str
    """As the venue writes it: `BTCUSDT`."""
    client_id: str
    order_id: int
    side: str
    type: str
    time_in_force: str
    quantity: Decimal
    price: Decimal
    """The limit, 0 for a market order."""
    filled: Decimal
    """Cumulative, in base."""
    quote_filled: Decimal
    """Cumulative, in quote."""
    execution: str
    """`NEW`, `TRADE`, `CANCELED`, `EXPIRED` or `REJECTED`."""
    status: str
    """`NEW`, `PARTIALLY_FILLED`, `FILLED`, `CANCELED`, `EXPIRED` or `REJECTED`."""
    created_ms: int
    at_ms: int
    reduce_only: bool = False
    original_client_id: str = ""
    """Of a cancel: the id the order was sent under (`client_id` is then the cancel's own)."""
    trade_id: int = -1
    last_quantity: Decimal = ZERO
    last_price: Decimal = ZERO
    fee: Decimal = ZERO
    fee_asset: str = ""
    is_maker: bool = False
    realized: Decimal = ZERO
    """Profit a futures trade has realized, in quote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountUpdate:
    """Balances (asset, free, locked) and positions (symbol, signed quantity, entry price) that changed."""

    at_ms: int
    balances: tuple[tuple[str, Decimal, Decimal], ...] = ()
    positions: tuple[tuple[str, Decimal, Decimal], ...] = ()
    reason: str = "ORDER"
    """`ORDER`, `FUNDING_FEE`, `DEPOSIT` or `WITHDRAW`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarUpdate:
    """A bar as it stands: still forming, or closed for good."""

    symbol: str
    futures: bool
    interval: str
    """As the venue writes it: `1m`, `1h`."""
    open_ms: int
    close_ms: int
    """Last millisecond of the bar."""
    open: float
    high: float
    low: float
    close: float
    volume: float
    is_closed: bool = True
    at_ms: int = 0
    """When it is told; 0 for `close_ms`."""


Event = OrderUpdate | AccountUpdate
