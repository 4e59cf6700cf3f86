"""What was earned: profit realised and not, by first-in-first-out lots and by average cost.

Both start from the same fills and differ only in which purchase a sale is set against; realised and unrealised profit add up to the same
number, which is what the book gained by trading. Fees are kept apart: `profit = realised + unrealised − fees + funding`, and that is the
change of equity, to the last digit (invariant I3 said another way; the tests do).

Longs and shorts alike: a lot is a signed quantity at a price, and a trade against it closes the oldest first. A fee in the asset traded
makes the newest lot smaller: it left the account and nobody was paid for it, so it is realised at the price of the trade and counted as a
fee. An `Adjustment` moves quantity like a trade at its price; what it did not pay for that is a transfer, not profit.

Average cost is kept as the total paid for what is held; only a partial sale divides, to a trillionth of the quote currency, and what it
takes from the cost is what it realises, so nothing is lost. The lots never divide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from cryptoalpha.core.values import Adjustment, Fill, FundingPayment
from cryptoalpha.execution.money import ZERO
from cryptoalpha.execution.portfolio import base_asset

SHARE = Decimal("1e-12")
"""To what the share of a partial sale in the cost is rounded."""


class Lot(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of one opening trade."""

    quantity: Decimal
    """Signed."""
    price: Decimal
    opened_at: int
    trade_id: str


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a lot that a later trade closed."""

    instrument: str
    quantity: Decimal
    """Signed as the lot was: positive was a long."""
    bought_by: str
    sold_by: str
    opened_at: int
    closed_at: int
    open_price: Decimal
    close_price: Decimal

    @property
    def profit(self) -> Decimal:
        """Quote units, before fees."""
        return self.quantity * (self.close_price - self.open_price)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument in numbers; all money in quote currency, before fees unless it says so."""

    quantity: Decimal
    cost: Decimal
    """Paid for what is held (negative: got for a short), by average cost."""
    realised: Decimal
    """By lots."""
    realised_by_average: Decimal
    fees: Decimal
    funding: Decimal
    transferred: Decimal
    """Value that others brought (negative: took) without paying for it."""

    @property
    def average_cost(self) -> Decimal | None:
        """Average price of what is held; None where it is flat."""
        return None if self.quantity == 0 else self.cost / self.quantity

    def unrealised(self, price: Decimal) -> Decimal:
        """By average cost, at a price."""
        return self.quantity * price - self.cost


class _Account:
    """One instrument."""

    __slots__ = ("cost", "fees", "funding", "lots", "quantity", "realised", "realised_by_average", "transferred")

    def __init__(self) -> None:
        self.lots: deque[Lot] = deque()
        self.quantity = self.cost = ZERO
        self.realised = self.realised_by_average = ZERO
        self.fees = self.funding = self.transferred = ZERO


class LotBook:
    """Fills in, lots and profit out.

    Args:
        keep_closed: whether `closed` lists every round trip; a book of a million trades may not want to.
    """

    def __init__(self, *, keep_closed: bool = True) -> None:
        self._accounts: dict[str, _Account] = {}
        self._keeps = keep_closed
        self.closed: list[Closed] = []

    @classmethod
    def of(cls, events: Iterable[object]) -> LotBook:
        """The book after all of these; what is neither fill, funding nor adjustment is passed over."""
        book = cls()
        for event in events:
            if isinstance(event, Fill | FundingPayment | Adjustment):
                book.apply(event)
        return book

    def apply(self, event: Fill | FundingPayment | Adjustment) -> None:
        """Take a trade, a payment, or what others did. In the order in which they count as first and last."""
        account = self._accounts.setdefault(event.instrument, _Account())
        if isinstance(event, FundingPayment):
            account.funding += event.amount
        elif isinstance(event, Adjustment):
            account.transferred += event.quantity * event.price + event.cash
            self._trade(account, event.instrument, event.quantity, event.price, event.happened_at, event.source)
        else:
            signed = event.quantity if event.side == "buy" else -event.quantity
            self._trade(account, event.instrument, signed, event.price, event.happened_at, event.trade_id)
            if event.fee_value is not None and event.fee_asset == base_asset(event.instrument):
                account.fees += event.fee * event.price  # exact, as the position loses it; `fee_value` is rounded
                self._leave(account, event)
            else:
                account.fees += event.fee if event.fee_value is None else event.fee_value

    def lots(self, instrument: str) -> tuple[Lot, ...]:
        """What is held, oldest first."""
        account = self._accounts.get(instrument)
        return () if account is None else tuple(account.lots)

    def standing(self, instrument: str) -> Standing:
        """One instrument in numbers."""
        account = self._accounts.get(instrument) or _Account()
        return Standing(
            quantity=account.quantity,
            cost=account.cost,
            realised=account.realised,
            realised_by_average=account.realised_by_average,
            fees=account.fees,
            funding=account.funding,
            transferred=account.transferred,
        )

    def standings(self) -> dict[str, Standing]:
        """All instruments that were ever traded, by name."""
        return {name: self.standing(name) for name in sorted(self._accounts)}

    def unrealised(self, instrument: str, price: Decimal) -> Decimal:
        """By lots, at a price."""
        return sum((lot.quantity * (price - lot.price) for lot in self.lots(instrument)), ZERO)

    def profit(self, prices: Mapping[str, Decimal]) -> Decimal:
        """What trading earned after fees and with funding: the change of equity less what others brought or took.

        Raises:
            KeyError: if something is held that has no price.
        """
        total = ZERO
        for name, account in self._accounts.items():
            total += account.realised - account.fees + account.funding
            if account.lots:
                total += self.unrealised(name, prices[name])
        return total

    def _trade(self, account: _Account, instrument: str, signed: Decimal, price: Decimal, at: int, cause: str) -> None:
        """Close against the oldest lots, open with the rest."""
        if signed == 0:
            return
        _average(account, signed, price)
        rest, lots = signed, account.lots
        while rest != 0 and lots and (lots[0].quantity > 0) != (rest > 0):
            lot = lots[0]
            part = lot.quantity if abs(lot.quantity) <= abs(rest) else -rest
            self._close(account, Closed(
                instrument=instrument, quantity=part, bought_by=lot.trade_id, sold_by=cause,
                opened_at=lot.opened_at, closed_at=at, open_price=lot.price, close_price=price,
            ))  # fmt: skip
            rest += part
            if part == lot.quantity:
                lots.popleft()
            else:
                lots[0] = msgspec.structs.replace(lot, quantity=lot.quantity - part)
        if rest != 0:
            lots.append(Lot(quantity=rest, price=price, opened_at=at, trade_id=cause))

    def _leave(self, account: _Account, fill: Fill) -> None:
        """A fee in the asset traded: as if that much had been sold at the trade's price, for nothing but the fee. From the newest lot."""
        if fill.fee == 0:
            return
        newest = account.lots[-1] if account.lots else None
        if newest is not None and newest.quantity > fill.fee > 0:
            _average(account, -fill.fee, fill.price)
            account.lots[-1] = msgspec.structs.replace(newest, quantity=newest.quantity - fill.fee)
            self._close(account, Closed(
                instrument=fill.instrument, quantity=fill.fee, bought_by=newest.trade_id, sold_by=fill.trade_id,
                opened_at=newest.opened_at, closed_at=fill.happened_at, open_price=newest.price, close_price=fill.price,
            ))  # fmt: skip
        else:
            self._trade(account, fill.instrument, -fill.fee, fill.price, fill.happened_at, fill.trade_id)

    def _close(self, account: _Account, closed: Closed) -> None:
        account.realised += closed.profit
        if self._keeps:
            self.closed.append(closed)


def _average(account: _Account, signed: Decimal, price: Decimal) -> None:
    """Average cost: what enlarges the position adds to its cost, what reduces it takes its share of the cost and realises the rest, what
    goes through zero does both."""
    held = account.quantity
    if held != 0 and (held > 0) != (signed > 0):
        closing = signed if abs(signed) < abs(held) else -held
        share = account.cost if closing == -held else (account.cost * -closing / held).quantize(SHARE)
        account.cost -= share
        account.realised_by_average += -closing * price - share
        account.quantity += closing
        signed -= closing
    account.quantity += signed
    account.cost += signed * price
