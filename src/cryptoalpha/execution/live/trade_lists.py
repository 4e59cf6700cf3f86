"""Reading the account's list of trades, every page of it, however far back what is wanted lies.

Binance answers by id from an id on without an end, but by time only for a while after it: 24 hours on spot, 7 days on futures. So a list is
followed by id as soon as one is known. Where none is: on spot the newest page, asked for without any bound, says all there is unless it is
full and begins later than asked for. What lies further back than a time reaches is read by id from the first on, and what turns out to lie
before what is wanted is passed over the next time. Other venues of ccxt are paged by time.

Source: Binance, GET /api/v3/myTrades ("If fromId is set, it will get trades >= that fromId. Otherwise most recent trades are returned";
"The time between startTime and endTime can't be longer than 24 hours") and GET /fapi/v1/userTrades ("cannot be longer than 7 days").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cryptoalpha.core.time import DAY, MILLISECOND, MINUTE
from cryptoalpha.execution.live import replies
from cryptoalpha.execution.live.questions import Questions, unclear
from cryptoalpha.execution.live.replies import Naming
from cryptoalpha.execution.venue import Ambiguous, Trade

PAGE = 1000
"""Rows asked for at once; the most Binance gives."""
_WEEK = 6 * DAY
"""Binance's futures name no trades later than a week after the time asked for; a day of it is kept for differences of clocks."""
_OVERLAP = 10 * MINUTE
"""Trades may be listed late: ids are passed over only where they are older than what is wanted by this."""


class TradeLists:
    """How one client's lists of trades are read.

    Args:
        client: a prepared ccxt client.
        ask: how its questions are put.
        symbol: from our name of an instrument to ccxt's symbol.
        name: the way back.
    """

    def __init__(self, client: Any, ask: Questions, symbol: Callable[[str], str], name: Naming, *, is_futures: Callable[[], bool]) -> None:
        self._client, self._ask, self._symbol, self._name, self._is_futures = client, ask, symbol, name, is_futures
        self._is_by_id = client.id.startswith("binance")
        self._passed: dict[str, tuple[int, str]] = {}

    async def read(self, instrument: str, *, after: str | None, since: int) -> list[Trade]:
        """All of the account's with an id above `after` (else made at `since` or later), oldest first, every page.

        Raises:
            UnclearError: if the venue gives no answer that can be believed.
        """
        since -= since % MILLISECOND
        if not self._is_by_id:
            found = await self._by_time(instrument, since)
        elif after is not None:
            found = await self._by_id(instrument, after)
        elif self._is_futures():
            found = await self._of_perpetual(instrument, since)
        else:
            found = await self._of_spot(instrument, since)
        least = replies.id_order(after) if after is not None else None
        kept = [one for one in found if (one.at >= since if least is None else replies.id_order(one.trade_id) > least)]
        return self._ask.parsed(f"the trades of {instrument}", lambda: replies.distinct(kept))

    async def _of_spot(self, instrument: str, since: int) -> list[Trade]:
        newest = await self._page(instrument)
        if len(newest) < PAGE or min(one.at for one in newest) < since:
            return newest
        if min(one.at for one in newest) - since > DAY:
            return await self._from_the_first(instrument, since)
        return await self._from_time(instrument, since)

    async def _of_perpetual(self, instrument: str, since: int) -> list[Trade]:
        if self._ask.clock.now() - since > _WEEK:
            return await self._from_the_first(instrument, since)
        return await self._from_time(instrument, since)

    async def _from_time(self, instrument: str, since: int) -> list[Trade]:
        """Where the first of them lies within what the venue looks over from a time on."""
        first = await self._page(instrument, since=since)
        return first if len(first) < PAGE else [*first, *await self._by_id(instrument, _last(first))]

    async def _from_the_first(self, instrument: str, since: int) -> list[Trade]:
        """Every id there is, but for those that an earlier reading found to lie before what is wanted."""
        known_for, passed = self._passed.get(instrument, (since, "0"))
        found = await self._by_id(instrument, passed if since >= known_for else "0")
        older = [one for one in found if one.at < since - _OVERLAP]
        if older:
            self._passed[instrument] = since, _last(older)
        return found

    async def _by_id(self, instrument: str, after: str) -> list[Trade]:
        found: list[Trade] = []
        while True:
            page = await self._page(instrument, after=after)
            fresh = [one for one in page if replies.id_order(one.trade_id) > replies.id_order(after)]
            found += fresh
            if not fresh or len(page) < PAGE:
                return found
            after = _last(fresh)

    async def _by_time(self, instrument: str, since: int) -> list[Trade]:
        found: dict[str, Trade] = {}
        while True:
            page = await self._page(instrument, since=since)
            fresh = [one for one in page if one.trade_id not in found]
            found.update((one.trade_id, one) for one in fresh)
            if not fresh or len(page) < PAGE:
                return list(found.values())
            since = max(one.at for one in page)

    async def _page(self, instrument: str, *, after: str | None = None, since: int | None = None) -> list[Trade]:
        """Up to a page: after an id, or from a time on, or else the newest."""
        what, symbol = f"the trades of {instrument}", self._symbol(instrument)
        params = {"fromId": int(after) + 1} if after is not None else {}
        start = None if since is None else since // MILLISECOND
        listed = await self._ask.list(what, lambda: self._client.fetch_my_trades(symbol, start, PAGE, dict(params)))
        found: list[Trade] = self._ask.parsed(what, lambda: [replies.trade(raw, self._name) for raw in listed])
        if self._is_by_id and not all(one.trade_id.isdecimal() for one in found):
            raise unclear(f"{self._client.id}: {what} have ids that are no numbers", Ambiguous(reason="trade ids that cannot be ordered"))
        return found


def _last(trades: Sequence[Trade]) -> str:
    return max((one.trade_id for one in trades), key=replies.id_order)
