"""Ethereum through web3, over real HTTP: blocks, ether and tokens, whatever the node does."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.streamed import Transfer
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.sources.chain_config import EthereumSection, TransfersSection
from cryptoalpha.data.sources.contract import Arrival
from cryptoalpha.data.sources.ethereum import open_source

SECTION = EthereumSection(requests_per_minute=1e6, burst=100_000, confirmations=1)
TRANSFERS = TransfersSection(least_usd=1_000_000.0, least_usd_of={}, multiple=0.0, exchanges={"binance": ("0x" + "C3" * 20,)})
PRICES = {"ETH": 2_000.0, "BTC": 50_000.0, "LINK": 10.0}
USDT, WBTC = SECTION.tokens["USDT"].contract, SECTION.tokens["WBTC"].contract


@pytest.fixture
def follow(publisher, ethereum, tools, gather) -> Callable[..., list[Arrival]]:
    """Follow the chain with real connections until there is enough."""
    if "web3" not in sys.modules:
        if os.environ.get("TESTS_SKIP_NOTHING") != "1":
            pytest.importorskip("web3", reason='web3 is not installed: pip install "cryptoalpha[streams]"')
        import web3  # noqa: F401

    def run(enough: Any, *, position: str = "", prepare: Any = lambda fake: None, seen: Any = None, **changes: Any) -> list[Arrival]:
        async def scenario() -> list[Arrival]:
            async with publisher() as fake:
                environment = {"ETHEREUM_RPC_URL": f"{fake.url}/rpc"}
                prices = {"prices": lambda asset: PRICES.get(asset, float("nan"))}
                async with tools(transfers=TRANSFERS, environment=environment, **prices) as made:
                    ethereum.serve(fake)
                    prepare(fake)
                    source = open_source(SECTION.model_copy(update=changes), made)
                    if seen is not None:
                        seen.source = source
                    return await gather(source, position, enough)

        return asyncio.run(asyncio.wait_for(scenario(), 30.0))

    return run


def transfers(arrivals: Sequence[Arrival]) -> list[tuple[str, Transfer]]:
    values = [(envelope.id, envelope.value()) for arrival in arrivals for envelope in arrival.envelopes]
    return [(name, value) for name, value in values if isinstance(value, Transfer)]


def ids(arrivals: Sequence[Arrival]) -> list[str]:
    return [name for name, _ in transfers(arrivals)]


def told(number: int) -> Callable[[list[Arrival]], bool]:
    return lambda arrivals: len(transfers(arrivals)) >= number


def once(arrivals: list[Arrival]) -> bool:
    return True


def test_ether_and_tokens_are_told_with_worth_and_labels(follow, ethereum, virtual_time):
    ethereum.mine(
        ethereum.send(499.0),
        ethereum.send(500.0, receiver="0x" + "c3" * 20),
        ethereum.token(USDT, 999_999 * 10**6, 1_000_000 * 10**6),
        ethereum.token(WBTC, 20 * 10**8, sender="c3" * 20),
        ethereum.token("0x" + "77" * 20, 10**30),
    )
    found = follow(told(3))
    sent, usdt, wbtc = (ethereum.line[0].txs[n]["hash"] for n in (1, 2, 3))
    assert [(name, v.asset, v.amount, v.usd, v.sender[:6], v.receiver[:7]) for name, v in transfers(found)] == [
        (f"ethereum/{sent}:ETH", "ETH", 500.0, 1_000_000.0, "0xa1a1", "binance"),
        (f"ethereum/{usdt}:USDT:1", "USDT", 1_000_000.0, 1_000_000.0, "0xa1a1", "0xb2b2b"),
        (f"ethereum/{wbtc}:WBTC:0", "WBTC", 20.0, 1_000_000.0, "binanc", "0xb2b2b"),
    ]
    assert {e.key for e in found[0].envelopes} == {"ETH", "USDT", "WBTC"}
    readings = {e.value().metric: e.value().value for e in found[0].envelopes if isinstance(e.value(), ChainReading)}
    assert readings == {"block_transactions": 5.0, "block_gas": 21_000.0, "fee_next_block": 1.0}
    assert transfers(found)[0][1].known_at == virtual_time.clock.now()


def test_a_block_is_read_once_it_is_deep_enough(follow, ethereum):
    for _ in range(5):
        ethereum.mine(ethereum.send(600.0))
    found = follow(told(1), confirmations=3)
    assert ids(found) == [f"ethereum/{ethereum.line[2].txs[0]['hash']}:ETH"]
    assert transfers(found)[0][1].confirmations == 3


@pytest.mark.parametrize("depth", [1, 3])
def test_transfers_of_replaced_blocks_are_taken_back_and_those_mined_again_are_not_told_twice(follow, ethereum, depth):
    ethereum.mine()
    position = follow(once)[-1].position
    lost, kept = ethereum.token(USDT, 2 * 10**12), ethereum.token(USDT, 3 * 10**12)
    replaced = ethereum.mine(lost, kept)
    for _ in range(depth - 1):
        ethereum.mine()
    first = follow(lambda arrivals: len(ids(arrivals)) == 2, position=position)
    ethereum.undo(depth)
    for _ in range(depth):
        ethereum.mine()
    ethereum.mine(ethereum.token(USDT, 1), kept)  # its log has another index now
    second = follow(told(1), position=first[-1].position)
    assert ids(second) == [f"ethereum/{lost['hash']}:USDT:0:gone:0x{replaced}"]
    assert transfers(second)[0][1].confirmations == 0


def test_the_same_place_gives_the_same_messages_after_a_restart(follow, ethereum):
    ethereum.mine()
    start = follow(once)[-1].position
    for _ in range(20):
        ethereum.mine(ethereum.send(700.0), ethereum.token(USDT, 10**13))
    whole = follow(told(40), position=start, chunk=8)
    half = follow(told(10), position=start, chunk=3)
    rest = follow(told(40 - len(ids(half))), position=half[-1].position, chunk=5)
    assert ids(half) + ids(rest) == ids(whole)
    again = follow(told(40), position=start, chunk=3)
    assert list(ids(again)) == ids(whole)


@pytest.mark.parametrize("most_logs", [1, 3, 7])
def test_a_range_with_too_many_logs_is_halved_until_it_fits(follow, ethereum, most_logs):
    ethereum.mine()
    start = follow(once)[-1].position
    made = [[ethereum.token(USDT, 10**13), ethereum.token(WBTC, 10**10)][: 1 + n % 2] for n in range(8)]
    for transactions in made:
        ethereum.mine(*transactions)
    ethereum.most_logs, ethereum.asked = most_logs, []
    found = follow(told(12), position=start, chunk=8)
    assert ids(found) == [f"ethereum/{tx['hash']}:{'USDT' if n == 0 else 'WBTC'}:0" for txs in made for n, tx in enumerate(txs)]
    assert sum(method == "eth_getLogs" for method, _ in ethereum.asked) <= 2 * 8 * 2


def test_failures_are_waited_out_and_nothing_is_lost(follow, ethereum, virtual_time):
    ethereum.mine(ethereum.send(700.0), ethereum.token(USDT, 10**13))
    clean = ids(follow(told(2)))
    seen = SimpleNamespace()
    before = len(virtual_time.waits)

    def prepare(fake: Any) -> None:
        Reply = fake.Reply
        ethereum.faults = [
            Reply(status=429, headers={"Retry-After": "9"}),
            Reply(status=503),
            None,
            lambda body: Reply({**body, "result": "0x1"}, cut=5),
            lambda body: Reply(b'{"jsonrpc": "2.0", "resu'),
            lambda body: Reply({"id": body["id"], "jsonrpc": "2.0", "error": {"code": 429, "message": "request rate limited"}}),
            None,
            lambda body: Reply({"id": body["id"], "jsonrpc": "2.0", "error": {"code": -32000, "message": "header not found"}}),
            lambda body: Reply([]),
        ]

    found = follow(told(2), prepare=prepare, seen=seen)
    assert ids(found) == clean
    assert not ethereum.faults
    assert seen.source.health.reconnects == 7
    assert virtual_time.waits[before] >= 9.0
    assert all(wait <= 60.0 for wait in virtual_time.waits[before:])


def test_a_chain_that_changes_while_its_logs_are_read_is_read_again(follow, ethereum):
    ethereum.mine()
    position = follow(once)[-1].position
    lost, kept = ethereum.token(USDT, 10**13), ethereum.token(USDT, 10**13)
    ethereum.mine(lost)
    changed = []

    def meanwhile(method: str) -> None:
        if method == "eth_getLogs" and not changed:
            ethereum.undo(1)
            ethereum.mine(kept)
            changed.append(method)

    ethereum.meanwhile = meanwhile
    assert ids(follow(told(1), position=position)) == [f"ethereum/{kept['hash']}:USDT:0"]
    assert changed


def test_a_block_that_is_replaced_while_it_is_read_is_never_told(follow, ethereum):
    """Also where the one in its place holds no token, so that no log gives it away."""
    ethereum.mine()
    position = follow(once)[-1].position
    ethereum.mine(ethereum.send(700.0))
    kept = ethereum.send(800.0)
    changed = []

    def meanwhile(method: str) -> None:
        if method == "eth_getLogs" and not changed:
            changed.extend(ethereum.undo(1))
            ethereum.mine()
            ethereum.mine(kept)

    ethereum.meanwhile = meanwhile
    assert ids(follow(told(1), position=position)) == [f"ethereum/{kept['hash']}:ETH"]
    assert changed


def test_logs_of_another_branch_do_not_count(follow, ethereum):
    """The chain changes, and changes back, while the logs are read."""
    ethereum.mine()
    position = follow(once)[-1].position
    kept = ethereum.token(USDT, 10**13)
    ethereum.mine(kept)
    mine, others = ethereum.line, [ethereum.line[0]]
    ethereum.line = others
    ethereum.mine(ethereum.token(USDT, 5 * 10**13))
    ethereum.line = mine
    asked = []

    def meanwhile(method: str) -> None:
        asked.append(method)
        ethereum.line = others if method == "eth_getLogs" and asked.count(method) == 1 else mine

    ethereum.meanwhile = meanwhile
    assert ids(follow(told(1), position=position)) == [f"ethereum/{kept['hash']}:USDT:0"]
    assert asked.count("eth_getLogs") == 2


def test_a_node_behind_the_others_is_waited_for(follow, ethereum):
    for _ in range(3):
        ethereum.mine(ethereum.send(600.0))
    position = follow(told(1))[-1].position
    newest = ethereum.undo(2)
    heads = []

    def meanwhile(method: str) -> None:
        heads.append(method)
        if heads.count("eth_blockNumber") == 4 and len(ethereum.line) == 1:
            ethereum.line += newest
            ethereum.mine(ethereum.send(800.0))

    ethereum.meanwhile = meanwhile
    found = follow(told(1), position=position)
    assert [(v.amount, v.confirmations) for _, v in transfers(found)] == [(800.0, 1)]  # nothing was taken back


def test_a_clock_that_runs_ahead_is_measured_and_not_believed(follow, ethereum, virtual_time):
    now = virtual_time.clock.now()
    seen = SimpleNamespace()
    ethereum.mine(ethereum.send(600.0), at=now // SECOND + 30)
    ((_, value),) = transfers(follow(told(1), seen=seen))
    assert value.happened_at == value.known_at == now
    assert seen.source.health.lag_seconds == pytest.approx(-30.0)


def test_what_cannot_be_read_in_a_block_is_a_dead_letter_and_the_rest_counts(follow, ethereum):
    broken = {**ethereum.send(1.0), "value": "much"}
    spoilt = ethereum.token(USDT, 10**13)
    spoilt["logs"][0] = {**spoilt["logs"][0], "data": "0xzz"}
    ethereum.mine(broken, spoilt, ethereum.send(600.0))
    found = follow(told(1))
    assert [v.amount for _, v in transfers(found)] == [600.0]
    assert len(found[0].dead) == 2
    assert all(letter.source == "ethereum" and letter.reason and letter.data for letter in found[0].dead)


def test_a_node_that_refuses_the_key_ends_the_source_and_the_key_is_not_told(follow, ethereum):
    ethereum.mine()

    def prepare(fake: Any) -> None:
        fake.answers("/rpc", fake.Reply(status=401))

    with pytest.raises(ConfigError, match="the node of Ethereum refuses the key") as refused:
        follow(once, prepare=prepare)
    assert "127.0.0.1" not in str(refused.value)


def test_without_an_address_it_says_what_to_set(tools):
    async def scenario() -> None:
        async with tools(environment={}) as made:
            open_source(SECTION, made)

    with pytest.raises(ConfigError, match="ETHEREUM_RPC_URL is not set"):
        asyncio.run(scenario())


def test_what_is_no_address_is_refused_and_not_printed(tools):
    async def scenario() -> None:
        async with tools(environment={"ETHEREUM_RPC_URL": "abc123key"}) as made:
            open_source(SECTION, made)

    with pytest.raises(ConfigError, match="ETHEREUM_RPC_URL holds no address") as refused:
        asyncio.run(scenario())
    assert "abc123key" not in f"{refused.value} {refused.value.hint}"


def test_without_web3_it_says_what_to_install(tools, monkeypatch):
    monkeypatch.setitem(sys.modules, "web3", None)

    async def scenario() -> None:
        async with tools(environment={"ETHEREUM_RPC_URL": "http://127.0.0.1:1"}) as made:
            open_source(SECTION, made)

    with pytest.raises(ConfigError) as missing:
        asyncio.run(scenario())
    assert missing.value.hint == 'pip install "cryptoalpha[streams]"'
