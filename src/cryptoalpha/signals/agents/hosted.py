"""A signal agent that lives elsewhere: in a thread, a process or on a Ray cluster, wherever the executor keeps its actors.

`HostedAgent` is called as the agent itself is, and says what it would say, bit for bit. The far agent has no clock of its own: each call
brings the time, so it is a function of its calls, and where it dies a new one is given the same calls again (`SignalAgent.recall`) before
the call that killed it. Nothing is lost by a death and nothing said twice; what became of a message is settled by the worker's inbox on
this side, as for any handler.

    async with open_executor(settings.learn.runtime) as executor:
        agent = HostedAgent(executor, "texts", partial(build_agent, settings))
        worker = Worker(bus, inbox, agent, topics=("texts",), …)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cryptoalpha.core.clock import Clock, SystemClock, VirtualClock
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.bus.worker import FAULTS
from cryptoalpha.learn.runtime.contract import Executor, Resources
from cryptoalpha.signals.agents.agent import READ, SignalAgent

RECALLED_MESSAGES = 200_000
"""Messages kept here for an agent that may have to be built anew: about a hundred megabytes."""

RECALLED_AT_ONCE = 5_000
"""Messages of one call that recalls; several calls, so that none takes longer than a call may."""


class Call(NamedTuple):
    """One call of the agent: when, what it read, and whether it failed."""

    now: int
    envelopes: tuple[Envelope, ...]
    has_failed: bool = False
    is_memory: bool = False
    """Whether it was told to remember these; bars known up to `said_until` were spoken of."""
    said_until: int | None = None


class Said(NamedTuple):
    """What came of a call. `calls` is how many the agent had had before; where it is not what the caller counts, nothing was done."""

    calls: int
    outputs: list[Envelope]
    fault: Exception | None = None
    has_changed: bool = True
    """Whether the call must be made again to become what this agent is now."""


@dataclass
class Lodged:
    """An agent where it lives."""

    agent: SignalAgent
    clock: VirtualClock
    calls: int = 0

    @property
    def judged(self) -> int:
        """Texts that have passed the sieve, one way or the other."""
        return sum(self.agent.counts.verdicts.values())


class HostedAgent:
    """An agent in an actor; a handler of `data.bus.worker`.

    Args:
        executor: keeps the actor; it is started with the first call, or by `start`.
        name: of the actor.
        build: makes the agent with the clock it is given, and always the same one; a function of an importable module, or a partial of one.
        clock: what time it is.
        resources: what is set aside for it on a cluster.
        recalled_messages: how many messages are kept to be recalled. What falls out is missing from an agent that has to be built anew.
    """

    def __init__(
        self,
        executor: Executor,
        name: str,
        build: Callable[[Clock], SignalAgent],
        *,
        clock: Clock | None = None,
        resources: Resources | None = None,
        recalled_messages: int = RECALLED_MESSAGES,
    ) -> None:
        self.name = name
        self._executor, self._build, self._resources = executor, partial(lodged, build), resources
        self._clock, self._most = clock or SystemClock(), recalled_messages
        self._turn = asyncio.Lock()
        self._calls: deque[Call] = deque()
        self._count = self._kept = 0
        self._is_there = False
        self.recalls = 0
        """Times an agent was built anew and given its calls again."""
        self.fallen_out = 0
        """Messages that are not kept any more."""

    async def start(self) -> None:
        """Build the agent now; raises like `Executor.spawn`."""
        async with self._turn:
            await self._spawned()

    async def __call__(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """See `SignalAgent.__call__`; raises also `WorkerDiedError` like `Executor.call`."""
        return await self._say(tuple(envelope for envelope in envelopes if envelope.kind in READ))

    async def due(self) -> list[Envelope]:
        """See `SignalAgent.due`."""
        return await self._say(())

    async def remember(self, messages: Iterable[Envelope], *, said_until: int | None = None) -> None:
        """See `SignalAgent.remember`; raises also `WorkerDiedError` like `Executor.call`."""
        known = sorted((envelope for envelope in messages if envelope.kind in READ), key=lambda one: one.observed_time)
        async with self._turn:
            await self._spawned()
            for part in _remembered(known):
                call = Call(self._clock.now(), part, is_memory=True, said_until=said_until)
                while (had := await self._executor.call(self.name, recall, (self._count, [call]))) != self._count + 1:
                    await self._recalled(had)
                self._keep(call)

    async def stop(self) -> None:
        """End the agent. Another call builds it anew."""
        async with self._turn:
            self._is_there = False
            await self._executor.stop(self.name)

    async def _say(self, envelopes: tuple[Envelope, ...]) -> list[Envelope]:
        async with self._turn:
            await self._spawned()
            now = self._clock.now()
            said = await self._executor.call(self.name, say, (self._count, now, envelopes))
            while said.calls != self._count:
                await self._recalled(said.calls)
                said = await self._executor.call(self.name, say, (self._count, now, envelopes))
            if said.has_changed:
                self._keep(Call(now, envelopes, said.fault is not None))
            if said.fault is not None:
                raise said.fault
            return said.outputs

    async def _spawned(self) -> None:
        if not self._is_there:
            await self._executor.spawn(self.name, self._build, resources=self._resources)
            self._is_there = True

    async def _recalled(self, calls: int) -> None:
        """Bring the agent, which has had so many calls, to where this side is."""
        if calls:  # it did something that nobody here knows the outcome of: a call was cancelled, or a recall was cut off by a death
            self._is_there = False
            await self._executor.stop(self.name)
            await self._spawned()
        self.recalls += 1
        had = 0
        for part in _parts(self._calls):
            if await self._executor.call(self.name, recall, (had, part)) != had + len(part):
                return  # it died in between: the caller sees that the counts differ, and begins again
            had += len(part)
        await self._executor.call(self.name, count_from, (had, self._count))

    def _keep(self, call: Call) -> None:
        self._calls.append(call)
        self._count += 1
        self._kept += len(call.envelopes)
        while self._kept > self._most and len(self._calls) > 1:
            oldest = self._calls.popleft()
            self._kept -= len(oldest.envelopes)
            self.fallen_out += len(oldest.envelopes)


def lodged(build: Callable[[Clock], SignalAgent]) -> Lodged:
    """Where the agent lives: build it, with a clock that its calls set."""
    clock = VirtualClock()
    return Lodged(build(clock), clock)


async def say(lodged: Lodged, asked: tuple[int, int, tuple[Envelope, ...]]) -> Said:
    """Where the agent lives: one call of it."""
    calls, now, envelopes = asked
    if lodged.calls != calls:
        return Said(lodged.calls, [])
    lodged.clock.advance_to(max(now, lodged.clock.now()))
    judged = lodged.judged
    try:
        outputs = await lodged.agent(envelopes)
    except FAULTS as fault:
        lodged.calls += 1
        return Said(calls, [], fault)
    has_changed = bool(envelopes or outputs) or lodged.judged != judged
    lodged.calls += has_changed
    return Said(calls, outputs, None, has_changed)


async def recall(lodged: Lodged, asked: tuple[int, Sequence[Call]]) -> int:
    """Where the agent lives: take calls of the past without saying anything; how many it has had."""
    calls, past = asked
    if lodged.calls == calls:
        for call in past:
            lodged.clock.advance_to(max(call.now, lodged.clock.now()))
            with suppress(*(FAULTS if call.has_failed else ())):
                if call.is_memory:
                    await lodged.agent.remember(call.envelopes, said_until=call.said_until)
                else:
                    await lodged.agent.recall([(lodged.clock.now(), call.envelopes)])
            lodged.calls += 1
    return lodged.calls


def count_from(lodged: Lodged, asked: tuple[int, int]) -> None:
    """Where the agent lives: so many calls it has had, counted with those that are not kept any more."""
    had, count = asked
    if lodged.calls == had:
        lodged.calls = count


def _parts(calls: Iterable[Call]) -> Iterable[list[Call]]:
    """Calls of about `RECALLED_AT_ONCE` messages together."""
    part: list[Call] = []
    messages = 0
    for call in calls:
        part.append(call)
        messages += 1 + len(call.envelopes)
        if messages >= RECALLED_AT_ONCE:
            yield part
            part, messages = [], 0
    if part:
        yield part


def _remembered(messages: Sequence[Envelope]) -> Iterable[tuple[Envelope, ...]]:
    """Messages of the past in parts of about `RECALLED_AT_ONCE`, none cut where several became known together: those order themselves."""
    begin = 0
    while begin < len(messages):
        end = min(begin + RECALLED_AT_ONCE, len(messages))
        while end < len(messages) and messages[end].observed_time == messages[end - 1].observed_time:
            end += 1
        yield tuple(messages[begin:end])
        begin = end
