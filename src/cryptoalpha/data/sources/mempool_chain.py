"""Bitcoin's chain as a server of mempool.space's interface shows it over REST: a `chain_following.Chain`.

Large transfers are looked for in a summary of the block, one line per transaction, and each that may hold one is read. Where reading all
transactions in pages of 25 takes fewer questions, or the server has no summaries (Esplora), all are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from cryptoalpha.data.sources.chain_asking import Asking
from cryptoalpha.data.sources.chain_config import MempoolSection
from cryptoalpha.data.sources.chain_following import Block
from cryptoalpha.data.sources.mempool_messages import (
    ASSET,
    BlockHead,
    Fault,
    Spending,
    parse_block,
    parse_hash,
    parse_height,
    parse_page,
    parse_summary,
    parse_transaction,
)
from cryptoalpha.data.sources.transfers import LargeTransfers

_PAGE: Final = 25
_MARGIN: Final = 0.8
"""Transactions are read from this share of what counts as large: prices move between finding and judging."""


class MempoolChain:
    """The chain as the server shows it over REST; `least` is asked of `judge`."""

    def __init__(self, asking: Asking, section: MempoolSection, judge: LargeTransfers) -> None:
        self._asking, self._section, self._judge = asking, section, judge

    async def head(self) -> int:
        return await self._asking.get("/api/blocks/tip/height", parse_height)

    async def hash_at(self, number: int) -> str | None:
        return await self._asking.get_or_none(f"/api/block-height/{number}", parse_hash)

    async def blocks(self, first: int, last: int) -> Sequence[Block]:
        found: list[Block] = []
        for number in range(first, last + 1):
            digest = await self.hash_at(number)
            if digest is None:
                break
            block = await self._block(digest)
            if block is None:
                break
            found.append(block)
        return found

    async def _block(self, digest: str) -> Block | None:
        """A block whole; None if it is gone by the time it is read."""
        path = f"/api/v1/block/{digest}" if self._section.candidates == "summary" else f"/api/block/{digest}"
        head = await self._asking.get_or_none(path, parse_block)
        if head is None:
            return None
        read = await self._large(head)
        if read is None:
            read = await self._all(head)
        if read is None:
            return None
        spendings, totals, faults = read
        return Block(
            number=head.number,
            hash=head.hash,
            parent=head.parent,
            time=head.time,
            moves=tuple(move for spending in spendings for move in spending.moves),
            readings=head.readings,
            counts=tuple((ASSET, total) for total in totals),
            faults=tuple(faults),
        )

    async def _large(self, head: BlockHead) -> tuple[list[Spending], list[float], list[Fault]] | None:
        """Transactions that may hold large transfers, by a summary; None where reading all takes fewer questions."""
        if self._section.candidates != "summary":
            return None
        summary = await self._asking.get_or_none(f"/api/v1/block/{head.hash}/summary", parse_summary)
        if summary is None:
            return None
        lines, faults = summary
        least = _MARGIN * self._judge.least(ASSET)
        large = [txid for txid, total in lines if self._judge.is_large(ASSET, total / _MARGIN, self._judge.worth(ASSET, total), least)]
        if len(large) > math.ceil(head.transactions / _PAGE):
            return None
        spendings = []
        for txid in large:
            spending = await self._asking.get_or_none(f"/api/tx/{txid}", self._transaction)
            if spending is None:
                return None  # the block was replaced meanwhile, or its index is behind
            spendings.append(spending)
        return spendings, [total for _, total in lines], faults

    async def _all(self, head: BlockHead) -> tuple[list[Spending], list[float], list[Fault]] | None:
        """All transactions, page by page; None if the block is gone."""
        spendings: list[Spending] = []
        faults: list[Fault] = []
        for first in range(0, head.transactions, _PAGE):
            page = await self._asking.get_or_none(f"/api/block/{head.hash}/txs/{first}", self._page)
            if page is None:
                return None
            spendings += page[0]
            faults += page[1]
        return spendings, [spending.total for spending in spendings], faults

    def _transaction(self, raw: bytes, received_at: int) -> Spending:
        return parse_transaction(raw, received_at, label=self._judge.labels.of)

    def _page(self, raw: bytes, received_at: int) -> tuple[list[Spending], list[Fault]]:
        return parse_page(raw, received_at, label=self._judge.labels.of)
