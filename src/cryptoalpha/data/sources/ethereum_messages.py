"""What a node of Ethereum answers, read: blocks with their transfers of ether, logs with their transfers of tokens.

Pure functions of bytes that raise `DataError` and nothing else (`RpcError` is one: what the node itself refuses). Numbers arrive in
hexadecimal, amounts in the smallest unit. A log is told by its first topic; of ERC-20's `Transfer(address,address,uint256)` the last field
is not indexed, which tells it from that of ERC-721. Logs are understood as a node writes them, and as HyperSync does (`snake_case`).

Source: "Ethereum JSON-RPC Specification" (execution-apis); ERC-20.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.sources.chain_asking import decoded
from cryptoalpha.data.sources.chain_config import Token
from cryptoalpha.data.sources.chain_following import Block, Move

ASSET: Final = "ETH"
WEI: Final = 10**18
GWEI: Final = 10**9
TRANSFER: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""keccak256 of `Transfer(address,address,uint256)`."""

_Quantity = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{1,64}$")]
_Hash = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{64}$")]
_Address = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{40}$")]
_Data = Annotated[str, msgspec.Meta(pattern=r"^0x([0-9a-fA-F]{2})*$")]

_TOO_MANY_CODES: Final = frozenset({-32005, -32602, -32600, -32000, -32603})
_TOO_MANY_WORDS: Final = re.compile(
    r"more than \d+ results|too many (results|logs)|(range|response|result|size|limit|results?).{0,40}(exceed|too (large|wide|big|many))"
    r"|exceed.{0,60}(range|size|limit|results)|block range|too large|limited to",
    re.IGNORECASE,
)
_RATE_WORDS: Final = re.compile(r"rate|per second|daily|credit|quota|throttl|capacity", re.IGNORECASE)
_WORD: Final = 64  # hexadecimal digits of one field


class RpcError(DataError):
    """The node answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"the node answers error {code}: {message[:200]}")
        self.code, self.message = code, message

    @property
    def too_many(self) -> bool:
        """Whether it says that the answer would be too large: a smaller range may work."""
        return self.code in _TOO_MANY_CODES and _TOO_MANY_WORDS.search(self.message) is not None and not self.too_often

    @property
    def too_often(self) -> bool:
        """Whether it says that it is asked too often; providers say so in words, under the same code."""
        return self.code == 429 or _RATE_WORDS.search(self.message) is not None


class _Error(msgspec.Struct):
    code: int
    message: str = ""


class _Answer(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(b"")
    error: _Error | None = None


class _Transaction(msgspec.Struct):
    hash: _Hash
    value: _Quantity
    sender: _Address = msgspec.field(name="from")
    to: _Address | None = None


class _Block(msgspec.Struct, rename="camel"):
    number: _Quantity
    hash: _Hash
    parent_hash: _Hash
    timestamp: _Quantity
    transactions: list[msgspec.Raw] = []
    gas_used: _Quantity | None = None
    base_fee_per_gas: _Quantity | None = None


class _RpcLog(msgspec.Struct, rename="camel"):
    transaction_hash: _Hash
    log_index: _Quantity
    block_number: _Quantity
    address: _Address
    data: _Data
    topics: list[_Hash]
    block_hash: _Hash | None = None
    removed: bool | None = None


class _HyperSyncLog(msgspec.Struct):
    transaction_hash: _Hash
    log_index: _Quantity
    block_number: _Quantity
    address: _Address
    data: _Data
    topics: list[_Hash | None]
    block_hash: _Hash | None = None
    removed: bool | None = None


@dataclass(frozen=True)
class Log:
    """An event of a contract. Addresses and hashes in small letters; `block_hash` is empty where it is not told."""

    transaction: str
    index: int
    block: int
    block_hash: str
    address: str
    topics: tuple[str, ...]
    data: str
    removed: bool


@dataclass(frozen=True)
class Logs:
    """Logs, and what among them cannot be read."""

    logs: tuple[Log, ...]
    faults: tuple[tuple[str, bytes], ...]


_ANSWER = msgspec.json.Decoder(_Answer)
_BLOCK = msgspec.json.Decoder(_Block | None)
_TRANSACTION = msgspec.json.Decoder(_Transaction)
_NUMBER = msgspec.json.Decoder(_Quantity)
_MANY = msgspec.json.Decoder(list[msgspec.Raw])
_RPC_LOG = msgspec.json.Decoder(_RpcLog)
_HYPERSYNC_LOG = msgspec.json.Decoder(_HyperSyncLog)


def parse_answer(raw: bytes) -> bytes:
    """The result of an answer, as JSON.

    Raises:
        RpcError: if the node refuses.
        DataError: if it is no answer.
    """
    answer = decoded(raw, _ANSWER, "answer of a node")
    if answer.error is not None:
        raise RpcError(answer.error.code, answer.error.message)
    result = bytes(answer.result)
    if not result:
        raise DataError("the node answers without a result")
    return result


def parse_number(raw: bytes, received_at: int = 0) -> int:
    """The answer to `eth_blockNumber`."""
    number = int(decoded(parse_answer(raw), _NUMBER, "number of a block"), 16)
    return _small(number, "number of a block")


def parse_block(raw: bytes, received_at: int = 0) -> Block | None:
    """The answer to `eth_getBlockByNumber`, with full transactions or hashes only; None where the node has no such block."""
    block = decoded(parse_answer(raw), _BLOCK, "block")
    if block is None:
        return None
    moves: list[Move] = []
    faults: list[tuple[str, bytes]] = []
    for item in block.transactions:
        one = bytes(item)
        if one.startswith(b'"'):
            continue
        try:
            move = _native(decoded(one, _TRANSACTION, "transaction"))
        except DataError as error:
            faults.append((str(error), one))
            continue
        if move.amount > 0.0:
            moves.append(move)
    readings = [(ASSET, "block_transactions", float(len(block.transactions)))]
    if block.gas_used is not None:
        readings.append((ASSET, "block_gas", float(int(block.gas_used, 16))))
    if block.base_fee_per_gas is not None:
        readings.append((ASSET, "fee_next_block", int(block.base_fee_per_gas, 16) / GWEI))
    return Block(
        number=_small(int(block.number, 16), "number of a block"),
        hash=block.hash.lower(),
        parent=block.parent_hash.lower(),
        time=_small(int(block.timestamp, 16), "time") * SECOND,
        moves=tuple(moves),
        readings=tuple(readings),
        faults=tuple(faults),
    )


def parse_logs(raw: bytes, received_at: int = 0) -> Logs:
    """The answer to `eth_getLogs`."""
    logs, faults = [], []
    for item in decoded(parse_answer(raw), _MANY, "list of logs"):
        one = bytes(item)
        try:
            logs.append(parse_log(one))
        except DataError as error:
            faults.append((str(error), one))
    return Logs(tuple(logs), tuple(faults))


def parse_log(raw: bytes) -> Log:
    """One log, as a node or as HyperSync writes it."""
    log: _RpcLog | _HyperSyncLog
    log = decoded(raw, _RPC_LOG, "log") if b'"transactionHash"' in raw else decoded(raw, _HYPERSYNC_LOG, "log")
    return Log(
        transaction=log.transaction_hash.lower(),
        index=_small(int(log.log_index, 16), "index of a log"),
        block=_small(int(log.block_number, 16), "number of a block"),
        block_hash=(log.block_hash or "").lower(),
        address=log.address.lower(),
        topics=tuple(topic.lower() for topic in log.topics if topic is not None),
        data=log.data.lower(),
        removed=bool(log.removed),
    )


def token_moves(logs: Iterable[Log], tokens: Mapping[str, tuple[str, Token]]) -> dict[int, list[Move]]:
    """The transfers that logs tell of, by the number of their block; logs that tell of something else are left out.

    A transfer is named by its transaction, its token and its place among the transaction's transfers of it. Not by the index of its log:
    that counts through the block, and is another one when a replaced block's transaction lies in the next.

    Args:
        tokens: (asset, token) by contract, in small letters.
    """
    moves: dict[int, list[Move]] = {}
    places: dict[tuple[int, str, str], int] = {}
    for log in sorted({(log.block, log.index, log.transaction): log for log in logs}.values(), key=lambda log: (log.block, log.index)):
        known = tokens.get(log.address)
        if known is None or log.removed or len(log.topics) != 3 or log.topics[0] != TRANSFER or len(log.data) != 2 + _WORD:
            continue
        asset, token = known
        place = places[log.block, log.transaction, asset] = places.get((log.block, log.transaction, asset), -1) + 1
        amount = int(log.data, 16) / 10**token.decimals
        if amount:
            name = f"{log.transaction}:{asset}:{place}"
            moves.setdefault(log.block, []).append(Move(name, asset, amount, _indexed(log.topics[1]), _indexed(log.topics[2])))
    return moves


def contracts(tokens: Mapping[str, Token]) -> dict[str, tuple[str, Token]]:
    """(asset, token) by contract, in small letters."""
    return {token.contract.lower(): (asset, token) for asset, token in tokens.items()}


def _native(transaction: _Transaction) -> Move:
    amount = int(transaction.value, 16) / WEI
    return Move(f"{transaction.hash.lower()}:{ASSET}", ASSET, amount, transaction.sender.lower(), (transaction.to or "").lower())


def _indexed(topic: str) -> str:
    """The address in an indexed field, its last 20 of 32 bytes."""
    return "0x" + topic[-40:]


def _small(number: int, what: str) -> int:
    if number >= 2**33:
        raise DataError(f"{number} is no {what}")
    return number
