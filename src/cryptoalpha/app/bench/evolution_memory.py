"""Peak memory of one generation at 10M weights, in a process of its own: `python -m cryptoalpha.app.bench.evolution_memory low_rank`.

Prints megabytes of resident memory at the peak of ask + tell above what lay in memory just before, the strategy built and everything
imported, compiled and tried on 64 weights, and freed memory given back to the system first. Linux only: elsewhere a process cannot forget
its earlier peak, and nothing is printed.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptoalpha.app.bench.evolution import ask_tell, evotorch_snes

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SMALL = 8
"""Side of the matrix that everything is tried on: too small to leave room in which a transient could hide."""


def main(kind: str) -> None:
    """Measure one kind: `low_rank`, `full` or `evotorch`."""
    kinds: dict[str, Callable[..., Callable[[], None]]] = {
        "low_rank": partial(ask_tell, rank=1),
        "full": partial(ask_tell, rank=0),
        "evotorch": evotorch_snes,
    }
    build = kinds[kind]
    build(matrices=1, side=SMALL)()
    generation = build()
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        FORGET.write_text("5", encoding="ascii")  # the peak starts again from what is resident now
        before = _kibibytes("VmRSS")
    except (OSError, AttributeError):
        return
    generation()
    print((_kibibytes("VmHWM") - before) * 1024 / 1e6)


def _kibibytes(name: str) -> int:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    main(sys.argv[1])
