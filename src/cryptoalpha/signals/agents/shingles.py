"""Texts as sets of word triples, and sketches that find similar sets without comparing all.

A text's shingles are its runs of three neighbouring words (small letters, numbers as 0; page addresses, names of people and punctuation
left out); a text of fewer words is one shingle. The likeness of two texts is Jaccard's: shingles in both over shingles in either.

A sketch holds the smallest of 48 hashes; in 16 bands of 3, two texts of likeness J share a band with probability 1 − (1 − J³)¹⁶: 99.9 %
at 0.7, 88 % at 0.5. Whoever shares one is compared exactly, so sketches never make a repeat, they only fail to find one in a thousand.

Source: Broder (1997), "On the resemblance and containment of documents"; Leskovec, Rajaraman & Ullman (2014), chapter 3, for the bands.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from cryptoalpha.signals.text.hashing import feature_hash

Hashes = npt.NDArray[np.uint64]

WORDS = 3
"""Words of a shingle."""

MOST = 64
"""Shingles looked at per text, the first ones: a post has 40 words, and of an article the head is what is copied."""

BANDS, ROWS = 16, 3

_NOISE = re.compile(r"https?://\S+|www\.\S+|@\w+|\brt\b")
_WORD = re.compile(r"[^\W\d_]+|\d+")
_DIGITS = re.compile(r"\d+")
_SEEDS = np.random.default_rng(20230313).integers(1, 1 << 63, BANDS * ROWS, dtype=np.uint64)


def words_of(text: str) -> list[str]:
    """The words that are compared: nobody makes a text another one by a name before it, a link after it or another price in it."""
    return _DIGITS.sub("0", " ".join(_WORD.findall(_NOISE.sub(" ", text.lower().replace("’", "'"))))).split()[: MOST + WORDS - 1]


def shingles(text: str) -> frozenset[str]:
    """The shingles of a text, written out: the slow reference, and what the hashes stand for."""
    words = words_of(text)
    if len(words) < WORDS:
        return frozenset([" ".join(words)] if words else ())
    return frozenset(" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1))


def likeness(one: str, other: str) -> float:
    """Jaccard's likeness of two texts, 0 to 1; texts without words are like nothing."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b) if a and b else 0.0


def shingle_hashes(text: str, out: Hashes) -> int:
    """Distinct 64-bit hashes of a text's shingles, rising, into `out` `[MOST]`; how many."""
    words = " ".join(words_of(text))
    if not words:
        return 0
    content = np.frombuffer(f"{words} ".encode("utf-8", "surrogatepass"), np.uint8)
    return int(_hashes(content, out))


@njit(cache=True)
def _hashes(content: npt.NDArray[np.uint8], out: Hashes) -> int:
    """Hashes of runs of `WORDS` words of `word word … ` (a space after each)."""
    starts = np.empty(MOST + WORDS, np.int64)
    ends = np.empty(MOST + WORDS, np.int64)
    count = begin = 0
    for place in range(content.size):
        if content[place] == 32:
            starts[count], ends[count] = begin, place
            count += 1
            begin = place + 1
            if count == MOST + WORDS - 1:
                break
    runs = max(count - WORDS + 1, 1)
    for i in range(runs):
        out[i] = feature_hash(content, starts[i], ends[min(i + WORDS, count) - 1], 7)
    found = np.sort(out[:runs])
    kept = 0
    for i in range(runs):
        if i == 0 or found[i] != found[i - 1]:
            out[kept] = found[i]
            kept += 1
    return kept


@njit(cache=True)
def band_keys(hashes: Hashes, count: int, seeds: Hashes, out: Hashes) -> None:
    """One key per band of a set of hashes: what similar sets share. `[MOST]`, `[BANDS × ROWS]` → `[BANDS]`."""
    for band in range(BANDS):
        key = uint64(band + 1) * uint64(0x9E3779B97F4A7C15)
        for row in range(ROWS):
            seed = seeds[band * ROWS + row]
            least = uint64(0xFFFFFFFFFFFFFFFF)
            for i in range(count):
                x = (hashes[i] ^ seed) * uint64(0xC4CEB9FE1A85EC53)
                x ^= x >> uint64(29)
                if x < least:
                    least = x
            key = (key ^ least) * uint64(0xFF51AFD7ED558CCD)
            key ^= key >> uint64(32)
        out[band] = key


@njit(cache=True)
def jaccard(one: Hashes, ones: int, other: Hashes, others: int) -> float:
    """Likeness of two rising sets."""
    i = j = both = 0
    while i < ones and j < others:
        if one[i] == other[j]:
            both += 1
            i += 1
            j += 1
        elif one[i] < other[j]:
            i += 1
        else:
            j += 1
    return both / (ones + others - both)


def seeds() -> Hashes:
    """The seeds of the sketches: the same on every machine."""
    return _SEEDS.copy()
