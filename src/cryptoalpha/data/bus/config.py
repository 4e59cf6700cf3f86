"""How topics are kept and shared out, and how patient the bus is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cryptoalpha.core.config import Count, NonNegative, Positive, Section
from cryptoalpha.data.bus.contract import Overflow


class TopicConfig(Section):
    """[data.streams.bus.*] One topic."""

    partitions: Annotated[int, Field(ge=1, le=64)] = 4
    """Parts a topic is split into by key; as many members of a group can share the work. Fixed once the topic exists."""

    records: Count = 200_000
    """Messages kept in each partition of the embedded log."""

    megabytes: Positive = 128.0
    """Size kept in each partition, MB; also asked of Kafka for topics made here."""

    hours: Positive = 168.0
    """Age kept by Kafka for topics made here, hours. The embedded log keeps by number and size alone."""

    overflow: Overflow = "drop_oldest"
    """When a partition of the embedded log is full of what its groups have not read: `block` lets the publisher wait, `drop_oldest` cuts
    off the oldest and counts, `conflate` does the same and moreover gives a reader that lags only the newest of each key."""

    conflated: tuple[str, ...] = ()
    """Kinds of value that `conflate` may skip, such as Book, of which only the newest matters; empty: all."""

    start: Literal["earliest", "latest"] = "earliest"
    """Where a group that was never here begins. `latest` only where what came before does not matter."""


class BusConfig(Section):
    """[data.streams.bus] How messages are kept between those who fetch them and those who read them."""

    market: TopicConfig = TopicConfig(overflow="conflate", conflated=("Book",))
    """Trades, books, liquidations and bars: of the books a slow reader gets the newest."""

    texts: TopicConfig = TopicConfig()
    """Posts."""

    chain: TopicConfig = TopicConfig()
    """Transfers and readings of chains."""

    readings: TopicConfig = TopicConfig()
    """Funding and mood."""

    signals: TopicConfig = TopicConfig(records=50_000, overflow="block")
    """What agents say: none is dropped, so agents wait for who reads them."""

    dead: TopicConfig = TopicConfig(partitions=1, records=20_000)
    """Each `<topic>.dead`: messages nobody could read or handle."""

    other: TopicConfig = TopicConfig()
    """Topics without a name here."""

    commit_milliseconds: NonNegative = 2.0
    """Least time between two commits of the embedded log, ms; what comes meanwhile is committed together."""

    commit_records: Count = 128
    """Messages after which the embedded log commits without waiting for that time."""

    conflate_above: Count = 1000
    """Messages a reader may lag in a partition before what is conflated is skipped."""

    forget_hours: Positive = 24.0
    """The embedded log forgets a group that was not there for this long when it is opened: what waits for it would wait for ever."""

    overlap_seconds: NonNegative = 600.0
    """When a log was lost, a reader goes back to what came this long before its last message; ids tell repeats apart."""

    verify_seconds: NonNegative = 0.0
    """Time after which a look whether Kafka's log is still the one that was read counts no more, s. 0 looks before every batch is given
    out; a log lost and grown again within a longer time could be read on unnoticed. A look fetches the batch of one message."""

    session_seconds: Annotated[float, Field(ge=6.0, le=300.0)] = 6.0
    """A member of a group that is not heard of for this long is given up, and its partitions go to others."""

    release_seconds: Positive = 10.0
    """How long a member that loses a partition may take to finish what it has in hand before another goes on with it."""

    request_seconds: Positive = 10.0
    """Longest wait for Kafka to keep a message or answer a question."""

    replication: Count = 1
    """Copies that Kafka keeps of topics made here. Three on a cluster that must survive the loss of a broker."""

    idempotence: bool = True
    """Let Kafka drop what a producer sends twice after an error. Off only for brokers that cannot."""

    transactions: bool = False
    """Publish each batch in one Kafka transaction, and read only what was committed. No promise rests on it: ids do. Readers wait for a
    transaction that a killed publisher left open: its next start ends it, else the broker after twice `request_seconds` (seen: noida-db
    0.2.3 keeps all of this but never gives one up by itself). Lag then also counts the marks that end transactions."""

    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    """How messages travel to Kafka. `lz4`, the cheapest, comes with the extra `streams`; `gzip` needs nothing."""

    def topic(self, name: str) -> TopicConfig:
        """The settings of a topic."""
        if name.endswith(".dead"):
            return self.dead
        named = {"market": self.market, "texts": self.texts, "chain": self.chain, "readings": self.readings, "signals": self.signals}
        return named.get(name, self.other)


class WorkerConfig(Section):
    """[data.streams.worker] How messages are handled."""

    batch: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Most messages handled, and kept, at once."""

    wait_seconds: Positive = 0.5
    """Longest wait for messages before a worker looks around."""

    attempts: Count = 3
    """Times a message is tried before it becomes a dead letter."""

    outage_attempts: Count = 20
    """The same where the fault lies outside: a server, a worker, a store. With the waits below that is about three minutes."""

    retry_seconds: Positive = 0.1
    """First wait before a message is tried again or a broker is asked again; doubles up to `retry_limit_seconds`."""

    retry_limit_seconds: Positive = 10.0
    """Longest such wait."""

    remembered_hours: Positive = 192.0
    """How long the ids of handled messages are kept: at least as long as the log keeps messages, and the overlap."""

    remembered_ids: Count = 2_000_000
    """Most ids kept. The oldest go first; must exceed what the log can hold, else a log read again is handled again."""
