"""Chains to follow: Bitcoin behind mempool.space's interface and Ethereum behind JSON-RPC, as the fake publisher serves them.

Both are lists of blocks that a test mines and replaces. `faults` are replies that come in place of the next answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cryptoalpha.data.sources.contract import Arrival, Source
from cryptoalpha.data.sources.ethereum_messages import TRANSFER
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.store.state.sqlite_state import SqliteState

START = 1_690_000_000


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Blocks:
    """A chain: blocks of whatever transactions, oldest first."""

    def __init__(self) -> None:
        self.line: list[SimpleNamespace] = []
        self.faults: list[Any] = []
        self.made = 0

    def mine(self, *transactions: Any, at: int | None = None) -> str:
        """One more block; its hash."""
        self.made += 1
        parent = self.line[-1].hash if self.line else "00" * 32
        number = len(self.line)
        stamp = at if at is not None else START + 600 * number
        self.line.append(SimpleNamespace(number=number, hash=digest("block", self.made), parent=parent, time=stamp, txs=list(transactions)))
        return str(self.line[-1].hash)

    def undo(self, count: int) -> list[SimpleNamespace]:
        """The newest blocks are gone."""
        gone = self.line[len(self.line) - count :]
        del self.line[len(self.line) - count :]
        return gone

    def by_hash(self, name: str) -> SimpleNamespace | None:
        return next((block for block in self.line if block.hash == name), None)


class Bitcoin(Blocks):
    """`pay(...)` makes a transaction; `serve(fake)` answers under /api."""

    def __init__(self) -> None:
        super().__init__()
        self.price, self.summaries, self.waiting = 50_000.0, True, 1000

    def pay(self, coins: float, receiver: str = "bob", *, sender: str = "alice", change: float = 1.0) -> dict[str, Any]:
        self.made += 1
        outputs = [self.output(receiver, coins), self.output(sender, change)]
        spent = [{"is_coinbase": False, "prevout": self.output(sender, coins + change)}]
        return {"txid": digest("tx", self.made), "vin": spent, "vout": outputs}

    @staticmethod
    def output(address: str, coins: float) -> dict[str, Any]:
        return {"scriptpubkey_address": address, "value": round(coins * 1e8)}

    def serve(self, fake: Any) -> None:
        self._fake = fake
        fake.answers("/api/*", self.answer)

    def answer(self, asked: Any) -> Any:
        Reply = self._fake.Reply
        if self.faults:
            fault = self.faults.pop(0)
            if fault is not None:
                return fault(self.found(asked)) if callable(fault) else fault
        found = self.found(asked)
        return Reply(status=404, body="Block not found") if found is None else Reply(found)

    def found(self, asked: Any) -> Any:
        path = asked.path.removeprefix("/api").removeprefix("/v1")
        match path.strip("/").split("/"):
            case ["blocks", "tip", "height"]:
                return str(self.line[-1].number)
            case ["block-height", number]:
                return self.line[int(number)].hash if int(number) < len(self.line) else None
            case ["block", name, *rest]:
                block = self.by_hash(name)
                return None if block is None else self.part(block, rest)
            case ["tx", name]:
                return next((tx for block in self.line for tx in block.txs if tx["txid"] == name), None)
            case ["mempool"]:
                return {"count": self.waiting, "vsize": 2 * self.waiting, "total_fee": 1}
            case ["fees", "recommended"]:
                return {"fastestFee": 9, "halfHourFee": 5, "hourFee": 3, "minimumFee": 1}
            case ["prices"]:
                return {"time": 1, "USD": self.price}
        return None

    def part(self, block: SimpleNamespace, rest: Sequence[str]) -> Any:
        if not rest:
            return {
                "id": block.hash,
                "height": block.number,
                "previousblockhash": block.parent,
                "timestamp": block.time,
                "tx_count": len(block.txs),
                "size": 1000,
            }
        if rest == ["summary"]:
            lines = [{"txid": tx["txid"], "value": sum(out["value"] for out in tx["vout"])} for tx in block.txs]
            return lines if self.summaries else None
        return block.txs[int(rest[1]) : int(rest[1]) + 25]


class Ethereum(Blocks):
    """`send(...)` and `token(...)` make transactions; `serve(fake)` answers JSON-RPC under /rpc."""

    most_logs = 10_000

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, list[Any]]] = []
        self.meanwhile: Callable[[str], None] = lambda method: None
        """Called before each answer."""

    def send(self, ether: float, *, sender: str = "0x" + "a1" * 20, receiver: str = "0x" + "b2" * 20) -> dict[str, Any]:
        self.made += 1
        return {"hash": "0x" + digest("tx", self.made), "from": sender, "to": receiver, "value": hex(round(ether * 10**18))}

    def token(self, contract: str, *units: int, sender: str = "a1" * 20, receiver: str = "b2" * 20) -> dict[str, Any]:
        """A transaction that moves tokens, once for each of `units`."""
        topics = [TRANSFER, "0x" + "00" * 12 + sender, "0x" + "00" * 12 + receiver]
        logs = [{"address": contract, "data": f"0x{amount:064x}", "topics": topics} for amount in units]
        return {**self.send(0.0), "logs": logs}

    def serve(self, fake: Any) -> None:
        self._fake = fake
        fake.answers("/rpc", self.answer)

    def answer(self, asked: Any) -> Any:
        Reply = self._fake.Reply
        question = json.loads(asked.body)
        self.asked.append((question["method"], question["params"]))
        self.meanwhile(question["method"])
        if self.faults:
            fault = self.faults.pop(0)
            if fault is not None:
                return fault({"id": question["id"], "jsonrpc": "2.0", "result": None}) if callable(fault) else fault
        result = self.result(question["method"], question["params"])
        return Reply({"id": question["id"], "jsonrpc": "2.0", **result})

    def result(self, method: str, parameters: list[Any]) -> dict[str, Any]:
        if method == "eth_blockNumber":
            return {"result": hex(self.line[-1].number)}
        if method == "eth_getBlockByNumber":
            number = int(parameters[0], 16)
            return {"result": self.written(self.line[number], full=parameters[1]) if number < len(self.line) else None}
        assert method == "eth_getLogs"
        (question,) = parameters
        assert question["topics"] == [TRANSFER]
        logs = [log for block in self.line for log in self.logs(block) if log["address"].lower() in question["address"]]
        logs = [log for log in logs if int(question["fromBlock"], 16) <= int(log["blockNumber"], 16) <= int(question["toBlock"], 16)]
        if len(logs) > self.most_logs:
            return {"error": {"code": -32005, "message": f"query returned more than {self.most_logs} results"}}
        return {"result": logs}

    def written(self, block: SimpleNamespace, *, full: bool) -> dict[str, Any]:
        return {
            "number": hex(block.number),
            "hash": "0x" + block.hash,
            "parentHash": "0x" + block.parent,
            "timestamp": hex(block.time),
            "gasUsed": "0x5208",
            "baseFeePerGas": "0x3b9aca00",
            "transactions": [tx if full else tx["hash"] for tx in block.txs],
        }

    def logs(self, block: SimpleNamespace) -> list[dict[str, Any]]:
        made = [(tx["hash"], log) for tx in block.txs for log in tx.get("logs", ())]
        place = {"blockHash": "0x" + block.hash, "blockNumber": hex(block.number), "removed": False}
        return [{**log, **place, "transactionHash": name, "logIndex": hex(index)} for index, (name, log) in enumerate(made)]


@pytest.fixture
def bitcoin() -> Bitcoin:
    return Bitcoin()


@pytest.fixture
def ethereum() -> Ethereum:
    return Ethereum()


@pytest.fixture
def tools(virtual_time: Any) -> Callable[..., Any]:
    """`async with tools(environment=…) as made`: `Tools` over a state in memory and time that passes at once."""

    @asynccontextmanager
    async def opened(**fields: Any) -> AsyncIterator[Tools]:
        async with SqliteState(None) as state:
            yield Tools(state=state, clock=virtual_time.clock, wait=virtual_time.wait, **fields)

    return opened


@pytest.fixture
def gather() -> Callable[..., Any]:
    """`await gather(source, position, enough)`: arrivals until `enough(arrivals)`; closes the source."""

    async def gathered(source: Source, position: str, enough: Callable[[list[Arrival]], bool]) -> list[Arrival]:
        found: list[Arrival] = []
        arrivals = source.arrivals(position)
        async for arrival in arrivals:
            found.append(arrival)
            if enough(found):
                break
        await source.close()
        await arrivals.aclose()
        return found

    return gathered
