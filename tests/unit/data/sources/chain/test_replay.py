"""A recording of chains and daily figures, replayed, says what was said then, to the last byte."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAY, HOUR, MINUTE, SECOND, day_of
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources import chain_replay, coinmetrics_live, ethereum, fear_greed, mempool
from cryptoalpha.data.sources.chain_config import CoinMetricsSection, EthereumSection, FearGreedSection, MempoolSection, TransfersSection
from cryptoalpha.data.sources.recording import Recorded, Recorder, ReplaySource, read_recordings, recordings

TRANSFERS = TransfersSection(multiple=0.0, window=5, least_usd_of={})
FAST = {"requests_per_minute": 1e6, "burst": 100_000}


@pytest.fixture
def record(publisher, tools, virtual_time, tmp_path) -> Callable[..., Any]:
    """Run a source for a while and record it: what it said, and the recording as files hold it."""

    def run(open_source: Any, section: Callable[[Any], Any], serve: Any, *, seconds: float, play: Any = None, **fields: Any) -> Any:
        async def scenario() -> list[Envelope]:
            recorder = Recorder(tmp_path)
            async with publisher() as fake, tools(record=recorder.record, transfers=TRANSFERS, **fields) as made:
                serve(fake)
                made = dataclasses.replace(made, environment={"ETHEREUM_RPC_URL": f"{fake.url}/rpc"})
                source = open_source(section(fake), made)
                said: list[Envelope] = []

                async def read() -> None:
                    async for arrival in source.arrivals(""):
                        said.extend(arrival.envelopes)
                        if play is not None:
                            play(fake, said)

                end = virtual_time.clock.now() + round(seconds * SECOND)
                reading = asyncio.create_task(read())
                while virtual_time.clock.now() < end and not reading.done():
                    await asyncio.sleep(0.001)
                await source.close()
                await reading
            recorder.close()
            assert recorder.left_out == 0
            return said

        said = asyncio.run(asyncio.wait_for(scenario(), 30.0))
        (name,) = {path.name.split("-")[0] for path in tmp_path.iterdir()}
        return SimpleNamespace(said=said, messages=list(read_recordings(recordings(tmp_path, name))), name=name)

    return run


def replayed(reader: Any, messages: Sequence[Recorded]) -> list[Envelope]:
    return [envelope for message in messages for envelope in reader(message.raw, message.received_at)]


def test_bitcoin_with_failures_and_replacements(record, bitcoin):
    bitcoin.mine(bitcoin.pay(30.0))
    lost = bitcoin.pay(44.0)

    def play(fake: Any, said: list[Envelope]) -> None:
        step = len(bitcoin.line)
        if step == 1:
            bitcoin.mine(lost, bitcoin.pay(0.1), {"txid": "spoilt"})
            bitcoin.mine()
            Reply = fake.Reply
            bitcoin.faults = [
                None,
                Reply(status=500),
                None,
                lambda body: Reply(json.dumps(body)[:-2]),
                *[None] * 3,
                *[Reply(status=503)] * 5,
            ]
        elif step == 3 and any(lost["txid"] in envelope.id for envelope in said):
            bitcoin.undo(2)
            bitcoin.mine()
            bitcoin.mine()
            bitcoin.mine(bitcoin.pay(60.0))
            bitcoin.price = 51_000.0
        elif step == 4 and any(":gone:" in envelope.id for envelope in said):
            bitcoin.mine(lost, bitcoin.pay(21.0))

    def section(fake: Any) -> MempoolSection:
        return MempoolSection(base_url=fake.url, listen=False, candidates="pages", stats_seconds=45.0, **FAST)

    done = record(mempool.open_source, section, bitcoin.serve, seconds=600.0, play=play)
    ids = [envelope.id for envelope in done.said]
    assert sum(":gone:" in name for name in ids) == 1
    assert sum(":back:" in name for name in ids) == 1
    assert sum("mempool_vbytes" in name for name in ids) > 5
    reader = chain_replay.mempool_reader(MempoolSection(listen=False, candidates="pages", stats_seconds=45.0), transfers=TRANSFERS)
    assert replayed(reader, done.messages) == done.said
    assert len(reader.dead) == 1
    half = len(done.messages) // 2  # one that begins in the middle of a round finds its way
    late = replayed(chain_replay.mempool_reader(MempoolSection(candidates="pages"), transfers=TRANSFERS), done.messages[half + 1 :])
    assert {envelope.id for envelope in late if ":0" in envelope.id} <= set(ids)


def test_ethereum_through_a_replay_source(record, ethereum_chain, tmp_path):
    chain = ethereum_chain
    usdt = EthereumSection().tokens["USDT"].contract
    chain.mine(chain.send(700.0))

    def play(fake: Any, said: list[Envelope]) -> None:
        if len(chain.line) == 1:
            chain.mine(chain.token(usdt, 10**13), chain.send(1.0))
            chain.faults = [None, fake.Reply(status=502), None, None, fake.Reply(status=500)]
        elif len(chain.line) == 2:
            chain.undo(1)
            chain.mine()
            for _ in range(12):
                chain.mine(chain.token(usdt, 2 * 10**13))
            chain.most_logs = 2

    def section(fake: Any) -> EthereumSection:
        return EthereumSection(confirmations=1, **FAST)

    done = record(ethereum.open_source, section, chain.serve, seconds=120.0, play=play, prices=lambda asset: 2_000.0)
    assert sum(":gone:" in envelope.id for envelope in done.said) == 1
    assert sum(":USDT:" in envelope.id for envelope in done.said) == 14

    async def replay() -> list[Envelope]:
        reader = chain_replay.ethereum_reader(EthereumSection(confirmations=1), transfers=TRANSFERS, prices=lambda asset: 2_000.0)
        source = ReplaySource("ethereum", ("chain",), lambda: read_recordings(recordings(tmp_path, "ethereum")), reader)
        return [envelope async for arrival in source.arrivals("") for envelope in arrival.envelopes]

    assert asyncio.run(replay()) == done.said


@pytest.fixture
def ethereum_chain(ethereum) -> Any:
    pytest.importorskip("web3", reason='web3 is not installed: pip install "cryptoalpha[streams]"')
    return ethereum


def test_daily_figures_that_wait_for_their_time(record, virtual_time):
    first = virtual_time.clock.now() // DAY * DAY - 3 * DAY
    values = {first + n * DAY: str(900 + n) for n in range(9)}

    def rows(asked: Any) -> Any:
        now = virtual_time.clock.now()
        out = [day for day in values if day + DAY + 20 * MINUTE <= now]
        return [{"asset": "btc", "time": f"{day_of(day)}T00:00:00.0Z", "AdrActCnt": values[day]} for day in out]

    def serve(fake: Any) -> None:
        known = {"data": [{"asset": "btc", "metrics": [{"metric": "AdrActCnt"}]}]}
        fake.answers("/v4/catalog-v2/asset-metrics", fake.Reply(status=500), fake.Reply(known))
        fake.answers("/v4/timeseries/asset-metrics", fake.Reply(status=429), lambda asked: fake.Reply({"data": rows(asked)}))

    def play(fake: Any, said: list[Envelope]) -> None:
        values[first + 2 * DAY] = "7"

    def section(fake: Any) -> CoinMetricsSection:
        return CoinMetricsSection(base_url=f"{fake.url}/v4", poll_minutes=15.0, **FAST)

    done = record(coinmetrics_live.open_source, section, serve, seconds=3 * DAY / SECOND, play=play, instruments=("BTC/USDT", "ETH/USDT"))
    reader = chain_replay.coinmetrics_reader(("BTC", "ETH"), CoinMetricsSection())
    assert replayed(reader, done.messages) == done.said
    assert [envelope.id[-1] for envelope in done.said].count("1") == 1
    assert sum(envelope.observed_time % DAY == HOUR for envelope in done.said) == 3  # those that waited for their time


def test_the_mood(record, virtual_time):
    first = virtual_time.clock.now() // DAY * DAY

    def serve(fake: Any) -> None:
        def answer(asked: Any) -> Any:
            days = [first + n * DAY for n in range(5) if first + n * DAY <= virtual_time.clock.now()]
            return fake.Reply({"data": [{"value": "50", "timestamp": str(day // SECOND)} for day in days]})

        fake.answers("/fng/", answer)

    def section(fake: Any) -> FearGreedSection:
        return FearGreedSection(base_url=fake.url, **FAST)

    done = record(fear_greed.open_source, section, serve, seconds=3 * DAY / SECOND)
    assert len(done.said) == 4
    assert replayed(chain_replay.fear_greed_reader(), done.messages) == done.said


@pytest.mark.parametrize("raw", [b"", b"{}", b"17", b'{"asked": 5}', b'{"asked": "/x"}'])
def test_what_is_no_recorded_answer_is_refused(raw):
    with pytest.raises(DataError):
        chain_replay.mempool_reader()(raw, 1)


def test_answers_nobody_asked_for_are_passed_over():
    reader = chain_replay.mempool_reader()
    assert reader(b'{"asked": "/somewhere", "answer": "5"}', 1) == []
    assert reader(b'{"asked": "socket", "answer": "nonsense"}', 2) == []
    assert reader(b'{"asked": "/api/block-height/5", "answer": null}', 3) == []


def test_a_replay_of_ethereum_needs_no_web3(monkeypatch):
    monkeypatch.setitem(sys.modules, "web3", None)
    assert chain_replay.ethereum_reader()(b'{"asked": "eth_blockNumber []", "answer": "{\\"result\\":\\"0x0\\"}"}', 1) == []
