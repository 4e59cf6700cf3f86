"""What a venue can be asked, and what its answers are made of. The one boundary between our orders and somebody else's machine.

Everything here is validated where it enters (`execution.live`): a report has a venue id, a known state and sane numbers, or it is no report
but `Ambiguous`. Quantities and prices are `Decimal`, times UTC ns by the venue's clock, instruments our names (`BTC/USDT`).

An answer to an order is one of three: `Accepted` and `Rejected` are definite, `Ambiguous` is everything else and never ends an order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, Protocol

import msgspec

from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.values import InstrumentRules, Order, Side

VenueState = Literal["open", "partial", "filled", "canceled", "expired", "rejected"]
"""How a venue describes an order. The last four are final."""


class OrderReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the venue says of one order at one moment."""

    instrument: str
    client_id: str
    """As the venue echoes it; another's order carries another's id."""
    venue_id: str
    state: VenueState
    side: Side
    quantity: Decimal
    filled: Decimal
    """Cumulative; never more is known to be undone."""
    average_price: Decimal | None = None
    limit_price: Decimal | None = None
    reduce_only: bool = False
    at: int
    """When the venue last changed it."""


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """One execution as the venue books it. `trade_id` is unique per instrument."""

    instrument: str
    trade_id: str
    venue_id: str
    """The venue's id of the order."""
    client_id: str = ""
    """Ours, where the message carries it; else found by `venue_id`."""
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    """In `fee_asset`; negative is a rebate."""
    fee_asset: str
    is_maker: bool = False
    at: int


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """One asset of the account."""

    asset: str
    free: Decimal
    used: Decimal
    """Reserved by open orders."""

    @property
    def total(self) -> Decimal:
        return self.free + self.used


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """One perpetual position, signed; `entry_price` is the venue's average."""

    instrument: str
    quantity: Decimal
    entry_price: Decimal


class FundingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One settlement of funding as the venue books it; positive amounts are received."""

    instrument: str
    record_id: str
    amount: Decimal
    asset: str
    at: int


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What the key may do."""

    may_trade: bool
    may_withdraw: bool


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The venue has the order: its id and a known state came back, and our own id with them."""

    report: OrderReport
    trades: tuple[Trade, ...] = ()
    """Executions that came with the answer."""


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """The venue has refused the order for good, with a code of its own."""

    code: str
    message: str
    is_key: bool = False
    """The key was refused: stop trading, tell a person."""


class Ambiguous(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody knows what became of the request. The order may live, may be filled, may never have arrived."""

    reason: str
    retry_after_seconds: float = 0.0
    """Wait that the venue asked for (429, 418)."""
    is_clock: bool = False
    """The venue disputes our clock: resync before asking again."""
    is_key: bool = False
    """The key was refused: stop trading, tell a person."""
    refusal: Rejected | None = None
    """What the venue seems to have said of a new order, if a question for it confirms that it is not there: one `NotFound` will do."""
    exists: bool = False
    """The venue says that it has an order of this id: look it up and adopt it. Such an order is never absent."""


class NotFound(msgspec.Struct, frozen=True, kw_only=True):
    """The venue knows no such order, or no longer. Evidence of absence, no proof (`orders.absence`)."""

    message: str = ""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """The account's stream went up or down. Down or up again: what happened between must be asked for."""

    is_up: bool
    reason: str = ""


UNWANTED = "local:unwanted"
"""Code of the refusal of an order that was called back before it left."""
Answer = Accepted | Rejected | Ambiguous
Inquiry = OrderReport | NotFound | Ambiguous
StreamEvent = OrderReport | Trade | Balance | Link


class UnclearError(VenueError):
    """A question to the venue got no answer that can be believed. Nothing was changed by asking; ask again later."""

    def __init__(self, message: str, *, answer: Ambiguous) -> None:
        super().__init__(message, hint="check the network and the venue's status; what is open stays open until the venue answers")
        self.answer = answer


class Venue(Protocol):
    """An account at a venue. Methods of questions raise `UnclearError` where no answer can be believed; those of orders never raise."""

    name: str

    @property
    def is_futures(self) -> bool: ...

    async def open(self) -> None:
        """Load markets and set the clock. Raises `UnclearError`, or `ConfigError` for a key the venue refuses."""
        ...

    async def close(self) -> None: ...

    async def rules(self, instruments: Sequence[str]) -> Mapping[str, InstrumentRules]: ...

    async def rights(self) -> Rights: ...

    async def submit(self, order: Order, *, wanted: Callable[[], bool] = lambda: True) -> Answer:
        """Send it, once. Whatever happens comes back as an answer.

        Args:
            wanted: asked directly before the request leaves, after whatever had to be waited for; if not, it is `Rejected` (`UNWANTED`).
        """
        ...

    async def cancel(self, instrument: str, client_id: str) -> Inquiry:
        """Ask to cancel it. `NotFound`: not open any more, or never there; query it then."""
        ...

    async def query(self, instrument: str, client_id: str) -> Inquiry: ...

    async def open_orders(self, instrument: str) -> list[OrderReport]:
        """All of the account's, foreign ones too."""
        ...

    async def trades(self, instrument: str, *, after: str | None, since: int) -> list[Trade]:
        """All of the account's with an id above `after` (else made at `since` or later), oldest first, every page."""
        ...

    async def balances(self) -> Mapping[str, Balance]: ...

    async def positions(self) -> Mapping[str, Position]:
        """Perpetuals only; empty at a spot venue."""
        ...

    async def funding(self, since: int) -> list[FundingRecord]: ...

    async def price(self, instrument: str) -> Decimal:
        """Last traded price; for assets that fees are paid in as well (`BNB/USDT`)."""
        ...

    async def clock_offset(self) -> int:
        """The venue's clock less ours, ns; measured anew, and used for signatures from then on."""
        ...

    def events(self) -> AsyncIterator[StreamEvent]:
        """The account's stream, for ever: reconnects by itself with growing, jittered waits and says so with `Link`."""
        ...
