"""Every question and every order of the venue protocol, through real ccxt, against a fake exchange over HTTP."""

from __future__ import annotations

import asyncio
from decimal import ROUND_HALF_EVEN, Decimal, Underflow, getcontext

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR, MINUTE, parse_time
from cryptoalpha.execution.config import LiveConfig
from cryptoalpha.execution.fake_exchange.server import Route
from cryptoalpha.execution.live import ccxt_venue, trade_lists
from cryptoalpha.execution.venue import Accepted, Ambiguous, NotFound, OrderReport, Position, Rejected, Rights, UnclearError

START = parse_time("2024-03-01")


def test_a_market_order_is_sent_under_our_id_and_its_trade_found_by_id(exchange, on_venue, order):
    bought = order("buy", "2")

    async def use(venue):
        answer = await venue.submit(bought)
        exchange.advance()
        report = await venue.query("BTC/USDT", bought.client_id)
        trades = await venue.trades("BTC/USDT", after=None, since=0)
        again = await venue.trades("BTC/USDT", after=trades[-1].trade_id, since=0)
        return answer, report, trades, again, await venue.balances()

    answer, report, trades, again, balances = on_venue(exchange, use)
    assert isinstance(answer, Accepted)
    assert answer.report.client_id == bought.client_id
    assert answer.report.state == "open"
    assert isinstance(report, OrderReport)
    assert report.state == "filled"
    assert report.filled == 2
    assert report.average_price == 101
    (trade,) = trades
    assert (trade.quantity, trade.price, trade.fee, trade.fee_asset) == (Decimal(2), Decimal(101), Decimal("0.202"), "USDT")
    assert trade.venue_id == report.venue_id
    assert again == []
    assert balances["BTC"].free == 2
    assert balances["USDT"].total == Decimal("100000") - 202 - Decimal("0.202")


def test_ccxt_does_not_change_how_our_money_rounds(exchange, on_venue, order):
    """Its `decimal_to_precision` sets the rounding of whoever calls it, here the venue's thread: half up instead of half even."""

    def rounding() -> tuple[str, bool]:
        return getcontext().rounding, getcontext().traps[Underflow]

    async def use(venue):
        resting = order("buy", "1.5", type="limit", limit_price=Decimal("50.25"))
        await venue.submit(resting)
        await venue.cancel("BTC/USDT", resting.client_id)
        ours = rounding()
        venue._client.amount_to_precision("BTC/USDT", 1.5)
        return ours, rounding()

    ours, theirs = on_venue(exchange, use)
    assert ours == (ROUND_HALF_EVEN, False)
    assert theirs != ours


def test_a_resting_order_is_listed_and_cancelled_by_our_id(exchange, on_venue, order):
    resting = order("buy", "1", type="limit", limit_price=Decimal("50"))

    async def use(venue):
        await venue.submit(resting)
        listed = await venue.open_orders("BTC/USDT")
        ended = await venue.cancel("BTC/USDT", resting.client_id)
        return listed, ended, await venue.open_orders("BTC/USDT"), await venue.cancel("BTC/USDT", resting.client_id)

    listed, ended, left, again = on_venue(exchange, use)
    assert [one.client_id for one in listed] == [resting.client_id]
    assert listed[0].limit_price == 50
    assert isinstance(ended, OrderReport)
    assert ended.state == "canceled"
    assert ended.client_id == resting.client_id
    assert left == []
    assert isinstance(again, NotFound)


def test_an_order_nobody_knows_is_not_found(exchange, on_venue):
    async def use(venue):
        return await venue.query("BTC/USDT", "ca" + "0" * 30), await venue.cancel("BTC/USDT", "ca" + "0" * 30)

    assert all(isinstance(found, NotFound) for found in on_venue(exchange, use))


def test_too_little_money_is_a_refusal_with_the_venues_code(exchange, on_venue, order):
    async def use(venue):
        return await venue.submit(order("buy", "100000", type="limit", limit_price=Decimal("90")))

    answer = on_venue(exchange, use)
    assert isinstance(answer, Rejected)
    assert answer.code == "-2010"


def test_an_entry_with_a_worst_price_is_sent_as_a_limit_at_that_price_and_its_rest_expires(exchange, on_venue, order):
    good, bad = order("buy", "1", worst_price=Decimal("101.509")), order("buy", "1", worst_price=Decimal("100.999"))

    async def use(venue):
        answers = [await venue.submit(good), await venue.submit(bad)]
        exchange.advance()
        return answers, [await venue.query("BTC/USDT", one.client_id) for one in (good, bad)]

    answers, (filled, expired) = on_venue(exchange, use)
    assert [one.report.limit_price for one in answers] == [Decimal("101.5"), Decimal("100.99")]  # on the tick, against the order
    assert (filled.state, filled.filled, expired.state, expired.filled) == ("filled", 1, "expired", 0)
    placed = exchange.state()["accounts"]["key"]["orders"]
    assert [one["type"] for one in placed] == ["LIMIT", "LIMIT"]


def test_a_sale_with_a_worst_price_is_rounded_up(exchange, on_venue, order):
    async def use(venue):
        exchange.control("transfer", asset="BTC", amount="5")
        return await venue.submit(order("sell", "1", worst_price=Decimal("100.001")))

    assert on_venue(exchange, use).report.limit_price == Decimal("100.01")


def test_a_reduction_is_a_market_order_whatever_its_worst_price(exchange, on_venue, order):
    async def use(venue):
        exchange.control("transfer", asset="BTC", amount="5")
        return await venue.submit(order("sell", "1", reduce_only=True, worst_price=Decimal(100)))

    assert on_venue(exchange, use).report.limit_price is None
    (placed,) = exchange.state()["accounts"]["key"]["orders"]
    assert placed["type"] == "MARKET"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"quantity": "0.0015"}, "local:lot"),
        ({"type": "limit", "limit_price": Decimal("99.995")}, "local:tick"),
        ({"quantity": "0.04", "type": "limit", "limit_price": Decimal(100)}, "local:notional"),
        ({"quantity": "0.04", "worst_price": Decimal(100)}, "local:notional"),
        ({"instrument": "DOGE/USDT"}, "local:market"),
    ],
)
def test_what_the_venue_would_refuse_is_refused_here_and_never_sent(exchange, on_venue, order, changes, code):
    async def use(venue):
        return await venue.submit(order("buy", **changes))

    answer = on_venue(exchange, use)
    assert isinstance(answer, Rejected)
    assert answer.code == code
    assert "POST /api/v3/order" not in exchange.state()["requests"]


@pytest.mark.parametrize("force", ["gtc", "ioc", "fok"])
def test_time_in_force_reaches_the_venue(exchange, on_venue, order, force):
    asked = order("buy", "1", type="limit", limit_price=Decimal(50), time_in_force=force)

    async def use(venue):
        answer = await venue.submit(asked)
        exchange.advance()
        return answer, await venue.query("BTC/USDT", asked.client_id)

    answer, after = on_venue(exchange, use)
    assert answer.report.client_id == asked.client_id
    assert after.state == ("open" if force == "gtc" else "expired")


def test_post_only_rests_or_is_refused(exchange, on_venue, order):
    async def use(venue):
        rests = await venue.submit(order("buy", "1", type="limit", limit_price=Decimal(50), post_only=True))
        return rests, await venue.submit(order("buy", "1", type="limit", limit_price=Decimal(200), post_only=True))

    rests, crosses = on_venue(exchange, use)
    assert isinstance(rests, Accepted)
    assert isinstance(crosses, Rejected) or crosses.refusal is not None


def test_no_order_ever_carries_anothers_prefix(exchange, on_venue, order):
    async def use(venue):
        for changes in ({}, {"type": "limit", "limit_price": Decimal(50)}, {"worst_price": Decimal(102)}):
            await venue.submit(order("buy", "1", **changes))

    on_venue(exchange, use)
    assert all(one["client_id"].startswith("ca0") for one in exchange.state()["accounts"]["key"]["orders"])


def test_an_order_is_wanted_up_to_the_moment_it_leaves(exchange, on_venue, order):
    async def use(venue):
        exchange.faults(script=[{"action": "delay_before", "route": "GET */time", "seconds": 0.3, "times": 0}])
        venue._ask._is_clock_doubted = True  # it is measured anew first, which takes a while
        wanted = [True]
        asyncio.get_running_loop().call_later(0.1, wanted.clear)
        called_back = await venue.submit(order("buy", "1"), wanted=lambda: bool(wanted))
        return called_back, await venue.submit(order("buy", "2"), wanted=lambda: True)

    called_back, sent = on_venue(exchange, use)
    assert (type(called_back), called_back.code) == (Rejected, "local:unwanted")
    assert isinstance(sent, Accepted)
    assert [one["quantity"] for one in exchange.state()["accounts"]["key"]["orders"]] == ["2"]


def test_trades_are_read_over_many_pages_each_once(exchange, on_venue, order, monkeypatch):
    monkeypatch.setattr(trade_lists, "PAGE", 3)

    async def use(venue):
        for _ in range(10):
            await venue.submit(order("buy", "0.1"))
        exchange.advance()
        everything = await venue.trades("BTC/USDT", after=None, since=0)
        return everything, await venue.trades("BTC/USDT", after=everything[3].trade_id, since=0)

    everything, rest = on_venue(exchange, use)
    truth = [str(one["trade_id"]) for one in exchange.state()["accounts"]["key"]["trades"]]
    assert [one.trade_id for one in everything] == truth
    assert len(truth) == 10
    assert rest == everything[4:]


def test_trades_before_the_moment_asked_for_are_left_out(exchange, on_venue, order):
    async def use(venue):
        for _ in range(3):
            await venue.submit(order("buy", "0.1"))
            exchange.advance()
        everything = await venue.trades("BTC/USDT", after=None, since=0)
        return everything, await venue.trades("BTC/USDT", after=None, since=everything[1].at)

    everything, later = on_venue(exchange, use)
    assert later == everything[1:]
    assert len(everything) == 3


BOTH_MARKETS = [("binance", "BTC/USDT", "GET /api/v3/myTrades"), ("binanceusdm", "BTC/USDT:USDT", "GET /fapi/v1/userTrades")]


@pytest.mark.parametrize(("venue_id", "name", "route"), BOTH_MARKETS)
def test_a_first_trade_days_after_the_moment_asked_for_is_listed_at_the_cost_of_one_question(
    slow_exchange, on_venue, order, venue_id, name, route
):
    async def use(venue):
        nothing = await venue.trades(name, after=None, since=START)
        slow_exchange.advance(34)  # eight and a half days
        await venue.submit(order("buy", "1", instrument=name))
        slow_exchange.advance(4)
        return nothing, await venue.trades(name, after=None, since=START)

    nothing, found = on_venue(slow_exchange, use, venue=venue_id)
    assert nothing == []
    assert [one.quantity for one in found] == [1]
    assert slow_exchange.state()["requests"][route] == 2


@pytest.mark.parametrize(("venue_id", "name", "route"), BOTH_MARKETS)
def test_a_long_history_without_a_cursor_is_read_whole_and_what_lies_before_only_once(
    slow_exchange, on_venue, order, monkeypatch, venue_id, name, route
):
    monkeypatch.setattr(trade_lists, "PAGE", 3)

    async def use(venue):
        for _ in range(12):  # three days, four trades a day
            await venue.submit(order("buy", "0.1", instrument=name))
            slow_exchange.advance()
        since = START + 30 * HOUR
        asked = [slow_exchange.state()["requests"].get(route, 0)]
        lists = []
        for _ in range(2):
            lists.append(await venue.trades(name, after=None, since=since))
            asked.append(slow_exchange.state()["requests"][route])
        return lists, asked, await venue.trades(name, after=None, since=since - 12 * HOUR)

    (first, again), (before, once, twice), earlier = on_venue(slow_exchange, use, venue=venue_id)
    made = [one["trade_id"] for one in slow_exchange.state()["accounts"]["key"]["trades"]]
    assert [int(one.trade_id) for one in first] == made[4:]  # the first trades six hours after the start
    assert again == first
    assert twice - once < once - before
    assert [int(one.trade_id) for one in earlier] == made[2:]


def test_rules_rights_and_prices_are_the_venues(exchange, on_venue):
    async def use(venue):
        exchange.control("account", may_withdraw=True)
        return await venue.rules(["BTC/USDT"]), await venue.rights(), await venue.price("BNB/USDT"), venue.is_futures

    rules, rights, price, is_futures = on_venue(exchange, use)
    assert (rules["BTC/USDT"].lot, rules["BTC/USDT"].tick, rules["BTC/USDT"].min_notional) == (Decimal("0.001"), Decimal("0.01"), 5)
    assert rights == Rights(may_trade=True, may_withdraw=True)
    assert price == Decimal("100.5")  # the close of the first bar
    assert not is_futures


def test_a_key_that_may_not_trade_says_so(exchange, on_venue):
    exchange.control("account", may_trade=False)

    async def use(venue):
        return await venue.rights()

    assert on_venue(exchange, use) == Rights(may_trade=False, may_withdraw=False)


def test_perpetuals_are_asked_for_position_funding_and_wallet(futures, on_venue, order):
    name = "BTC/USDT:USDT"

    async def use(venue):
        await venue.submit(order("sell", "2", instrument=name))
        futures.advance(7)  # past the settlement at row 5
        trades = await venue.trades(name, after=None, since=0)
        found = await venue.positions(), await venue.funding(0), await venue.balances(), trades, await venue.rights()
        later = await venue.funding(found[1][-1].at + 1)
        return found, later, venue.is_futures

    (positions, funding, balances, trades, rights), later, is_futures = on_venue(futures, use, venue="binanceusdm")
    assert is_futures
    assert positions == {name: Position(instrument=name, quantity=Decimal(-2), entry_price=Decimal(101))}
    (trade,) = trades
    assert (trade.price, trade.quantity, trade.side) == (101, 2, "sell")
    (paid,) = funding
    assert paid.amount > 0  # a short receives at a positive rate
    assert later == []
    assert balances["USDT"].total == Decimal(100_000) - Decimal("0.202") + paid.amount  # profit not yet made is no money
    assert rights.may_trade


def test_a_reduction_on_perpetuals_never_turns_the_position(futures, on_venue, order):
    name = "BTC/USDT"  # our name of the perpetual may leave its settlement out

    async def use(venue):
        await venue.submit(order("buy", "1", instrument=name))
        futures.advance()
        answer = await venue.submit(order("sell", "5", instrument=name, reduce_only=True))
        futures.advance()
        return answer, await venue.positions(), await venue.trades(name, after=None, since=0), await venue.open_orders(name)

    answer, positions, trades, left = on_venue(futures, use, venue="binanceusdm")
    assert answer.report.reduce_only
    assert positions == {}
    assert [(one.side, one.quantity, one.instrument) for one in trades] == [("buy", 1, name), ("sell", 1, name)]
    assert left == []


def test_a_spot_account_has_no_positions_and_no_funding(exchange, on_venue):
    async def use(venue):
        return await venue.positions(), await venue.funding(0)

    assert on_venue(exchange, use) == ({}, [])


def test_another_hands_order_is_shown_under_its_own_id(exchange, on_venue):
    async def use(venue):
        exchange.control("order", instrument="BTC/USDT", side="buy", quantity="1", price="50", client_id="web_1")
        return await venue.open_orders("BTC/USDT")

    (shown,) = on_venue(exchange, use)
    assert shown.client_id == "web_1"


@pytest.fixture
def answered(monkeypatch):
    """Let a fake exchange answer one route so."""

    def set_answer(fake, route, answer):
        method, path = route.split()
        monkeypatch.setitem(fake.server.routes, (method, path), Route(lambda call: answer, "signed"))

    return set_answer


@pytest.mark.parametrize(
    ("answer", "error"), [({"dualSidePosition": True}, ConfigError), ({"dualSidePosition": "?"}, UnclearError), ({}, UnclearError)]
)
def test_perpetuals_are_traded_only_in_one_way_mode(futures, on_venue, answered, answer, error):
    async def use(venue):
        return venue

    on_venue(futures, use, venue="binanceusdm")
    answered(futures, "GET /fapi/v1/positionSide/dual", answer)
    with pytest.raises(error):
        on_venue(futures, use, venue="binanceusdm")


@pytest.mark.parametrize(
    "answer", [{}, [], {"enableWithdrawals": "false", "enableSpotAndMarginTrading": True}, {"enableWithdrawals": False}]
)
def test_rights_that_are_not_said_are_not_assumed(exchange, on_venue, answered, answer):
    answered(exchange, "GET /sapi/v1/account/apiRestrictions", answer)

    async def use(venue):
        return await venue.rights()

    with pytest.raises(UnclearError):
        on_venue(exchange, use)


@pytest.mark.parametrize(("venue_id", "fixture"), [("binance", "exchange"), ("binanceusdm", "futures")])
def test_a_key_the_venue_refuses_is_a_matter_of_configuration(request, on_venue, venue_id, fixture):
    async def use(venue):
        await venue.rights()

    with pytest.raises(ConfigError, match="refuses the key"):
        on_venue(request.getfixturevalue(fixture), use, key="unknown", venue=venue_id)


def test_a_venue_that_never_says_what_a_key_may_do_needs_a_person_who_vouches(exchange, on_venue):
    async def use(venue):
        return await venue.rights()

    with pytest.raises(ConfigError, match="may be able to withdraw"):
        on_venue(exchange, use, venue="kraken", opened=False)
    vouched = on_venue(exchange, use, venue="kraken", opened=False, vouched_key=True)
    assert vouched == Rights(may_trade=True, may_withdraw=False)


@pytest.mark.parametrize("answer", [{}, [], {"symbols": []}, "maintenance"])
def test_a_venue_without_markets_is_not_opened_and_may_be_opened_later(exchange, on_venue, answered, answer, monkeypatch):
    real = dict(exchange.server.routes)

    async def use(venue):
        answered(exchange, "GET /api/v3/exchangeInfo", answer)
        with pytest.raises(UnclearError):
            await venue.open()
        monkeypatch.setattr(exchange.server, "routes", real)
        await venue.open()
        return await venue.price("BTC/USDT")

    assert on_venue(exchange, use, opened=False) == Decimal("100.5")


def test_an_order_for_a_market_that_is_not_there_is_ambiguous_to_ask_for_and_refused_to_send(exchange, on_venue, order):
    async def use(venue):
        asked = await venue.query("XXX/USDT", "ca1"), await venue.cancel("XXX/USDT", "ca1")
        with pytest.raises(ConfigError, match="no market"):
            await venue.rules(["XXX/USDT"])
        return asked

    assert all(isinstance(one, Ambiguous) for one in on_venue(exchange, use))


def test_orders_are_still_sent_as_they_are_where_the_client_was_told_to_repeat():
    import ccxt.pro

    for options in ({"maxRetriesOnFailure": 3}, {"order": {"maxRetriesOnFailure": 1}}):
        client = ccxt.pro.binance({"options": options})
        with pytest.raises(ConfigError, match="twice"):
            ccxt_venue.CcxtVenue(client, LiveConfig())


def test_funding_is_read_over_many_pages_each_once(futures, on_venue, order, monkeypatch):
    monkeypatch.setattr(ccxt_venue, "PAGE", 2)

    async def use(venue):
        await venue.submit(order("sell", "2", instrument="BTC/USDT:USDT"))
        futures.advance(35)
        return await venue.funding(0)

    paid = on_venue(futures, use, venue="binanceusdm")
    assert len({one.record_id for one in paid}) == len(paid)
    assert [one.at for one in paid] == [START + 5 * MINUTE * n for n in range(1, 8)]


KEY_QUESTIONS = [("GET */apiRestrictions", "exchange", "binance"), ("GET */dual", "futures", "binanceusdm")]


@pytest.mark.parametrize(("route", "fixture", "venue_id"), KEY_QUESTIONS)
def test_a_venue_that_does_not_answer_for_the_key_is_asked_again_later_not_refused(request, on_venue, route, fixture, venue_id):
    fake = request.getfixturevalue(fixture)

    async def begin(venue):
        await venue.open()
        return await venue.rights()

    async def use(venue):
        fake.faults(script=[{"action": "error_before", "route": route, "times": 0}])
        with pytest.raises(UnclearError):
            await begin(venue)
        fake.faults(clear=True)
        return await begin(venue)

    assert on_venue(fake, use, venue=venue_id, opened=False).may_trade
