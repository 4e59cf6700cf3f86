"""Cash and positions, counted in `Decimal` after every fill.

Promises, checked always and in every mode: each trade is booked once; a book of spot longs never has negative cash; equity never reaches
zero. A broken promise raises `AccountingError`; a run never goes on with numbers that do not add up.

At any time `cash = initial cash − Σ side · quantity · price − fees + funding + adjustments` and `equity = cash + Σ position · mark`
(invariant I3, which the tests recompute from the fills). A fee in the asset traded leaves the position instead of the cash; a fee in a
third asset costs cash what it was worth at the trade (`Fill.fee_value`), as if the book had bought it from the account's owner: `fees_paid`
counts all three in quote currency. An `Adjustment` is what others did to the book. What is left below the smallest lot (dust) stays a
position and is valued like any other. Perpetual positions are kept the same way: the notional moves through cash, which gives the
same equity as margin accounting. A short leaves its proceeds in cash; the broker lets exposure grow only while equity covers the gross of
the book (`free_cash`), so there is no leverage. With a short or a perpetual in the book, cash may pass below zero by funding or losses;
equity decides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal

from cryptoalpha.core.errors import AccountingError, ConfigError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, PortfolioState, Side
from cryptoalpha.execution.money import CENT, ZERO, exact


def base_asset(instrument: str) -> str:
    """What is bought and sold: the `BTC` of `BTC/USDT` and of `BTC/USDT:USDT`."""
    return instrument.partition("/")[0]


class Portfolio:
    """One account.

    Args:
        initial_cash: quote units.
        instruments: order in which `mark` gets its prices.
        perpetual: those of them that are perpetual contracts.
        may_overdraw: whether cash may pass below zero, and funding be paid on another position than the one held by now. What a venue
            did becomes known in any order, a buy before the sell that paid for it: there it is a fact, and reconciliation compares the
            book with the venue's. Elsewhere it is an error.

    Raises:
        AccountingError: from `apply` and `mark` when the books do not add up (see the module header).
    """

    def __init__(
        self, initial_cash: Decimal | float, instruments: Sequence[str], perpetual: Collection[str] = (), *, may_overdraw: bool = False
    ) -> None:
        self.initial_cash = initial_cash if isinstance(initial_cash, Decimal) else exact(float(initial_cash))
        if not self.initial_cash > 0:
            raise ConfigError(f"a portfolio cannot start with {self.initial_cash} of cash", hint="set execution.initial_cash above 0")
        self._place = {name: i for i, name in enumerate(instruments)}
        self._names = tuple(instruments)
        self._perpetual = frozenset(self._place[name] for name in perpetual if name in self._place)
        self.may_overdraw = may_overdraw
        self.cash = self.initial_cash
        self.fees_paid = ZERO
        self.funding_received = ZERO
        self.peak_equity = self.initial_cash
        self._held: dict[int, Decimal] = {}
        self._marks: dict[int, Decimal] = {}
        self._applied: list[set[str]] = [set() for _ in self._names]  # a venue counts its trades by instrument
        self._positions: tuple[tuple[str, Decimal], ...] = ()

    def position(self, instrument: str) -> Decimal:
        """Base units held; negative for a short."""
        return self._held.get(self._index(instrument), ZERO)

    @property
    def positions(self) -> tuple[tuple[str, Decimal], ...]:
        """What is held, in the order of the instruments; nothing that is flat."""
        return self._positions

    def free_cash(self, prices: Sequence[float]) -> Decimal:
        """What exposure may still grow by: equity less the gross of the book, `cash − 2 · Σ shorts`; plain cash where nothing is short.

        Args:
            prices: one per instrument; NaN means the last known one.
        """
        free = self.cash
        for index, quantity in self._held.items():
            if quantity < 0:
                price = prices[index]
                free += 2 * quantity * (exact(price) if price == price else self._marks[index])
        return free

    def covered(self, instrument: str, side: Side, quantity: Decimal, price: Decimal, fee_rate: Decimal, marks: Sequence[float]) -> Decimal:
        """How much of a trade equity covers. What closes a position always is; exposure grows only by free cash.

        Args:
            price: of the trade.
            fee_rate: fraction of notional.
            marks: as in `free_cash`, at the moment of the trade.
        """
        held = self.position(instrument)
        is_buy = side == "buy"
        closing = min(quantity, abs(held)) if held != 0 and (held < 0) == is_buy else ZERO
        opening = quantity - closing
        if opening == 0:
            return quantity
        free = self.free_cash(marks)
        if closing:  # what it sets free: proceeds of a sale, or the mark reserved for a short less what buying it back costs
            mark = exact(marks[self._index(instrument)])
            free += closing * (2 * mark - price * (1 + fee_rate)) if is_buy else closing * price * (1 - fee_rate)
        unit, budget = price * (1 + fee_rate), free - 2 * CENT  # fees are rounded: leave room for it
        if opening * unit <= budget:
            return quantity
        return closing + max(ZERO, budget / unit)

    def apply(self, event: Fill | FundingPayment | Adjustment) -> None:
        """Book a trade, a funding payment, or what others did to the book."""
        if isinstance(event, Fill):
            self._apply_fill(event)
        elif isinstance(event, FundingPayment):
            self.apply_funding(event)
        else:
            self._apply_adjustment(event)

    def _apply_fill(self, fill: Fill) -> None:
        index = self._index(fill.instrument)
        applied = self._applied[index]
        if fill.trade_id in applied:
            raise AccountingError(f"trade {fill.trade_id} of {fill.instrument} is booked already", hint="drop duplicates by trade id")
        signed = fill.quantity if fill.side == "buy" else -fill.quantity
        held = self._held.get(index, ZERO) + signed
        applied.add(fill.trade_id)
        if fill.fee_value is None:
            self.cash -= signed * fill.price + fill.fee
            self.fees_paid += fill.fee
        elif fill.fee_asset == base_asset(fill.instrument):
            self.cash -= signed * fill.price
            self.fees_paid += fill.fee_value
            held -= fill.fee
        else:
            self.cash -= signed * fill.price + fill.fee_value
            self.fees_paid += fill.fee_value
        self._marks[index] = fill.price
        if held:
            self._held[index] = held
        else:
            self._held.pop(index, None)
        self._positions = tuple((self._names[i], self._held[i]) for i in sorted(self._held))
        if self.cash < 0:
            self._refuse_unfunded(f"after trade {fill.trade_id} of {fill.instrument}")

    def _apply_adjustment(self, change: Adjustment) -> None:
        index = self._index(change.instrument)
        cause = f"adjustment {change.source}"
        if cause in self._applied[index]:
            raise AccountingError(f"{cause} of {change.instrument} is booked already", hint="drop duplicates by their source")
        self._applied[index].add(cause)
        held = self._held.get(index, ZERO) + change.quantity
        self.cash += change.cash
        self._marks[index] = change.price
        if held:
            self._held[index] = held
        else:
            self._held.pop(index, None)
        self._positions = tuple((self._names[i], self._held[i]) for i in sorted(self._held))

    def apply_funding(self, payment: FundingPayment) -> None:
        """Book a funding payment.

        Raises:
            AccountingError: if it was computed on a position other than the one held, in a book that knows its trades in their order.
        """
        held = self._held.get(self._index(payment.instrument), ZERO)
        if payment.position != held and not self.may_overdraw:
            raise AccountingError(
                f"funding of {payment.instrument} at {iso(payment.happened_at)} was paid on {payment.position}, but the book holds {held}"
            )
        self.cash += payment.amount
        self.funding_received += payment.amount
        if self.cash < 0:
            self._refuse_unfunded(f"after funding of {payment.instrument} at {iso(payment.happened_at)}")

    def _refuse_unfunded(self, when: str) -> None:
        """Negative cash is money that nobody lent, unless a perpetual or a short explains it: then equity decides."""
        if not self.may_overdraw and all(quantity > 0 and index not in self._perpetual for index, quantity in self._held.items()):
            raise AccountingError(
                f"cash is {self.cash} {when}: the book spent money it does not have",
                hint="the broker must cut buys to what cash covers; leave room with risk.max_gross below 1",
            )

    def mark(self, at: int, prices: Sequence[float]) -> PortfolioState:
        """Value the book.

        Args:
            at: when `prices` are known, UTC ns.
            prices: one per instrument, in the order given at the start; NaN keeps the last known price.

        Raises:
            AccountingError: if nothing is left.
        """
        equity = self.cash
        for index, quantity in self._held.items():
            price = prices[index]
            if price == price:  # not NaN
                self._marks[index] = mark = Decimal(repr(price))
                equity += quantity * mark
            else:
                equity += quantity * self._marks[index]
        if equity > self.peak_equity:
            self.peak_equity = equity
        elif equity <= 0:
            raise AccountingError(f"equity is {equity} at {iso(at)}: the account is bankrupt", hint="lower risk.max_gross or forbid shorts")
        return PortfolioState(
            happened_at=at,
            known_at=at,
            cash=self.cash,
            positions=self._positions,
            equity=equity,
            peak_equity=self.peak_equity,
            fees_paid=self.fees_paid,
            funding_received=self.funding_received,
        )

    def _index(self, instrument: str) -> int:
        try:
            return self._place[instrument]
        except KeyError:
            raise AccountingError(
                f"{instrument} is not in this book", hint=f"it was opened with {', '.join(self._names) or 'no instruments'}"
            ) from None
