"""Properties of the tone of any text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.signals.text.lexicon import mentions, tone, tone_of

VOCABULARY = (
    "bitcoin surges plunges not but despite sharply slightly losses profit , . ? ! rally fears hack gains +5% -3% all-time high up down"
)
WORDS = st.sampled_from(VOCABULARY.split(" "))
SENTENCES = st.lists(WORDS, max_size=30).map(" ".join)


@settings(max_examples=50)
@given(text=st.one_of(st.text(max_size=200), SENTENCES))
def test_tone_is_bounded_and_repeatable(text):
    assert -1.0 < tone_of(text) < 1.0
    assert tone([text, text]).tolist() == [tone_of(text)] * 2


@settings(max_examples=50)
@given(text=SENTENCES)
def test_tone_knows_neither_capitals_nor_surrounding_space(text):
    assert tone_of(f"  {text.upper()} ") == tone_of(text)


@settings(max_examples=50)
@given(text=st.text(max_size=100), book=st.lists(st.sampled_from(["BTC", "ETH", "LINK", "SIM1", "A+B"]), unique=True))
def test_mentions_is_a_part_of_the_book_in_its_order(text, book):
    named = mentions(text, tuple(book))
    assert list(named) == [asset for asset in book if asset in named]
    assert mentions(f"{text} {' '.join(book)}", tuple(book)) == tuple(book)
