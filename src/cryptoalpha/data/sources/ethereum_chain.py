"""Ethereum's chain as a node shows it over JSON-RPC: a `chain_following.Chain`.

A stretch of blocks is read whole, then the logs of all of it in one question, which is halved, by blocks and then by contracts, as often as
the node finds the answer too large. Then the newest block is asked for again: if it is another one by now, nothing that was read counts.

What contracts move of ether while they run is in no transaction and no log; only what a transaction itself sends is seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cryptoalpha.core.errors import DataError, VenueError
from cryptoalpha.data.sources.chain_asking import TIMEOUT_SECONDS, Asking
from cryptoalpha.data.sources.chain_config import EthereumSection
from cryptoalpha.data.sources.chain_following import Block
from cryptoalpha.data.sources.ethereum_messages import (
    TRANSFER,
    Logs,
    RpcError,
    contracts,
    parse_block,
    parse_logs,
    parse_number,
    token_moves,
)
from cryptoalpha.data.sources.reconnect import check_answer

if TYPE_CHECKING:
    from web3.providers.rpc import AsyncHTTPProvider

T = TypeVar("T")


class EthereumChain:
    """Questions to one node.

    Args:
        url: of the node; it may hold a key and is never printed.
    """

    def __init__(self, asking: Asking, section: EthereumSection, url: str) -> None:
        self._asking, self._section, self._url = asking, section, url
        self._tokens = contracts(section.tokens)
        self._provider: AsyncHTTPProvider | None = None

    async def head(self) -> int:
        return await self._ask("eth_blockNumber", [], parse_number)

    async def hash_at(self, number: int) -> str | None:
        block = await self._ask("eth_getBlockByNumber", [hex(number), False], parse_block)
        return block.hash if block is not None else None

    async def blocks(self, first: int, last: int) -> Sequence[Block]:
        found: list[Block] = []
        for number in range(first, last + 1):
            block = await self._ask("eth_getBlockByNumber", [hex(number), True], parse_block)
            if block is None:
                break
            found.append(block)
        if not found:
            return []
        read = await self._logs(first, found[-1].number, tuple(self._tokens)) if self._tokens else Logs((), ())
        if await self.hash_at(found[-1].number) != found[-1].hash:
            return []  # replaced while it was read: asked again from the start
        hashes = {block.number: block.hash for block in found}
        logs = [log for log in read.logs if not log.block_hash or hashes.get(log.block) == log.block_hash]
        if len(logs) < len(read.logs):
            return []
        moved = token_moves(logs, self._tokens)
        whole = [replace(block, moves=(*block.moves, *moved.get(block.number, ()))) for block in found]
        whole[-1] = replace(whole[-1], faults=(*whole[-1].faults, *read.faults))
        return [replace(block, counts=tuple((move.asset, move.amount) for move in block.moves)) for block in whole]

    async def close(self) -> None:
        """Let go of the connection."""
        if self._provider is not None:
            provider, self._provider = self._provider, None
            await provider.disconnect()

    async def _logs(self, first: int, last: int, addresses: tuple[str, ...]) -> Logs:
        """Transfers of contracts in blocks `first` to `last`.

        Raises:
            DataError: if the node finds those of one contract in one block too many.
        """
        question = {"fromBlock": hex(first), "toBlock": hex(last), "address": list(addresses), "topics": [TRANSFER]}
        found = await self._ask("eth_getLogs", [question], _logs_or_refusal)
        if isinstance(found, Logs):
            return found
        if first < last:
            middle = (first + last) // 2
            halves = (await self._logs(first, middle, addresses), await self._logs(middle + 1, last, addresses))
        elif len(addresses) > 1:
            cut = len(addresses) // 2
            halves = (await self._logs(first, last, addresses[:cut]), await self._logs(first, last, addresses[cut:]))
        else:
            raise found
        return Logs(halves[0].logs + halves[1].logs, halves[0].faults + halves[1].faults)

    async def _ask(self, method: str, parameters: list[Any], parse: Callable[[bytes, int], T]) -> T:
        async def once() -> bytes:
            import aiohttp
            from web3.exceptions import Web3Exception
            from web3.types import RPCEndpoint

            provider = await self._connected()
            try:
                return msgspec.json.encode(await provider.make_request(RPCEndpoint(method), parameters))
            except aiohttp.ClientResponseError as error:
                check_answer(error.status, error.headers or {}, what=self._asking.who, now=self._asking.tools.clock.now())
                raise VenueError(f"{self._asking.who} answers HTTP {error.status}") from None
            except (json.JSONDecodeError, UnicodeDecodeError, Web3Exception) as error:
                raise DataError(f"{self._asking.who} does not answer in JSON: {type(error).__name__}") from None

        def read(raw: bytes, received_at: int) -> tuple[T]:
            return (parse(raw, received_at),)

        found = await self._asking.told(once, read, asked=f"{method} {json.dumps(parameters)}")
        assert found is not None  # `once` never brings None
        return found[0]

    async def _connected(self) -> AsyncHTTPProvider:
        if self._asking.line.closed:
            raise VenueError(f"nothing is asked of {self._asking.who} any more: the source is closed")
        if self._provider is None:
            import aiohttp
            from web3.providers.rpc import AsyncHTTPProvider

            self._provider = AsyncHTTPProvider(self._url, exception_retry_configuration=None)
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            await self._provider.cache_async_session(aiohttp.ClientSession(raise_for_status=True, timeout=timeout, trust_env=True))
        return self._provider


def _logs_or_refusal(raw: bytes, received_at: int) -> Logs | RpcError:
    """A refusal because of size is an answer too: asking the same again would not help."""
    try:
        return parse_logs(raw, received_at)
    except RpcError as error:
        if error.too_many:
            return error
        raise
