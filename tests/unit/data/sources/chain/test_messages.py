"""What chains and publishers of daily figures say is read right, or refused with a reason, whatever the bytes."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAY, SECOND, parse_time
from cryptoalpha.data.sources import coinmetrics_live, ethereum_messages, fear_greed, mempool_messages
from cryptoalpha.data.sources.chain_config import EthereumSection, Token
from cryptoalpha.data.sources.ethereum_messages import TRANSFER, Log, RpcError, contracts, token_moves

TXID, BLOCK, PARENT = "ab" * 32, "cd" * 32, "ef" * 32


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def output(address: str | None, coins: float) -> dict[str, Any]:
    return {"scriptpubkey": "00", "scriptpubkey_type": "v0_p2wpkh", "scriptpubkey_address": address, "value": round(coins * 1e8)}


def transaction(inputs: list[tuple[str | None, float]], outputs: list[tuple[str | None, float]], **more: Any) -> dict[str, Any]:
    spent = [{"txid": PARENT, "vout": 0, "is_coinbase": False, "prevout": output(*one)} for one in inputs]
    return {"txid": TXID, "version": 2, "vin": spent, "vout": [output(*one) for one in outputs], "fee": 100, **more}


# ── Bitcoin ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_transaction_moves_what_is_not_change():
    seen = mempool_messages.parse_transaction(raw(transaction([("alice", 3.0)], [("bob", 1.5), ("alice", 1.0), ("carol", 0.4999)])))
    assert [(m.id, m.amount, m.sender, m.receiver) for m in seen.moves] == [
        (f"{TXID}:0", 1.5, "alice", "bob"),
        (f"{TXID}:2", 0.4999, "alice", "carol"),
    ]
    assert seen.total == 2.9999


def test_inputs_of_one_owner_have_one_sender_and_of_many_none():
    label = {"hot": "kraken", "cold": "kraken"}
    both = raw(transaction([("hot", 1.0), ("cold", 1.0)], [("bob", 1.9)]))
    assert mempool_messages.parse_transaction(both).moves[0].sender == ""
    assert mempool_messages.parse_transaction(both, label=lambda a: label.get(a, a)).moves[0].sender == "kraken"
    unknown = raw(transaction([("hot", 1.0), (None, 1.0)], [("bob", 1.9), (None, 0.0)]))
    assert [m.sender for m in mempool_messages.parse_transaction(unknown).moves] == [""]  # and data outputs move nothing


def test_what_mining_created_is_no_movement():
    made = transaction([], [("miner", 3.2)])
    made["vin"] = [{"txid": "00" * 32, "is_coinbase": True, "prevout": None}]
    seen = mempool_messages.parse_transaction(raw(made))
    assert (seen.moves, seen.total) == ((), 3.2)


def test_a_block_is_read_with_fees_and_without():
    block = {"id": BLOCK, "height": 800_000, "timestamp": 1_690_168_629, "tx_count": 3721, "size": 1_634_536, "previousblockhash": PARENT}
    seen = mempool_messages.parse_block(raw({**block, "extras": {"totalFees": 37_119_000}}))
    assert (seen.number, seen.hash, seen.parent, seen.time) == (800_000, BLOCK, PARENT, 1_690_168_629 * SECOND)
    assert {metric: value for _, metric, value in seen.readings} == {
        "block_transactions": 3721.0,
        "block_bytes": 1_634_536.0,
        "block_fees": 0.37119,
    }
    assert len(mempool_messages.parse_block(raw(block)).readings) == 2


def test_a_page_is_read_around_what_is_spoilt():
    page = [transaction([("a", 1.0)], [("b", 0.9)]), {"txid": "short"}, 7, transaction([("a", 1.0)], [("c", -1.0)])]
    seen, faults = mempool_messages.parse_page(raw(page))
    assert [spending.moves[0].receiver for spending in seen] == ["b"]
    assert len(faults) == 3
    assert all(reason and data for reason, data in faults)
    lines, faults = mempool_messages.parse_summary(raw([{"txid": TXID, "value": 250_000_000, "fee": 3}, {"txid": TXID}]))
    assert lines == [(TXID, 2.5)]
    assert len(faults) == 1


def test_the_socket_tells_of_blocks_the_mempool_fees_and_the_price():
    news = mempool_messages.parse_news(
        raw(
            {
                "mempoolInfo": {"loaded": True, "size": 52_000, "bytes": 31_000_000},
                "vBytesPerSecond": 900,
                "fees": {"fastestFee": 12, "halfHourFee": 8, "hourFee": 5.5, "economyFee": 2, "minimumFee": 1},
                "conversions": {"time": 1, "USD": 64_000.5, "EUR": 60_000},
                "blocks": [{"id": BLOCK, "height": 1}, {"id": PARENT, "height": 3}],
            }
        )
    )
    assert (news.height, news.price) == (3, 64_000.5)
    assert news.mempool == {
        "mempool_transactions": 52_000.0,
        "mempool_vbytes": 31_000_000.0,
        "fee_next_block": 12.0,
        "fee_half_hour": 8.0,
        "fee_hour": 5.5,
        "fee_least": 1.0,
    }
    quiet = mempool_messages.parse_news(raw({"pong": True}))
    assert (quiet.height, quiet.mempool) == (-1, {})
    assert math.isnan(quiet.price)
    assert mempool_messages.parse_news(raw({"block": {"id": BLOCK, "height": 9}})).height == 9
    assert mempool_messages.parse_mempool(raw({"count": 5, "vsize": 7, "total_fee": 1})) == {
        "mempool_transactions": 5.0,
        "mempool_vbytes": 7.0,
    }


def test_heights_and_hashes_are_plain_texts():
    assert mempool_messages.parse_height(b" 800000\n") == 800_000
    assert mempool_messages.parse_hash(BLOCK.encode()) == BLOCK
    for bad in (b"", b"-1", b"1e5", b"<html>", b"9" * 12):
        with pytest.raises(DataError):
            mempool_messages.parse_height(bad)
        with pytest.raises(DataError):
            mempool_messages.parse_hash(bad)


# ── Ethereum ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def answer(result: Any) -> bytes:
    return raw({"jsonrpc": "2.0", "id": 1, "result": result})


def token_log(contract: str, amount: int, *, index: int = 0, block: int = 16, transaction: str = TXID, **more: Any) -> dict[str, Any]:
    return {
        "removed": False,
        "logIndex": hex(index),
        "transactionIndex": "0x0",
        "transactionHash": "0x" + transaction,
        "blockHash": "0x" + BLOCK,
        "blockNumber": hex(block),
        "address": contract,
        "data": f"0x{amount:064x}",
        "topics": [TRANSFER, "0x" + "00" * 12 + "11" * 20, "0x" + "00" * 12 + "22" * 20],
        **more,
    }


USDT = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
KNOWN = contracts({"USDT": Token(contract=USDT, decimals=6)})


def test_a_block_of_ether_is_read_with_its_transfers():
    block = {
        "number": "0x10",
        "hash": "0x" + BLOCK,
        "parentHash": "0x" + PARENT,
        "timestamp": "0x64bdeab5",
        "gasUsed": "0xe4e1c0",
        "baseFeePerGas": "0x3b9aca00",
        "transactions": [
            {"hash": "0x" + TXID, "from": "0x" + "aA" * 20, "to": "0x" + "bb" * 20, "value": hex(25 * 10**17)},
            {"hash": "0x" + "12" * 32, "from": "0x" + "aa" * 20, "to": None, "value": "0x0"},
            {"hash": "0x12"},
            "0x" + "34" * 32,
        ],
    }
    seen = ethereum_messages.parse_block(answer(block))
    assert seen is not None
    assert (seen.number, seen.hash, seen.parent, seen.time) == (16, "0x" + BLOCK, "0x" + PARENT, 0x64BDEAB5 * SECOND)
    assert [(m.id, m.asset, m.amount, m.sender, m.receiver) for m in seen.moves] == [
        (f"0x{TXID}:ETH", "ETH", 2.5, "0x" + "aa" * 20, "0x" + "bb" * 20)
    ]
    assert len(seen.faults) == 1
    assert {metric: value for _, metric, value in seen.readings} == {
        "block_transactions": 4.0,
        "block_gas": 15_000_000.0,
        "fee_next_block": 1.0,
    }
    assert ethereum_messages.parse_block(answer(None)) is None
    assert ethereum_messages.parse_number(answer("0x1312d00")) == 20_000_000


def test_transfers_of_tokens_are_named_alike_wherever_their_block_ends_up():
    def moved(*logs: dict[str, Any]) -> list[tuple[str, float]]:
        read = ethereum_messages.parse_logs(answer(list(logs)))
        assert read.faults == ()
        return [(m.id, m.amount) for moves in token_moves(read.logs, KNOWN).values() for m in moves]

    one, two = token_log(USDT, 5_000_000, index=7), token_log(USDT.lower(), 9_000_000, index=9)
    wanted = [(f"0x{TXID}:USDT:0", 5.0), (f"0x{TXID}:USDT:1", 9.0)]
    assert moved(two, one, one) == wanted  # disorder, and one told twice
    later = [{**log, "logIndex": hex(100 + n), "blockNumber": "0x11"} for n, log in enumerate((one, two))]
    assert moved(*later) == wanted  # mined again elsewhere: other places in the block, the same transfers
    assert moved(token_log(USDT, 5, removed=True)) == []
    assert moved(token_log("0x" + "99" * 20, 5)) == []  # a contract nobody asked for
    assert moved({**one, "topics": [*one["topics"], "0x" + "00" * 32]}) == []  # ERC-721 shares the name
    (move,) = token_moves(ethereum_messages.parse_logs(answer([one])).logs, KNOWN)[16]
    assert (move.sender, move.receiver) == ("0x" + "11" * 20, "0x" + "22" * 20)


def test_the_tokens_that_are_shipped_are_twenty_bytes_each_and_differ():
    tokens = EthereumSection().tokens
    assert len(contracts(tokens)) == len(tokens) == 4


def test_recorded_logs_are_read_alike_as_a_node_and_as_hypersync_write_them(payloads):
    folder = payloads / "nautilus" / "crates" / "adapters" / "blockchain" / "test_data"
    read = {path.stem: ethereum_messages.parse_log(path.read_bytes()) for path in sorted(folder.glob("*.json"))}
    assert len(read) == 4
    for name in ("pancakeswap_v3_swap", "uniswap_v3_set_fee_protocol"):
        node, other = read[f"{name}_rpc"], read[f"{name}_hypersync"]
        assert {**vars(node), "block_hash": ""} == vars(other)
        assert len(node.block_hash) == 66
    swap = read["pancakeswap_v3_swap_rpc"]
    assert (swap.index, swap.block, len(swap.topics)) == (0x149, 0x649BC61, 3)
    assert token_moves(read.values(), KNOWN) == {}  # three topics as a transfer has, yet none


@pytest.mark.parametrize(
    ("code", "message", "too_many", "too_often"),
    [
        (-32005, "query returned more than 10000 results", True, False),
        (-32602, "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range", True, False),
        (-32000, "eth_getLogs block range too large", True, False),
        (-32600, "eth_getLogs is limited to a 10,000 range", True, False),
        (-32005, "daily request count exceeded, request rate limited", False, True),
        (429, "Your app has exceeded its compute units per second capacity", False, True),
        (-32000, "header not found", False, False),
        (-32601, "the method eth_foo does not exist", False, False),
    ],
)
def test_what_a_node_refuses_for_its_size_is_told_from_the_rest(code, message, too_many, too_often):
    with pytest.raises(RpcError) as refused:
        ethereum_messages.parse_logs(raw({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}))
    assert (refused.value.too_many, refused.value.too_often) == (too_many, too_often)


# ── daily figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_page_of_metrics_is_read_around_what_is_spoilt():
    page = {
        "data": [
            {"asset": "btc", "time": "2023-05-01T00:00:00.000000000Z", "AdrActCnt": "900123", "HashRate": None, "Other": "x"},
            {"asset": "btc", "time": "2023-05-02T00:00:00.000000000Z", "AdrActCnt": "NaN"},
            {"asset": "btc", "AdrActCnt": "1"},
            [],
            {"asset": "eth", "time": "yesterday", "AdrActCnt": "1"},
        ],
        "next_page_token": "0.abc",
        "next_page_url": "https://…",
    }
    rows, faults, token = coinmetrics_live.parse_page(raw(page))
    assert rows == {"BTC": [{"time": float(parse_time("2023-05-01")), "AdrActCnt": 900_123.0}]}
    assert (len(faults), token) == (4, "0.abc")
    catalogue = {
        "data": [
            {
                "asset": "btc",
                "metrics": [
                    {"metric": "AdrActCnt", "frequencies": [{"frequency": "1b"}, {"frequency": "1d", "community": True}]},
                    {"metric": "ReferenceRateUSD", "frequencies": [{"frequency": "1h"}]},
                ],
            }
        ]
    }
    assert coinmetrics_live.parse_catalogue(raw(catalogue)) == {"BTC": ("AdrActCnt",)}


def test_days_of_the_mood_index_are_whole_numbers_in_range():
    day = parse_time("2023-05-01") // SECOND
    index = {
        "name": "Fear and Greed Index",
        "data": [
            {"value": "63", "value_classification": "Greed", "timestamp": str(day), "time_until_update": "68499"},
            {"value": 40, "timestamp": day - 86_400 + 3_600},
            {"value": "101", "timestamp": str(day)},
            {"value": "4²", "timestamp": str(day)},
            {"timestamp": str(day)},
        ],
        "metadata": {"error": None},
    }
    days, faults = fear_greed.parse_index(raw(index))
    assert days == {day * SECOND: 63.0, day * SECOND - DAY: 40.0}
    assert len(faults) == 3


# ── whatever the bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

LOG = token_log(USDT, 5)
GOOD: list[tuple[Callable[[bytes], Any], Any]] = [
    (mempool_messages.parse_height, 5),
    (mempool_messages.parse_hash, BLOCK),
    (mempool_messages.parse_block, {"id": BLOCK, "height": 1, "timestamp": 1, "tx_count": 1, "size": 1, "extras": {"totalFees": 1}}),
    (mempool_messages.parse_transaction, transaction([("a", 1.0)], [("b", 0.5)])),
    (mempool_messages.parse_page, [transaction([("a", 1.0)], [("b", 0.5)])]),
    (mempool_messages.parse_summary, [{"txid": TXID, "value": 5}]),
    (mempool_messages.parse_mempool, {"count": 1, "vsize": 2}),
    (mempool_messages.parse_fees, {"fastestFee": 1}),
    (mempool_messages.parse_prices, {"USD": 5.0}),
    (mempool_messages.parse_news, {"block": {"id": BLOCK, "height": 9}, "mempoolInfo": {"size": 1}, "conversions": {"USD": 1}}),
    (ethereum_messages.parse_number, {"id": 1, "result": "0x5"}),
    (
        ethereum_messages.parse_block,
        {
            "id": 1,
            "result": {
                "number": "0x1",
                "hash": "0x" + BLOCK,
                "parentHash": "0x" + PARENT,
                "timestamp": "0x1",
                "transactions": [{"hash": "0x" + TXID, "from": "0x" + "a" * 40, "to": None, "value": "0xff"}],
            },
        },
    ),
    (ethereum_messages.parse_logs, {"id": 1, "result": [LOG]}),
    (ethereum_messages.parse_log, LOG),
    (coinmetrics_live.parse_page, {"data": [{"asset": "btc", "time": "2023-05-01T00:00:00.0Z", "HashRate": "1.5"}]}),
    (coinmetrics_live.parse_catalogue, {"data": [{"asset": "btc", "metrics": [{"metric": "A", "frequencies": [{"frequency": "1d"}]}]}]}),
    (fear_greed.parse_index, {"data": [{"value": "5", "timestamp": "86400"}]}),
]
NAMES = [parse.__name__ for parse, _ in GOOD]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80) | st.sampled_from(["0x" + "f" * 64, "-1", "1e999", "٣"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, item in inside for path in paths(item, (*here, key)))]


def with_change(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_change(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize(("parse", "good"), GOOD, ids=NAMES)
def test_what_is_good_is_read(parse, good):
    parse(good.encode() if isinstance(good, str) else raw(good))


@pytest.mark.parametrize(("parse", "good"), GOOD, ids=NAMES)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_nothing_but_a_data_error_escapes(parse, good, data):
    kind = data.draw(st.sampled_from(["bytes", "cut", "json", "changed", "deep"]))
    whole = raw(good)
    if kind == "bytes":
        message = data.draw(st.binary(max_size=200))
    elif kind == "cut":
        message = whole[: data.draw(st.integers(0, len(whole)))] + data.draw(st.binary(max_size=3))
    elif kind == "json":
        message = raw(data.draw(anything))
    elif kind == "changed":
        message = raw(with_change(good, data.draw(st.sampled_from(paths(good))), data.draw(anything)))
    else:
        opening = data.draw(st.sampled_from([b"[", b'{"a":', b'{"data":[', b'{"result":[']))
        message = opening * data.draw(st.sampled_from([10, 2_000, 100_000]))
    with contextlib.suppress(DataError):
        parse(message)


@settings(max_examples=60, deadline=None)
@given(
    logs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 2), st.integers(0, 10**9)), max_size=12), seed=st.randoms()
)
def test_moves_do_not_depend_on_the_order_of_logs(logs, seed):
    made = {
        (block, index): Log(
            f"0x{tx:064x}", index, block, "", USDT.lower(), (TRANSFER, "0x" + "0" * 64, "0x" + "1" * 64), f"0x{amount:064x}", False
        )
        for block, index, tx, amount in logs
    }
    shuffled = [*made.values(), *list(made.values())[:2]]
    seed.shuffle(shuffled)
    assert token_moves(shuffled, KNOWN) == token_moves(made.values(), KNOWN)
