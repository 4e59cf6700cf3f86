"""Texts as sets of word triples, and sketches that find similar sets without comparing all.

A text's shingles are its runs of three neighbouring words (small letters, numbers as 0; page addresses, names of people and signs
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

from cryptoalpha.signals.text.hashing import Bytes, feature_hash

Hashes = npt.NDArray[np.uint64]

WORDS = 3
"""Words of a shingle."""

MOST = 64
"""Shingles looked at per text, the first ones: a post has 40 words, and of an article the head is what is copied."""

BANDS, ROWS = 16, 3

HTTP, HTTPS, WWW = (np.frombuffer(prefix, np.uint8) for prefix in (b"http://", b"https://", b"www."))

_LETTERS = "a-z\u0080-\u1fff\u3000-\uffff"
"""Small letters of any alphabet; what lies between are signs and pictures."""
_PARTS = re.compile(rf"https?://[^\s]+|www\.[^\s]+|@[0-9_{_LETTERS}]+|[{_LETTERS}]+|[0-9]+")
_PASSED_OVER = ("http://", "https://", "www.", "@")
_DIGITS = "0123456789"
_SEEDS = np.random.default_rng(20230313).integers(1, 1 << 63, BANDS * ROWS, dtype=np.uint64)


def words_of(text: str) -> list[str]:
    """The words that are compared: nobody makes a text another one by a name before it, a link after it or another price in it."""
    parts = (part for part in _PARTS.findall(" ".join(text.lower().split())) if part != "rt" and not part.startswith(_PASSED_OVER))
    return ["0" if part[0] in _DIGITS else part for part in parts][: MOST + WORDS - 1]


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
    content = " ".join(text.lower().split()).encode("utf-8", "surrogatepass")
    return int(_hashes(np.frombuffer(content + b" ", np.uint8), out))


@njit(cache=True)
def _is_letter(content: Bytes, i: int) -> bool:
    """Whether the letter of a word begins at byte `i` of UTF-8, or goes on there."""
    c = content[i]
    if c < 0x80:
        return bool(97 <= c <= 122)
    while content[i] & 0xC0 == 0x80:
        i -= 1
    return bool(content[i] != 0xE2 and content[i] < 0xF0)  # U+2000 to U+2FFF are signs, beyond U+FFFF are pictures


@njit(cache=True)
def _begins(content: Bytes, i: int, what: Bytes) -> bool:
    if i + what.size > content.size:
        return False
    for k in range(what.size):  # noqa: SIM110 - numba compiles loops
        if content[i + k] != what[k]:
            return False
    return True


@njit(cache=True)
def _word_end(content: Bytes, i: int) -> int:
    """Where the word, number, name or address that begins at `i` ends, −1 − end if it does not count; `i` itself if none begins."""
    end = i
    c = content[i]
    if _begins(content, i, HTTP) or _begins(content, i, HTTPS) or _begins(content, i, WWW):
        while content[end] != 32:
            end += 1
        if end > i + (4 if c == 119 else 7 if content[i + 4] == 58 else 8):
            return -1 - end
        end = i
    if c == 64:  # @name
        end = i + 1
        while _is_letter(content, end) or 48 <= content[end] <= 57 or content[end] == 95:
            end += 1
        return -1 - end if end > i + 1 else i
    if 48 <= c <= 57:
        while 48 <= content[end] <= 57:
            end += 1
        return end
    while _is_letter(content, end):
        end += 1
    return -1 - end if end == i + 2 and c == 114 and content[i + 1] == 116 else end  # rt


@njit(cache=True)
def _hashes(content: Bytes, out: Hashes) -> int:
    """Hashes of runs of `WORDS` words of a text in small letters with single spaces, one at its end."""
    words = np.empty(content.size + MOST + WORDS, np.uint8)
    starts = np.empty(MOST + WORDS, np.int64)
    ends = np.empty(MOST + WORDS, np.int64)
    count = length = i = 0
    while i < content.size and count < MOST + WORDS - 1:
        end = _word_end(content, i)
        if end == i:
            i += 1
            continue
        if end > i:
            starts[count] = length
            if 48 <= content[i] <= 57:
                words[length] = 48
                length += 1
            else:
                words[length : length + end - i] = content[i:end]
                length += end - i
            ends[count] = length
            words[length] = 32
            length += 1
            count += 1
        i = end if end > i else -1 - end
    if count == 0:
        return 0
    runs = max(count - WORDS + 1, 1)
    for k in range(runs):
        out[k] = feature_hash(words, starts[k], ends[min(k + WORDS, count) - 1], 7)
    found = np.sort(out[:runs])
    kept = 0
    for k in range(runs):
        if k == 0 or found[k] != found[k - 1]:
            out[kept] = found[k]
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
