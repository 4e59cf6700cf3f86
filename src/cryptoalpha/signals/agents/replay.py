"""A stored history as the messages it would have been, in the order in which it became known.

Texts go out under their stored names (`data.texts`), so an agent that reads them refers to them as the signal book does. Bars carry no
taker volume: a source that reads it (`features`) says something else of a stream than of a history that has it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.values import Bar, ChainReading
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.signals.agents.agent import BarSignals, SignalAgent
from cryptoalpha.signals.agents.sieve import post_of
from cryptoalpha.store.tables import BarTable, Dataset, PostTable, ReadingTable

MARKET, TEXTS, READINGS = "market", "texts", "readings"


def messages_of(dataset: Dataset, *, after: int, until: int) -> Iterator[Envelope]:
    """Bars, readings and posts that became known in (`after`, `until`], by that moment; at the same one texts come before bars."""
    streams: list[Iterator[Envelope]] = [_posts(table, after, until) for _, table in sorted(dataset.posts.items())]
    streams += [_readings(table, after, until) for _, table in sorted(dataset.readings.items())]
    streams += [_bars(table, after, until) for _, table in sorted(dataset.bars.items())]
    return heapq.merge(*streams, key=lambda envelope: envelope.observed_time)


async def replayed(
    agent: SignalAgent, messages: Iterable[Envelope] | Iterable[tuple[int, Envelope]], clock: VirtualClock, *, until: int
) -> list[BarSignals]:
    """What an agent says while messages come in, and until a moment after them.

    Args:
        messages: in the order in which they come; with the moment at which each one does, else it comes when it is known.
        clock: the agent's own; it is moved.
    """
    said: list[BarSignals] = []
    for message in messages:
        moment, envelope = (message.observed_time, message) if isinstance(message, Envelope) else message
        if moment > clock.now():
            clock.advance_to(moment)
            said += await agent.bars_due()
        agent.read([envelope])
    clock.advance_to(max(until, clock.now()))
    return said + await agent.bars_due()


def without_taker_volume(dataset: Dataset) -> Dataset:
    """What a history holds of bars once they travelled as values."""
    return replace(
        dataset, bars={name: replace(table, taker_buy_volume=np.full(len(table), np.nan)) for name, table in dataset.bars.items()}
    )


def _posts(table: PostTable, after: int, until: int) -> Iterator[Envelope]:
    start, stop = np.searchsorted(table.known_at, [after, until], side="right")
    for row in range(int(start), int(stop)):
        post = post_of(table, row)
        yield sealed(post, topic=TEXTS, key=table.source, source=table.source, native_id=post.post_id)


def _readings(table: ReadingTable, after: int, until: int) -> Iterator[Envelope]:
    start, stop = np.searchsorted(table.known_at, [after, until], side="right")
    for row in range(int(start), int(stop)):
        reading = ChainReading(
            happened_at=int(table.happened_at[row]),
            known_at=int(table.known_at[row]),
            asset=table.asset,
            metric=table.metric,
            value=float(table.value[row]),
            source=table.source,
        )
        name = f"{table.asset}/{table.metric}/{reading.happened_at}/{row}"
        yield sealed(reading, topic=READINGS, key=table.asset, source=table.source, native_id=name)


def _bars(table: BarTable, after: int, until: int) -> Iterator[Envelope]:
    for row in np.flatnonzero((table.known_at > after) & (table.known_at <= until)).tolist():
        bar = Bar(
            happened_at=int(table.open_time[row]),
            known_at=int(table.known_at[row]),
            instrument=table.instrument,
            interval=table.interval,
            **{name: float(getattr(table, name)[row]) for name in ("open", "high", "low", "close", "volume")},
        )
        yield sealed(bar, topic=MARKET, key=table.instrument, source="replay", native_id=f"{table.instrument}/{bar.happened_at}")
