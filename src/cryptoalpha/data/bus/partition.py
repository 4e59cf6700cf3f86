"""Which partition a message goes to: that of its key, as Kafka's own clients compute it, so order holds wherever it travels.

Source: MurmurHash2 (A. Appleby), with the seed and the sign bit cleared as in Apache Kafka's `Utils.murmur2` and default partitioner.
"""

from __future__ import annotations

import struct
from functools import lru_cache

_SEED, _MIX, _SHIFT, _WORD = 0x9747B28C, 0x5BD1E995, 24, 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit hash of some bytes, unsigned."""
    words, rest = len(data) // 4, len(data) % 4
    state = _SEED ^ len(data)
    for (word,) in struct.iter_unpack("<I", data[: 4 * words]):
        mixed = word * _MIX & _WORD
        mixed = (mixed ^ mixed >> _SHIFT) * _MIX & _WORD
        state = (state * _MIX & _WORD) ^ mixed
    if rest:
        state = (state ^ int.from_bytes(data[4 * words :], "little")) * _MIX & _WORD
    state = (state ^ state >> 13) * _MIX & _WORD
    return state ^ state >> 15


@lru_cache(maxsize=65_536)
def partition_of(key: str, partitions: int) -> int:
    """The partition of a key among so many. Keys are few and come again, so the answers are remembered."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
