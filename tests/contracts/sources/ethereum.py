"""Ethereum: a message is a large transfer of ether, all that are served together lie in one block."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from cryptoalpha.data.sources.chain_config import EthereumSection
from cryptoalpha.data.sources.ethereum import open_source

_PLACE = Path(__file__).resolve().parents[2] / "unit" / "data" / "sources" / "chain" / "conftest.py"
_SPEC = spec_from_file_location("chain_conftest", _PLACE)
assert _SPEC is not None
assert _SPEC.loader is not None
chains = module_from_spec(_SPEC)
sys.modules.setdefault(_SPEC.name, chains)
_SPEC.loader.exec_module(chains)

NOW = 1_700_000_000


class Ethereum:
    name, faults, keyed, extra = "ethereum", frozenset({"429", "500", "cut"}), True, "web3"
    repeats = False  # blocks are read by their number, logs by theirs
    disorder = garbage = skew = True

    def __init__(self) -> None:
        self.chains: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def open(self, fake: Any, tools: Any) -> Any:
        there = dataclasses.replace(tools, environment={"ETHEREUM_RPC_URL": f"{fake.url}/rpc"}, prices=lambda asset: 2_000.0)
        return open_source(EthereumSection(enabled=True, confirmations=1, burst=1000), there)

    def serve(self, fake: Any, numbers: Sequence[int], *, first: str = "", garbage: bool = False) -> None:
        chain = self.chains.setdefault(fake, chains.Ethereum())
        there = {tx["hash"] for block in chain.line for tx in block.txs}
        fresh = [{**chain.send(600.0 + number), "hash": self.txid(number)} for number in dict.fromkeys(numbers)]
        fresh = [tx for tx in fresh if tx["hash"] not in there]
        if fresh:
            chain.mine(*fresh[:2], *([{"hash": "what?"}] if garbage else []), *fresh[2:], at=NOW - 60 + len(chain.line))
        chain.serve(fake)
        wrong = {
            "": [],
            "429": [None, fake.Reply(status=429, headers={"Retry-After": "7"})],
            "500": [None, fake.Reply(status=500)],
            "cut": [None, lambda body: fake.Reply(body, cut=10)],
        }
        chain.faults = wrong[first]

    def ids(self, numbers: Sequence[int]) -> set[str]:
        return {f"ethereum/{self.txid(number)}:ETH" for number in numbers}

    def txid(self, number: int) -> str:
        return "0x" + chains.digest("contract", number)


CASES = [Ethereum()]
