"""The order ledger: what a venue did is written once, told once, and taken by the row that is written."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, Order, PortfolioState, Refusal, event_id
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import Booking, ForeignItem, OrderLedger, OrderRecord, read_summary

HEADER = {"run": "r1"}


def order(client_id: str, at: int = 0) -> Order:
    return Order(happened_at=at, known_at=at, client_id=client_id, instrument="BTC/USDT", side="buy", quantity=Decimal("1.5"))


def record(
    client_id: str, state: str = "open", *, ended: bool = False, filled: str = "0", venue_id: str = "v1", since: int = 5
) -> OrderRecord:
    return OrderRecord(
        client_id=client_id,
        instrument="BTC/USDT",
        state=state,
        ended=ended,
        venue_id=venue_id,
        quantity=Decimal("1.5"),
        filled=Decimal(filled),
        sent_at=4,
        changed_at=6,
        since=since,
        detail="why",
    )


def booking(trade_id: str, client_id: str = "ca1", quantity: str = "1", flag: str = "", instrument: str = "BTC/USDT") -> Booking:
    fill = Fill(
        happened_at=7,
        known_at=8,
        trade_id=trade_id,
        client_id=client_id,
        instrument=instrument,
        side="buy",
        quantity=Decimal(quantity),
        price=Decimal("30000.10"),
        fee=Decimal("0.001"),
        fee_asset="BNB",
        fee_value=Decimal("0.31"),
    )
    return Booking(fill=fill, venue_id="v1", flag=flag)


def refusal(client_id: str = "ca1", rule: str = "expired") -> Refusal:
    return Refusal(happened_at=9, known_at=9, instrument="BTC/USDT", rule=rule, message="", client_id=client_id)


def adjustment(source: str) -> Adjustment:
    return Adjustment(
        happened_at=9,
        known_at=9,
        instrument="BTC/USDT",
        quantity=Decimal(-1),
        cash=Decimal(0),
        price=Decimal(3),
        source=source,
        message="sold by hand",
    )


def state(at: int) -> PortfolioState:
    return PortfolioState(happened_at=at, known_at=at, cash=Decimal(1), positions=(), equity=Decimal(1), peak_equity=Decimal(1))


def lose_a_row(journal: Journal) -> None:
    """A row that was never written took nothing."""
    with journal.turn():
        journal.append(3, [state(3)])
        raise ZeroDivisionError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_orders_of_the_journal_are_unfinished_until_their_record_has_ended(path):
    with Journal(path, durable=True, header=HEADER) as journal:
        journal.append(1, [state(1), order("ca1"), order("ca2")])
        journal.append(2, [order("ca3")])
        with OrderLedger(path) as ledger:
            assert [(event, o.client_id, known) for event, o, known in ledger.unfinished()] == [
                (event_id(1, 1), "ca1", None),
                (event_id(1, 2), "ca2", None),
                (event_id(2, 0), "ca3", None),
            ]
            ledger.write(at=3, records=[record("ca1"), record("ca2", "filled", ended=True, filled="1.5", venue_id="v2")])
            assert [(o.client_id, known) for _, o, known in ledger.unfinished()] == [("ca1", record("ca1")), ("ca3", None)]
            assert ledger.order("ca2") == (event_id(1, 2), order("ca2"))
            assert ledger.order("ca9") is None
            assert ledger.record_of("BTC/USDT", "v2").client_id == "ca2"
            ledger.write(at=3, records=[record("ca9", venue_id="")])
            assert ledger.record_of("BTC/USDT", "") is None
            assert ledger.record_of("ETH/USDT", "v2") is None
            journal.append(4, [order("ca4")])  # a ledger sees what the engine commits meanwhile
            assert [o.client_id for _, o, _ in ledger.unfinished()] == ["ca1", "ca3", "ca4"]


def test_a_trade_is_booked_and_told_once_per_instrument(path):
    with Journal(path, durable=True, header=HEADER) as journal, OrderLedger(path) as ledger:
        first = ledger.write(at=1, fills=[booking("t1"), booking("t1"), booking("t2", flag="late")])
        assert [(b.fill.trade_id, b.number, b.flag) for b in first.fills] == [("t1", 1, ""), ("t2", 2, "late")]
        again = ledger.write(at=2, fills=[booking("t2"), booking("t1", instrument="ETH/USDT")], outcomes=[refusal()])
        assert [b.fill.instrument for b in again.fills] == ["ETH/USDT"]
        assert again.outcomes == (booking("t1", instrument="ETH/USDT").fill, refusal())
        assert [b.fill for b in ledger.fills(client_id="ca1")] == [
            booking("t1").fill,
            booking("t2").fill,
            booking("t1", instrument="ETH/USDT").fill,
        ]
        assert [b.fill.trade_id for b in ledger.fills(instrument="BTC/USDT", after=1)] == ["t2"]
        assert ledger.has_fill("ETH/USDT", "t1")
        assert not ledger.has_fill("ETH/USDT", "t2")
        assert journal.outcomes() == tuple(value for _, value in ledger.told())
        assert len(ledger.told(after=3)) == 1


def test_a_cause_is_told_once(path):
    paid = FundingPayment(happened_at=1, known_at=1, instrument="BTC/USDT", position=Decimal(1), rate=0.1, amount=Decimal(2))
    with Journal(path, durable=True, header=HEADER), OrderLedger(path) as ledger:
        assert ledger.write(at=1, outcomes=[("funding 7", paid), adjustment("trade 5")]).outcomes == (paid, adjustment("trade 5"))
        assert ledger.write(
            at=2, outcomes=[("funding 7", paid), adjustment("trade 5"), ("funding 8", paid), refusal(), refusal()]
        ).outcomes == (
            paid,
            refusal(),
            refusal(),
        )


def test_the_row_that_is_written_takes_what_was_told_and_its_replay_is_told_the_same(path):
    with Journal(path, durable=True, header=HEADER) as journal, OrderLedger(path) as ledger:
        assert journal.outcomes() == ()
        ledger.write(at=1, fills=[booking("t1")], outcomes=[refusal()])
        assert journal.outcomes() == ()  # asked again for the same row: the same
        journal.append(1, [state(1)])
        assert journal.outcomes() == (booking("t1").fill, refusal())
        ledger.write(at=2, fills=[booking("t2")])
        with journal.turn():
            journal.append(2, [state(2)])
        assert journal.outcomes() == (booking("t2").fill,)
        with pytest.raises(ZeroDivisionError):
            lose_a_row(journal)
        assert journal.outcomes() == (booking("t2").fill,)
        journal.append(3, [state(3)])
        ledger.write(at=4, fills=[booking("t3")])
    with Journal(path, durable=True, header=HEADER) as journal:
        told = []
        for row in (1, 2, 3):
            told.append(journal.outcomes())
            journal.append(row, [state(row)])
        assert told == [(), (booking("t1").fill, refusal()), (booking("t2").fill,)]
        assert journal.outcomes() == (booking("t3").fill,)  # what came while nobody was there is in the first new row
        journal.append(4, [state(4)])
        assert journal.outcomes() == ()


def test_a_write_is_all_or_nothing(path):
    with Journal(path, durable=True, header=HEADER), OrderLedger(path) as ledger:
        ledger.write(at=1, records=[record("ca1", "filled", ended=True, filled="1.5")], cursors={"trades BTC/USDT": "7"})
        for bad in (record("ca1", "open", filled="1.5"), record("ca1", "filled", ended=True, filled="1.4")):
            with pytest.raises(StoreError, match="cannot become"):
                ledger.write(at=2, fills=[booking("t1")], cursors={"trades BTC/USDT": "8"}, records=[record("ca2"), bad])
            with pytest.raises(StoreError, match="cannot become"):  # records first or last, nothing of it stays
                ledger.write(at=2, outcomes=[refusal()], records=[bad])
        assert ledger.cursor("trades BTC/USDT") == "7"
        assert ledger.cursor("nothing") is None
        assert (ledger.fills(), ledger.told(), ledger.record("ca2")) == ([], [], None)
        ledger.write(at=3, records=[record("ca1", "filled", ended=True, filled="1.6")])  # an over-fill is booked on an ended order


def test_what_others_do_is_kept_and_named_once(path):
    item = ForeignItem(id="trade BTC/USDT 5", at=3, body='{"side":"sell"}')
    with Journal(path, durable=True, header=HEADER), OrderLedger(path) as ledger:
        assert ledger.write(at=1, foreign=[item]).foreign == (item.id,)
        newer = msgspec.structs.replace(item, at=4, body="{}")
        assert ledger.write(at=2, foreign=[newer]).foreign == ()
        assert ledger.foreign() == [newer]


def test_the_summary_counts_what_a_person_asks_for(path):
    with Journal(path, durable=True, header=HEADER) as journal:
        journal.append(1, [order("ca1"), order("ca2"), order("ca3")])
        assert read_summary(path) is None
        with OrderLedger(path) as ledger:
            ledger.write(
                at=3, records=[record("ca1", "unknown", since=9), record("ca2", "unknown", since=8)], fills=[booking("t", flag="late")]
            )
            found = read_summary(path)
            assert found == ledger.summary()
    assert found.states == {"unknown": 2, "intent": 1}
    assert [r.client_id for r in found.unknown] == ["ca2", "ca1"]
    assert (found.flagged, found.waiting, found.foreign) == (1, 1, 0)


def test_a_ledger_without_a_journal_is_refused(path):
    with pytest.raises(StoreError, match="no journal"):
        OrderLedger(path)


def test_a_ledger_that_cannot_be_opened_leaves_nothing_open(path):
    Journal(path, durable=True, header=HEADER).close()
    with sqlite3.connect(path) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            OrderLedger(path, patience_seconds=0.0)
        writer.execute("ROLLBACK")
    writer.close()
    OrderLedger(path).close()


def test_what_lies_in_the_wrong_place_is_an_error(path):
    with Journal(path, durable=True, header=HEADER) as journal, OrderLedger(path) as ledger:
        journal.append(1, [state(1), order("ca1")])
        ledger.write(at=2, fills=[booking("t1")])
        with sqlite3.connect(path) as meddler:
            meddler.execute("UPDATE ident SET event = event - 1")
            meddler.execute("UPDATE venue_fill SET body = ?", (msgspec.msgpack.encode(refusal()),))
        meddler.close()
        with pytest.raises(StoreError, match="names an order where it holds"):
            ledger.unfinished()
        with pytest.raises(StoreError, match="where a trade should be"):
            ledger.fills()


def test_a_journal_in_memory_has_no_inbox():
    with Journal(None, durable=False, header=HEADER) as journal:
        assert journal.outcomes() == ()
        assert not journal.has_outcomes()


def test_looking_takes_nothing(path):
    with Journal(path, durable=True, header=HEADER) as journal, OrderLedger(path) as ledger:
        assert not journal.has_outcomes()
        ledger.write(at=1, fills=[booking("t1")])
        assert journal.has_outcomes()
        assert len(journal.outcomes()) == 1
        assert not journal.has_outcomes()
        ledger.write(at=2, fills=[booking("t2")])
        assert journal.has_outcomes()  # what came after the row in the making asked
        journal.append(1, [state(1)])
        assert journal.has_outcomes()
        assert [value.trade_id for value in journal.outcomes()] == ["t2"]
    with Journal(path, durable=True, header=HEADER) as journal:
        assert not journal.has_outcomes()  # a replay waits for nothing


def test_a_silent_booking_is_kept_and_not_told(path):
    with Journal(path, durable=True, header=HEADER), OrderLedger(path) as ledger:
        silent = msgspec.structs.replace(booking("t1"), is_silent=True)
        assert ledger.write(at=1, fills=[silent]).outcomes == ()
        assert (len(ledger.fills()), ledger.told()) == (1, [])
        assert ledger.write(at=2, fills=[booking("t1")]).outcomes == ()  # its trade is known, said by whomever
