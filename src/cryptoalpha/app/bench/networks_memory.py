"""Memory and time of one training step, in a process of its own: `python -m cryptoalpha.app.bench.networks_memory ours 256`.

Kinds: `ours` and `plain`, the five pair steps of a block at so many positions; `genome`, a whole forward and backward pass of the genome of
the `seed` preset at so many bars, every block computed again in the backward pass. Prints two numbers: megabytes of resident memory at
the peak above what lay in memory just before, everything imported, the weights there and a small step made; and CPU seconds of a step
(`genome`: of that one step; otherwise of a second one, the first having paid for fresh pages). Linux only: elsewhere a process cannot
forget its earlier peak, and nothing is printed.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from cryptoalpha.app.bench.networks_models import genome_step
from cryptoalpha.app.bench.networks_workload import cpu_seconds, pair_work, train_step

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SMALL = 8
"""Positions of the small step: too few to leave room in which a transient could hide."""


def main(kind: str, positions: int) -> None:
    """Measure `ours`, `plain` or `genome`."""
    torch.set_num_threads(1)
    step, again = genome_step(positions) if kind == "genome" else _pair_step(kind, positions)
    before = forget_peak()
    if before is None:
        return
    first = cpu_seconds(step)
    peak = resident("VmHWM") - before
    print(peak, cpu_seconds(step) if again else first)


def _pair_step(kind: str, positions: int) -> tuple[Callable[[], None], bool]:
    small, work = pair_work(SMALL), pair_work(positions)
    train_step(getattr(small, kind), small.z, small.mask)
    return partial(train_step, getattr(work, kind), work.z, work.mask), True


def forget_peak() -> float | None:
    """Let the peak start again from what is resident now: that in megabytes, or None where a process cannot."""
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        FORGET.write_text("5", encoding="ascii")
        return resident("VmRSS")
    except (OSError, AttributeError):
        return None


def resident(name: str) -> float:
    """A line of the process's status (`VmRSS` now, `VmHWM` at the peak), in megabytes."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
