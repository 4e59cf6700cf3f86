"""Bitcoin over real HTTP and a real WebSocket: what is told when servers fail, chains are replaced and processes restart."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
from collections.abc import Sequence

import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.streamed import Transfer
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.bus.envelope import to_bytes
from cryptoalpha.data.sources.chain_asking import ATTEMPTS
from cryptoalpha.data.sources.chain_config import MempoolSection, TransfersSection
from cryptoalpha.data.sources.chain_replay import mempool_reader
from cryptoalpha.data.sources.contract import Arrival
from cryptoalpha.data.sources.mempool import open_source

TRANSFERS = TransfersSection(least_usd=1_000_000.0, multiple=0.0, exchanges={"kraken": ("kraken1", "kraken2")})


def section(fake, **changes) -> MempoolSection:
    fields = {"base_url": fake.url, "ws_url": f"{fake.ws_url}/socket", "listen": False, "requests_per_minute": 1e6, "burst": 100_000}
    return MempoolSection(**{**fields, **changes})


def transfers(arrivals: Sequence[Arrival]) -> list[tuple[str, Transfer]]:
    values = [(envelope.id, envelope.value()) for arrival in arrivals for envelope in arrival.envelopes]
    return [(name, value) for name, value in values if isinstance(value, Transfer)]


def ids(arrivals: Sequence[Arrival]) -> list[str]:
    return [name for name, _ in transfers(arrivals)]


def told(number: int):
    """Enough: so many transfers."""
    return lambda arrivals: len(transfers(arrivals)) >= number


def follow(publisher, bitcoin, tools, gather, enough, *, position="", prepare=lambda fake: None, source=None, **changes) -> list[Arrival]:
    """Follow the chain with real connections until there is enough."""

    async def scenario() -> list[Arrival]:
        async with publisher() as fake, tools(transfers=TRANSFERS) as made:
            bitcoin.serve(fake)
            prepare(fake)
            opened = open_source(section(fake, **changes), made)
            found = await gather(opened, position, enough)
            if source is not None:
                source.append(opened)
            return found

    return asyncio.run(asyncio.wait_for(scenario(), 20.0))


@pytest.mark.parametrize("candidates", ["summary", "pages"])
def test_large_transfers_are_told_with_their_worth_and_their_labels(publisher, bitcoin, tools, gather, virtual_time, candidates):
    small = [bitcoin.pay(0.5) for _ in range(60)]
    bitcoin.mine(bitcoin.pay(30.0, "kraken1"), *small, bitcoin.pay(25.0, "bob", sender="kraken2"), bitcoin.pay(19.9))
    found = follow(publisher, bitcoin, tools, gather, told(2), candidates=candidates)
    block = bitcoin.line[0]
    assert [(name, v.amount, v.usd, v.sender, v.receiver, v.confirmations) for name, v in transfers(found)] == [
        (f"mempool/{block.txs[0]['txid']}:0", 30.0, 1_500_000.0, "alice", "kraken", 1),
        (f"mempool/{block.txs[-2]['txid']}:0", 25.0, 1_250_000.0, "kraken", "bob", 1),
    ]
    (transfer,) = [v for _, v in transfers(found)][:1]
    assert (transfer.happened_at, transfer.known_at) == (block.time * SECOND, virtual_time.clock.now())
    readings = [e.value() for arrival in found for e in arrival.envelopes if isinstance(e.value(), ChainReading)]
    assert {r.metric: r.value for r in readings if r.metric.startswith("block")} == {"block_transactions": 63.0, "block_bytes": 1000.0}


def test_the_fewer_questions_are_asked(publisher, bitcoin, tools, gather):
    asked: list[int] = []

    def count(fake) -> None:
        asked.append(0)
        answer = bitcoin.answer
        fake.answers("/api/*", lambda request: (asked.append(asked.pop() + ("/tx" in request.path)), answer(request))[1])

    bitcoin.mine(bitcoin.pay(30.0), *[bitcoin.pay(0.5) for _ in range(99)])
    follow(publisher, bitcoin, tools, gather, told(1), prepare=count)
    bitcoin.mine(*[bitcoin.pay(30.0) for _ in range(100)])
    follow(publisher, bitcoin, tools, gather, told(100), prepare=count)
    assert asked == [1, 4]  # one large transaction of a hundred; four pages of twenty-five


def test_a_server_without_summaries_is_read_in_pages(publisher, bitcoin, tools, gather):
    bitcoin.summaries = False
    bitcoin.mine(*[bitcoin.pay(0.1) for _ in range(30)], bitcoin.pay(40.0))
    assert len(ids(follow(publisher, bitcoin, tools, gather, told(1)))) == 1


@pytest.mark.parametrize("depth", [1, 3])
def test_transfers_of_replaced_blocks_are_taken_back(publisher, bitcoin, tools, gather, depth):
    lost, kept = bitcoin.pay(30.0), bitcoin.pay(40.0)
    bitcoin.mine()
    first = follow(publisher, bitcoin, tools, gather, lambda arrivals: True)
    bitcoin.mine(lost, kept)
    replaced = bitcoin.line[-1].hash
    for _ in range(depth - 1):
        bitcoin.mine()
    second = follow(publisher, bitcoin, tools, gather, told(2), position=first[-1].position)
    position = second[-1].position
    for _ in range(depth - 1):  # whatever came after the transfers is followed too
        position = follow(publisher, bitcoin, tools, gather, lambda arrivals: True, position=position)[-1].position
    bitcoin.undo(depth)
    for _ in range(depth):
        bitcoin.mine()
    bitcoin.mine(kept)
    third = follow(publisher, bitcoin, tools, gather, told(1), position=position)
    assert ids(third) == [f"mempool/{lost['txid']}:0:gone:{replaced}"]
    ((_, gone),) = transfers(third)
    assert (gone.transaction, gone.amount, gone.confirmations) == (f"{lost['txid']}:0", 30.0, 0)
    bitcoin.mine(lost)
    back = follow(publisher, bitcoin, tools, gather, told(1), position=third[-1].position)
    assert ids(back) == [f"mempool/{lost['txid']}:0:back:{bitcoin.line[-1].hash}"]


def test_the_same_place_gives_the_same_messages_after_a_restart(publisher, bitcoin, tools, gather):
    bitcoin.mine(bitcoin.pay(30.0))
    start = follow(publisher, bitcoin, tools, gather, told(1))[0].position
    for coins in (21.0, 5.0, 33.0, 50.0):
        bitcoin.mine(bitcoin.pay(coins), bitcoin.pay(coins + 1.0))
    runs = []
    for stops in ([8], [1, 8], [2, 3, 8]):  # the last position kept lies before what was told since
        position, seen = start, []
        for stop in stops:
            found = follow(publisher, bitcoin, tools, gather, told(min(stop, 6 - len(seen))), position=position)
            seen += [name for name in ids(found) if name not in seen]
            position = found[-1].position
        runs.append(seen)
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == 6


def test_failures_are_waited_out_and_nothing_is_lost(publisher, bitcoin, tools, gather, virtual_time):
    bitcoin.mine(*[bitcoin.pay(0.1) for _ in range(30)], bitcoin.pay(40.0))
    clean = ids(follow(publisher, bitcoin, tools, gather, told(1), candidates="pages"))
    waited = len(virtual_time.waits)

    def prepare(fake) -> None:
        Reply = fake.Reply
        bitcoin.faults = [
            Reply(status=429, headers={"Retry-After": "7"}),
            None,
            Reply(status=503),
            Reply(status=500),
            None,
            lambda body: Reply(body, cut=10),  # the connection breaks
            lambda body: Reply(json.dumps(body).encode()[:-20]),  # whole, but half written
            Reply(status=502, body="<html>"),
            None,
            lambda body: Reply("<html>no JSON</html>"),
        ]

    found = follow(publisher, bitcoin, tools, gather, told(1), prepare=prepare, candidates="pages")
    assert ids(found) == clean
    waits = virtual_time.waits[waited:]
    assert waits[0] >= 7.0
    assert all(wait <= 60.0 for wait in waits)
    assert not bitcoin.faults


def test_a_server_that_stays_down_is_asked_a_bounded_number_of_times_with_growing_waits(publisher, bitcoin, tools, gather, virtual_time):
    bitcoin.mine(bitcoin.pay(40.0))
    source: list = []

    def prepare(fake) -> None:
        bitcoin.faults = [fake.Reply(status=500)] * 9

    follow(publisher, bitcoin, tools, gather, told(1), prepare=prepare, source=source)
    assert source[0].health.reconnects == 9
    growing = virtual_time.waits[:9]
    assert all(0.5 * min(60.0, 2.0**n) <= wait <= min(60.0, 2.0**n) for n, wait in enumerate(growing))
    assert ATTEMPTS < 9  # one question is given up before that, and asked anew


def test_what_cannot_be_read_in_a_block_is_a_dead_letter_and_the_rest_counts(publisher, bitcoin, tools, gather):
    bitcoin.mine({"txid": "nonsense", "vin": [], "vout": []}, bitcoin.pay(40.0), bitcoin.pay(1.0))
    source: list = []
    found = follow(publisher, bitcoin, tools, gather, told(1), candidates="pages", source=source)
    (dead,) = found[0].dead
    assert (dead.source, json.loads(dead.data)["txid"]) == ("mempool", "nonsense")
    assert "txid" in dead.reason
    assert source[0].health.dead == 1


def test_a_miners_clock_that_runs_ahead_is_measured_and_not_believed(publisher, bitcoin, tools, gather, virtual_time):
    now = virtual_time.clock.now()
    bitcoin.mine(bitcoin.pay(40.0), at=now // SECOND + 3600)
    source: list = []
    ((_, value),) = transfers(follow(publisher, bitcoin, tools, gather, told(1), source=source))
    assert value.happened_at == value.known_at < now + 60 * SECOND
    assert source[0].health.lag_seconds == pytest.approx(-3600.0, abs=1.0)


def test_without_a_price_the_coins_decide(publisher, bitcoin, tools, gather):
    bitcoin.price = 0.0
    bitcoin.mine(bitcoin.pay(19.9), bitcoin.pay(20.0))
    ((_, value),) = transfers(follow(publisher, bitcoin, tools, gather, told(1)))
    assert value.amount == 20.0
    assert math.isnan(value.usd)


def test_the_mempool_is_read_at_its_pace(publisher, bitcoin, tools, gather, virtual_time):
    bitcoin.mine()

    def enough(arrivals: list[Arrival]) -> bool:
        bitcoin.waiting += 1
        return sum("mempool_vbytes" in envelope.id for arrival in arrivals for envelope in arrival.envelopes) >= 3

    found = follow(publisher, bitcoin, tools, gather, enough, stats_seconds=120.0)
    values = [envelope.value() for arrival in found for envelope in arrival.envelopes]
    read = [(v.known_at, v.value) for v in values if v.metric == "mempool_transactions"]
    assert [value for _, value in read] == sorted({value for _, value in read})
    assert [b - a >= 120 * SECOND for (a, _), (b, _) in itertools.pairwise(read)] == [True, True]
    assert {v.metric for v in values} > {"fee_next_block", "fee_hour", "mempool_vbytes"}


def test_a_refused_address_ends_the_source(publisher, bitcoin, tools, gather):
    bitcoin.mine()

    def prepare(fake) -> None:
        fake.answers("/api/*", fake.Reply(status=403))

    with pytest.raises(ConfigError, match="mempool server refuses"):
        follow(publisher, bitcoin, tools, gather, told(1), prepare=prepare)


def test_a_position_of_something_else_is_refused(publisher, bitcoin, tools, gather):
    bitcoin.mine()
    with pytest.raises(DataError, match="no position of a chain"):
        follow(publisher, bitcoin, tools, gather, told(1), position="17")


# ── the socket ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_socket_brings_blocks_at_once_through_drops_repeats_and_disorder(publisher, bitcoin, tools, as_publishers_do):
    """Polling alone would take 30 s a block here: time is real, and the whole takes less than one poll."""

    recorded: list[tuple[int, bytes]] = []
    said_then: list[bytes] = []

    async def scenario() -> tuple[list[str], int, str]:
        keep = lambda name, at, raw: recorded.append((at, raw))  # noqa: E731
        async with publisher() as fake, tools(transfers=TRANSFERS, record=keep) as made:
            bitcoin.mine(bitcoin.pay(30.0))
            bitcoin.serve(fake)
            news = [{"block": {"id": "ab" * 32, "height": height}} for height in range(5)]
            stats = {"mempoolInfo": {"size": 7, "bytes": 9}, "conversions": {"USD": 50_000}}
            parts = [fake.Heard("want"), stats, *as_publishers_do.disordered(as_publishers_do.duplicated(news)), "not JSON", fake.PING]
            mined = asyncio.Event()

            def connection(asked):
                return fake.Script(parts, then="drop") if fake.connections % 2 == 0 else fake.Script([fake.Pause(20), *news], then="drop")

            fake.talks("/socket", connection)
            made = dataclasses.replace(made, wait=lambda seconds: asyncio.sleep(min(seconds, 0.02) if seconds < 20.0 else seconds))
            source = open_source(section(fake, listen=True, retry_limit_seconds=10.0), made)
            seen: list[str] = []

            async def mine() -> None:
                for coins in (40.0, 50.0, 60.0):
                    await mined.wait()
                    mined.clear()
                    await asyncio.sleep(0.05)  # the source has looked, found nothing more, and rests
                    bitcoin.mine(bitcoin.pay(coins))

            mining = asyncio.create_task(mine())
            arrivals = source.arrivals("")
            async for arrival in arrivals:
                seen += ids([arrival])
                said_then.extend(to_bytes(envelope) for envelope in arrival.envelopes)
                if ids([arrival]):
                    mined.set()
                if len(seen) == 4:
                    break
            await mining
            await source.close()
            await arrivals.aclose()
            return seen, fake.connections, " ".join(fake.said)

    seen, connections, said = asyncio.run(asyncio.wait_for(scenario(), 15.0))
    assert seen == [f"mempool/{block.txs[0]['txid']}:0" for block in bitcoin.line]
    assert connections >= 2
    assert '"want"' in said
    reader = mempool_reader(MempoolSection(), transfers=TRANSFERS)
    replayed = [to_bytes(envelope) for at, raw in recorded for envelope in reader(raw, at)]
    assert replayed[: len(said_then)] == said_then  # what the socket said is in the recording too


def test_a_socket_that_is_down_is_said_and_blocks_come_all_the_same(publisher, bitcoin, tools, gather, virtual_time):
    bitcoin.mine(bitcoin.pay(30.0))
    source: list = []
    reasons: list[str] = []

    async def wait(seconds: float) -> None:
        if seconds == 30.0:  # a rest between polls
            reasons.append(source[0].health.reason)
            await asyncio.sleep(0.01)
        await virtual_time.wait(seconds)

    def enough(arrivals: list[Arrival]) -> bool:
        if len(bitcoin.line) == 1 and any("socket" in reason for reason in reasons):
            bitcoin.mine(bitcoin.pay(40.0))
        return len(ids(arrivals)) >= 2

    async def scenario() -> None:
        async with publisher() as fake, tools(transfers=TRANSFERS) as made:
            bitcoin.serve(fake)
            fake.answers("/socket", fake.Reply(status=500))
            source.append(open_source(section(fake, listen=True), dataclasses.replace(made, wait=wait)))
            await gather(source[0], "", enough)

    asyncio.run(asyncio.wait_for(scenario(), 15.0))
    assert any(reason.startswith("the socket is down") for reason in reasons)
    assert source[0].health.reconnects > 0
