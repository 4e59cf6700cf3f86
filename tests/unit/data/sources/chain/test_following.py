"""A chain is followed through replacements: what stands at the end is what the chain says, however it came."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Transfer
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.sources.chain_config import TransfersSection
from cryptoalpha.data.sources.chain_following import Block, Following, Move, Step, following, linked, statements, step
from cryptoalpha.data.sources.transfers import LargeTransfers

CONFIG = TransfersSection(least_usd=100.0, least_usd_of={}, multiple=0.0, exchanges={"kraken": ("0xk",)})


class Chain:
    """A chain in memory; `grow` and `replace` change it. Some transactions of a replaced block return in later ones, some never."""

    def __init__(self, seed: int = 0) -> None:
        self.random, self.line, self.made = random.Random(seed), [], 0
        self.waiting: list[Move] = []
        self.grow(3)

    def grow(self, count: int) -> None:
        for _ in range(count):
            number = len(self.line)
            returning, self.waiting = self.waiting[: len(self.waiting) // 2], self.waiting[len(self.waiting) // 2 :]
            moves = [*returning, *(self.move() for _ in range(self.random.randint(0, 3)))]
            self.made += 1
            parent = self.line[-1].hash if self.line else ""
            readings = (("BTC", "block_transactions", float(len(moves))),)
            self.line.append(Block(number, f"h{self.made}", parent, (1000 + number) * SECOND, tuple(moves), readings))

    def move(self) -> Move:
        self.made += 1
        return Move(f"t{self.made}:0", "BTC", self.random.choice([1.0, 99.0, 100.0, 5_000.0]), "0xs", "0xK")

    def replace(self, count: int) -> None:
        """The newest `count` blocks give way to one more than they were."""
        gone = self.line[len(self.line) - count :]
        del self.line[len(self.line) - count :]
        self.waiting += [move for block in gone for move in block.moves if self.random.random() < 0.7]
        self.grow(count + 1)

    async def head(self) -> int:
        return len(self.line) - 1

    async def hash_at(self, number: int) -> str | None:
        return self.line[number].hash if 0 <= number < len(self.line) else None

    async def blocks(self, first: int, last: int) -> Sequence[Block]:
        return self.line[first : last + 1]


class Follower:
    """What a source does with a chain, one step at a time."""

    def __init__(self, chain: Chain, place: Following, *, chunk: int = 2, depth: int = 6) -> None:
        self.chain, self.place, self.chunk, self.depth = chain, place, chunk, depth
        self.judge = LargeTransfers(CONFIG, lambda asset: 1.0, sketches=place.sketches)

    def go(self) -> list:
        """All that came since."""
        said = []
        while (found := asyncio.run(step(self.chain, self.place.blocks, confirmations=1, chunk=self.chunk, catch_up=50))) is not None:
            envelopes, _ = statements(self.place, found, self.judge, source="btc", depth=self.depth, observed=10_000 * SECOND)
            said += envelopes
        return said


def standing(said: list) -> dict[str, float]:
    """Transfers by name whose newest statement says that a block holds them."""
    newest: dict[str, Transfer] = {}
    seen: set[str] = set()
    for envelope in said:
        assert envelope.id not in seen, "an id was used twice"
        seen.add(envelope.id)
        value = envelope.value()
        if isinstance(value, Transfer):
            newest[value.transaction] = value
    return {name: value.amount for name, value in newest.items() if value.confirmations > 0}


def large(blocks: Sequence[Block]) -> dict[str, float]:
    return {move.id: move.amount for block in blocks for move in block.moves if move.amount >= 100.0}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    events=st.lists(st.tuples(st.sampled_from(["grow", "replace", "restart"]), st.integers(1, 4)), max_size=12),
    chunk=st.integers(1, 5),
)
def test_what_stands_is_what_the_chain_holds(seed, events, chunk):
    chain = Chain(seed)
    follower = Follower(chain, Following(), chunk=chunk)
    said = follower.go()
    first = follower.place.blocks[0].number
    for event, count in events:
        if event == "grow":
            chain.grow(count)
        elif event == "replace":
            chain.replace(min(count, len(chain.line) - first - 1))  # what lay before the beginning was never told
        else:
            follower = Follower(chain, following(follower.place.position()), chunk=chunk)
        said += follower.go()
    assert standing(said) == large(chain.line[first:])
    assert [block.hash for block in follower.place.blocks] == [block.hash for block in chain.line[first:]][-6:]


@pytest.mark.parametrize("depth", [1, 3])
def test_a_transfer_of_a_replaced_block_is_taken_back_and_comes_again(depth):
    chain = Chain()
    chain.line = chain.line[:1]
    lost, moved = Move("a:0", "BTC", 500.0, "0xs", "0xK"), Move("b:1", "BTC", 700.0, "0xK", "")

    def block(number: int, name: str, parent: str, *moves: Move) -> Block:
        return Block(number, name, parent, (1000 + number) * SECOND, moves)

    root = chain.line[0].hash
    chain.line.append(block(1, "x1", root, lost, moved))
    chain.line += [block(n, f"x{n}", f"x{n - 1}") for n in range(2, depth + 1)]
    follower = Follower(chain, Following(), chunk=9)
    follower.place.blocks = []
    found = asyncio.run(step(chain, [], confirmations=depth, chunk=9, catch_up=50))
    envelopes, _ = statements(follower.place, found, follower.judge, source="btc", depth=6, observed=10_000 * SECOND)
    said = [(e.id, e.value().confirmations, e.value().sender, e.value().receiver) for e in envelopes]
    assert said == [("btc/a:0", depth, "0xs", "kraken"), ("btc/b:1", depth, "kraken", "")]
    follower.go()

    branch = [block(1, "y1", root)] + [block(n, f"y{n}", f"y{n - 1}") for n in range(2, depth + 2)]
    branch[-1] = block(depth + 1, f"y{depth + 1}", f"y{depth}", moved)
    chain.line[1:] = branch
    gone = follower.go()
    assert [(e.id, e.value().transaction, e.value().confirmations) for e in gone] == [("btc/a:0:gone:x1", "a:0", 0)]  # b:1 never left

    chain.line.append(block(depth + 2, "y9", f"y{depth + 1}", lost))
    back = follower.go()
    assert [(e.id, e.value().amount, e.value().confirmations) for e in back] == [("btc/a:0:back:y9", 500.0, 1)]
    assert {e.value().transaction for e in back} == {"a:0"}


def test_the_same_place_and_blocks_give_the_same_bytes():
    chain = Chain(5)
    follower = Follower(chain, Following())
    follower.go()
    position = follower.place.position()
    chain.grow(4)
    chain.replace(3)
    chain.grow(2)
    first, second = Follower(chain, following(position)).go(), Follower(chain, following(position)).go()
    assert first == second == follower.go()


def test_a_server_that_is_behind_and_one_that_repeats_itself_change_nothing():
    chain = Chain(1)
    follower = Follower(chain, Following())
    chain.grow(4)
    follower.go()
    newest = chain.line.pop()
    assert follower.go() == []
    chain.line.append(newest)
    assert follower.go() == []


def test_a_chain_that_changes_while_it_is_read_is_read_again():
    class Moving(Chain):
        calls = 0

        async def blocks(self, first: int, last: int) -> Sequence[Block]:
            self.calls += 1
            found = list(self.line[first : last + 1])
            if self.calls == 1:
                self.replace(2)
            return [*found[:1], *self.line[first + 1 : last + 1]]

    chain = Moving(2)
    follower = Follower(chain, Following(), chunk=4)
    chain.calls = 9
    said = follower.go()
    first = follower.place.blocks[0].number
    chain.calls = 0
    chain.grow(3)
    said += follower.go()
    assert chain.calls > 1
    assert standing(said) == large(chain.line[first:])


def test_a_new_branch_is_told_whole_or_not_at_all():
    """Half of it would take back what its other half holds."""

    class Slow(Chain):
        most = 9

        async def blocks(self, first: int, last: int) -> Sequence[Block]:
            return self.line[first : min(last + 1, first + self.most)]

    chain = Slow(4)
    follower = Follower(chain, Following(), chunk=9)
    follower.go()
    chain.grow(3)
    assert follower.go()
    kept = [move for block in chain.line[-2:] for move in block.moves]
    chain.replace(2)
    chain.line[-2] = dataclasses.replace(chain.line[-2], moves=(*chain.line[-2].moves, *kept))
    chain.most = 1
    assert follower.go() == []
    chain.most = 9
    assert not any(":gone:" in envelope.id for envelope in follower.go())


def test_what_is_usual_survives_a_restart():
    """The thousandth of a busy day is judged alike by who counted all day and by who has just begun from the same place."""
    usual = CONFIG.model_copy(update={"multiple": 2.0, "quantile": 0.9, "window": 20})

    def told(stops: set[int]) -> list[str]:
        chain, said, place = Chain(8), [], Following()
        judge = LargeTransfers(usual, lambda asset: 1.0)
        for n in range(60):
            moves = tuple(Move(f"t{n}:{m}", "BTC", chain.random.lognormvariate(4.0, 1.5), "", "") for m in range(4))
            block = Block(n, f"h{n}", f"h{n - 1}", n * SECOND, moves, (), tuple((move.asset, move.amount) for move in moves))
            said += statements(place, Step(n, 0, (block,)), judge, source="btc", depth=6, observed=10_000 * SECOND)[0]
            if n in stops:
                place = following(place.position())
                judge = LargeTransfers(usual, lambda asset: 1.0, sketches=place.sketches)
        return [envelope.id for envelope in said]

    assert told(set()) == told({3, 9, 10, 30}) == told(set(range(60)))
    assert 2 <= len(told(set())) < 60


def test_what_came_while_nobody_followed_is_left_out_beyond_a_limit_and_said():
    chain = Chain(3)
    chain.line[-1] = dataclasses.replace(chain.line[-1], moves=(Move("a:0", "BTC", 500.0, "", ""),))
    follower = Follower(chain, Following())
    assert len(follower.go()) == 2  # the block and its transfer
    chain.grow(100)
    found = asyncio.run(step(chain, follower.place.blocks, confirmations=1, chunk=5, catch_up=10))
    assert found is not None
    assert (found.skipped, found.fresh[0].number, len(found.fresh)) == (90, 93, 5)
    said, _ = statements(follower.place, found, follower.judge, source="btc", depth=6, observed=10_000 * SECOND)
    assert not any(":gone:" in envelope.id for envelope in said)  # blocks left out may well hold them


def test_what_is_remembered_is_bounded():
    place, judge = Following(), LargeTransfers(CONFIG.model_copy(update={"window": 50}), lambda asset: 1.0)
    for n in range(0, 200, 2):  # every other block gives way, with everything in it
        moves = tuple(Move(f"t{n}:{m}", "BTC", 100.0 * 1.07**m, "", "") for m in range(40))
        lost = Block(n, f"h{n}", f"i{n - 1}", n * SECOND, moves, (), tuple((move.asset, move.amount) for move in moves))
        statements(place, Step(n, 0, (lost,)), judge, source="btc", depth=6, observed=10_000 * SECOND)
        instead = (Block(n, f"i{n}", f"i{n - 1}", n * SECOND), Block(n + 1, f"i{n + 1}", f"i{n}", n * SECOND))
        said, _ = statements(place, Step(n + 1, 1, instead), judge, source="btc", depth=6, observed=10_000 * SECOND)
        assert sum(":gone:" in envelope.id for envelope in said) == 40
    assert (len(place.blocks), len(place.gone)) == (6, 1_000)  # of 4,000
    assert len(place.sketches["BTC"].newer) + len(place.sketches["BTC"].older) <= 100
    assert len(place.position()) < 100_000


def test_of_too_many_transfers_in_a_block_the_largest_of_each_asset_are_told():
    judge = LargeTransfers(CONFIG.model_copy(update={"most_per_block": 3}), lambda asset: 1.0)
    moves = tuple(Move(f"t:{n}", "BTC" if n % 2 else "ETH", 100.0 + n % 11, "", "") for n in range(40))
    said, _ = statements(Following(), Step(0, 0, (Block(0, "h", "", 0, moves),)), judge, source="btc", depth=6, observed=SECOND)
    amounts = {asset: [e.value().amount for e in said if e.key == asset] for asset in ("BTC", "ETH")}
    wanted = {asset: sorted((m.amount for m in moves if m.asset == asset), reverse=True)[:3] for asset in amounts}
    assert {asset: sorted(found, reverse=True) for asset, found in amounts.items()} == wanted


def test_readings_carry_the_block_and_never_a_time_after_ours():
    late = Block(7, "h7", "h6", 99_999 * SECOND, (), (("BTC", "block_bytes", 5.0),))
    place = Following()
    judge = LargeTransfers(CONFIG, lambda asset: 1.0)
    (envelope,), _ = statements(place, Step(7, 0, (late,)), judge, source="btc", depth=6, observed=10_000 * SECOND)
    value = envelope.value()
    assert isinstance(value, ChainReading)
    assert (value.happened_at, value.known_at) == (10_000 * SECOND, 10_000 * SECOND)  # a miner's clock may run two hours ahead
    assert envelope.id == "btc/BTC/block_bytes/h7"
    assert (envelope.topic, envelope.key) == ("chain", "BTC")


def test_blocks_that_do_not_follow_each_other_are_cut_off():
    a, b, c = (Block(n, f"h{n}", f"h{n - 1}", 0) for n in (1, 2, 3))
    assert linked([a, b, c], parent="h0") == (a, b, c)
    assert linked([a, c], parent="h0") == (a,)
    assert linked([b, c], parent="h0") == ()


@given(text=st.text(max_size=60))
def test_a_position_that_is_none_is_refused(text):
    if text:
        with pytest.raises(DataError):
            following("x" + text)
    assert following("") == Following()
