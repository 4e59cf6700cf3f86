"""Free memory goes back to the machine, where the C library would keep it."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

import pytest

from cryptoalpha.app.live.heartbeat import Heartbeat
from cryptoalpha.core.time import HOUR

BLOCK, COUNT = 100_000, 500


def resident() -> int:
    """Bytes of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_a_beat_an_hour_gives_back_what_lies_free(tmp_path: Path):
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    heart = Heartbeat(tmp_path / "journal.sqlite")
    heart.beat(1)
    blocks = [library.malloc(BLOCK) for _ in range(COUNT)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    for block in blocks[:-1]:  # the last one lies above all others and keeps them
        library.free(ctypes.c_void_p(block))
    kept = resident()
    assert heart.beat(HOUR // 2)
    assert kept - resident() < BLOCK * COUNT / 4  # not every few seconds
    assert heart.beat(HOUR + 1)
    assert kept - resident() > BLOCK * COUNT / 2
    library.free(ctypes.c_void_p(blocks[-1]))
    assert json.loads((tmp_path / "heartbeat.json").read_text(encoding="utf-8"))["at"] == HOUR + 1
