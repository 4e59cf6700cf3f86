"""What an order, a cancel and a question mean when venue, line or clock fail. The exchange's own books are the second opinion."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cryptoalpha.execution.fake_exchange.intake import RefusedError
from cryptoalpha.execution.fake_exchange.server import Route
from cryptoalpha.execution.venue import Accepted, Ambiguous, NotFound, OrderReport, Rejected, UnclearError

LOST = ["drop_before", "reset_before", "timeout_before", "error_before", "overloaded"]
"""The exchange never saw the request."""
UNHEARD = [
    "drop_after",
    "reset_after",
    "timeout_after",
    "error_after",
    "unknown_after",
    "garbage",
    "empty_object",
    "empty_list",
    "null",
    "empty_body",
    "cut_json",
    "truncated",
]
"""The exchange did what was asked; its answer was lost or spoilt."""


def strike(fake, action, **where):
    fake.faults(clear=True, script=[{"action": action, **where}])


def orders(fake):
    return {one["client_id"]: one for one in fake.state()["accounts"]["key"]["orders"]}


@pytest.mark.parametrize("action", LOST + UNHEARD)
def test_an_order_whose_answer_is_lost_is_neither_refused_nor_accepted_and_never_sent_again(exchange, on_venue, order, action):
    sent = order("buy", "1", type="limit", limit_price=Decimal(50))

    async def use(venue):
        strike(exchange, action)
        answer = await venue.submit(sent)
        exchange.faults(clear=True)
        return answer, await venue.query("BTC/USDT", sent.client_id)

    answer, found = on_venue(exchange, use, timeout_seconds=0.3)
    assert isinstance(answer, Ambiguous)
    assert (answer.refusal, answer.is_clock, answer.is_key) == (None, False, False)
    assert exchange.state()["requests"].get("POST /api/v3/order", 0) <= 1
    if action in LOST:
        assert isinstance(found, NotFound)
        assert orders(exchange) == {}
    else:
        assert isinstance(found, OrderReport)
        assert list(orders(exchange)) == [sent.client_id]


def test_a_cancel_whose_answer_is_lost_is_ambiguous_and_the_order_is_asked_for(exchange, on_venue, order):
    sent = {action: order("buy", "1", type="limit", limit_price=Decimal(50)) for action in LOST + UNHEARD}

    async def use(venue):
        found = {}
        for action, one in sent.items():
            await venue.submit(one)
            strike(exchange, action, route="DELETE */order", times=0)  # aiohttp repeats a DELETE by itself on a reused connection
            answer = await venue.cancel("BTC/USDT", one.client_id)
            exchange.faults(clear=True)
            found[action] = answer, await venue.query("BTC/USDT", one.client_id)
        return found

    for action, (answer, after) in on_venue(exchange, use, timeout_seconds=0.3).items():
        assert isinstance(answer, Ambiguous), action
        assert after.state == ("open" if action in LOST else "canceled"), action


def test_a_question_for_an_order_that_gets_no_readable_answer_finds_nothing_out(exchange, on_venue, order):
    sent = order("buy", "1", type="limit", limit_price=Decimal(50))

    async def use(venue):
        await venue.submit(sent)
        found = {}
        for action in LOST + UNHEARD:
            strike(exchange, action, route="GET */order", times=0)
            found[action] = await venue.query("BTC/USDT", sent.client_id)
        return found

    for action, answer in on_venue(exchange, use, timeout_seconds=0.3).items():
        assert isinstance(answer, Ambiguous), action


@pytest.mark.parametrize(
    ("route", "read"),
    [
        ("GET */openOrders", lambda venue: venue.open_orders("BTC/USDT")),
        ("GET */myTrades", lambda venue: venue.trades("BTC/USDT", after=None, since=0)),
        ("GET */account", lambda venue: venue.balances()),
        ("GET */time", lambda venue: venue.clock_offset()),
        ("GET */ticker/*", lambda venue: venue.price("BTC/USDT")),
        ("GET */apiRestrictions", lambda venue: venue.rights()),
    ],
)
def test_a_reading_that_cannot_be_believed_is_unclear_never_empty(exchange, on_venue, order, route, read):
    async def use(venue):
        await venue.submit(order("buy", "1"))
        await venue.submit(order("buy", "1", type="limit", limit_price=Decimal(50)))
        exchange.advance()
        good = await read(venue)
        assert good
        spoilt = [one for one in LOST + UNHEARD if one != "empty_list" or ("openOrders" not in route and "myTrades" not in route)]
        for action in spoilt:
            strike(exchange, action, route=route, times=0)
            with pytest.raises(UnclearError):
                print(action, await read(venue))  # seen where it fails
        exchange.faults(clear=True)
        return await read(venue)

    on_venue(exchange, use, timeout_seconds=0.3)


@pytest.mark.parametrize("action", ["rate_limit", "banned"])
def test_a_rate_limit_is_ambiguous_and_nothing_is_asked_until_retry_after_has_passed(exchange, on_venue, order, action):
    async def use(venue):
        strike(exchange, action, seconds=1.0)
        answer = await venue.submit(order("buy", "1"))
        before = exchange.state()["private_requests"]
        hurried = await venue.query("BTC/USDT", "ca1")
        refused = await venue.submit(order("sell", "1", reduce_only=True))
        return answer, hurried, refused, exchange.state()["private_requests"] - before

    answer, hurried, refused, asked = on_venue(exchange, use, timeout_seconds=0.3)
    assert isinstance(answer, Ambiguous)
    assert answer.retry_after_seconds == 1.0
    assert isinstance(hurried, Ambiguous)
    assert 0.5 < hurried.retry_after_seconds <= 1.0
    assert isinstance(refused, Rejected)  # for sure: it was not sent
    assert refused.code == "local:budget"
    assert asked == 0


def test_a_revoked_key_is_told_as_such_even_after_it_worked(exchange, on_venue, order):
    async def use(venue):
        await venue.balances()  # from now on ccxt takes -2015 for a rate limit
        exchange.faults(script=[{"action": "revoked", "times": 0}])
        asked = await venue.query("BTC/USDT", "ca1")
        with pytest.raises(UnclearError) as unclear:
            await venue.balances()
        return await venue.submit(order("buy", "1")), asked, unclear.value.answer

    answer, asked, unclear = on_venue(exchange, use)
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.is_key) == ("-2015", True)
    assert asked.is_key
    assert unclear.is_key


@pytest.mark.parametrize("skew_ms", [5_000, -5_000, 3_600_000, -3_600_000])
def test_a_venue_whose_clock_is_wrong_is_traded_by_its_own_clock(exchange, on_venue, order, skew_ms):
    exchange.control("skew", ms=skew_ms)

    async def use(venue):
        offset = await venue.clock_offset()
        return offset, await venue.submit(order("buy", "1")), await venue.balances()

    offset, answer, _ = on_venue(exchange, use, receive_window_seconds=2.0)
    assert abs(offset / 1e6 - skew_ms) < 100
    assert isinstance(answer, Accepted)


@pytest.mark.parametrize("skew_ms", [5_000, -20_000, 3_600_000, -3_600_000])
def test_a_clock_that_jumps_while_trading_is_set_again_and_the_order_is_not_repeated_by_itself(exchange, on_venue, order, skew_ms):
    first, second = order("buy", "1"), order("buy", "1")

    async def use(venue):
        exchange.control("skew", ms=skew_ms)
        answer = await venue.submit(first)
        found = await venue.query("BTC/USDT", first.client_id)
        return answer, found, await venue.submit(second)

    answer, found, after = on_venue(exchange, use, receive_window_seconds=2.0)
    assert isinstance(answer, Ambiguous)
    assert answer.is_clock
    assert isinstance(found, NotFound)
    assert isinstance(after, Accepted)
    assert list(orders(exchange)) == [second.client_id]


def test_questions_set_a_disputed_clock_by_themselves(exchange, on_venue, order):
    async def use(venue):
        exchange.control("skew", ms=-3_600_000)
        balances = await venue.balances()
        exchange.control("skew", ms=0)
        return balances, await venue.cancel("BTC/USDT", "ca1")

    balances, cancelled = on_venue(exchange, use, receive_window_seconds=2.0)
    assert balances["USDT"].total == 100_000
    assert isinstance(cancelled, NotFound)


def test_our_clock_set_back_an_hour_changes_no_signature(exchange, on_venue, order, monkeypatch):
    import time

    real = time.time_ns

    async def use(venue):
        venue.clock._wall = lambda: real() - 3_600_000_000_000
        answer = await venue.submit(order("buy", "1"))
        return answer, await venue.clock_offset()

    answer, offset = on_venue(exchange, use, receive_window_seconds=1.0)
    assert isinstance(answer, Accepted)
    assert abs(offset / 1e9 - 3600) < 0.5  # told against the clock as it stands


def test_a_second_order_under_one_id_is_looked_up_not_refused(exchange, on_venue, order):
    sent = order("buy", "1", type="limit", limit_price=Decimal(50))

    async def use(venue):
        await venue.submit(sent)
        return await venue.submit(sent)

    answer = on_venue(exchange, use)
    assert isinstance(answer, Ambiguous)
    assert answer.exists


def test_an_exchange_that_is_not_there_is_unclear_and_then_there_again(exchange, on_venue, order):
    async def use(venue):
        exchange.faults(script=[{"action": "outage", "seconds": 0.4}])
        answer = await venue.submit(order("buy", "1"))
        with pytest.raises(UnclearError):
            await venue.balances()
        exchange.faults(clear=True)
        return answer, await venue.balances()

    answer, balances = on_venue(exchange, use)
    assert isinstance(answer, Ambiguous)
    assert balances["USDT"].total == 100_000


def test_what_an_earlier_request_was_answered_is_not_taken_for_the_answer_to_the_next(exchange, on_venue):
    async def use(venue):
        exchange.control("skew", ms=-3_600_000)
        exchange.faults(script=[{"action": "timeout_before", "route": "GET */account", "nth": 2}])
        with pytest.raises(UnclearError) as unclear:
            await venue.balances()  # the first time the clock is disputed, the second time nobody answers
        return unclear.value.answer

    answer = on_venue(exchange, use, timeout_seconds=0.3, receive_window_seconds=2.0)
    assert not answer.is_clock
    assert "-1021" not in answer.reason


def test_a_way_out_is_open_when_asking_has_used_up_the_budget(exchange, on_venue, order):
    resting = order("buy", "1", type="limit", limit_price=Decimal(50))

    async def use(venue):
        exchange.control("transfer", asset="BTC", amount="5")
        await venue.submit(resting)
        while venue.budget.take(0.05) == 0.0:
            pass
        with pytest.raises(UnclearError) as unclear:
            await venue.balances()
        entry = await venue.submit(order("buy", "1"))
        cancelled = await venue.cancel("BTC/USDT", resting.client_id)
        exit_ = await venue.submit(order("sell", "1", reduce_only=True))
        return unclear.value.answer, entry, cancelled, exit_

    unclear, entry, cancelled, exit_ = on_venue(exchange, use, requests_per_minute=50.0, reserved_share=0.2, timeout_seconds=0.3)
    assert 50 < unclear.retry_after_seconds <= 60
    assert (entry.code, type(entry)) == ("local:budget", Rejected)
    assert cancelled.state == "canceled"
    assert isinstance(exit_, Accepted)
    sent = exchange.state()["requests"]
    assert (sent["POST /api/v3/order"], sent["DELETE /api/v3/order"]) == (2, 1)


def test_an_entry_does_not_wait_until_the_venue_may_be_asked_again_and_an_exit_does(exchange, on_venue, order):
    """It could not be called back meanwhile."""
    import time

    async def use(venue):
        exchange.control("transfer", asset="BTC", amount="5")
        venue.budget.close_for(1.5)
        begun = time.monotonic()
        entry = await venue.submit(order("buy", "1"))
        waited = time.monotonic() - begun
        return entry, waited, await venue.submit(order("sell", "1", reduce_only=True))

    entry, waited, exit_ = on_venue(exchange, use, timeout_seconds=10.0)
    assert (entry.code, type(entry)) == ("local:budget", Rejected)
    assert waited < 1.0
    assert isinstance(exit_, Accepted)
    assert exchange.state()["requests"]["POST /api/v3/order"] == 1


def test_many_questions_at_once_each_get_their_own_answer(exchange, on_venue, order):
    import asyncio

    sent = [order("buy", "0.1", type="limit", limit_price=Decimal(50 + n)) for n in range(8)]

    async def use(venue):
        for one in sent:
            await venue.submit(one)
        known = [venue.query("BTC/USDT", one.client_id) for one in sent]
        unknown = [venue.query("BTC/USDT", f"ca{n}") for n in range(8)]
        return await asyncio.gather(*(both for pair in zip(known, unknown, strict=True) for both in pair))

    found = on_venue(exchange, use)
    assert [one.client_id for one in found[::2]] == [one.client_id for one in sent]
    assert all(isinstance(one, NotFound) for one in found[1::2])


@pytest.mark.parametrize(("code", "words"), [(-2010, "Duplicate order sent."), (-1013, "Filter failure: LOT_SIZE")])
def test_what_is_said_of_a_new_order_is_not_believed_of_a_question(exchange, on_venue, monkeypatch, code, words):
    def refuse(call):
        raise RefusedError(code, words)

    monkeypatch.setitem(exchange.server.routes, ("GET", "/api/v3/order"), Route(refuse, "signed"))

    async def use(venue):
        return await venue.query("BTC/USDT", "ca1")

    answer = on_venue(exchange, use)
    assert isinstance(answer, Ambiguous)
    assert (answer.refusal, answer.exists) == (None, False)
