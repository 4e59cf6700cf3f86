"""What a server of mempool.space's interface says, read: blocks, their transactions, the mempool and its fees, prices.

Pure functions of bytes that raise `DataError` and nothing else. Amounts arrive in satoshis, times in seconds. A transaction of many inputs
and outputs becomes one movement per output that is not change (paid back to an address it was spent from); what mining created is no
movement. Single transactions that cannot be read are faults, and the rest of the block counts.

Source: "REST API" and "WebSocket API" of mempool.space; Esplora's "HTTP REST API" for what both have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.sources.chain_asking import decoded
from cryptoalpha.data.sources.chain_following import Move

ASSET: Final = "BTC"
SATOSHIS: Final = 100_000_000

_Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
_Satoshis = Annotated[int, msgspec.Meta(ge=0, le=21_000_000 * SATOSHIS)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**33)]

Label = Callable[[str], str]
Fault = tuple[str, bytes]
"""(reason, bytes) of what cannot be read."""


class _Extras(msgspec.Struct):
    totalFees: _Count | None = None  # noqa: N815


class _Block(msgspec.Struct):
    id: _Hash
    height: _Count
    timestamp: _Seconds
    tx_count: _Count
    size: _Count
    weight: _Count = 0
    previousblockhash: _Hash | None = None
    extras: _Extras | None = None


class _Output(msgspec.Struct):
    value: _Satoshis
    scriptpubkey_address: str | None = None


class _Input(msgspec.Struct):
    is_coinbase: bool = False
    prevout: _Output | None = None


class _Transaction(msgspec.Struct):
    txid: _Hash
    vin: list[_Input]
    vout: list[_Output]


class _Line(msgspec.Struct):
    txid: _Hash
    value: _Satoshis


class _Info(msgspec.Struct):
    size: _Count | None = None
    count: _Count | None = None
    bytes: _Count | None = None
    vsize: _Count | None = None
    total_fee: float | None = None


class _Fees(msgspec.Struct, rename="camel"):
    fastest_fee: float | None = None
    half_hour_fee: float | None = None
    hour_fee: float | None = None
    minimum_fee: float | None = None


class _Prices(msgspec.Struct):
    USD: float | None = None


class _Height(msgspec.Struct):
    height: _Count
    id: _Hash


class _Socket(msgspec.Struct, rename={"mempool_info": "mempoolInfo"}):
    block: _Height | None = None
    blocks: list[_Height] | None = None
    mempool_info: _Info | None = None
    fees: _Fees | None = None
    conversions: _Prices | None = None


@dataclass(frozen=True)
class BlockHead:
    """A block without its transactions. `time` is the miner's stamp, UTC ns: it may run two hours ahead of the truth."""

    number: int
    hash: str
    parent: str
    time: int
    transactions: int
    readings: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True)
class Spending:
    """One transaction: its movements, and the coins of all its outputs, change included."""

    txid: str
    total: float
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class News:
    """What came over the socket."""

    height: int = -1
    """Of the newest block it tells of; −1: none."""
    mempool: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the mempool by name."""
    price: float = math.nan
    """Dollars for one coin."""


_BLOCK = msgspec.json.Decoder(_Block)
_TRANSACTION = msgspec.json.Decoder(_Transaction)
_PAGE = msgspec.json.Decoder(list[msgspec.Raw])
_LINE = msgspec.json.Decoder(_Line)
_INFO = msgspec.json.Decoder(_Info)
_FEES = msgspec.json.Decoder(_Fees)
_PRICES = msgspec.json.Decoder(_Prices)
_SOCKET = msgspec.json.Decoder(_Socket)
_HEX = frozenset("0123456789abcdef")


def parse_height(raw: bytes, received_at: int = 0) -> int:
    """The number of the newest block, a plain text."""
    text = raw.strip()
    if not (text.isdigit() and len(text) <= 9):
        raise DataError(f"{raw[:40]!r} is no height of a block")
    return int(text)


def parse_hash(raw: bytes, received_at: int = 0) -> str:
    """The hash of a block, a plain text."""
    text = raw.strip().decode("ascii", "replace")
    if len(text) != 64 or not _HEX.issuperset(text):
        raise DataError(f"{raw[:80]!r} is no hash of a block")
    return text


def parse_block(raw: bytes, received_at: int = 0) -> BlockHead:
    """A block, of `/v1/block/…` (with fees) or `/block/…`."""
    block = decoded(raw, _BLOCK, "block")
    readings = [
        (ASSET, "block_transactions", float(block.tx_count)),
        (ASSET, "block_bytes", float(block.size)),
    ]
    if block.extras is not None and block.extras.totalFees is not None:
        readings.append((ASSET, "block_fees", block.extras.totalFees / SATOSHIS))
    parent = block.previousblockhash or ""
    return BlockHead(block.height, block.id, parent, block.timestamp * SECOND, block.tx_count, tuple(readings))


def parse_transaction(raw: bytes, received_at: int = 0, *, label: Label = str) -> Spending:
    """One transaction. `label` names known addresses: inputs of one owner have one sender."""
    transaction = decoded(raw, _TRANSACTION, "transaction")
    spent = [entry.prevout for entry in transaction.vin]
    total = sum(output.value for output in transaction.vout) / SATOSHIS
    if any(entry.is_coinbase for entry in transaction.vin):
        return Spending(transaction.txid, total, ())
    own = {output.scriptpubkey_address for output in spent if output is not None} - {None}
    senders = {label(output.scriptpubkey_address or "") if output is not None else "" for output in spent}
    sender = senders.pop() if len(senders) == 1 else ""
    moves = tuple(
        Move(
            id=f"{transaction.txid}:{place}",
            asset=ASSET,
            amount=output.value / SATOSHIS,
            sender=sender,
            receiver=output.scriptpubkey_address or "",
        )
        for place, output in enumerate(transaction.vout)
        if output.value and output.scriptpubkey_address not in own
    )
    return Spending(transaction.txid, total, moves)


def parse_page(raw: bytes, received_at: int = 0, *, label: Label = str) -> tuple[list[Spending], list[Fault]]:
    """A page of transactions, and those of it that cannot be read."""
    return _each(raw, "page of transactions", lambda one: parse_transaction(one, label=label))


def parse_summary(raw: bytes, received_at: int = 0) -> tuple[list[tuple[str, float]], list[Fault]]:
    """(transaction, coins of all its outputs) of a block, and lines that cannot be read."""
    return _each(raw, "summary of a block", _line)


def parse_mempool(raw: bytes, received_at: int = 0) -> dict[str, float]:
    """Metrics of the mempool, of `/mempool`."""
    return _waiting(decoded(raw, _INFO, "state of the mempool"))


def parse_fees(raw: bytes, received_at: int = 0) -> dict[str, float]:
    """Metrics of the recommended fees."""
    return _fees(decoded(raw, _FEES, "list of fees"))


def parse_prices(raw: bytes, received_at: int = 0) -> float:
    """Dollars for one coin; NaN where none are named."""
    return _price(decoded(raw, _PRICES, "list of prices"))


def parse_news(raw: bytes, received_at: int = 0) -> News:
    """One message of the socket; what it tells besides is not looked at."""
    message = decoded(raw, _SOCKET, "message of the socket")
    heights = [block.height for block in (message.blocks or [])] + ([message.block.height] if message.block is not None else [])
    mempool = (_waiting(message.mempool_info) if message.mempool_info is not None else {}) | (
        _fees(message.fees) if message.fees is not None else {}
    )
    return News(max(heights, default=-1), mempool, _price(message.conversions) if message.conversions is not None else math.nan)


def _line(raw: bytes) -> tuple[str, float]:
    line = decoded(raw, _LINE, "line of a summary")
    return line.txid, line.value / SATOSHIS


def _each(raw: bytes, what: str, parse: Callable[[bytes], Any]) -> tuple[list[Any], list[Fault]]:
    found, faults = [], []
    for item in decoded(raw, _PAGE, what):
        one = bytes(item)
        try:
            found.append(parse(one))
        except DataError as error:
            faults.append((str(error), one))
    return found, faults


def _waiting(info: _Info) -> dict[str, float]:
    count = info.count if info.count is not None else info.size
    size = info.vsize if info.vsize is not None else info.bytes
    found = {"mempool_transactions": count, "mempool_vbytes": size}
    return {metric: float(value) for metric, value in found.items() if value is not None}


def _fees(fees: _Fees) -> dict[str, float]:
    found = {
        "fee_next_block": fees.fastest_fee,
        "fee_half_hour": fees.half_hour_fee,
        "fee_hour": fees.hour_fee,
        "fee_least": fees.minimum_fee,
    }
    return {metric: value for metric, value in found.items() if value is not None and 0.0 <= value < math.inf}


def _price(prices: _Prices) -> float:
    return prices.USD if prices.USD is not None and 0.0 < prices.USD < math.inf else math.nan
