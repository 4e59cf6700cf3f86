"""Every REST fault through real ccxt: what the client sees, what the exchange's books say, and that it was counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import ccxt

from cryptoalpha.execution.fake_exchange.fault_script import ACTIONS
from cryptoalpha.execution.fake_exchange.process import FakeExchange

SYMBOL = "BTC/USDT"


def run(fake: FakeExchange, make: Callable[..., Any], steps: Callable[[Any], Any], **options: Any) -> Any:
    """What `steps` of a client that knows the markets comes to; an exception comes back as a value."""

    async def whole() -> Any:
        client = make(fake, **options)
        try:
            fake.faults(clear=True)
            await client.load_markets()
            return await steps(client)
        finally:
            await client.close()

    return asyncio.run(whole())


async def attempt(question: Any) -> Any:
    """The answer, or the name of the exception."""
    try:
        return await question
    except ccxt.BaseError as error:
        return type(error).__name__


def booked(fake: FakeExchange, client_id: str) -> list[tuple[str, str]]:
    """Status and filled quantity of the orders with this id, by the exchange's own books."""
    orders = fake.state()["accounts"]["key"]["orders"]
    return [(order["status"], order["filled"]) for order in orders if order["client_id"] == client_id]


def done(fake: FakeExchange, action: str) -> int:
    count: int = fake.state()["faults"]["counts"].get(action, 0)
    return count


LOST = "lost"
OUTCOMES = {
    "drop_before": ("ExchangeNotAvailable", False), "reset_before": ("ExchangeNotAvailable", False),
    "timeout_before": ("RequestTimeout", False), "error_before": ("ExchangeNotAvailable", False),
    "rate_limit": ("DDoSProtection", False), "banned": ("DDoSProtection", False), "overloaded": ("ExchangeError", False),
    "revoked": ("DDoSProtection", False), "timeout_after": ("RequestTimeout", True), "drop_after": ("ExchangeNotAvailable", True),
    "reset_after": ("ExchangeNotAvailable", True), "error_after": ("ExchangeNotAvailable", True),
    "unknown_after": ("RequestTimeout", True), "garbage": (LOST, True), "empty_object": (LOST, True), "empty_list": (LOST, True),
    "null": (LOST, True), "empty_body": (LOST, True), "cut_json": (LOST, True), "truncated": ("ExchangeError", True),
    "outage": ("ExchangeNotAvailable", False), "maintenance": ("ExchangeNotAvailable", False),
}  # fmt: skip
"""What ccxt makes of it when an order meets it (`lost`: an order without an id), and whether the exchange has the order."""


def test_orders_meet_every_fault_of_request_and_answer(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        found = {}
        for action in OUTCOMES:
            before = done(spot, action)
            spot.faults(script=[{"action": action, "instrument": "" if ACTIONS[action].phase == "state" else "BTCUSDT"}])
            answer = await attempt(client.create_order(SYMBOL, "market", "buy", 0.001, None, {"clientOrderId": f"ca{action}"}))
            assert done(spot, action) == before + 1, action
            spot.faults(clear=True)
            after = await client.create_order(SYMBOL, "market", "buy", 0.001, None, {"clientOrderId": f"cb{action}"})
            assert after["status"] == "open", action  # the next one is answered as ever
            if isinstance(answer, dict):
                answer = LOST if (answer["id"], answer["status"]) == (None, None) else answer
            found[action] = answer, booked(spot, f"ca{action}") == [("NEW", "0")]
            assert found[action][1] or not booked(spot, f"ca{action}"), action
        return found

    assert run(spot, private_client, steps, timeout_ms=250) == OUTCOMES


def test_retry_after_and_the_code_reach_the_client(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        spot.faults(script=[{"action": "rate_limit", "seconds": 7}])
        await attempt(client.create_order(SYMBOL, "market", "buy", 0.001))
        return client.last_response_headers["Retry-After"], client.last_http_response

    wait, body = run(spot, private_client, steps)
    assert wait == "7"
    assert '"code":-1003' in body


def test_an_order_that_exists_is_not_found_for_a_while(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        await client.create_order(SYMBOL, "limit", "buy", 0.001, 20_000, {"clientOrderId": "calag"})
        spot.faults(script=[{"action": "not_found", "times": 2}, {"action": "not_found", "route": "GET */openOrders"}])
        spot.faults(script=[{"action": "not_found", "route": "DELETE */order"}])
        asked = [await attempt(client.fetch_order(None, SYMBOL, {"clientOrderId": "calag"})) for _ in range(2)]
        found = await client.fetch_order(None, SYMBOL, {"clientOrderId": "calag"})
        hidden = await client.fetch_open_orders(SYMBOL)
        shown = await client.fetch_open_orders(SYMBOL)
        cancelled = await attempt(client.cancel_order(None, SYMBOL, {"clientOrderId": "calag"}))
        return asked, found["status"], hidden, "calag" in [order["clientOrderId"] for order in shown], cancelled

    asked, status, hidden, is_shown, cancelled = run(spot, private_client, steps)
    assert asked == ["OrderNotFound", "OrderNotFound"]
    assert (status, hidden, is_shown, cancelled) == ("open", [], True, "OrderNotFound")
    assert booked(spot, "calag") == [("NEW", "0")]


def test_only_the_nth_match_of_its_instrument_is_hit(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        spot.faults(script=[{"action": "error_before", "instrument": "ETHUSDT", "nth": 2, "times": 2}])
        sent = [SYMBOL, "ETH/USDT", "ETH/USDT", SYMBOL, "ETH/USDT", "ETH/USDT"]
        return [type(await attempt(client.create_order(symbol, "market", "buy", 0.01))) is str for symbol in sent]

    assert run(spot, private_client, steps) == [False, False, True, False, True, False]


def test_two_faults_strike_one_request(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        spot.faults(script=[{"action": "delay_before", "seconds": 0.1}, {"action": "delay_after", "seconds": 0.1}, {"action": "null"}])
        began = time.monotonic()
        answer = await attempt(client.create_order(SYMBOL, "market", "buy", 0.001))
        return answer["id"], time.monotonic() - began

    answer, seconds = run(spot, private_client, steps, timeout_ms=3000)
    assert answer is None
    assert 0.2 <= seconds < 2.0


def test_a_held_answer_goes_out_when_released(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        spot.faults(script=[{"action": "hold", "times": 2}])
        orders = [asyncio.create_task(client.create_order(SYMBOL, "market", "buy", 0.001, None, {"clientOrderId": name})) for name in "xy"]
        while spot.state()["faults"]["held"] < 2:
            await asyncio.sleep(0.01)
        assert booked(spot, "x") == booked(spot, "y") == [("NEW", "0")]
        assert not any(order.done() for order in orders)
        assert spot.control("release", number=1) == {"released": 1}
        first = await asyncio.wait_for(orders[0], 2)
        assert not orders[1].done()
        assert spot.control("release") == {"released": 1}
        return first["status"], (await asyncio.wait_for(orders[1], 2))["status"]

    assert run(spot, private_client, steps, timeout_ms=5000) == ("open", "open")


def test_accidents_are_fills_that_really_happen(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        trades = len(spot.state()["accounts"]["key"]["trades"])
        for name in ("carace", "calate"):
            await client.create_order(SYMBOL, "limit", "buy", 0.002, 20_000, {"clientOrderId": name})
        spot.faults(script=[{"action": "cancel_race"}, {"action": "late_fill", "nth": 2, "quantity": "0.001"}])
        spot.faults(script=[{"action": "overfill"}, {"action": "fill_before_ack", "nth": 2}])
        race = await attempt(client.cancel_order(None, SYMBOL, {"clientOrderId": "carace"}))
        late = await client.cancel_order(None, SYMBOL, {"clientOrderId": "calate"})
        over = await client.create_order(SYMBOL, "market", "buy", 0.002, None, {"clientOrderId": "caover"})
        early = await client.create_order(SYMBOL, "market", "buy", 0.002, None, {"clientOrderId": "caearly"})
        assert (race, late["status"], over["status"], early["status"]) == ("OrderNotFound", "canceled", "open", "open")
        return spot.state()["accounts"]["key"]["trades"][trades:]

    made = run(spot, private_client, steps)
    assert [(trade["client_id"], trade["quantity"]) for trade in made] == [
        ("carace", "0.002"), ("calate", "0.001"), ("caover", "0.0030"), ("caearly", "0.002"),
    ]  # fmt: skip
    assert booked(spot, "carace") == [("FILLED", "0.002")]
    assert booked(spot, "calate") == [("CANCELED", "0.001")]
    assert booked(spot, "caover") == [("FILLED", "0.0030")]
    assert all(done(spot, name) >= 1 for name in ("cancel_race", "late_fill", "overfill", "fill_before_ack"))
    account = spot.state()["accounts"]["key"]
    bought = sum((Decimal(trade["quantity"]) for trade in account["trades"] if trade["instrument"] == SYMBOL), Decimal(0))
    assert Decimal(account["balances"]["BTC"]) == bought  # the books stay the judge


def test_an_accident_makes_no_debt(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        held = (await client.fetch_balance())["total"].get("BTC", 0.0)
        if held:
            await client.create_order(SYMBOL, "market", "sell", held)
            spot.advance(1)
        await client.create_order(SYMBOL, "market", "buy", 0.01)
        spot.advance(1)
        spot.faults(script=[{"action": "overfill", "quantity": "5"}])
        await client.create_order(SYMBOL, "market", "sell", 0.01, None, {"clientOrderId": "cadebt"})

    run(spot, private_client, steps)
    assert booked(spot, "cadebt")[0][0] == "FILLED"
    assert Decimal(spot.state()["accounts"]["key"]["balances"]["BTC"]) == 0


def test_the_clock_jumps_runs_backwards_and_comes_back(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        seen = []
        for seconds in (5.0, 3600.0, -3600.0):
            spot.faults(script=[{"action": "skew", "seconds": seconds}])
            offset = await client.fetch_time() / 1000 - time.time()
            seen.append((round((offset - seconds) / 2), await attempt(client.create_order(SYMBOL, "market", "buy", 0.001))))
        spot.faults(clear=True)
        spot.faults(script=[{"action": "skew", "seconds": 3600, "route": "GET */account", "nth": 2}])
        steps_of_clock = []
        for _ in range(2):
            await attempt(client.fetch_balance())
            steps_of_clock.append(round((await client.fetch_time() / 1000 - time.time()) / 60))
        return seen, steps_of_clock

    seen, steps_of_clock = run(spot, private_client, steps)
    assert [offset for offset, _ in seen] == [0, 0, 0]
    assert [type(answer) is dict or answer for _, answer in seen] == [True, "InvalidNonce", "InvalidNonce"]
    assert steps_of_clock == [0, 60]  # on the second question the clock jumped


def test_fees_are_paid_in_a_third_asset_while_the_account_has_some(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        spot.control("transfer", asset="BNB", amount="1")
        spot.faults(script=[{"action": "fee_asset", "asset": "BNB"}])
        await client.create_order(SYMBOL, "market", "buy", 0.001, None, {"clientOrderId": "cabnb"})
        spot.advance(1)
        spot.faults(clear=True)
        await client.create_order(SYMBOL, "market", "buy", 0.001, None, {"clientOrderId": "causdt"})
        spot.advance(1)
        return {trade["order"]: trade["fee"]["currency"] for trade in await client.fetch_my_trades(SYMBOL)}

    paid = list(run(spot, private_client, steps).values())
    assert paid[-2:] == ["BNB", "USDT"]


def test_balances_lag_behind(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        spot.faults(script=[{"action": "stale", "nth": 2}])
        found = []
        for _ in range(3):
            found.append((await client.fetch_balance())["total"]["USDT"])
            spot.control("transfer", asset="USDT", amount="10")
        return found

    first, lagging, third = run(spot, private_client, steps)
    assert (lagging, third) == (first, first + 20)


def test_each_fault_of_candles_is_in_them(spot: FakeExchange, private_client: Callable[..., Any]):
    hour = 3_600_000

    async def steps(client: Any) -> Any:
        true = await client.fetch_ohlcv(SYMBOL, "1h", limit=5)
        found = {}
        for action in ("feed_gap", "feed_duplicate", "feed_forming", "feed_nan"):
            spot.faults(script=[{"action": action}])
            found[action] = await client.fetch_ohlcv(SYMBOL, "1h", limit=5)
        await client.fetch_ohlcv(SYMBOL, "1h", limit=5)
        spot.advance(1)
        spot.faults(script=[{"action": "feed_stall"}])
        found["feed_stall"] = await client.fetch_ohlcv(SYMBOL, "1h", limit=5)
        found["then"] = await client.fetch_ohlcv(SYMBOL, "1h", limit=5)
        return true, found

    true, found = run(spot, private_client, steps)
    opened = [row[0] for row in true]
    assert [row[0] for row in found["feed_gap"]] == [*opened[:2], *opened[3:]]
    assert found["feed_duplicate"] == [*true, true[-1]][-len(found["feed_duplicate"]) :]
    assert found["feed_forming"][-1][0] == opened[-1] + hour
    assert found["feed_nan"][-1][4] != found["feed_nan"][-1][4]
    assert found["feed_stall"] == true
    assert found["then"][-1][0] == opened[-1] + hour


def test_an_outage_ends_by_itself_and_cuts_streams(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        watching = asyncio.create_task(attempt(client.watch_trades(SYMBOL)))
        while not spot.state()["streams"]["subscriptions"]:  # ccxt does not translate an error while it sends
            await asyncio.sleep(0.01)
        spot.faults(script=[{"action": "outage", "seconds": 0.3}])
        during = await attempt(client.fetch_time())
        stream = await asyncio.wait_for(watching, 2)
        while isinstance(after := await attempt(client.fetch_time()), str):
            await asyncio.sleep(0.01)
        return during, stream, type(after)

    assert run(spot, private_client, steps) == ("ExchangeNotAvailable", "NetworkError", int)


def test_a_seed_loads_what_it_draws_and_clearing_takes_all_away(spot: FakeExchange):
    first = spot.faults(seed=11, faults=5)["added"]
    assert spot.faults(clear=True)["state"]["rules"] == []
    assert spot.faults(seed=11, faults=5)["added"] == first
    assert len(spot.state()["faults"]["rules"]) == len(first) == 5


def test_every_fault_has_a_test_that_sees_it():
    elsewhere = {"lose", "duplicate", "late", "swap", "disconnect", "stall", "spoil", "nan"}  # test_streams
    here = {
        "not_found", "delay_before", "delay_after", "hold", "cancel_race", "late_fill", "overfill", "fill_before_ack", "skew", "fee_asset",
        "stale", "feed_stall", "feed_gap", "feed_duplicate", "feed_forming", "feed_nan",
    }  # fmt: skip
    assert set(OUTCOMES) | here | elsewhere == set(ACTIONS)
