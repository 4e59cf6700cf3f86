"""An account at a venue through ccxt's asynchronous client: the one place that sends orders.

It promises three things. An order is sent at most once, under our own client id, exactly as rounded before: what would not pass the
venue's lot, tick or smallest notional is refused here and never sent. Whatever comes back is looked at before it is believed (`replies`).
And what is not a plain yes or a plain no is `Ambiguous`, so that the order is asked for and never assumed.

Tested with Binance spot and USD-M futures against the fake exchange; other venues of ccxt take the same path, where their differences are
known: paging of trades by time instead of by id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.core.values import InstrumentRules, Order
from cryptoalpha.execution.config import LiveConfig
from cryptoalpha.execution.live import order_terms, replies
from cryptoalpha.execution.live.asking import RequestFailedError, UnwantedError, ask, prepare
from cryptoalpha.execution.live.budget import Budget, BudgetSpentError
from cryptoalpha.execution.live.clock import VenueClock
from cryptoalpha.execution.live.questions import Questions, unclear
from cryptoalpha.execution.live.replies import UnreadableReplyError
from cryptoalpha.execution.live.rights import key_rights, refuse_hedging
from cryptoalpha.execution.live.stream import AccountStream
from cryptoalpha.execution.live.trade_lists import PAGE, TradeLists
from cryptoalpha.execution.venue import (
    UNWANTED,
    Accepted,
    Ambiguous,
    Answer,
    Balance,
    FundingRecord,
    Inquiry,
    OrderReport,
    Position,
    Rejected,
    Rights,
    StreamEvent,
    Trade,
)

_ENTRY_PATIENCE_SECONDS = 1.0
"""How long an entry waits for the request budget, at most: while it waits nobody can call it back, and what moved its decision moves on."""


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
        self._names: dict[str, str] = {}
        self._rules: dict[str, InstrumentRules] = {}
        client.timeout = int(config.timeout_seconds * 1000)
        client.options["recvWindow"] = int(config.receive_window_seconds * 1000)
        client.milliseconds = self.clock.milliseconds
        client.number = str  # ccxt's floats would lose digits of large quantities
        prepare(client, self.budget)
        self._ask = Questions(client, config, self.clock, self._name)
        self._trades = TradeLists(client, self._ask, self._symbol, self._name, is_futures=lambda: self.is_futures)

    @property
    def is_futures(self) -> bool:
        return self._client.options.get("defaultType") in ("swap", "future")

    async def open(self) -> None:
        await self.clock_offset()
        await self._ask.read("its markets", lambda: self._client.load_markets(True))
        if not self._client.markets:
            raise unclear(f"{self.name} names no market", Ambiguous(reason="an empty list of markets"))
        if self.is_futures:
            await refuse_hedging(self._client, self._ask)

    async def close(self) -> None:
        await self._client.close()

    async def rules(self, instruments: Sequence[str]) -> Mapping[str, InstrumentRules]:
        return {instrument: self._rules_of(instrument) for instrument in instruments}

    async def rights(self) -> Rights:
        return await key_rights(self._client, self._ask, is_futures=self.is_futures, is_vouched=self._config.vouched_key)

    async def submit(self, order: Order, *, wanted: Callable[[], bool] = lambda: True) -> Answer:
        try:
            rules, symbol = self._rules_of(order.instrument), self._symbol(order.instrument)
        except (VenueError, ConfigError) as error:
            return Rejected(code="local:market", message=str(error))
        refusal = order_terms.objection(order, rules)
        if refusal is not None:
            return refusal
        type_, price, params = order_terms.request(order, rules)
        asked = self._ask.question(urgent=order.reduce_only)
        asked.wanted = wanted
        if not order.reduce_only:
            asked.patience_seconds = min(asked.patience_seconds, _ENTRY_PATIENCE_SECONDS)
        await self._ask.settle_clock()

        async def send() -> Any:
            return await self._client.create_order(symbol, type_, order.side, order_terms.plain(order.quantity), price, params)

        try:
            raw = await ask(send, asked)
        except BudgetSpentError as error:
            return Rejected(code="local:budget", message=str(error))
        except UnwantedError as error:
            return Rejected(code=UNWANTED, message=str(error))
        except RequestFailedError as failed:
            return self._ask.classified(failed.error, asked)
        try:
            report = replies.order_report(raw, self._name)
        except UnreadableReplyError as error:
            return Ambiguous(reason=f"the answer cannot be read: {error}")
        if report.client_id != order.client_id or report.instrument != order.instrument or report.side != order.side:
            return Ambiguous(reason=f"the answer is about another order ({report.client_id[:40]!r})")
        return Accepted(report=report, trades=replies.answer_trades(raw, report, self._name))

    async def cancel(self, instrument: str, client_id: str) -> Inquiry:
        return await self._one(self._client.cancel_order, instrument, client_id, urgent=True)

    async def query(self, instrument: str, client_id: str) -> Inquiry:
        return await self._one(self._client.fetch_order, instrument, client_id, urgent=False)

    async def _one(self, call: Callable[..., Any], instrument: str, client_id: str, *, urgent: bool) -> Inquiry:
        try:
            symbol = self._symbol(instrument)
        except ConfigError as error:
            return Ambiguous(reason=str(error))
        return await self._ask.inquire(lambda: call(None, symbol, {"clientOrderId": client_id}), instrument, client_id, urgent=urgent)

    async def open_orders(self, instrument: str) -> list[OrderReport]:
        listed = await self._ask.list("its open orders", lambda: self._client.fetch_open_orders(self._symbol(instrument)))
        return self._ask.parsed("its open orders", lambda: [replies.order_report(raw, self._name) for raw in listed])

    async def trades(self, instrument: str, *, after: str | None, since: int) -> list[Trade]:
        return await self._trades.read(instrument, after=after, since=since)

    async def balances(self) -> Mapping[str, Balance]:
        raw = await self._ask.read("its balances", self._client.fetch_balance)
        return self._ask.parsed("its balances", lambda: replies.balances(raw))

    async def positions(self) -> Mapping[str, Position]:
        if not self.is_futures:
            return {}
        asked = self._ask.question()
        listed = await self._ask.list("its positions", self._client.fetch_positions, asked, is_whole=False)

        def read() -> list[Position]:
            found = [replies.position(raw, self._name) for raw in listed]
            replies.refuse_lost_positions(found, asked.body)
            return [one for one in found if one.quantity != 0]

        return {one.instrument: one for one in self._ask.parsed("its positions", read)}

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
        listed = await self._ask.list("its funding", lambda: self._client.fetch_funding_history(None, since_ms, PAGE))
        return self._ask.parsed("its funding", lambda: [replies.funding(raw, self._name) for raw in listed])

    async def price(self, instrument: str) -> Decimal:
        what = f"the price of {instrument}"
        raw = await self._ask.read(what, lambda: self._client.fetch_ticker(self._symbol(instrument)))
        return self._ask.parsed(what, lambda: replies.price(raw.get("last") if isinstance(raw, Mapping) else None, what))

    async def clock_offset(self) -> int:
        return await self._ask.set_clock()

    def events(self) -> AsyncIterator[StreamEvent]:
        return AccountStream(self._client, self._config, self._name, refused=self._ask.reset_clock, seed=self._seed).events()

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
            rules = self._ask.parsed(f"the market {instrument}", lambda: replies.market_rules(self.name, instrument, market))
            self._rules[instrument] = rules
        return self._rules[instrument]
