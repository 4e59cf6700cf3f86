"""What a run of `trade` holds, what it traded last and what it did within a day: read from its journal, beside a running writer.

Bounded work, however long a run is. Cash, positions, last fills and the day come from the journal's end, at most `RECENT_ROWS` rows of it.
Average cost and profit need every fill since the run began: rows without one are passed over undecoded (0.5 s for 200,000), and of a
journal longer than `LONGEST_BOOK` rows they are left out and said to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from cryptoalpha.core.time import DAY, iso, iso_second
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, MarketState, Order, PortfolioState, Refusal, Travelling
from cryptoalpha.execution.lots import LotBook, Standing
from cryptoalpha.store.journal_reader import JournalReader

LAST_FILLS = 5
RECENT_ROWS = 20_000
LONGEST_BOOK = 200_000
_CHUNK = 512


def _tags(*kinds: type) -> tuple[bytes, ...]:
    return tuple(bytes([0xA0 | len(kind.__name__)]) + kind.__name__.encode() for kind in kinds)  # msgpack's short texts


_BOOKED = _tags(Fill, FundingPayment, Adjustment)
_TOLD = _tags(Order, Fill, Refusal)
_MARKED = _tags(PortfolioState, MarketState)


@dataclass(frozen=True)
class Holding:
    """One instrument that was ever traded. `price`: the last one that the run saw, None where it saw none lately; `standing`: None where
    the journal is too long to say."""

    instrument: str
    quantity: Decimal
    price: Decimal | None
    standing: Standing | None

    @property
    def unrealised(self) -> Decimal | None:
        """By average cost at `price`."""
        return None if self.standing is None or self.price is None else self.standing.unrealised(self.price)

    def as_dict(self) -> dict[str, object]:
        one = self.standing
        costs = {} if one is None else {"average_cost": one.average_cost, "realised": one.realised_by_average, "fees": one.fees}
        paid = {} if one is None else {"funding": one.funding, "transferred": one.transferred, "unrealised": self.unrealised}
        return {"instrument": self.instrument, "quantity": self.quantity, "price": self.price, **costs, **paid}

    def line(self) -> str:
        """For people."""
        now = f", {self.price:.8g} now" if self.price is not None else ""
        one = self.standing
        if one is None:
            return f"  {self.instrument}: {self.quantity} held{now}"
        cost = f" for {one.average_cost:.8g} each on average{now}" if one.average_cost is not None else ""
        open_profit = f"{self.unrealised:+.2f} unrealised, " if one.quantity and self.unrealised is not None else ""
        profit = f"{open_profit}{one.realised_by_average:+.2f} realised, {one.fees:.2f} fees, {one.funding:+.2f} funding"
        return f"  {self.instrument}: {one.quantity} held{cost}; {profit}"


@dataclass(frozen=True)
class RunBook:
    """The book of a run. Times are of the run's clock, money is in quote currency."""

    at: int
    equity: Decimal | None
    """None where no book was told lately, or something is held whose price was not."""
    cash: Decimal | None
    holdings: tuple[Holding, ...]
    fills: tuple[Fill, ...]
    """The last ones, the newest first."""
    since: int
    """The day's counts are of everything known after this."""
    orders: int
    filled: int
    refusals: Mapping[str, int]
    """By rule."""
    is_whole: bool
    """Whether average costs are of all fills, not left out for the journal's length."""

    def as_dict(self) -> dict[str, object]:
        return {
            "at": iso(self.at),
            "equity": self.equity,
            "cash": self.cash,
            "holdings": [each.as_dict() for each in self.holdings],
            "last_fills": [_fill(each) for each in self.fills],
            "day": {"since": iso(self.since), "orders": self.orders, "fills": self.filled, "refusals": dict(self.refusals)},
            "costs_known": self.is_whole,
        }

    def lines(self, run: str) -> list[str]:
        """For people."""
        held = [each for each in self.holdings if each.quantity]
        if self.cash is None:
            money = "no book yet"
        else:
            worth = f"equity {self.equity:.2f}" if self.equity is not None else "equity unknown: a price is missing"
            money = f"{worth}, cash {self.cash:.2f}, holding {', '.join(f'{e.quantity} {e.instrument}' for e in held) or 'nothing'}"
        found = [f"run {run} at {iso_second(self.at)}: {money}", *(each.line() for each in self.holdings)]
        if not self.is_whole:
            found.append(f"  average costs are left out: the journal holds more than {LONGEST_BOOK:,} rows")
        refused = ", ".join(f"{count} {rule}" for rule, count in self.refusals.items())
        found.append(f"  since {iso_second(self.since)}: {self.orders} orders, {self.filled} fills, refusals: {refused or 'none'}")
        return found + [
            f"  {iso_second(e.happened_at)}  {e.side} {e.quantity} {e.instrument} at {e.price}, fee {_fee(e)}" for e in self.fills
        ]


def run_book(journal: JournalReader, *, now: int | None = None) -> RunBook | None:
    """The book at the journal's end; None where it has no rows.

    Args:
        now: end of the day that is counted; None takes the journal's last row, as for a replay, whose rows speak of the past.

    Raises:
        StoreError: if a row that is read is damaged.
    """
    rows = len(journal)
    if not rows:
        return None
    at = journal.read(rows)[0]
    end = _End((at if now is None else now) - DAY)
    for row, row_at, body in _newest_first(journal, rows):
        if end.knows_all(row_at):
            break
        if any(tag in body for tag in end.sought()):
            end.take(row_at, journal.read(row)[1])
    standings = _standings(journal) if rows <= LONGEST_BOOK else None
    positions = dict(end.book.positions) if end.book is not None else {}
    return RunBook(
        at=at,
        equity=_equity(end.book, end.prices),
        cash=end.book.cash if end.book is not None else None,
        holdings=tuple(
            Holding(name, positions.get(name, Decimal(0)), end.prices.get(name), None if standings is None else standings.get(name))
            for name in sorted({*positions, *(standings or ())})
        ),
        fills=tuple(end.fills),
        since=end.since,
        orders=end.orders,
        filled=end.filled,
        refusals=dict(end.refusals.most_common()),
        is_whole=standings is not None,
    )


class _End:
    """What is gathered from the end of a journal, row by row, the newest first."""

    def __init__(self, since: int) -> None:
        self.since = since
        self.book: PortfolioState | None = None
        self.prices: dict[str, Decimal] = {}
        self.fills: list[Fill] = []
        self.orders = self.filled = 0
        self.refusals = Counter[str]()

    def knows_all(self, at: int) -> bool:
        """Whether rows of that time and before can tell nothing more."""
        return at <= self.since and self.book is not None and bool(self.prices) and len(self.fills) == LAST_FILLS

    def sought(self) -> tuple[bytes, ...]:
        """Kinds whose rows are worth decoding."""
        return _TOLD if self.book is not None and self.prices else _TOLD + _MARKED

    def take(self, at: int, values: Sequence[Travelling]) -> None:
        """One row."""
        in_day = at > self.since
        if not self.prices:
            self.prices = {each.instrument: Decimal(repr(each.price)) for each in values if isinstance(each, MarketState)}
        for value in reversed(values):
            if isinstance(value, PortfolioState):
                self.book = self.book or value
            elif isinstance(value, Fill):
                self.filled += in_day
                if len(self.fills) < LAST_FILLS:
                    self.fills.append(value)
            elif isinstance(value, Order):
                self.orders += in_day
            elif isinstance(value, Refusal) and in_day:
                self.refusals[value.rule] += 1


def _newest_first(journal: JournalReader, rows: int) -> Iterator[tuple[int, int, bytes]]:
    stop, oldest = rows + 1, max(rows - RECENT_ROWS, 0) + 1
    while stop > oldest:
        start = max(stop - _CHUNK, oldest)
        yield from reversed(list(journal.raw(start, stop)))
        stop = start


def _standings(journal: JournalReader) -> dict[str, Standing]:
    """Every instrument in numbers, from all that was booked."""
    lots = LotBook(keep_closed=False)
    for row, _, body in journal.raw():
        if any(tag in body for tag in _BOOKED):
            for value in journal.read(row)[1]:
                if isinstance(value, Fill | FundingPayment | Adjustment):
                    lots.apply(value)
    return lots.standings()


def _equity(book: PortfolioState | None, prices: Mapping[str, Decimal]) -> Decimal | None:
    """At the last prices; what the book's own row said where nothing is held."""
    if book is None or any(name not in prices for name, _ in book.positions):
        return None
    return sum((quantity * prices[name] for name, quantity in book.positions), book.cash)


def _fill(fill: Fill) -> dict[str, object]:
    told = {name: getattr(fill, name) for name in ("instrument", "side", "quantity", "price", "fee", "fee_asset", "client_id", "trade_id")}
    return {"at": iso(fill.happened_at), **told}


def _fee(fill: Fill) -> str:
    return f"{fill.fee} {fill.fee_asset}".strip()
