"""A signal agent: reads streams, and says at every bar what the signal book says of a history that holds the same.

It keeps a dataset that grows by what it reads (`grown`), and asks the book about the newest bar when that is whole. There is one way to a
signal, the book's: a stream gives the same signals as a load of the same observations, bit for bit. Which sources are asked makes it a
text, price, chain, genome or forecast agent.

Texts wait a moment for earlier ones, are read in batches, pass the sieve in the order in which they became known, and join the dataset.
Everything here is a function of the messages and the clock; nothing is written. After a restart whatever happened before is given to
`remember`: the store's history, then what the bus still holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Streamed
from cryptoalpha.core.time import DAY, SECOND
from cryptoalpha.core.values import Bar, ChainReading, MarketState, Post, Signal
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.grown import GrownDataset
from cryptoalpha.signals.agents.intake import Counted, Intake
from cryptoalpha.signals.agents.pulse import Pulse
from cryptoalpha.signals.agents.reading import Reader, ReadHere
from cryptoalpha.signals.agents.sieve import Sieve, assets_of
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.text.tone import Tone, lexicon_tone
from cryptoalpha.store.tables import Dataset

TOPIC = "signals"
READ = frozenset(("Bar", "ChainReading", "Post"))
"""Kinds of message that agents read; others they pass over."""


class Learned(Protocol):
    """What weighs signals by what came of earlier ones: trained networks."""

    def apply(self, signals: Sequence[Signal], dataset: Dataset) -> list[Signal]:
        """The signals of one bar, confidence scaled and action proposed anew."""
        ...


@dataclass
class Counts:
    """What became of what an agent was given."""

    posts: int = 0
    bars: int = 0
    readings: int = 0
    unusable: int = 0
    """Readings that say no number; they are left out."""
    repeats: int = 0
    """Messages given twice."""
    revisions: int = 0
    """Posts that were read before: of two readings of one post the first counts, as in the store."""
    dropped: int = 0
    """Texts dropped because too many waited."""
    ignored: int = 0
    """Values that are none of this agent's business."""
    signals: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    """What the sieve said, by verdict."""


@dataclass(frozen=True)
class BarSignals:
    """What was said about one bar."""

    open_time: int
    known_at: int
    signals: tuple[Signal, ...]
    states: tuple[MarketState, ...]


class SignalAgent:
    """Streams in, signals out. Its call is a handler of `data.bus.worker`.

    Args:
        name: of the agent; names its messages.
        book: the sources it asks.
        start: what is known at the beginning: bars of every instrument, and as much of their past as the sources look back to.
        config: how it reads.
        clock: what time it is.
        reader: reads texts; by default in this process.
        tones: the tone that the book's sources use, asked as texts come, so that a bar finds it remembered (`text.tone.open_tone`).
        learned: weighs signals; none changes nothing.
        pulse: says between bars how texts sound; none says nothing.
    """

    def __init__(
        self,
        name: str,
        book: SignalBook,
        start: Dataset,
        config: AgentsConfig | None = None,
        *,
        clock: Clock | None = None,
        reader: Reader | None = None,
        tones: Tone = lexicon_tone,
        learned: Learned | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.name, self.config = name, config or AgentsConfig()
        self._book, self._clock, self._learned, self._pulse = book, clock or SystemClock(), learned, pulse
        self._between: list[Signal] = []
        self.grown = GrownDataset(start)
        self.sieve = Sieve(self.config.sieve)
        assets = assets_of(start)
        self._intake = Intake(
            self.config,
            self.sieve,
            reader or ReadHere(assets, enough=self.config.sieve.relevance_threshold),
            assets,
            tones=tones,
            always_read=pulse is not None,
        )
        self.counts = Counts()
        self._whole: dict[int, set[str]] = {}
        self._come: dict[str, tuple[int, int]] = {}
        """How far reading has come in each instrument: its newest bar's open time, and when it was read."""
        self._begun: int | None = None
        self._said = max((int(table.open_time[-1]) for table in start.bars.values() if len(table)), default=-1)
        """Open time of the newest bar that needs no more signals."""

    async def __call__(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Read messages, in any order; returns the signals that became due.

        Raises:
            DataError: if a message holds no value, or a bar off the grid.
        """
        self.read(envelopes)
        return await self.due()

    async def due(self) -> list[Envelope]:
        """The signals that are due now. Call it when time has passed, too."""
        said = await self.bars_due()
        between, self._between = self._between, []
        found = [self._sealed(signal, self._text_name(signal)) for signal in between]
        return found + [self._sealed(signal, f"{signal.known_at}") for bar in said for signal in bar.signals]

    async def bars_due(self) -> list[BarSignals]:
        """What is due now, bar by bar: signals and the states of the market."""
        now = self._clock.now()
        await self._join_texts(now, wait=bool(self._now_due(now)))
        said = [self._say(open_time) for open_time in self._now_due(now)]  # looked up again: others may have said some meanwhile
        if said:
            self._forget(said[-1].known_at)
        return said

    async def remember(self, messages: Iterable[Streamed | Envelope], *, said_until: int | None = None) -> None:
        """Take what happened before a restart, in any order; nothing is said about it here. Texts that would still wait for others wait.

        Args:
            said_until: bars known up to this moment need no more signals; later ones become due again, and what is said of them has the
                ids it had. None: all that is taken was said.

        What cannot be read is passed over: whoever handled it then has put it away.
        """
        newest = 0
        for message in sorted(messages, key=_known_at):
            newest = _known_at(message)
            self._join(await self._intake.catch_up(newest))
            with suppress(DataError):
                if isinstance(message, Envelope):
                    self.read([message])
                else:
                    self._take(message)
        await self._join_texts(newest)
        for open_time in sorted(self._whole):
            if said_until is None or open_time + self.grown.interval <= said_until:
                self._said = max(self._said, open_time)
                del self._whole[open_time]
        self._between.clear()

    async def recall(self, calls: Iterable[tuple[int, Sequence[Envelope]]]) -> None:
        """Become what another one was after it was called with these messages at these moments; what it said then is not said again."""
        for now, envelopes in calls:
            self._read(envelopes, now)
            await self._join_texts(now)
            for open_time in self._now_due(now):
                self._said = open_time
                del self._whole[open_time]
        self._between.clear()

    def _now_due(self, now: int) -> list[int]:
        """Open times of the bars that are due, oldest first."""
        settled = max(self.config.settle_seconds, self.config.reorder_seconds) * SECOND
        due = []
        for open_time in sorted(self._whole):
            age = now - (open_time + self.grown.interval)
            if age < settled or not (self._is_whole(open_time) or self._is_given_up(open_time, now)):
                break
            due.append(open_time)
        return due

    def _is_whole(self, open_time: int) -> bool:
        return len(self._whole[open_time]) == len(self.grown.instruments)

    def _is_given_up(self, open_time: int, now: int) -> bool:
        """Whether what the bar lacks is waited for no longer. After an outage the clock is far ahead of what is read, and one instrument's
        bars may lie in a partition that is read after the others': while older bars of it still come, it is not late."""
        reading = [self._begun or 0, open_time + self.grown.interval]
        for instrument in self.grown.instruments:
            if instrument not in self._whole[open_time]:
                newest, read_at = self._come.get(instrument, (0, 0))
                if newest < open_time:
                    reading.append(read_at)
        return now - max(reading) >= self.config.grace_seconds * SECOND

    def read(self, envelopes: Iterable[Envelope]) -> None:
        """Read messages, in any order; what they make due is said when that is asked for.

        Raises:
            DataError: if a message holds no value, or a bar off the grid.
        """
        self._read(envelopes, self._clock.now())

    def _read(self, envelopes: Iterable[Envelope], now: int) -> None:
        self._begun = now if self._begun is None else self._begun
        for envelope in envelopes:
            if envelope.kind not in READ:
                self.counts.ignored += 1
            elif self._intake.knows(envelope.id):
                self.counts.repeats += 1
            else:
                value = envelope.value()
                self._take(value)
                if isinstance(value, Bar) and value.happened_at >= self._come.get(value.instrument, (0, 0))[0]:
                    self._come[value.instrument] = (value.happened_at, now)
                self._intake.learn(envelope.id)  # not before: what cannot be read is given again and must fail again

    def _take(self, value: Streamed) -> None:
        if isinstance(value, Post):
            self.counts.posts += 1
            name = f"post {value.source}/{value.post_id}"
            if self._intake.knows(name):
                self.counts.revisions += 1
                return
            self._intake.learn(name)
            self.counts.dropped += self._intake.put(value)
        elif isinstance(value, Bar):
            self.counts.bars += 1
            if self.grown.add_bar(value) and value.happened_at > self._said:
                self._whole.setdefault(value.happened_at, set()).add(value.instrument)
        elif isinstance(value, ChainReading):
            self.counts.readings += 1
            self.counts.unusable += not self.grown.add_reading(value)
        else:
            self.counts.ignored += 1

    async def _join_texts(self, now: int, *, wait: bool = True) -> None:
        """Let the texts that have waited long enough and count join the dataset.

        Without `wait` those that others still read join later: nobody asks before a bar is due.
        """
        self._join(await self._intake.ready(now, wait=wait))

    def _join(self, counted: Sequence[Counted]) -> None:
        for one in counted:
            self.grown.add_post(one.post, one.weight)
        if self._pulse is not None:
            self._between += self._pulse.add(counted)
        self.counts.verdicts = {str(verdict): count for verdict, count in self.sieve.verdicts.items()}

    def _forget(self, known_at: int) -> None:
        """Let go of texts that no source can see any more, once they are a third of all."""
        seen = self._book.reach(self.grown.interval) * self.grown.interval + round(self.config.text_days * DAY)
        self.grown.forget(known_at - seen, at_least=1.0 / 3.0)

    @staticmethod
    def _text_name(signal: Signal) -> str:
        """What a signal between bars is about: the text that made it."""
        return f"{signal.known_at}/{signal.reference}"

    def _say(self, open_time: int) -> BarSignals:
        """Ask the book about one bar."""
        self._said = open_time
        del self._whole[open_time]
        dataset = self.grown.dataset()
        tape = self._book.prepare(dataset, since=open_time, until=open_time + self.grown.interval, instruments=self.grown.instruments)
        signals = tape.signals_at(0)
        if self._learned is not None:
            signals = self._learned.apply(signals, dataset)
        self.counts.signals += len(signals)
        return BarSignals(open_time, int(tape.panel.known_at[0]), tuple(signals), tuple(tape.states_at(0)))

    def _sealed(self, signal: Signal, about: str) -> Envelope:
        return sealed(
            signal,
            topic=TOPIC,
            key=signal.instrument,
            source=f"agent/{self.name}",
            native_id=f"{about}/{signal.source}/{signal.instrument}",
        )


def _known_at(message: Streamed | Envelope) -> int:
    return message.observed_time if isinstance(message, Envelope) else message.known_at
