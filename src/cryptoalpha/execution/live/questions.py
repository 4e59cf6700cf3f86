"""Questions to a venue: paid from the budget, signed by its own clock, put once more where it disputed the clock, and never half believed.

What is asked here changes nothing at the venue, so asking twice is harmless. Orders are sent by `CcxtVenue.submit` alone, which uses the
clock and the classification of this file but not its repetition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from cryptoalpha.core.time import MILLISECOND, MINUTE
from cryptoalpha.execution.config import LiveConfig
from cryptoalpha.execution.live import replies
from cryptoalpha.execution.live.asking import STUMBLES, Question, RequestFailedError, ask
from cryptoalpha.execution.live.budget import BudgetSpentError
from cryptoalpha.execution.live.clock import Reading, VenueClock
from cryptoalpha.execution.live.replies import UnreadableReplyError
from cryptoalpha.execution.orders.classify import classify
from cryptoalpha.execution.venue import Ambiguous, Inquiry, NotFound, Rejected, UnclearError

Found = TypeVar("Found")
Call = Callable[[], Awaitable[Any]]
_CLOCK_LASTS = 10 * MINUTE
"""Age from which the clock is set anew: quartz drifts by some ten milliseconds in it."""
_LOOKS_AT_THE_CLOCK = 3
_GOOD_ROUND_TRIP = 50 * MILLISECOND
_UNKNOWN_ORDER = ("-2013", "-2011")
"""Binance: no such order; no such order to cancel."""


class Questions:
    """How one client's questions are put.

    Args:
        client: a prepared ccxt client.
        config: time limits.
        clock: the venue's clock, set here.
        name: from ccxt's symbol to our name of an instrument.
    """

    def __init__(self, client: Any, config: LiveConfig, clock: VenueClock, name: replies.Naming) -> None:
        self._client, self._config, self._name = client, config, name
        self.clock = clock
        self._is_clock_doubted = True

    async def inquire(self, call: Call, instrument: str, client_id: str, *, urgent: bool = False) -> Inquiry:
        """A question about one order."""
        answer = await self._inquire_once(call, instrument, client_id, urgent=urgent)
        if isinstance(answer, Ambiguous) and answer.is_clock:
            answer = await self._inquire_once(call, instrument, client_id, urgent=urgent)
        return answer

    async def read(self, what: str, call: Callable[[], Awaitable[Found]], asked: Question | None = None) -> Found:
        """A question about the account or the market.

        Raises:
            UnclearError: if there is no answer.
        """
        asked = asked or self.question()
        self._is_clock_doubted |= self.clock.age() > _CLOCK_LASTS
        await self.settle_clock()
        try:
            return await self._once(what, call, asked)
        except UnclearError as error:
            if not error.answer.is_clock:
                raise
        await self.settle_clock()
        return await self._once(what, call, asked)

    async def list(self, what: str, call: Call, asked: Question | None = None, *, is_whole: bool = True) -> list[Any]:
        """A question that is answered by a list.

        Raises:
            UnclearError: if there is no answer, or it is empty without the venue having said so.
        """
        asked = asked or self.question()
        listed = await self.read(what, call, asked)
        return self.parsed(what, lambda: replies.rows(listed, asked.body, what, is_whole=is_whole))

    def parsed(self, what: str, read: Callable[[], Found]) -> Found:
        """What `read` makes of a reply.

        Raises:
            UnclearError: if it cannot be read.
        """
        try:
            return read()
        except UnreadableReplyError as error:
            raise unclear(f"{self._client.id}: {what} cannot be read: {error}", Ambiguous(reason=str(error))) from None

    def question(self, *, urgent: bool = False) -> Question:
        """A question to be put; one that is urgent may use the reserve of the budget."""
        return Question(urgent=urgent, patience_seconds=self._config.timeout_seconds)

    def classified(self, error: BaseException, asked: Question) -> Rejected | Ambiguous:
        """What it means that a request for a new order failed so."""
        if isinstance(error, STUMBLES):
            return Ambiguous(reason=f"an answer that cannot be read ({type(error).__name__})")
        answer = classify(error, code=asked.code, message=asked.message, status=asked.status, retry_after_seconds=asked.retry_after_seconds)
        if isinstance(answer, Ambiguous) and answer.is_clock:
            self._is_clock_doubted = True
        return answer

    async def settle_clock(self) -> None:
        """Set the clock anew if it is in doubt. If that fails, the old one is as good as any: the venue will say."""
        if self._is_clock_doubted:
            try:
                await self.set_clock()
            except UnclearError:
                await asyncio.sleep(0)

    async def reset_clock(self) -> None:
        """Doubt the clock, and set it if the venue tells the time."""
        self._is_clock_doubted = True
        await self.settle_clock()

    async def set_clock(self) -> int:
        """Measure the venue's clock, the best of a few looks; returns the offset in ns.

        Raises:
            UnclearError: if the venue does not tell the time.
        """
        best = await self._look()
        for _ in range(_LOOKS_AT_THE_CLOCK - 1):
            if best.round_trip < _GOOD_ROUND_TRIP:
                break
            best = min(best, await self._look(), key=lambda one: one.round_trip)
        self._is_clock_doubted = False
        return self.clock.set(best)

    async def _look(self) -> Reading:
        sent = self.clock.monotonic()
        raw = await self._once("its clock", self._client.fetch_time, self.question())
        received = self.clock.monotonic()
        stamp = self.parsed("its clock", lambda: replies.moment(raw))
        # The venue cuts its stamp to milliseconds: on average it is half of one later than it says.
        return Reading(venue=stamp + MILLISECOND // 2, sent=sent, received=received)

    async def _inquire_once(self, call: Call, instrument: str, client_id: str, *, urgent: bool) -> Inquiry:
        asked = self.question(urgent=urgent)
        await self.settle_clock()
        try:
            raw = await ask(call, asked)
        except BudgetSpentError as error:
            return Ambiguous(reason=str(error), retry_after_seconds=error.wait_seconds)
        except RequestFailedError as failed:
            if asked.code in _UNKNOWN_ORDER or (asked.code and type(failed.error).__name__ == "OrderNotFound"):
                return NotFound(message=asked.message)
            return _unanswered(self.classified(failed.error, asked))
        try:
            report = replies.order_report(raw, self._name)
        except UnreadableReplyError as error:
            return Ambiguous(reason=f"the answer cannot be read: {error}")
        if report.client_id != client_id or report.instrument != instrument:
            return Ambiguous(reason=f"the answer is about another order ({report.client_id[:40]!r})")
        return report

    async def _once(self, what: str, call: Callable[[], Awaitable[Found]], asked: Question) -> Found:
        try:
            return await ask(call, asked)
        except BudgetSpentError as error:
            answer = Ambiguous(reason=str(error), retry_after_seconds=error.wait_seconds)
        except RequestFailedError as failed:
            answer = _unanswered(self.classified(failed.error, asked))
        raise unclear(f"{self._client.id} does not answer for {what}: {answer.reason}", answer)


def unclear(message: str, answer: Ambiguous) -> UnclearError:
    """The error of a question without an answer."""
    return UnclearError(message, answer=answer)


def _unanswered(answer: Rejected | Ambiguous) -> Ambiguous:
    """What a failed question says: of the order nothing, of clock, key and limits what it said."""
    if isinstance(answer, Rejected):
        return Ambiguous(reason=f"{answer.code}: {answer.message}", is_key=answer.is_key)
    return msgspec.structs.replace(answer, refusal=None, exists=False)
