"""How partitions are shared out: fairly, and never to two at once."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.data.bus.contract import Place
from cryptoalpha.data.bus.sharing import Sharing, shares

PLACES = [Place(topic, number) for topic in ("a", "b") for number in range(4)]


def test_each_topic_is_dealt_out_in_turn_to_those_who_want_it():
    dealt = shares({"one": ["a"], "two": ["a", "b"]}, PLACES)
    assert [dealt[Place("a", number)] for number in range(4)] == ["one", "two", "one", "two"]
    assert {dealt[Place("b", number)] for number in range(4)} == {"two"}


def test_a_partition_changes_hands_when_its_holder_has_nothing_in_hand():
    sharing = Sharing[str](10.0)
    sharing.join("one", ["a"], PLACES[:4], 0.0)
    sharing.join("two", ["a"], PLACES[:4], 1.0)
    assert len(sharing.owned("one")) == 4
    assert sharing.owned("two") == []
    assert not sharing.release("two", 2.0)
    assert sharing.release("one", 3.0)
    assert (len(sharing.owned("one")), len(sharing.owned("two"))) == (2, 2)
    assert [sharing.turn(place) for place in PLACES[:4]] == [1, 2, 1, 2]


def test_who_holds_on_for_too_long_is_passed_over():
    sharing = Sharing[str](10.0)
    sharing.join("one", ["a"], PLACES[:4], 0.0)
    sharing.join("two", ["a"], PLACES[:4], 1.0)
    assert not sharing.release("two", 10.9)
    assert sharing.release("two", 11.0)
    assert len(sharing.owned("two")) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "release"]), st.integers(0, 4)), max_size=30))
def test_whatever_happens_every_partition_has_one_reader_and_in_the_end_a_fair_share(steps):
    sharing = Sharing[int](5.0)
    now = 0.0
    for action, member in steps:
        now += 1.0
        if action == "join" and member not in sharing.members:
            sharing.join(member, ["a"], PLACES[:4], now)
        elif action == "leave":
            sharing.leave(member, now)
        else:
            sharing.release(member, now)
        owned = [place for each in sharing.members for place in sharing.owned(each)]
        assert len(owned) == len(set(owned))
        assert not sharing.members or len(owned) == 4
    for member in sharing.members:
        sharing.release(member, now + 100.0)
    held = Counter({member: len(sharing.owned(member)) for member in sharing.members})
    assert not held or max(held.values()) - min(held.values()) <= 1
