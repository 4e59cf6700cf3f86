"""The encoder without a download: readings of rules and hashed words, the same everywhere."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from cryptoalpha.signals.text.hashing import feature_hash, hashed, normal_words
from cryptoalpha.signals.text.lexicon import tone_of
from cryptoalpha.signals.text.lexicon_encoder import PLACES, RULES, LexiconEncoder, rule_readings

MASK = (1 << 64) - 1


def slow_hash(content: bytes, kind: int) -> int:
    """FNV-1a and the finaliser of MurmurHash3 with Python's whole numbers."""
    h = 14695981039346656037 ^ kind
    for byte in content:
        h = ((h ^ byte) * 1099511628211) & MASK
    h = ((h ^ (h >> 33)) * 0xFF51AFD7ED558CCD) & MASK
    h = ((h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53) & MASK
    return h ^ (h >> 33)


def slow_hashed(text: str, places: int) -> np.ndarray:
    """Words, pairs and pieces one by one."""
    counts = np.zeros(places)
    words = [word.encode() for word in normal_words(text).split(" ")]
    features = [(word, 1, 1.0) for word in words]
    features += [(a + b" " + b, 2, 0.7) for a, b in itertools.pairwise(words)]
    for word in words:
        edged = b" " + word + b" "
        features += [(edged[i : i + n], 3, 0.3) for n in (3, 4, 5) for i in range(len(edged) - n + 1)]
    for content, kind, weight in features:
        h = slow_hash(content, kind)
        counts[(h >> 1) % places] += weight if h & 1 else -weight
    return counts / np.sqrt(counts @ counts)


def test_the_hash_has_its_golden_value():
    content = np.frombuffer(b"bitcoin", np.uint8)
    assert int(feature_hash(content, 0, 7, 1)) == slow_hash(b"bitcoin", 1) == 0x13228A0F7F251A2


def test_plain_fnv_agrees_with_its_published_vector():
    """FNV-1a of "foobar" is 0x85944171f73967e8; the finaliser is undone to see it."""
    undo_first, undo_second = pow(0xFF51AFD7ED558CCD, -1, 1 << 64), pow(0xC4CEB9FE1A85EC53, -1, 1 << 64)

    def unshift(h: int) -> int:
        return h ^ (h >> 33)

    h = int(feature_hash(np.frombuffer(b"foobar", np.uint8), 0, 6, 0))
    h = unshift(unshift(unshift(h) * undo_second & MASK) * undo_first & MASK)
    assert h == 0x85944171F73967E8


@pytest.mark.parametrize("text", ["Bitcoin rises 5% in 24 hours!", "ETH", "naïve €uro", "x https://a.b/c?d=1 y", "a b"])
def test_hashed_words_agree_with_the_slow_way(text):
    np.testing.assert_allclose(hashed(text, 97), slow_hashed(text, 97), atol=1e-12)


def test_words_are_compared_without_capitals_numbers_and_addresses():
    assert normal_words("BTC's  up 5.2% – see https://x.y/z, $SOL #moon!") == "btc's up 0 0 % see url $sol #moon !"


def test_a_vector_is_the_same_in_another_process():
    code = (
        "import sys; from cryptoalpha.signals.text.lexicon_encoder import LexiconEncoder as E;"
        "sys.stdout.write(E().encode(['Bitcoin falls despite ETF approval?', '']).tobytes().hex())"
    )
    child = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", code], env=child, capture_output=True, text=True, check=True).stdout
    vectors = LexiconEncoder().encode(["Bitcoin falls despite ETF approval?", ""])
    assert said == vectors.tobytes().hex()
    assert vectors[0, 0] == pytest.approx(tone_of("Bitcoin falls despite ETF approval?"))
    assert float(vectors[0, RULES:] @ vectors[0, RULES:]) == pytest.approx(1.0, abs=1e-6)
    assert not vectors[1, RULES:].any()


def test_the_revision_changes_with_the_word_list(monkeypatch):
    before = LexiconEncoder().revision
    assert before == LexiconEncoder().revision
    from cryptoalpha.signals.text import lexicon_encoder

    monkeypatch.setattr(lexicon_encoder, "_GRAMMAR", "next")
    assert LexiconEncoder().revision != before


def test_readings_say_what_the_rules_found():
    good, bad = rule_readings("Bitcoin surges after ETF approval"), rule_readings("Exchange hacked, bitcoin plunges!")
    assert good[0] > 0.3 > -0.3 > bad[0]
    assert good[6] > 0.0 == good[7]
    assert bad[7] > 0.0 == bad[6]
    assert rule_readings("Will it rise?")[20] == 1.0
    assert rule_readings("It will rise")[20] == 0.0
    assert bad[22] > 0.0 == good[22]  # exclamation marks


def test_readings_stay_of_order_one():
    text = "BITCOIN!!! +5% -3% $BTC $ETH #a #b surges, plunges; not? " * 200
    assert np.abs(rule_readings(text)).max() < 8.0
    assert np.isfinite(LexiconEncoder().encode([text, "\ud800 lone surrogate", "\0"])).all()
    assert PLACES + RULES == LexiconEncoder.width == 384
