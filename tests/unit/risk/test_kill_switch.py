"""The kill switch: what each state allows to come next, and that nothing but a person ends it."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import RiskHaltError
from cryptoalpha.core.values import RiskEvent
from cryptoalpha.risk.kill_switch import NAME, KillSwitch, may_enter


def tripped() -> KillSwitch:
    switch = KillSwitch()
    switch.trip(10, by="ann", reason="too hot")
    switch.settle(11, pending=False, flat=False)
    return switch


def test_it_begins_armed_and_says_nothing():
    switch = KillSwitch()
    assert (switch.state, switch.stands, switch.flatten, switch.tripped_at, switch.message) == ("armed", False, False, None, "")


def test_a_trip_blocks_at_once_and_is_an_event():
    switch = KillSwitch()
    event = switch.trip(10, by="ann", reason="too hot")
    assert event == RiskEvent(
        happened_at=10,
        known_at=10,
        rule=NAME,
        state="tripping",
        message="by ann: too hot; entries are blocked, pending ones cancelled",
    )
    assert switch.stands
    assert switch.tripped_at == 10
    assert "by ann: too hot" in switch.message


def test_a_second_trip_only_adds_evidence():
    switch = tripped()
    assert switch.trip(20, by="risk", reason="drawdown") is None
    assert switch.trip(30, by="risk", reason="drawdown") is None  # every bar may say it again
    assert switch.state == "tripped"
    assert switch.tripped_at == 10
    assert switch.evidence == ((10, "ann", "too hot"), (20, "risk", "drawdown"))
    assert "(and 1 more)" in switch.message


def test_flatten_may_be_added_later_and_is_never_taken_back():
    switch = tripped()
    event = switch.trip(20, by="ann", reason="get out", flatten=True)
    assert event is not None
    assert event.state == "tripping"
    assert "everything is closed" in event.message
    assert switch.trip(30, by="ann", reason="only entries") is None
    assert switch.flatten
    assert switch.tripped_at == 10


@pytest.mark.parametrize(
    ("flatten", "pending", "flat", "settles"),
    [
        (False, False, False, True),
        (False, False, True, True),
        (False, True, True, False),
        (True, False, True, True),
        (True, False, False, False),
        (True, True, True, False),
    ],
)
def test_it_is_tripped_once_no_entry_is_pending_and_what_was_to_be_closed_is_closed(flatten, pending, flat, settles):
    switch = KillSwitch()
    switch.trip(10, by="ann", reason="x", flatten=flatten)
    event = switch.settle(11, pending=pending, flat=flat)
    assert (event is not None and event.state == "tripped") is settles
    assert switch.state == ("tripped" if settles else "tripping")
    assert switch.settle(12, pending=False, flat=True) is None or not settles


def test_settling_an_armed_switch_changes_nothing():
    switch = KillSwitch()
    assert switch.settle(1, pending=False, flat=True) is None
    assert switch.state == "armed"


def test_a_person_arms_it_again_only_after_it_settled():
    switch = KillSwitch()
    with pytest.raises(RiskHaltError, match="it is armed"):
        switch.resume(1, by="ann", reason="x")
    switch.trip(10, by="ann", reason="x", flatten=True)
    with pytest.raises(RiskHaltError, match="not confirmed"):
        switch.resume(11, by="ann", reason="x")
    switch.settle(12, pending=False, flat=True)
    event = switch.resume(13, by="bob", reason="checked the feed")
    assert (event.state, event.message) == ("armed", "by bob: checked the feed; entries are allowed again")
    assert (switch.stands, switch.flatten, switch.tripped_at, switch.resumed_at, switch.evidence) == (False, False, None, 13, ())


CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("trip"), st.booleans(), st.sampled_from(["a", "b"])),
        st.tuples(st.just("settle"), st.booleans(), st.booleans()),
        st.tuples(st.just("resume"), st.just(False), st.just("")),
    ),
    max_size=30,
)


@settings(max_examples=50, deadline=None)
@given(calls=CALLS)
def test_states_follow_only_the_arrows_and_the_same_calls_give_the_same_events(calls):
    def play() -> list[tuple[str, RiskEvent | None]]:
        switch, told = KillSwitch(), []
        for at, (what, flag, other) in enumerate(calls):
            before = switch.state
            event = None
            if what == "trip":
                event = switch.trip(at, by="x", reason=str(other), flatten=flag)
                assert switch.stands
            elif what == "settle":
                event = switch.settle(at, pending=flag, flat=bool(other))
            elif switch.state == "tripped":
                event = switch.resume(at, by="x", reason="y")
            assert (event is None) == (before == switch.state) or (before, switch.state) == ("tripping", "tripping")  # flatten was added
            assert event is None or event.state == switch.state
            told.append((switch.state, event))
        return told

    first = play()
    allowed = {("armed", "tripping"), ("tripping", "tripped"), ("tripped", "armed"), ("tripped", "tripping")}
    assert {pair for pair in pairwise(["armed", *(state for state, _ in first)]) if pair[0] != pair[1]} <= allowed
    assert play() == first


@pytest.mark.parametrize(
    ("pending", "held", "enters"),
    [
        (1, 0, True),
        (-1, 0, True),
        (1, 2, True),
        (-1, -2, True),
        (-1, 2, False),
        (-2, 2, False),
        (2, -2, False),
        (-3, 2, True),
        (3, -2, True),
    ],
)
def test_an_order_is_a_way_out_only_if_it_cannot_pass_zero(pending, held, enters):
    assert may_enter(Decimal(pending), Decimal(held)) is enters
