"""An account at a venue through ccxt's asynchronous client: the one place that sends orders.

It promises three things. An order is sent at most once, under our own client id, exactly as rounded before: what would not pass the
venue's lot, tick or smallest notional is refused here and never sent. Whatever comes back is looked at before it is believed (`replies`).
And what is not a plain yes or a plain no is `Ambiguous`, so that the order is asked for and never assumed.

Tested with Binance spot and USD-M futures against the fake exchange; other venues of ccxt take the same path, where their differences are
known: paging of trades by time instead of by id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.core.values import InstrumentRules, Order
from cryptoalpha.execution.config import LiveConfig
from cryptoalpha.execution.live import replies
from cryptoalpha.execution.live.asking import Exchange, ask, prepare
from cryptoalpha.execution.live.budget import Budget, BudgetSpentError
from cryptoalpha.execution.live.clock import MILLISECOND, Reading, VenueClock
from cryptoalpha.execution.live.replies import UnreadableReplyError
from cryptoalpha.execution.live.stream import AccountStream
from cryptoalpha.execution.orders.classify import classify
from cryptoalpha.execution.venue import (
    Accepted,
    Ambiguous,
    Answer,
    Balance,
    FundingRecord,
    Inquiry,
    NotFound,
    OrderReport,
    Position,
    Rejected,
    Rights,
    StreamEvent,
    Trade,
    UnclearError,
)

Found = TypeVar("Found")
PAGE = 1000
"""Rows asked for at once; the most Binance gives."""
_LOOKS_AT_THE_CLOCK = 3
_STUMBLES = (AttributeError, TypeError, ValueError, KeyError, IndexError, ArithmeticError)
"""What ccxt raises while it reads a reply that is not what it expects."""
_UNKNOWN_ORDER = ("-2013", "-2011")
"""Binance: no such order; no such order to cancel."""


class CcxtVenue:
    """Implements `execution.venue.Venue`. All methods belong to one event loop.

    Args:
        client: a ccxt.pro client that carries the account's keys (`app.venues` builds it); it is prepared here and owned from then on.
        config: time limits and the request budget.
        clock: the venue's clock.
        budget: shared with whoever else asks this venue; None makes one of its own.
        seed: of the jitter of the stream's waits.
    """

    def __init__(
        self, client: Any, config: LiveConfig, *, clock: VenueClock | None = None, budget: Budget | None = None, seed: int = 0
    ) -> None:
        self.name: str = client.id
        self.clock = clock or VenueClock()
        self.budget = budget or Budget(config.requests_per_minute, config.reserved_share)
        self._client, self._config, self._seed = client, config, seed
        self._is_clock_doubted = True
        self._names: dict[str, str] = {}
        self._rules: dict[str, InstrumentRules] = {}
        client.timeout = int(config.timeout_seconds * 1000)
        client.options["recvWindow"] = int(config.receive_window_seconds * 1000)
        client.milliseconds = self.clock.milliseconds
        client.number = str  # ccxt's floats would lose digits of large quantities
        prepare(client, self.budget)

    @property
    def is_futures(self) -> bool:
        return self._client.options.get("defaultType") in ("swap", "future")

    async def open(self) -> None:
        await self.clock_offset()
        await self._read("its markets", self._client.load_markets)
        if not self._client.markets:
            self._client.markets = None
            raise _unclear(f"{self.name} names no market", Ambiguous(reason="an empty list of markets"))

    async def close(self) -> None:
        await self._client.close()

    async def rules(self, instruments: Sequence[str]) -> Mapping[str, InstrumentRules]:
        return {instrument: self._rules_of(instrument) for instrument in instruments}

    async def rights(self) -> Rights:
        if not self.name.startswith("binance"):
            raise ConfigError(
                f"{self.name} does not say what a key may do in a way known here, so it cannot be ruled out that it may withdraw",
                hint="use binance or binanceusdm",
            )
        found = await self._read("what the key may do", self._client.sapi_get_account_apirestrictions)
        withdraws = found.get("enableWithdrawals") if isinstance(found, Mapping) else None
        trades = found.get("enableFutures" if self.is_futures else "enableSpotAndMarginTrading") if isinstance(found, Mapping) else None
        if not isinstance(withdraws, bool) or not isinstance(trades, bool):
            raise _unclear(f"{self.name} does not say what the key may do", Ambiguous(reason="rights that cannot be read"))
        return Rights(may_trade=trades, may_withdraw=withdraws)

    async def submit(self, order: Order) -> Answer:
        refusal = self._objection(order)
        if refusal is not None:
            return refusal
        symbol, type_, price, params = self._symbol(order.instrument), *self._request(order)
        asked = self._exchange(urgent=order.reduce_only)
        await self._resync_where_doubted()

        async def send() -> Any:
            return await self._client.create_order(symbol, type_, order.side, str(order.quantity), price, params)

        try:
            raw = await ask(send, asked)
        except BudgetSpentError as error:
            return Rejected(code="local:budget", message=str(error))
        except Exception as error:  # noqa: BLE001 (the broker call: whatever it is, the order may have arrived)
            return self._classified(error, asked)
        try:
            report = replies.order_report(raw, self._name)
        except UnreadableReplyError as error:
            return Ambiguous(reason=f"the answer cannot be read: {error}")
        if report.client_id != order.client_id or report.instrument != order.instrument or report.side != order.side:
            return Ambiguous(reason=f"the answer is about another order ({report.client_id[:40]!r})")
        return Accepted(report=report, trades=replies.answer_trades(raw, report, self._name))

    async def cancel(self, instrument: str, client_id: str) -> Inquiry:
        symbol, params = self._symbol(instrument), {"clientOrderId": client_id}
        return await self._inquire(lambda: self._client.cancel_order(None, symbol, dict(params)), instrument, client_id, urgent=True)

    async def query(self, instrument: str, client_id: str) -> Inquiry:
        symbol, params = self._symbol(instrument), {"clientOrderId": client_id}
        return await self._inquire(lambda: self._client.fetch_order(None, symbol, dict(params)), instrument, client_id)

    async def open_orders(self, instrument: str) -> list[OrderReport]:
        listed = await self._list("its open orders", lambda: self._client.fetch_open_orders(self._symbol(instrument)))
        return self._parsed("its open orders", lambda: [replies.order_report(raw, self._name) for raw in listed])

    async def trades(self, instrument: str, *, after: str | None, since: int) -> list[Trade]:
        by_id = self.name.startswith("binance")
        found: dict[str, Trade] = {}
        start, last = since // MILLISECOND, after
        while True:
            rows, is_last = await self._trade_page(instrument, start, last if by_id else None)
            fresh = [one for one in rows if one.trade_id not in found]
            found.update((one.trade_id, one) for one in fresh)
            if not fresh or is_last:
                break
            last = max((one.trade_id for one in rows), key=replies.id_order)
            start = max(one.at for one in rows) // MILLISECOND
        least = replies.id_order(after) if after is not None else None
        kept = [one for one in found.values() if least is None or replies.id_order(one.trade_id) > least]
        return replies.distinct(one for one in kept if least is not None or one.at >= since - since % MILLISECOND)

    async def _trade_page(self, instrument: str, since_ms: int, after: str | None) -> tuple[list[Trade], bool]:
        """Up to a page of trades, by id where one is known, and whether there are no more."""
        what, symbol = f"the trades of {instrument}", self._symbol(instrument)
        params = {"fromId": int(after) + 1} if after is not None else {}
        listed = await self._list(what, lambda: self._client.fetch_my_trades(symbol, None if params else since_ms, PAGE, dict(params)))
        found = self._parsed(what, lambda: replies.distinct(replies.trade(raw, self._name) for raw in listed))
        return found, len(listed) < PAGE

    async def balances(self) -> Mapping[str, Balance]:
        raw = await self._read("its balances", self._client.fetch_balance)
        return self._parsed("its balances", lambda: replies.balances(raw))

    async def positions(self) -> Mapping[str, Position]:
        if not self.is_futures:
            return {}
        listed = await self._list("its positions", self._client.fetch_positions)
        found = self._parsed("its positions", lambda: [replies.position(raw, self._name) for raw in listed])
        return {one.instrument: one for one in found if one.quantity != 0}

    async def funding(self, since: int) -> list[FundingRecord]:
        if not self.is_futures:
            return []
        found: dict[str, FundingRecord] = {}
        start = since // MILLISECOND
        while True:
            rows = await self._funding_page(start)
            fresh = [one for one in rows if one.record_id not in found]
            found.update((one.record_id, one) for one in fresh)
            if not fresh or len(rows) < PAGE:
                break
            start = max(one.at for one in rows) // MILLISECOND
        return sorted((one for one in found.values() if one.at >= since), key=lambda one: (one.at, one.record_id))

    async def _funding_page(self, since_ms: int) -> list[FundingRecord]:
        listed = await self._list("its funding", lambda: self._client.fetch_funding_history(None, since_ms, PAGE))
        return self._parsed("its funding", lambda: [replies.funding(raw, self._name) for raw in listed])

    async def price(self, instrument: str) -> Decimal:
        what = f"the price of {instrument}"
        raw = await self._read(what, lambda: self._client.fetch_ticker(self._symbol(instrument)))
        return self._parsed(what, lambda: replies.price(raw.get("last") if isinstance(raw, Mapping) else None, what))

    async def clock_offset(self) -> int:
        best: Reading | None = None
        for _ in range(_LOOKS_AT_THE_CLOCK):
            reading = await self._reading()
            best = reading if best is None or reading.round_trip < best.round_trip else best
            if reading.round_trip < 50 * MILLISECOND:
                break
        assert best is not None
        self._is_clock_doubted = False
        return self.clock.set(best)

    async def _reading(self) -> Reading:
        sent = self.clock.monotonic()
        raw = await self._once("its clock", self._client.fetch_time, self._exchange())
        received = self.clock.monotonic()
        stamp = self._parsed("its clock", lambda: replies.moment(raw))
        # The venue cuts its stamp to milliseconds: on average it is half of one later than it says.
        return Reading(venue=stamp + MILLISECOND // 2, sent=sent, received=received)

    async def events(self) -> AsyncIterator[StreamEvent]:
        async for event in AccountStream(self._client, self._config, self._name, seed=self._seed).events():
            yield event

    # ── names, rules and requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _symbol(self, instrument: str) -> str:
        """ccxt's symbol: our name, or that of the perpetual which is settled in its quote."""
        markets = self._client.markets or {}
        quote = instrument.partition("/")[2]
        for symbol in (f"{instrument}:{quote}", instrument) if self.is_futures else (instrument,):
            if symbol in markets:
                self._names[symbol] = instrument
                return symbol
        raise ConfigError(f"{self.name} has no market {instrument}", hint="`cryptoalpha check` lists what it has")

    def _name(self, symbol: str) -> str:
        return self._names.get(symbol, symbol)

    def _rules_of(self, instrument: str) -> InstrumentRules:
        if instrument not in self._rules:
            market = self._client.markets[self._symbol(instrument)]
            rules = self._parsed(f"the market {instrument}", lambda: replies.market_rules(self.name, instrument, market))
            self._rules[instrument] = rules
        return self._rules[instrument]

    def _objection(self, order: Order) -> Rejected | None:
        """Why the venue would refuse the order, as far as that can be said before it is sent."""
        try:
            rules = self._rules_of(order.instrument)
        except VenueError as error:
            return Rejected(code="local:rules", message=str(error))
        except ConfigError as error:
            return Rejected(code="local:market", message=str(error))
        price = order.limit_price if order.type == "limit" else order.worst_price
        if order.quantity % rules.lot != 0:
            return Rejected(code="local:lot", message=f"{order.quantity} is no multiple of the lot {rules.lot}")
        if order.limit_price is not None and order.limit_price % rules.tick != 0:
            return Rejected(code="local:tick", message=f"{order.limit_price} is no multiple of the tick {rules.tick}")
        if price is not None and not order.reduce_only and order.quantity * price < rules.min_notional:
            return Rejected(code="local:notional", message=f"{order.quantity} at {price} is less than {rules.min_notional} {rules.quote}")
        return None

    def _request(self, order: Order) -> tuple[str, str | None, dict[str, Any]]:
        """ccxt's order type, price and parameters."""
        params: dict[str, Any] = {"clientOrderId": order.client_id}
        if order.reduce_only and self.is_futures:
            params["reduceOnly"] = True
        if order.type == "limit":
            if order.post_only:
                params["postOnly"] = True
            else:
                params["timeInForce"] = order.time_in_force.upper()
            return "limit", str(order.limit_price), params
        if order.worst_price is not None and not order.reduce_only:
            params["timeInForce"] = "IOC"
            return "limit", str(self._inside(order)), params
        return "market", None, params

    def _inside(self, order: Order) -> Decimal:
        """The worst price on the tick: rounded against the order, never beyond what it allows."""
        assert order.worst_price is not None
        tick = self._rules_of(order.instrument).tick
        steps = order.worst_price / tick
        whole = steps.to_integral_value("ROUND_FLOOR" if order.side == "buy" else "ROUND_CEILING")
        return whole * tick

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _exchange(self, *, urgent: bool = False) -> Exchange:
        return Exchange(urgent=urgent, patience_seconds=self._config.timeout_seconds)

    async def _inquire(self, call: Callable[[], Awaitable[Any]], instrument: str, client_id: str, *, urgent: bool = False) -> Inquiry:
        """A question about one order. It changes nothing to ask twice, so a disputed clock is set and the question put once more."""
        for attempt in (0, 1):
            asked = self._exchange(urgent=urgent)
            await self._resync_where_doubted()
            try:
                raw = await ask(call, asked)
            except BudgetSpentError as error:
                return Ambiguous(reason=str(error), retry_after_seconds=error.wait_seconds)
            except Exception as error:  # noqa: BLE001 (the broker call)
                if asked.code in _UNKNOWN_ORDER or (asked.code and type(error).__name__ == "OrderNotFound"):
                    return NotFound(message=asked.message)
                answer = _unanswered(self._classified(error, asked))
                if answer.is_clock and attempt == 0:
                    continue
                return answer
            try:
                report = replies.order_report(raw, self._name)
            except UnreadableReplyError as error:
                return Ambiguous(reason=f"the answer cannot be read: {error}")
            if report.client_id != client_id or report.instrument != instrument:
                return Ambiguous(reason=f"the answer is about another order ({report.client_id[:40]!r})")
            return report
        raise AssertionError("unreachable")

    async def _read(self, what: str, call: Callable[[], Awaitable[Found]], asked: Exchange | None = None) -> Found:
        """A question about the account; once more where the venue disputed our clock."""
        asked = asked or self._exchange()
        await self._resync_where_doubted()
        try:
            return await self._once(what, call, asked)
        except UnclearError as error:
            if not error.answer.is_clock:
                raise
        await self._resync_where_doubted()
        return await self._once(what, call, asked)

    async def _once(self, what: str, call: Callable[[], Awaitable[Found]], asked: Exchange) -> Found:
        try:
            return await ask(call, asked)
        except BudgetSpentError as error:
            answer = Ambiguous(reason=str(error), retry_after_seconds=error.wait_seconds)
        except Exception as error:  # noqa: BLE001 (the broker call)
            answer = _unanswered(self._classified(error, asked))
        raise _unclear(f"{self.name} does not answer for {what}: {answer.reason}", answer)

    async def _list(self, what: str, call: Callable[[], Awaitable[Any]]) -> list[Any]:
        asked = self._exchange()
        listed = await self._read(what, call, asked)
        return self._parsed(what, lambda: replies.rows(listed, asked.body, what))

    def _parsed(self, what: str, read: Callable[[], Found]) -> Found:
        try:
            return read()
        except UnreadableReplyError as error:
            raise _unclear(f"{self.name}: {what} cannot be read: {error}", Ambiguous(reason=str(error))) from None

    def _classified(self, error: BaseException, asked: Exchange) -> Rejected | Ambiguous:
        if isinstance(error, _STUMBLES):
            return Ambiguous(reason=f"an answer that cannot be read ({type(error).__name__})")
        answer = classify(error, code=asked.code, message=asked.message, status=asked.status, retry_after_seconds=asked.retry_after_seconds)
        if isinstance(answer, Ambiguous) and answer.is_clock:
            self._is_clock_doubted = True
        return answer

    async def _resync_where_doubted(self) -> None:
        """Set the clock anew if the venue disputed it. If that fails, the old one is as good as any: the venue will say."""
        if self._is_clock_doubted:
            try:
                await self.clock_offset()
            except UnclearError:
                await asyncio.sleep(0)


def _unanswered(answer: Rejected | Ambiguous) -> Ambiguous:
    """What a failed question says: of the order nothing, of clock, key and limits what it said."""
    if isinstance(answer, Rejected):
        return Ambiguous(reason=f"{answer.code}: {answer.message}", is_key=answer.is_key)
    return msgspec.structs.replace(answer, refusal=None, exists=False)


def _unclear(message: str, answer: Ambiguous) -> UnclearError:
    return UnclearError(message, answer=answer)
