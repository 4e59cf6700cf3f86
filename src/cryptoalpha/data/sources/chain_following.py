"""Follow a chain block by block, notice what is replaced, and say so.

A block is read when its parent is the block read before. Where it is not, the blocks remembered are compared with the chain's until one
agrees, and the new branch is read whole, past where the old one ended, before anything is said: a transfer that lies in both branches is
not spoken of again. Nothing depends on the order in which a server announces blocks, nor on how often.

A transfer is stated under an id made of its transaction and its place in it. If its block is replaced and no other holds it, it is stated
again with 0 confirmations and the id `…:gone:<block>`; if a later block holds it after all, as `…:back:<block>`. `Transfer.transaction`
names it in all of these, so the newest statement counts.

What is remembered (the newest `depth` blocks with the transfers stated of them, what is gone, what has been counted) is the position of a
source: from the same position the same blocks give the same statements. What was stated after the position that was kept is stated again
with the same ids; only if the chain is replaced between a crash and the restart, in just those blocks, is it not taken back.

Pure but for `step`, which asks a `Chain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Transfer
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.data.sources.transfers import LargeTransfers, Sketch

TOPIC = "chain"
_MOST_GONE = 1_000
"""Transfers taken back that are remembered, should they return; a replaced block holds a few dozen large ones."""


class Move(msgspec.Struct, frozen=True, gc=False):
    """Coins moved, as it stands in a block. `id` is the transaction and the place in it; addresses are empty where there are many."""

    id: str
    asset: str
    amount: float
    sender: str
    receiver: str


@dataclass(frozen=True)
class Block:
    """A block as it was read. `time` is its own stamp, UTC ns; `readings` are (asset, metric, value)."""

    number: int
    hash: str
    parent: str
    time: int
    moves: tuple[Move, ...] = ()
    readings: tuple[tuple[str, str, float], ...] = ()
    counts: tuple[tuple[str, float], ...] = ()
    """(asset, amount) of what counts towards the usual, large or not."""
    faults: tuple[tuple[str, bytes], ...] = ()
    """(reason, bytes) of what in it could not be read."""


class Stated(msgspec.Struct, array_like=True, gc=False):
    """A transfer that was told."""

    id: str
    asset: str
    amount: float
    usd: float | None
    """None: not known (JSON has no NaN)."""
    sender: str
    receiver: str
    happened_at: int


class KeptBlock(msgspec.Struct, array_like=True):
    """A block that was read, with the transfers told of it."""

    number: int
    hash: str
    stated: list[Stated]


class Following(msgspec.Struct):
    """Where a source stands: all that a restart needs to go on as if nothing had been."""

    blocks: list[KeptBlock] = []
    gone: dict[str, Stated] = {}
    sketches: dict[str, Sketch] = {}
    times: dict[str, int] = {}
    """The source's own marks, such as when it last read the mempool."""

    def position(self) -> str:
        """As text; `following` reads it."""
        return msgspec.json.encode(self).decode()


_FOLLOWING = msgspec.json.Decoder(Following)


def following(position: str) -> Following:
    """The inverse of `Following.position`; empty for an empty one.

    Raises:
        DataError: if it is none.
    """
    if not position:
        return Following()
    try:
        return _FOLLOWING.decode(position)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{position[:40]!r}… is no position of a chain: {error}", hint="remove it from the state store; reading begins anew"
        ) from None


class Chain(Protocol):
    """A chain as a server shows it."""

    async def head(self) -> int:
        """Number of its newest block."""
        ...

    async def hash_at(self, number: int) -> str | None:
        """Hash of the block with this number; None where there is none."""
        ...

    async def blocks(self, first: int, last: int) -> Sequence[Block]:
        """Blocks by number, both ends included; fewer, from the first on, where a server does not have all."""
        ...


@dataclass(frozen=True)
class Step:
    """What happened to a chain: its newest `replaced` blocks gave way, and `fresh` follow what is left."""

    head: int
    replaced: int
    fresh: tuple[Block, ...]
    skipped: int = 0
    """Blocks left out because too many had come while nobody followed."""


async def step(chain: Chain, kept: Sequence[KeptBlock], *, confirmations: int, chunk: int, catch_up: int) -> Step | None:
    """What came since; None if nothing did, or if the chain changed while it was read (ask again).

    A server that is behind what was read already (one of many behind an address) is not believed: it waits.
    """
    head = await chain.head()
    target = head - confirmations + 1
    if target < 0:
        return None
    if not kept or target - kept[-1].number > catch_up:
        first = target if not kept else target - catch_up + 1
        fresh = linked(await chain.blocks(first, min(target, first + chunk - 1)), parent="")
        return Step(head, len(kept), fresh, skipped=first - kept[-1].number - 1 if kept else 0) if fresh else None
    tip = kept[-1]
    if target < tip.number:
        return None
    if target > tip.number:
        fresh = linked(await chain.blocks(tip.number + 1, min(target, tip.number + chunk)), parent=tip.hash)
        if fresh:
            return Step(head, 0, fresh)
    replaced = 0
    for block in reversed(kept):
        found = await chain.hash_at(block.number)
        if found is None:
            return None  # a server that has not got so far
        if found == block.hash:
            break
        replaced += 1
    if not replaced:
        return None
    left = kept[: len(kept) - replaced]
    first = left[-1].number + 1 if left else kept[0].number
    fresh = linked(await chain.blocks(first, min(target, tip.number + chunk)), parent=left[-1].hash if left else "")
    return Step(head, replaced, fresh) if fresh and fresh[-1].number >= tip.number else None


def linked(blocks: Sequence[Block], *, parent: str) -> tuple[Block, ...]:
    """As many blocks, from the first on, as are each the parent of the next. An empty `parent` fits any."""
    chained: list[Block] = []
    for block in blocks:
        if parent and block.parent != parent:
            break
        chained.append(block)
        parent = block.hash
    return tuple(chained)


def statements(
    place: Following, found: Step, judge: LargeTransfers, *, source: str, depth: int, observed: int
) -> tuple[list[Envelope], int]:
    """What a step means, as messages, and how many transfers of it had been told before. Moves `place` on.

    Args:
        judge: its counts are those of `place`.
        observed: our clock when the blocks had come, UTC ns.
    """
    left = len(place.blocks) - found.replaced
    skipped = found.skipped > 0
    replaced = [] if skipped else place.blocks[left:]  # what was skipped may still hold them
    standing = {told.id: (block.hash, told) for block in replaced for told in block.stated}
    told_again = 0
    said: list[Envelope] = []
    blocks: list[KeptBlock] = []
    for block in found.fresh:
        kept = KeptBlock(block.number, block.hash, [])
        said += [_reading(reading, block, source=source, observed=observed) for reading in block.readings]
        large = _large(block, judge)
        for move in block.moves:
            if move.id in standing:
                kept.stated.append(standing.pop(move.id)[1])
                told_again += 1
            elif (back := place.gone.pop(move.id, None)) is not None:
                kept.stated.append(back)
                said.append(_transfer(back, f"{move.id}:back:{block.hash}", source, observed, found.head - block.number + 1))
            elif move.id in large:
                told = _told(move, large[move.id], judge, min(block.time, observed))
                kept.stated.append(told)
                said.append(_transfer(told, move.id, source, observed, found.head - block.number + 1))
        for asset, amount in block.counts:
            judge.count(asset, judge.worth(asset, amount))
        blocks.append(kept)
    gone = [_transfer(told, f"{told.id}:gone:{old}", source, observed, 0) for old, told in standing.values()]
    place.gone |= {told.id: told for _, told in standing.values()}
    for forgotten in list(place.gone)[: max(0, len(place.gone) - _MOST_GONE)]:
        del place.gone[forgotten]
    place.blocks = (place.blocks[:left] + blocks)[-depth:]
    place.sketches = judge.sketches
    return gone + said, told_again


def _large(block: Block, judge: LargeTransfers) -> dict[str, float]:
    """Worth of the large transfers of a block, by their id; of each asset no more than are told."""
    large: dict[str, list[tuple[Move, float]]] = {}
    least: dict[str, float] = {}
    for move in block.moves:
        asset, worth = move.asset, judge.worth(move.asset, move.amount)
        if asset not in least:
            least[asset] = judge.least(asset)
        if judge.is_large(asset, move.amount, worth, least[asset]):
            large.setdefault(asset, []).append((move, worth))
    for asset, moves in large.items():
        if len(moves) > judge.most_per_block:
            large[asset] = sorted(moves, key=lambda pair: -pair[0].amount)[: judge.most_per_block]
    return {move.id: worth for moves in large.values() for move, worth in moves}


def _told(move: Move, worth: float, judge: LargeTransfers, happened_at: int) -> Stated:
    usd = worth if worth == worth else None
    return Stated(move.id, move.asset, move.amount, usd, judge.labels.of(move.sender), judge.labels.of(move.receiver), happened_at)


def _transfer(told: Stated, native_id: str, source: str, observed: int, confirmations: int) -> Envelope:
    value = Transfer(
        happened_at=min(told.happened_at, observed),
        known_at=observed,
        asset=told.asset,
        transaction=told.id,
        amount=told.amount,
        usd=told.usd if told.usd is not None else float("nan"),
        sender=told.sender,
        receiver=told.receiver,
        confirmations=confirmations,
    )
    return sealed(value, topic=TOPIC, key=told.asset, source=source, native_id=native_id)


def _reading(reading: tuple[str, str, float], block: Block, *, source: str, observed: int) -> Envelope:
    asset, metric, number = reading
    value = ChainReading(happened_at=min(block.time, observed), known_at=observed, asset=asset, metric=metric, value=number, source=source)
    return sealed(value, topic=TOPIC, key=asset, source=source, native_id=f"{asset}/{metric}/{block.hash}")
