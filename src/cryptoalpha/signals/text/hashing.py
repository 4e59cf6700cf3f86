"""Words and pieces of words as signed counts in a fixed number of places: no vocabulary, nothing learned, the same on every machine.

Each word, each pair of neighbouring words and each run of 3–5 bytes inside a word (its edges marked by spaces) is hashed to a place and a
sign; a sum over many such features keeps inner products right on average, because collisions cancel as often as they add. The hash is
64-bit FNV-1a with the finaliser of MurmurHash3, written out here: Python's own differs from process to process.

Source: Weinberger et al. (2009), "Feature hashing for large scale multitask learning"; Bojanowski et al. (2017) for pieces of words.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

Bytes = npt.NDArray[np.uint8]

WORD, PAIR, PIECE = 1.0, 0.7, 0.3
"""Weights of a word, a pair of words, a piece of a word: a word has about five times as many pieces, so the three blocks weigh alike."""

SHORTEST_PIECE, LONGEST_PIECE = 3, 5

_URL = re.compile(r"https?://\S+|www\.\S+")
_WORDS = re.compile(r"[$#@]?\w+(?:'\w+)?|[!?%]|[^\w\s.,;:()\[\]\"'`/\\|<>*_~&^={}–—-]")
_DIGITS = re.compile(r"\d+")


def normal_words(text: str) -> str:
    """The text as words in small letters between single spaces; numbers become 0, addresses of pages `url`."""
    plain = _URL.sub(" url ", text.lower().replace("’", "'"))
    return " ".join(_WORDS.findall(_DIGITS.sub("0", plain)))


def hashed(text: str, places: int) -> npt.NDArray[np.float64]:
    """Signed counts of the features of one text, scaled to length 1 (all zeros where there is no word). → `[places]`."""
    words = normal_words(text)
    counts = np.zeros(places)
    if words:
        _count(np.frombuffer(f" {words} ".encode("utf-8", "surrogatepass"), np.uint8), counts)
        length = np.sqrt(counts @ counts)
        if length > 0.0:
            counts /= length
    return counts


@njit(cache=True)
def feature_hash(content: Bytes, start: int, stop: int, kind: int) -> np.uint64:
    """64 bits of bytes [`start`, `stop`) and of which kind of feature they are; all arithmetic modulo 2⁶⁴."""
    h = uint64(14695981039346656037) ^ uint64(kind)
    for i in range(start, stop):
        h = (h ^ uint64(content[i])) * uint64(1099511628211)
    h = (h ^ (h >> uint64(33))) * uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> uint64(33))) * uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> uint64(33))


@njit(cache=True)
def _add(counts: npt.NDArray[np.float64], h: np.uint64, weight: float) -> None:
    place = (uint64(h) >> uint64(1)) % uint64(counts.size)
    counts[place] += weight if uint64(h) & uint64(1) else -weight


@njit(cache=True)
def _count(content: Bytes, counts: npt.NDArray[np.float64]) -> None:
    """Add every feature of ` word word … ` (single spaces, one at each end). `[b]`, `[places]`."""
    before = start = 0  # places of the spaces before the last word and before this one
    for stop in range(1, content.size):
        if content[stop] != 32:
            continue
        _add(counts, feature_hash(content, start + 1, stop, 1), WORD)
        if start > 0:
            _add(counts, feature_hash(content, before + 1, stop, 2), PAIR)
        for size in range(SHORTEST_PIECE, LONGEST_PIECE + 1):
            for first in range(start, stop + 2 - size):
                _add(counts, feature_hash(content, first, first + size, 3), PIECE)
        before, start = start, stop
