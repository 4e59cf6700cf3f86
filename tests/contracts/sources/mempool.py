"""Bitcoin: a message is a large transfer, all that are served together lie in one block."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from cryptoalpha.data.sources.chain_config import MempoolSection
from cryptoalpha.data.sources.mempool import open_source

_PLACE = Path(__file__).resolve().parents[2] / "unit" / "data" / "sources" / "chain" / "conftest.py"
_SPEC = spec_from_file_location("chain_conftest", _PLACE)
assert _SPEC is not None
assert _SPEC.loader is not None
chains = module_from_spec(_SPEC)
sys.modules.setdefault(_SPEC.name, chains)
_SPEC.loader.exec_module(chains)

NOW = 1_700_000_000


class Mempool:
    name, faults, keyed, extra = "mempool", frozenset({"429", "500", "cut"}), False, ""
    repeats = False  # blocks are read by their number: what is announced twice is read once
    disorder = garbage = skew = True

    def __init__(self) -> None:
        self.chains: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def open(self, fake: Any, tools: Any) -> Any:
        section = MempoolSection(base_url=fake.url, listen=False, candidates="pages", burst=1000)
        return open_source(section, tools)

    def serve(self, fake: Any, numbers: Sequence[int], *, first: str = "", garbage: bool = False) -> None:
        chain = self.chains.setdefault(fake, chains.Bitcoin())
        there = {tx["txid"] for block in chain.line for tx in block.txs}
        fresh = [self.transaction(chain, number) for number in dict.fromkeys(numbers) if self.txid(number) not in there]
        if fresh:
            chain.mine(*fresh[:2], *([{"txid": "what?"}] if garbage else []), *fresh[2:], at=NOW - 60 + len(chain.line))
        chain.serve(fake)
        chain.faults = faults(fake, first)

    def ids(self, numbers: Sequence[int]) -> set[str]:
        return {f"mempool/{self.txid(number)}:0" for number in numbers}

    def txid(self, number: int) -> str:
        return chains.digest("contract", number)

    def transaction(self, chain: Any, number: int) -> dict[str, Any]:
        return {**chain.pay(30.0 + number), "txid": self.txid(number)}


def faults(fake: Any, first: str) -> list[Any]:
    """What goes wrong with the fourth question, in the middle of a block."""
    wrong = {
        "": [],
        "429": [None, None, None, fake.Reply(status=429, headers={"Retry-After": "7"})],
        "500": [None, None, None, fake.Reply(status=500)],
        "cut": [None, None, None, lambda body: fake.Reply(body, cut=40)],
    }
    return wrong[first]


CASES = [Mempool()]
