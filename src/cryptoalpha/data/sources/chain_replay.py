"""Recordings of chains and daily figures, read again by the very code that reads them live.

A recording holds answers with what was asked, in the order in which they came. The source's own coroutine is run over it: wherever it asks,
it is given the recorded answer, and what it makes of them are the messages, with the same ids, times and bytes as then. Failures were not
recorded, and a round that broke off begins anew where its first question comes again.

Each reader is a `recording.Read`: `ReplaySource(name, topics, recorded, mempool_reader(section))`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import DataError
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources import coinmetrics_live, fear_greed, mempool
from cryptoalpha.data.sources.chain_asking import Answered, Asking, Parse, decoded
from cryptoalpha.data.sources.chain_config import CoinMetricsSection, EthereumSection, FearGreedSection, MempoolSection, TransfersSection
from cryptoalpha.data.sources.chain_daily import Early, told
from cryptoalpha.data.sources.chain_following import following
from cryptoalpha.data.sources.contract import Arrival, DeadLetter, Health
from cryptoalpha.data.sources.ethereum import EthereumSource
from cryptoalpha.data.sources.mempool_messages import parse_prices
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.section import SourceSection
from cryptoalpha.data.sources.transfers import LargeTransfers, Prices
from cryptoalpha.store.state.sqlite_state import SqliteState

T = TypeVar("T")
Round = Callable[[], Coroutine[Any, Any, Arrival | None]]
PRICES: Final = "/api/v1/prices"
FEES: Final = "/api/v1/fees/recommended"
SIZE: Final = "/api/mempool"
_ANSWER = msgspec.json.Decoder(Answered)


class _Question:
    """Awaited, it stops the coroutine until the answer is sent in: (when it came, the answer)."""

    def __init__(self, asked: str) -> None:
        self._asked = asked

    def __await__(self) -> Generator[str, tuple[int, bytes | None], tuple[int, bytes | None]]:
        return (yield self._asked)


class _Played(Asking):
    """Asks a recording."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.beside: dict[str, bytes | None] = {}

    async def told(self, once: Any, parse: Parse[T], *, asked: str) -> T | None:
        if asked in (PRICES, FEES, SIZE):
            if asked not in self.beside and asked == SIZE:
                raise DataError("the mempool had not been asked for")
            raw = self.beside.pop(asked, None)
            return parse(raw, self.heard_at) if raw is not None else None
        while True:
            at, raw = await _Question(asked)
            try:
                found = parse(raw, at) if raw is not None else None
            except DataError:
                continue  # it was asked again then
            self.heard_at = at
            return found


class ChainReader:
    """Runs a source over a recording; call it with each recorded message.

    Args:
        main: what the source does again and again.
        after: what it does after that, if it has what it needs.
        beside: takes in what was not asked by `main`, by what was asked; says whether to do `after` then.
        waits: called before each message with its time; brings what had waited for it.
    """

    def __init__(
        self,
        asking: _Played,
        clock: VirtualClock,
        main: Round,
        *,
        after: Round | None = None,
        beside: Mapping[str, Callable[[bytes, int], bool]] | None = None,
        waits: Callable[[int], Arrival | None] = lambda at: None,
    ) -> None:
        self._asking, self._clock, self._main, self._after = asking, clock, main, after
        self._beside, self._waits = beside or {}, waits
        self._running: Coroutine[Any, Any, Arrival | None] | None = None
        self._wanted = self._first = ""
        self.dead: list[DeadLetter] = []
        """Parts of messages that could not be read."""

    def __call__(self, raw: bytes, received_at: int) -> list[Envelope]:
        """The messages that one recorded answer completes.

        Raises:
            DataError: if it is no recorded answer.
        """
        recorded = decoded(raw, _ANSWER, "recorded answer")
        answer = recorded.answer.encode() if recorded.answer is not None else None
        said: list[Envelope] = []
        self._take(self._waits(received_at), said)
        self._clock.advance_to(max(self._clock.now(), received_at))
        if recorded.asked in self._beside:
            if answer is not None and self._beside[recorded.asked](answer, received_at):
                self._do_after(said)
            return said
        if self._running is not None and self._wanted != recorded.asked and recorded.asked == self._first:
            self._drop()  # it broke off then, and began anew
        if self._running is None:
            self._running = self._main()
            self._go_on(None, said)
            self._first = self._wanted
        if self._running is not None and self._wanted == recorded.asked:
            self._go_on((received_at, answer), said)
        elif self._wanted == self._first:
            self._drop()  # another beginning than this: with the next message
        return said

    def _go_on(self, answer: tuple[int, bytes | None] | None, said: list[Envelope]) -> None:
        """Until something is asked, or it is done."""
        assert self._running is not None
        try:
            self._wanted = self._running.send(answer)
        except StopIteration as done:
            self._running = None
            self._take(done.value, said)
            self._do_after(said)
        except DataError:
            self._running = None  # then too: it waited, and began anew

    def _do_after(self, said: list[Envelope]) -> None:
        if self._after is None:
            return
        try:
            self._after().send(None)
        except StopIteration as done:
            self._take(done.value, said)
        except DataError:
            return  # its answers follow
        else:
            raise AssertionError("what comes after asks only what is known")

    def _drop(self) -> None:
        if self._running is not None:
            self._running.close()
        self._running = None

    def _take(self, arrival: Arrival | None, said: list[Envelope]) -> None:
        if arrival is not None:
            said.extend(arrival.envelopes)
            self.dead.extend(arrival.dead)


def mempool_reader(
    section: MempoolSection | None = None,
    *,
    transfers: TransfersSection | None = None,
    prices: Prices = lambda asset: math.nan,
    position: str = "",
) -> ChainReader:
    """Of a recording of `mempool`. Settings, prices and position as they were then give the same messages."""
    section, clock = section or MempoolSection(), VirtualClock()
    tools = _tools(clock, transfers=transfers, prices=prices)
    asking = _played(mempool.NAME, section, tools)
    source = mempool.MempoolSource(section, tools, asking=asking)
    place = following(position)
    judge = LargeTransfers(tools.transfers, source.price, sketches=place.sketches)

    def heard(raw: bytes, at: int) -> bool:
        source.hear(raw, at)
        return False

    def priced(raw: bytes, at: int) -> bool:
        asking.heard_at = at
        source.price_is(parse_prices(raw), at)
        return False

    def known(name: str, *, whole: bool) -> Callable[[bytes, int], bool]:
        def keep(raw: bytes, at: int) -> bool:
            asking.beside[name], asking.heard_at = raw, at
            return whole

        return keep

    beside = {mempool.SOCKET: heard, PRICES: priced, FEES: known(FEES, whole=False), SIZE: known(SIZE, whole=True)}
    return ChainReader(asking, clock, lambda: source.blocks(place, judge), after=lambda: source.readings(place, judge), beside=beside)


def ethereum_reader(
    section: EthereumSection | None = None,
    *,
    transfers: TransfersSection | None = None,
    prices: Prices = lambda asset: math.nan,
    position: str = "",
) -> ChainReader:
    """Of a recording of `ethereum`; web3 is not needed."""
    section, clock = section or EthereumSection(), VirtualClock()
    tools = _tools(clock, transfers=transfers, prices=prices)
    asking = _played("ethereum", section, tools)
    source = EthereumSource(section, tools, "", asking=asking)
    place = following(position)
    judge = LargeTransfers(tools.transfers, source.price, sketches=place.sketches)
    return ChainReader(asking, clock, lambda: source.blocks(place, judge))


def coinmetrics_reader(assets: Sequence[str], section: CoinMetricsSection | None = None, *, position: str = "") -> ChainReader:
    """Of a recording of `coinmetrics`."""
    section, clock = section or CoinMetricsSection(), VirtualClock()
    tools = _tools(clock)
    asking = _played(coinmetrics_live.NAME, section, tools)
    source = coinmetrics_live.CoinMetricsSource(section, tools, assets, asking=asking)
    return _daily_reader(asking, clock, Early(asking, told(position), source.fetch, days_kept=section.days_back + 2))


def fear_greed_reader(section: FearGreedSection | None = None, *, position: str = "") -> ChainReader:
    """Of a recording of `fear_greed`."""
    section, clock = section or FearGreedSection(), VirtualClock()
    tools = _tools(clock)
    asking = _played(fear_greed.NAME, section, tools)
    source = fear_greed.FearGreedSource(section, tools, asking=asking)
    return _daily_reader(asking, clock, Early(asking, told(position), source.fetch, days_kept=section.days_back + 2))


def _daily_reader(asking: _Played, clock: VirtualClock, early: Early) -> ChainReader:
    def waits(at: int) -> Arrival | None:
        return early.due(at) if early.next_at and early.next_at <= at else None

    return ChainReader(asking, clock, early.ask, waits=waits)


def _tools(clock: VirtualClock, *, transfers: TransfersSection | None = None, prices: Prices = lambda asset: math.nan) -> Tools:
    return Tools(SqliteState(None), clock=clock, transfers=transfers or TransfersSection(), prices=prices)


def _played(name: str, section: SourceSection, tools: Tools) -> _Played:
    return _Played(name, f"the recording of {name}", "", section, tools, Health())
