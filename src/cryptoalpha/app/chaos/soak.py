"""`python -m cryptoalpha.app.chaos.soak`: months of live trading in minutes, to see whether anything grows.

A real live session on the fake exchange, undisturbed, with bars as fast as it takes them. Memory of the session's process is read after
a warm-up and all along; threads and asyncio tasks are counted at both ends. Exit code 6 where memory grew by more than `--growth` or
something was left running.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

if TYPE_CHECKING:
    from cryptoalpha.app.chaos.session import LiveParts

WARM_UP = 0.2
"""Share of the bars before memory is first believed."""


def soak(bars: int, change: float, seconds: float) -> dict[str, object]:
    """Trade `bars` bars, or as many as fit into `seconds`."""
    from cryptoalpha.app.chaos.exchange import Playground
    from cryptoalpha.app.chaos.schedule import Schedule
    from cryptoalpha.app.chaos.session import open_live
    from cryptoalpha.app.chaos.world import World
    from cryptoalpha.core.clock import VirtualClock
    from cryptoalpha.execution.live.points import nobody
    from cryptoalpha.store.journal import Journal

    world = World(Schedule(seed=1, market="spot", instruments=("BTC/USDT", "ETH/USDT"), bars=bars, change=change))
    memory: list[tuple[int, int]] = []
    orders = fills = row = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, Playground(world, Path(folder)) as playground:
        known_at = world.panel.known_at.tolist()
        before = threading.active_count()
        with Journal(Path(folder) / "journal.sqlite", durable=True, header=world.header()) as journal:
            parts = open_live(
                world,
                journal,
                Path(folder),
                playground.url,
                reached=nobody,
                clock=VirtualClock(),
                known_at=known_at[0],
                wrap=lambda venue: venue,
            )
            at_start = _tasks(parts)
            for row, step in enumerate(world.steps()):
                if row:
                    if parts.broker.pending():
                        parts.drain()
                    playground.advance()
                    parts.market_clock.known(known_at[row])
                parts.clock.advance_to(step.bar.at)
                outcome = parts.engine.step(step)
                orders += len(outcome.review.verdicts)
                fills += len(outcome.happened)
                if row % 1000 == 0:
                    memory.append((row, _resident()))
                    if time.monotonic() - began > seconds:
                        break
            parts.settle(5.0)
            at_end = _tasks(parts)
            parts.close()
        threads = threading.active_count() - before
    warm = [kilobytes for at, kilobytes in memory if at >= WARM_UP * row] or [memory[-1][1]]
    return {
        "bars": row + 1,
        "orders": orders,
        "outcomes": fills,
        "seconds": round(time.monotonic() - began, 1),
        "memory_kb_warm": warm[0],
        "memory_kb_end": warm[-1],
        "memory_growth": round(max(warm) / warm[0] - 1.0, 4),
        "tasks_at_start": at_start,
        "tasks_at_end": at_end,
        "threads_left": threads,
    }


def _resident() -> int:
    """Resident memory of this process, kB, once what lies free is given back, as a session does every hour (`app.live.heartbeat`)."""
    from cryptoalpha.app.live.memory import give_back_memory

    give_back_memory()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _tasks(parts: LiveParts) -> int:
    """Tasks that are alive in the venue's loop, this question not counted."""

    async def count() -> int:
        return len([task for task in asyncio.all_tasks() if not task.done()]) - 1

    return parts.broker._thread.call(count, 10.0)


def main() -> int:
    """Read the command line, soak, print."""
    parser = argparse.ArgumentParser(prog="python -m cryptoalpha.app.chaos.soak", description=__doc__)
    parser.add_argument("--bars", type=int, default=100_000)
    parser.add_argument("--change", type=float, default=0.06, help="share of bars at which an instrument's target changes")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--growth", type=float, default=0.05, help="how much memory may grow after the warm-up")
    chosen = parser.parse_args()
    found = soak(chosen.bars, chosen.change, chosen.seconds)
    print(json.dumps(found, indent=2))
    grew = float(str(found["memory_growth"])) > chosen.growth
    left = int(str(found["tasks_at_end"])) > int(str(found["tasks_at_start"])) or found["threads_left"]
    return 6 if grew or left else 0


if __name__ == "__main__":
    sys.exit(main())
