"""The parts of reconciliation: how changes divide, what fees are worth, what a synthetic fill owes, which invariant says what."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, InstrumentRules, Order
from cryptoalpha.execution.reconcile import invariants
from cryptoalpha.execution.reconcile.book import AccountBook, Opening
from cryptoalpha.execution.reconcile.compare import at_once, settle_standing, synthetic_id
from cryptoalpha.execution.reconcile.external import Legs, split_external, split_trade
from cryptoalpha.execution.reconcile.fees import as_fill, fee_value, priced_by
from cryptoalpha.execution.reconcile.reconciler import check_again
from cryptoalpha.execution.reconcile.synthetic import redeem
from cryptoalpha.execution.reconcile.values import Break, ForeignChange, OrderState, Owed, Snapshot
from cryptoalpha.execution.venue import Balance, FundingRecord, NotFound, OrderReport, Position, Trade

D = Decimal
NAME = "BTC/USDT"
RULES = InstrumentRules(
    happened_at=0, known_at=0, instrument=NAME, venue="v", base="BTC", quote="USDT", lot=D("0.001"), tick=D("0.01"), min_notional=D(1)
)
AMOUNTS = st.integers(-3000, 3000).map(lambda n: D(n) / 1000)


def trade(side="buy", quantity="1", price="100", fee="0", asset="USDT", number="7", at=5) -> Trade:
    return Trade(
        instrument=NAME, trade_id=number, venue_id="v1", side=side, quantity=D(quantity), price=D(price), fee=D(fee), fee_asset=asset, at=at
    )


def account(cash="1000", *, is_futures=False, **assets: str) -> AccountBook:
    """A run with that cash, and beside it what is named."""
    held = {"USDT": D(cash), **{name: D(amount) for name, amount in assets.items()}}
    return AccountBook({NAME: RULES}, "USDT", Opening(at=0, cash=D(cash), assets=held), is_futures=is_futures)


def fill(quantity="2", price="100", number="1", side="buy", **terms) -> Fill:
    return Fill(
        happened_at=1, known_at=1, trade_id=number, client_id="ca1", instrument=NAME, side=side, quantity=D(quantity), price=D(price),
        fee=D(0), fee_asset="USDT", **terms,
    )  # fmt: skip


def looked(at=9, **parts) -> Snapshot:
    return Snapshot(at=at, prices={NAME: D(100)}, **parts)


def shown(**totals: str) -> dict[str, Balance]:
    return {name: Balance(asset=name, free=D(total), used=D(0)) for name, total in totals.items()}


# ── whose it is ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("book", "foreign", "change", "expected"),
    [
        (5, 2, -1, (0, -1)),  # theirs covers it
        (5, 2, -3, (-1, -2)),  # theirs first, then the book
        (5, 2, -9, (-5, -4)),  # more than both: the rest is their short
        (5, 0, 3, (0, 3)),  # a purchase is the buyer's
        (-5, 0, -3, (0, -3)),  # more of what the book does is theirs as well
        (-5, -2, 4, (2, 2)),  # they cover their short, then the book's
        (5, 2, 0, (0, 0)),
    ],
)
def test_a_change_takes_from_others_first(book, foreign, change, expected):
    assert split_external(D(book), D(foreign), D(change)) == expected


@settings(max_examples=50, deadline=None)
@given(book=AMOUNTS, foreign=AMOUNTS, change=AMOUNTS)
def test_the_parts_add_up_and_the_book_never_grows_or_turns(book, foreign, change):
    mine, theirs = split_external(book, foreign, change)
    assert mine + theirs == change
    assert abs(book + mine) <= abs(book)
    assert (book + mine) * book >= 0


@settings(max_examples=50, deadline=None)
@given(
    quantity=st.integers(1, 3000),
    price=st.integers(1, 99999),
    is_sale=st.booleans(),
    held=st.integers(0, 3000),
    theirs=st.integers(0, 3000),
)
def test_both_sides_of_a_divided_trade_add_up_to_the_last_digit(quantity, price, is_sale, held, theirs):
    signed = D(-quantity if is_sale else quantity) / 1000
    change = Legs(signed, -signed * D(price) / 100)
    book, foreign = Legs(D(held) / 1000, D(held)), Legs(D(theirs) / 1000, D(theirs))
    mine, others = split_trade(book, foreign, change)
    assert (mine.quantity + others.quantity, mine.cash + others.cash) == (change.quantity, change.cash)
    assert book.quantity + mine.quantity >= 0
    assert book.cash + mine.cash >= 0
    assert abs(mine.quantity * D(price) / 100 + mine.cash) <= D("1e-5")  # the book gets what was paid for its part


def test_what_gives_nothing_away_takes_nothing_from_the_book():
    assert split_trade(Legs(D(1), D(1)), Legs(), Legs(D(1), D(1)))[0] == Legs()


# ── fees ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_fee_was_worth():
    assert fee_value(trade(fee="0.1"), RULES) is None
    assert fee_value(trade(fee="0.001", asset="BTC", price="123.45"), RULES) == D("0.12345")
    assert priced_by(trade(fee="0.002", asset="BNB"), RULES) == "BNB/USDT"
    assert fee_value(trade(fee="0.002", asset="BNB"), RULES, D("301.123456789")) == D("0.60224691")
    assert fee_value(trade(fee="-0.002", asset="BNB"), RULES, D(300)) == D("-0.6")
    assert priced_by(trade(fee="0", asset="BNB"), RULES) is None
    with pytest.raises(DataError, match="a fee in BNB"):
        fee_value(trade(fee="0.002", asset="BNB"), RULES)


def test_a_trade_as_the_engine_is_told_of_it():
    order = Order(happened_at=1, known_at=1, client_id="ca1", instrument=NAME, side="buy", quantity=D(1))
    told = as_fill(trade(fee="0.001", asset="BTC", at=50), order, 77, RULES, known_at=40)
    assert (told.happened_at, told.known_at, told.order, told.client_id, told.fee_value) == (50, 50, 77, "ca1", D("0.1"))
    assert as_fill(trade(fee="0", asset=""), order, 77, RULES, known_at=60).fee_asset == "USDT"


# ── synthetic fills ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_synthetic_id_follows_from_order_quantity_and_source():
    assert synthetic_id("ca1", D("2.50"), "venue") == synthetic_id("ca1", D("2.5"), "venue")
    assert len({synthetic_id("ca1", D(2), "venue"), synthetic_id("ca1", D(3), "venue"), synthetic_id("ca2", D(2), "venue")}) == 3


@settings(max_examples=50, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.integers(1, 900), st.integers(9000, 11000), st.sampled_from(["USDT", "BTC", "BNB"])), min_size=1, max_size=6
    ),
    owed=st.integers(1, 2000),
    is_sale=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_trades_that_turn_up_after_a_synthetic_fill_leave_the_truth(parts, owed, is_sale, order):
    """Whatever was booked by guess: once the trades have turned up, in any order and twice, cash and position are theirs."""
    side = "sell" if is_sale else "buy"
    real = [
        trade(side, str(D(q) / 1000), str(D(p) / 100), {"USDT": "0.07", "BTC": "0.00003", "BNB": "0.0002"}[asset], asset, number=str(n))
        for n, (q, p, asset) in enumerate(parts)
    ]
    whole = sum((one.quantity for one in real), D(0))
    guessed = min(D(owed) / 1000, whole)
    intent = Order(happened_at=1, known_at=1, client_id="ca1", instrument=NAME, side=side, quantity=whole)
    truth, book = account(BTC="9", BNB="9"), account(BTC="9", BNB="9")
    for one in real:
        truth.apply(as_fill(one, intent, 0, RULES, known_at=1, price=D(50)))
    made = trade(side, str(guessed), "99", "0.03", number="synthetic")
    left = Owed(trade_id="synthetic", quantity=guessed, price=D(99), fee=D("0.03"))
    book.apply(as_fill(made, intent, 0, RULES, known_at=1))
    shuffled = [*real, *real]
    order.shuffle(shuffled)
    booked: set[str] = set()
    for one in shuffled:
        if one.trade_id in booked:
            continue  # the ledger knows it
        rest, change, left = redeem(one, left, RULES, known_at=2, price=D(50))
        if change is not None:
            book.apply(change)
        if rest is not None:
            booked.add(one.trade_id)
            book.apply(as_fill(rest, intent, 0, RULES, known_at=2, price=D(50)))
    assert (left.quantity, left.fee) == (0, 0)
    assert book.held == truth.held
    assert abs(book.cash - truth.cash) <= D("2e-8")  # a fee in another asset is valued in two parts where a trade is


def test_a_trade_beyond_what_is_owed_and_the_synthetic_fill_itself_pass_and_do_nothing():
    owed = Owed(trade_id="s", quantity=D(0), price=D(1), fee=D(0), trades=("7",))
    assert redeem(trade(number="8"), owed, RULES, known_at=1) == (trade(number="8"), None, owed)
    assert redeem(trade(number="7"), owed, RULES, known_at=1) == (None, None, owed)
    full = msgspec.structs.replace(owed, quantity=D(5))
    assert redeem(trade(number="s"), full, RULES, known_at=1) == (None, None, full)


# ── invariants ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_positions_are_compared_in_steps():
    book = account()
    book.apply(fill())
    assert invariants.check_positions(looked(balances=shown(BTC="2")), book) == []
    (less,) = invariants.check_positions(looked(balances=shown(BTC="1.5")), book)
    assert (less.invariant, less.subject, less.amount, less.is_dust) == ("I1", "BTC", D("-0.5"), False)
    (dust,) = invariants.check_positions(looked(balances=shown(BTC="1.9995")), book)
    assert dust.is_dust
    assert "1.5 BTC" in less.message


def test_cash_is_compared_to_the_last_digit_and_rounding_of_trades_is_no_break():
    book = account()
    book.apply(fill())
    assert invariants.check_cash(looked(balances=shown(USDT="800")), book) == []
    (rounded,) = invariants.check_cash(looked(balances=shown(USDT="800.00000001")), book)
    assert rounded.is_dust
    (missing,) = invariants.check_cash(looked(balances=shown(USDT="800.00000002")), book)
    assert (missing.amount, missing.is_dust) == (D("2e-8"), False)


def test_a_margin_account_is_as_exact_as_its_entry_prices_are_printed():
    book = account(is_futures=True)
    for n, price in enumerate(("100", "100", "101")):
        book.apply(fill("1", price, str(n)))
    held = {NAME: Position(instrument=NAME, quantity=D(3), entry_price=D("100.33"))}
    assert invariants.check_cash(looked(balances=shown(USDT="1000"), positions=held), book) == []
    assert len(invariants.check_cash(looked(balances=shown(USDT="1000.06"), positions=held), book)) == 1


def test_average_entry_by_hand_through_zero_and_in_the_order_of_time():
    book = account(is_futures=True)
    assert book.entry_price(NAME) is None
    book.apply(msgspec.structs.replace(fill("3", "110", "2", "sell"), happened_at=2, known_at=2))
    book.apply(fill("2", "100", "1"))  # earlier, and told later
    assert book.entry_price(NAME) == 110  # bought 2, sold 3: short 1 from the sale
    shorted = {NAME: Position(instrument=NAME, quantity=D(-1), entry_price=D("110.005"))}
    assert invariants.check_entry_prices(looked(positions=shorted), book) == []
    shorted = {NAME: Position(instrument=NAME, quantity=D(-1), entry_price=D("110.02"))}
    assert [one.invariant for one in invariants.check_entry_prices(looked(positions=shorted), book)] == ["I2"]
    book.apply(fill("1", "90", "3"))
    assert book.entry_price(NAME) is None


def order_state(**changes) -> OrderState:
    whole = OrderState(client_id="ca1", instrument=NAME, state="open", event=1, quantity=D(2), booked=D(0), value=D(0))
    return msgspec.structs.replace(whole, **changes)


def report(filled="0", state="open", client_id="ca1", average=None) -> OrderReport:
    return OrderReport(
        instrument=NAME, client_id=client_id, venue_id="v1", state=state, side="buy", quantity=D(2), filled=D(filled),
        average_price=average, at=3,
    )  # fmt: skip


def test_a_trade_that_is_told_twice_and_an_order_executed_further_than_booked_are_breaks():
    book = account()
    book.apply(fill())
    book.apply(fill())
    (twice,) = invariants.check_trades(looked(), book, [])
    assert (twice.invariant, twice.subject) == ("I4", f"{NAME} 1")
    (gap,) = invariants.check_trades(looked(answers={"ca1": report("1.5")}), account(), [order_state(booked=D(1))])
    assert (gap.subject, gap.amount) == ("ca1", D("0.5"))
    assert invariants.check_trades(looked(answers={"ca1": report("1")}), account(), [order_state(booked=D(1))]) == []
    assert invariants.check_trades(looked(answers={"ca1": NotFound()}), account(), [order_state()]) == []


def test_orders_at_the_venue_and_ours_must_be_the_same():
    def broken(*reports: OrderReport, ours=None, state="open", answers=None) -> list[str]:
        seen = looked(open_orders=reports, answers=answers or {})
        return [one.message for one in invariants.check_orders(seen, [order_state(state=state)], ours or {"ca1": "open"})]

    assert broken(report(), report(client_id="web_1")) == []
    assert "ended here as canceled" in broken(report(client_id="ca2"), ours={"ca1": "open", "ca2": "canceled"})[0]
    assert "bears our mark" in broken(report(client_id="ca" + "f" * 30))[0]
    assert "knows it no more" in broken(answers={"ca1": NotFound()})[0]
    assert broken(answers={"ca1": NotFound()}, state="unknown") == []


def test_a_break_stands_when_the_same_amount_is_missing_long_enough():
    def gap(amount) -> Break:
        return Break(invariant="I3", subject="USDT", amount=D(amount), message="m")

    suspicions = invariants.Suspicions(5)
    steps = [(0, 1), (3, 1), (5, 1), (6, 2), (10, 2), (11, 2), (12, None), (20, 2)]
    stood = [any(one.stands for one in suspicions.judge(at, [] if amount is None else [gap(amount)])) for at, amount in steps]
    assert stood == [False, False, True, False, False, True, False, False]


def test_reconciling_again_is_nothing_and_if_it_were_something_that_is_told():
    book = account(BTC="1")
    seen = looked(trades=(trade("sell", "3"), trade("buy", "1", number="8", asset="BNB", fee="1")))
    book.apply(fill())
    found = at_once(seen, book, lost={}, compared=0)
    assert [(one.quantity, one.cash) for one in found.outcomes] == [(-2, 200)]
    assert [one.invariant for one in check_again(seen, book, found)] == ["I6"]  # not applied yet
    for outcome in found.outcomes:
        book.apply(outcome)
    for name, change in found.foreign.items():
        book.note(name, change)
        book.note(name, change)
    assert check_again(seen, book, found) == []
    assert (book.expected("BTC"), book.expected("USDT"), book.expected("BNB")) == (1 + 2 - 3 + 1, 1000 - 200 + 300 - 100, -1)


def test_funding_of_what_the_book_does_not_trade_is_others():
    record = FundingRecord(instrument="X/USDT", record_id="1", amount=D(-1), asset="USDT", at=4)
    found = at_once(looked(funding=(record,)), account(is_futures=True), lost={}, compared=0)
    assert found.outcomes == ()
    assert [change.changes for change in found.foreign.values()] == [{"USDT": D(-1)}]


def test_differences_wait_while_something_is_unclear_and_where_there_is_no_price():
    standing = [Break(invariant="I1", subject="BTC", amount=D(-1), message="m", stands=True)]
    book = account(BTC="1")

    def settled(seen, unclear=frozenset()):
        return settle_standing(seen, book, standing, [], unclear, lost={}, compared=0, owed={}, taker_fee=D("0.001"))

    assert settled(looked(), frozenset({NAME})).is_empty
    assert settled(Snapshot(at=9)).is_empty
    assert [change.changes for change in settled(looked()).foreign.values()] == [{"BTC": D(-1)}]


def test_a_synthetic_fill_needs_a_price_from_somewhere():
    standing = [Break(invariant="I4", subject="ca1", amount=D(1), message="m", stands=True)]

    def made(seen):
        return settle_standing(seen, account(), standing, [order_state()], frozenset(), lost={}, compared=0, owed={}, taker_fee=D(0))

    assert made(Snapshot(at=9, answers={"ca1": report("1")})).is_empty
    assert made(looked(answers={"ca1": report("1")})).synthetic[0].price == 100
    assert made(looked(answers={"ca1": report("1", average=D(97))})).synthetic[0].price == 97


def test_a_copy_of_a_book_goes_its_own_way():
    book = account()
    twin = book.copy()
    twin.apply(fill())
    twin.apply(FundingPayment(happened_at=1, known_at=1, instrument=NAME, position=D(2), rate=0.0, amount=D(3)))
    twin.apply(Adjustment(happened_at=1, known_at=1, instrument=NAME, quantity=D(1), cash=D(0), price=D(1), source="s", message=""))
    twin.note("x", ForeignChange(kind="transfer", changes={"USDT": D(1)}))
    assert (book.cash, book.position(NAME), book.foreign["USDT"], book.noted) == (1000, 0, 0, set())
    assert (twin.cash, twin.position(NAME), twin.foreign["USDT"]) == (803, 3, 1)
