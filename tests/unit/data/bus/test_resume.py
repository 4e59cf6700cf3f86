"""Where a reader goes on: the three rules, each with a case worked out by hand."""

from __future__ import annotations

from cryptoalpha.data.bus.contract import Place, Progress, Regress
from cryptoalpha.data.bus.resume import Extent, decide, marks

PLACE = Place("texts", 1)
OVERLAP = 60


def going_on(known, extent, ids, *, start="earliest", found=None):
    decision = decide(known, extent, ids, start=start, overlap_ns=OVERLAP)
    return decision, *decision.settled(PLACE, extent, found)


def test_who_remembers_nothing_begins_where_the_topic_says():
    assert going_on([], Extent(7, 90), {})[1:] == (7, None)
    assert going_on([], Extent(7, 90), {}, start="latest")[1:] == (90, None)


def test_the_next_message_follows_the_last_if_that_is_still_there():
    known = [Progress(50, 49, "a", 1000)]
    assert marks(known, Extent(0, 60)) == {49}
    assert going_on(known, Extent(0, 60), {49: "a"})[1:] == (50, None)
    assert going_on(known, Extent(0, 50), {49: "a"})[1:] == (50, None)  # nothing new


def test_an_offset_beyond_the_end_is_a_lost_log():
    decision, following, regress = going_on([Progress(150, 149, "a", 1000)], Extent(0, 100), {}, found=83)
    assert decision.since == 1000 - OVERLAP
    assert (following, regress) == (83, Regress(PLACE, "log_regressed", 150, 0, 100, 83))


def test_a_log_that_has_grown_beyond_again_is_told_by_the_id():
    known = [Progress(150, 149, "a", 1000)]
    assert going_on(known, Extent(0, 300), {149: "b"}, found=120)[1:] == (120, Regress(PLACE, "log_regressed", 150, 0, 300, 120))
    assert going_on(known, Extent(0, 300), {}, found=120)[1] == 120, "no message there any more"


def test_where_nothing_came_since_it_goes_back_to_the_start():
    assert going_on([Progress(150, 149, "a", 1000)], Extent(5, 100), {})[1] == 5
    assert going_on([Progress(150)], Extent(5, 100), {})[0].since is None, "when it stopped is not known"


def test_a_time_the_broker_answers_wrongly_stays_within_the_log():
    assert going_on([Progress(150, 149, "a", 1000)], Extent(5, 100), {}, found=3)[1] == 5
    assert going_on([Progress(150, 149, "a", 1000)], Extent(5, 100), {}, found=1234)[1] == 100


def test_messages_that_retention_took_are_a_gap_and_no_lost_log():
    known = [Progress(50, 49, "a", 1000)]
    assert marks(known, Extent(70, 90)) == frozenset()
    assert going_on(known, Extent(70, 90), {})[1:] == (70, Regress(PLACE, "retention_gap", 50, 70, 90, 70))
    assert going_on(known, Extent(50, 90), {})[1:] == (50, None), "the last is gone, the next is there"


def test_whoever_has_come_further_is_believed_if_the_log_bears_it_out():
    own, group = Progress(50, 49, "a", 1000), Progress(60, 59, "b", 2000)
    assert going_on([own, group], Extent(0, 90), {49: "a", 59: "b"})[1:] == (60, None)
    # the group lost its log and another member went on in the new one, 20 messages far
    ids = {49: "x", 19: "c"}
    assert going_on([own, Progress(20, 19, "c", 3000)], Extent(0, 90), ids)[1:] == (20, None)


def test_an_offset_without_an_id_proves_nothing_against_one_with_it():
    own, group = Progress(50, 49, "a", 1000), Progress(50)
    decision, following, regress = going_on([own, group], Extent(0, 90), {49: "x"}, found=30)
    assert (decision.kind, following) == ("log_regressed", 30)
    assert regress is not None


def test_an_offset_without_an_id_is_taken_where_nothing_speaks_against_it():
    assert going_on([Progress(50)], Extent(0, 90), {})[1:] == (50, None)


def test_of_two_lost_memories_the_later_one_says_how_far_to_go_back():
    """The other may name a higher offset, of a log that was lost even earlier."""
    known = [Progress(500, 499, "a", 1000), Progress(150, 149, "b", 9000)]
    assert going_on(known, Extent(0, 100), {})[0].since == 9000 - OVERLAP
