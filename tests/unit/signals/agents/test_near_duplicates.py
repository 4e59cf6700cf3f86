"""Near-duplicates: the sketches against comparing everything with everything."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.agents.duplicates import NearDuplicates
from cryptoalpha.signals.agents.shingles import MOST, likeness, shingles

WORDS = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(40)]


class Compared:
    """The slow way: every text that was let through, kept and compared in full."""

    def __init__(self, limit, remembered, window):
        self.limit, self.remembered, self.window = limit, remembered, window
        self.kept = []

    def is_repeat(self, text, known_at):
        recent = [kept for moment, kept in self.kept[-self.remembered :] if moment > known_at - self.window]
        return any(likeness(text, kept) >= self.limit for kept in recent)

    def add(self, text, known_at):
        if shingles(text):
            self.kept.append((known_at, text))


@st.composite
def edited(draw):
    """Texts of a stream, many of them others with some words changed, dropped or added."""
    texts = []
    for _ in range(draw(st.integers(2, 40))):
        if texts and draw(st.booleans()):
            words = draw(st.sampled_from(texts)).split()
            for _ in range(draw(st.integers(0, 3))):
                place = draw(st.integers(0, len(words)))
                words[place : place + draw(st.integers(0, 1))] = [draw(st.sampled_from(WORDS))] if draw(st.booleans()) else []
        else:
            words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30))
        texts.append(" ".join(words))
    return texts


@settings(max_examples=25, deadline=None)
@given(texts=edited(), hours=st.integers(1, 50), remembered=st.integers(4, 40))
def test_sketches_never_invent_a_repeat_and_find_what_comparing_finds(texts, hours, remembered):
    fast = NearDuplicates(likeness=0.7, remembered=remembered, window=24 * HOUR)
    slow = Compared(0.7, remembered, 24 * HOUR)
    missed = found = 0
    for number, text in enumerate(texts):
        moment = number * hours * HOUR // 10
        said, true = fast.is_repeat(text, moment), slow.is_repeat(text, moment)
        assert true or not said
        missed, found = missed + (true and not said), found + (true and said)
        if not true:
            if said is False and not true:
                fast.add(moment)
            slow.add(text, moment)
    assert missed == 0 or missed <= found  # sketches may fail to find one in a thousand


def test_how_many_are_found():
    """Over 1,500 pairs at the edge of the limit: one in a hundred is missed at most (by the formula one in a thousand at likeness 0.7)."""
    import numpy as np

    draw = np.random.default_rng(0)
    vocabulary = [f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}x" for i in range(600)]
    true = found = 0
    index = NearDuplicates(likeness=0.7, remembered=1 << 13, window=HOUR)
    for _ in range(1_500):
        words = draw.choice(vocabulary, 24).tolist()
        copy = list(words)
        copy[int(draw.integers(0, 24))] = "changed"
        one, other = " ".join(words), " ".join(copy)
        assert not index.is_repeat(one, 0)
        index.add(0)
        if likeness(one, other) >= 0.7:
            true += 1
            found += index.is_repeat(other, 0)
    assert true > 1_200
    assert found >= 0.99 * true


def test_the_oldest_leave_and_memory_does_not_grow():
    index = NearDuplicates(likeness=0.7, remembered=16, window=HOUR)
    held = index.nbytes
    texts = [f"alpha {'b' * n} gamma {'d' * n} epsilon" for n in range(1, 60)]
    for text in texts:
        assert not index.is_repeat(text, 0)
        index.add(0)
    assert (len(index), index.nbytes) == (16, held)
    assert all(index.is_repeat(text, 0) for text in texts[-16:])
    assert not any(index.is_repeat(text, 0) for text in texts[:-16])
    assert not any(index.is_repeat(text, HOUR) for text in texts)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Bitcoin breaks $60,000!", "bitcoin breaks $61,500", 1.0),  # prices, case, punctuation
        ("RT @someone: Bitcoin breaks out https://t.co/x", "Bitcoin breaks out", 1.0),  # who says it and where to read it
        ("a b c d", "a b c e", 1 / 3),  # abc bcd | abc bce
        ("a b", "a b", 1.0),
        ("", "", 0.0),
        ("🚀🚀", "🚀🚀", 0.0),
    ],
)
def test_likeness_by_hand(one, other, expected):
    assert likeness(one, other) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=300))
@example(text="x " * 200)
@example(text="\ud800 broken")
def test_any_text_can_be_asked_about(text):
    index = NearDuplicates(likeness=1.0, remembered=16, window=HOUR)
    assert len(shingles(text)) <= MOST
    assert not index.is_repeat(text, 0)
    index.add(0)
    assert index.is_repeat(text, 0) is bool(shingles(text))


def test_a_repeat_is_found_behind_newer_texts_that_resemble_it():
    """Thirty texts with a quarter of its words exchanged, so that one of them is the newest in each of its chains."""
    rng = stream(3, "resembling")
    words = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)]
    memory = NearDuplicates(likeness=0.7, remembered=256, window=DAY)
    memory.is_repeat(" ".join(words), 0)
    memory.add(0)
    for number in range(30):
        start = int(rng.integers(0, 46))
        others = [f"x{chr(97 + number // 26)}{chr(97 + number % 26)}{chr(97 + i)}" for i in range(15)]
        assert not memory.is_repeat(" ".join([*words[:start], *others, *words[start + 15 :]]), 1)
        memory.add(1)
    assert memory.is_repeat(" ".join(words), 2)


def test_a_text_without_words_takes_no_place():
    memory = NearDuplicates(likeness=0.7, remembered=16, window=DAY)
    memory.is_repeat("bitcoin falls below its average of two hundred days", 0)
    memory.add(0)
    for _ in range(20):
        assert not memory.is_repeat("!!! ...", 1)
        memory.add(1)
    assert len(memory) == 1
    assert memory.is_repeat("bitcoin falls below its average of two hundred days", 2)
