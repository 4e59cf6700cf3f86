"""Ethereum, through the JSON-RPC of a node: blocks, large transfers of ether and of tokens.

A block is read once it is `confirmations` deep. What replaces blocks deeper than that is noticed by the parent, and what it undoes is
stated again (`chain_following`). Needs the extra `streams` (web3) and the address of a node, which is a secret as a provider's holds a key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from cryptoalpha.core.errors import ConfigError, DataError, VenueError
from cryptoalpha.data.sources.chain_asking import Asking, closing, note
from cryptoalpha.data.sources.chain_config import EthereumSection
from cryptoalpha.data.sources.chain_following import TOPIC, Following, following, statements, step
from cryptoalpha.data.sources.contract import Arrival, DeadLetter, Health
from cryptoalpha.data.sources.ethereum_chain import EthereumChain
from cryptoalpha.data.sources.opening import Tools, needs
from cryptoalpha.data.sources.reconnect import RefusedError
from cryptoalpha.data.sources.transfers import LargeTransfers

NAME: Final = "ethereum"


def open_source(section: EthereumSection, tools: Tools) -> EthereumSource:
    """Ethereum as configured.

    Raises:
        ConfigError: if web3 is not installed or no node is named; the address may hold a key and is not printed.
    """
    needs("web3")
    url = tools.secret(section.rpc_url_env)
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{section.rpc_url_env} holds no address of a node", hint="an address begins with http:// or https://")
    return EthereumSource(section, tools, url)


class EthereumSource:
    """A `Source` of `Transfer`s and `ChainReading`s of ETH and tokens, on topic `chain`.

    Args:
        url: of the node.
        tools: of its `prices`, tokens `priced_as` another asset have that one's.
    """

    topics = (TOPIC,)

    def __init__(self, section: EthereumSection, tools: Tools, url: str, *, asking: Asking | None = None) -> None:
        self.name = NAME
        self._asking = asking or Asking(NAME, "the node of Ethereum", "", section, tools, Health())
        self.health = self._asking.health
        self._section, self._tools = section, tools
        self._chain = EthereumChain(self._asking, section, url)
        self._skipped = 0

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """See `Source.arrivals`. A position that cannot be read is an error, not a new beginning."""
        place = following(position)
        judge = LargeTransfers(self._tools.transfers, self.price, sketches=place.sketches)
        line = self._asking.line
        async with closing(self._chain.close):
            while not line.closed:
                try:
                    arrival = await self.blocks(place, judge)
                except (VenueError, DataError, RefusedError) as error:
                    if not line.closed:
                        await line.failed(error)
                    continue
                if arrival is not None:
                    yield arrival
                else:
                    await self._rest()

    async def close(self) -> None:
        """See `Source.close`."""
        await self._asking.close()
        await self._chain.close()

    async def blocks(self, place: Following, judge: LargeTransfers) -> Arrival | None:
        """What happened to the chain since `place`, which moves on."""
        section = self._section
        seen = await step(self._chain, place.blocks, confirmations=section.confirmations, chunk=section.chunk, catch_up=section.catch_up)
        if seen is None:
            return None
        now = self._asking.heard_at
        said, repeats = statements(place, seen, judge, source=NAME, depth=section.depth, observed=now)
        dead = tuple(DeadLetter(NAME, why, data, now) for block in seen.fresh for why, data in block.faults)
        self.health.repeats += repeats
        note(self.health, said, dead, now=now, event=seen.fresh[-1].time)
        self._skipped += seen.skipped
        return Arrival(tuple(said), place.position(), dead)

    async def _rest(self) -> None:
        """Until it is time to ask, or the source is closed."""
        reason = f"{self._skipped} blocks had come while nobody followed and were left out" if self._skipped else ""
        await self._asking.rest(self._section.poll_seconds, reason)

    def price(self, asset: str) -> float:
        """Dollars for one unit of an asset; NaN where nobody knows."""
        token = self._section.tokens.get(asset)
        priced_as = token.priced_as or asset if token is not None else asset
        return 1.0 if priced_as == "USD" else self._tools.prices(priced_as)
