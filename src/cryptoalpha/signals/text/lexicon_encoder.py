"""The encoder that needs no download: what the lexicon found, and which words occur.

A vector has 384 numbers: 32 readings of the rules (tone, sums and extremes of the weights, counts by kind of term, marks, capitals,
figures, names) and 352 places of hashed words and pieces of words. Nothing is learned: the same text has the same vector on every machine.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import get_args

import numpy as np

from cryptoalpha.signals.text.encoder import Vectors
from cryptoalpha.signals.text.hashing import hashed
from cryptoalpha.signals.text.lexicon import LONGEST_TEXT, Kind, read, tone_of
from cryptoalpha.store.tables import Floats

RULES = 32
PLACES = 352
_GRAMMAR = "1"
"""Raised whenever the readings or the hashing change a vector."""

_KINDS: tuple[Kind, ...] = get_args(Kind)
_CAPITALS = re.compile(r"\b[A-Z]{3,}\b")
_FIGURES = re.compile(r"\d")
_NAMES = re.compile(r"\$[A-Za-z]{2,6}\b")
_TAGS = re.compile(r"#\w+")
_URL = re.compile(r"https?://|www\.")
_CLAUSES = re.compile(r"[.;!?]\s+|\s+[-–—]\s+")


def rule_readings(text: str) -> list[float]:
    """The 32 readings of one text, each of order 1."""
    text = text[:LONGEST_TEXT]
    reading = read(text)
    kinds = Counter(kind for kind, _ in reading.terms)
    weights = [weight for kind, weight in reading.terms if kind in ("tone", "move", "growing", "inverse")]
    good = sum(weight for weight in weights if weight > 0.0)
    bad = -sum(weight for weight in weights if weight < 0.0)
    clauses = _CLAUSES.split(text)
    tokens = Counter(reading.tokens)
    ups, downs = (sum(count for token, count in tokens.items() if token[0] in signs and token[-1] == "%") for signs in ("+", "-−"))
    letters = sum(letter.isalpha() for letter in text)
    tone = reading.tone
    readings = [
        tone, max(tone, 0.0), max(-tone, 0.0), abs(tone),
        tone_of(clauses[0]), tone_of(clauses[-1]),
        math.tanh(good / 4.0), math.tanh(bad / 4.0), (good - bad) / (good + bad + 1.0),
        max(weights, default=0.0) / 4.0, min(weights, default=0.0) / 4.0,
        *(math.log1p(kinds[kind]) for kind in _KINDS),  # 8
        float(not weights),
        float(reading.tokens[-1:] == ["?"]), math.log1p(tokens["?"]), math.log1p(tokens["!"]),
        math.log1p(ups), math.log1p(downs),
        math.log1p(len(_FIGURES.findall(text))) / 2.0,
        sum(letter.isupper() for letter in text) / max(letters, 1),
        math.log1p(len(_CAPITALS.findall(text))),
        math.log1p(len(_NAMES.findall(text))), math.log1p(len(_TAGS.findall(text))), float(bool(_URL.search(text))),
        math.log1p(len(text.split())) / 3.0,
    ]  # fmt: skip
    assert len(readings) == RULES
    return readings


@lru_cache(maxsize=1 << 12)
def _vector(text: str) -> Vectors:
    """One text, `[384]`; the texts of the newest bar are, but for a few, those of the bar before."""
    return np.concatenate((np.array(rule_readings(text), np.float32), hashed(text[:LONGEST_TEXT], PLACES)), dtype=np.float32)


class LexiconEncoder:
    """The default tier: readings of the lexicon and hashed words, 384 wide, thousands of texts per second.

    Satisfies `TextEncoder` and `PolarEncoder`.
    """

    name = "lexicon"
    width = RULES + PLACES

    @cached_property
    def revision(self) -> str:
        """Grammar and hash of the word list: another list makes other vectors."""
        words = files("cryptoalpha.signals.text").joinpath("lexicon_words.txt").read_bytes()
        return f"{_GRAMMAR}-{hashlib.sha256(words).hexdigest()[:12]}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """`n` texts → float32 `[n, 384]`."""
        vectors = np.zeros((len(texts), self.width), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = _vector(text)
        return vectors

    def polarity(self, texts: Sequence[str]) -> Floats:
        """The lexicon's tone of `n` texts, `[n]`."""
        return np.array([tone_of(text) for text in texts], np.float64)
