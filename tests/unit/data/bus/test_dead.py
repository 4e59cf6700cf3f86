"""Dead letters keep what came, and why."""

from __future__ import annotations

import pytest

from cryptoalpha.core.errors import DataError
from cryptoalpha.data.bus.contract import Place
from cryptoalpha.data.bus.dead import dead_letter, dead_topic, read_dead
from cryptoalpha.data.bus.envelope import from_bytes, to_bytes


def letter(data=b"\xff{", source="x", **more):
    return dead_letter(topic="texts", source=source, reason="cut JSON", data=data, observed_time=5, **more)


def test_what_is_put_away_is_read_again_with_its_reason_and_place():
    sent = letter(place=Place("texts", 3), offset=17, failures=3)
    found = read_dead(from_bytes(to_bytes(sent)))
    assert (sent.topic, found.reason, found.data, found.origin, found.failures) == ("texts.dead", "cut JSON", b"\xff{", "texts/3/17", 3)


def test_the_same_bytes_have_the_same_id_and_others_another():
    assert letter().id == letter(place=Place("texts", 0), offset=9).id
    assert len({letter().id, letter(b"other").id, letter(source="reddit").id}) == 3


def test_the_dead_of_the_dead_go_to_the_same_place():
    assert dead_topic(dead_topic("market")) == dead_topic("market") == "market.dead"


def test_other_messages_are_no_dead_letters():
    import msgspec

    with pytest.raises(DataError, match="not a dead letter"):
        read_dead(msgspec.structs.replace(letter(), kind="Post"))
    with pytest.raises(DataError, match="holds no dead letter"):
        read_dead(msgspec.structs.replace(letter(), payload=b"\xc1"))
