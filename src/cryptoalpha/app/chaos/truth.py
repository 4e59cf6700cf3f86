"""What a venue's own books say of one account, and what a run wrote down: the two witnesses the checker compares.

Both are read raw. The venue's side is the JSON of the fake exchange's control route, written before any reply was lost; the run's side is
its journal and the tables of its order ledger, read with SQL. Nothing here asks the order path what it thinks happened.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, Order, PortfolioState, Refusal, Travelling
from cryptoalpha.store.journal_reader import JournalReader

ZERO = Decimal(0)


@dataclass(frozen=True)
class VenueOrder:
    """An order as the venue keeps it; finished ones too."""

    venue_id: str
    client_id: str
    instrument: str
    side: str
    quantity: Decimal
    filled: Decimal
    status: str

    @property
    def is_working(self) -> bool:
        return self.status in ("NEW", "PARTIALLY_FILLED", "PENDING_CANCEL")


@dataclass(frozen=True)
class VenueTrade:
    """A trade as the venue keeps it."""

    trade_id: str
    venue_id: str
    client_id: str
    instrument: str
    side: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str
    at_ms: int = 0

    @property
    def signed(self) -> Decimal:
        return self.quantity if self.side == "buy" else -self.quantity


@dataclass(frozen=True)
class VenueTruth:
    """One account in the venue's books. `funding`: what was settled of an instrument, and when (ms). `flows` are amounts by asset that
    nobody traded: what came in (+) less what went out."""

    opening: Mapping[str, Decimal]
    totals: Mapping[str, Decimal]
    orders: Sequence[VenueOrder]
    trades: Sequence[VenueTrade]
    positions: Mapping[str, Decimal] = field(default_factory=dict)
    funding: Sequence[tuple[str, int, Decimal]] = ()
    flows: Sequence[tuple[str, Decimal]] = ()


def read_truth(account: Mapping[str, Any], opening: Mapping[str, Decimal], names: Mapping[str, str]) -> VenueTruth:
    """The account's part of the exchange's control state.

    Args:
        opening: what the account held before anything, by asset.
        names: our name of each symbol.
    """
    orders = [
        VenueOrder(
            str(one["order_id"]), one["client_id"], one["instrument"], one["side"], Decimal(one["quantity"]), Decimal(one["filled"]),
            one["status"],
        )
        for one in account["orders"]
    ]  # fmt: skip
    trades = [
        VenueTrade(
            str(one["trade_id"]), str(one["order_id"]), one["client_id"], one["instrument"], one["side"], Decimal(one["quantity"]),
            Decimal(one["price"]), Decimal(one["fee"]), one["fee_asset"], one["at_ms"],
        )
        for one in account["trades"]
    ]  # fmt: skip
    deposits = {asset: Decimal(amount) for asset, amount in account["deposits"].items()}
    return VenueTruth(
        opening=opening,
        totals={asset: Decimal(amount) for asset, amount in account["balances"].items()},
        orders=orders,
        trades=trades,
        positions={names[symbol]: Decimal(quantity) for symbol, quantity in account["positions"].items()},
        funding=[
            (names[line["symbol"]], int(line["at_ms"]), Decimal(line["amount"]))
            for line in account["income"]
            if line["kind"] == "FUNDING_FEE"
        ],
        flows=[(asset, amount - opening.get(asset, ZERO)) for asset, amount in deposits.items() if amount != opening.get(asset, ZERO)],
    )


@dataclass(frozen=True)
class RunRecord:
    """What a run wrote down: values of the journal in order, and rows of its ledger tables by table name."""

    values: Sequence[Travelling]
    rows: int
    digest: str
    tables: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def orders(self) -> list[Order]:
        return [value for value in self.values if isinstance(value, Order)]

    @property
    def fills(self) -> list[Fill]:
        return [value for value in self.values if isinstance(value, Fill)]

    @property
    def refusals(self) -> list[Refusal]:
        return [value for value in self.values if isinstance(value, Refusal)]

    @property
    def adjustments(self) -> list[Adjustment]:
        return [value for value in self.values if isinstance(value, Adjustment)]

    @property
    def funding(self) -> list[FundingPayment]:
        return [value for value in self.values if isinstance(value, FundingPayment)]

    @property
    def book(self) -> PortfolioState | None:
        """The book after everything: its last state (one is written whenever something happened)."""
        return next((value for value in reversed(self.values) if isinstance(value, PortfolioState)), None)


LEDGER_TABLES = ("order_record", "venue_fill", "venue_event", "foreign_item", "cursor")


def read_run(journal: Path) -> RunRecord:
    """Everything a run left in its journal file.

    Raises:
        StoreError: if the journal is damaged.
    """
    with JournalReader(journal) as reader:
        values = [value for _, _, row in reader.rows() for value in row]
        rows, digest = len(reader), reader.digest()
    connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        tables = {
            name: [dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')]  # a fixed list of names
            for name in LEDGER_TABLES
            if name in there
        }
    finally:
        connection.close()
    return RunRecord(values, rows, digest, tables)
