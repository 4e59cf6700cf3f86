"""Benchmark `execution`: how fast an order leaves, how long a comparison of the books takes, and what the chaos suite found.

All of it runs against the fake exchange on loopback, in processes of their own, with the journal's fsync on. The chaos suite goes on where
it was stopped, and a result of the same commit is taken as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import WorkerDiedError

SCHEDULES = 320
KEPT = Path(".chaos")
"""Where `make chaos` keeps its verdicts."""


def bench_execution(*, repeats: int, advance: Callable[[int], None]) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Figures and notes. The median run of `repeats` (at most three) counts for the delays."""
    runs = []
    for _ in range(min(repeats, 3)):
        runs.append(_run("cryptoalpha.app.bench.execution_wire"))
        advance(1)
    wire = sorted(runs, key=lambda run: float(run["decision_to_wire_p99_ms"]))[len(runs) // 2]
    chaos = _run("cryptoalpha.app.chaos", "--schedules", str(SCHEDULES), "--keep", str(KEPT), "--json", may_fail=True)
    advance(1)
    figures: dict[str, float | None] = {
        "decision_to_wire_p50_ms": wire["decision_to_wire_p50_ms"],
        "decision_to_wire_p99_ms": wire["decision_to_wire_p99_ms"],
        "reconcile_1000_orders_ms": wire["reconcile_ms"],
        "chaos_schedules": float(chaos["schedules"]),
        "chaos_kills": float(chaos["kills"]),
        "chaos_violations": float(len(chaos["violations"])),
    }
    notes = (
        f"decision to wire: {wire['orders']:.0f} orders of one session, from the agent's decision to the request's arrival at the exchange",
        "reconcile: all questions of one comparison and their evaluation, with that many orders and trades in journal, ledger and venue",
        f"chaos: {chaos['lives']} lives, {chaos['orders']} orders, {sum(chaos['faults'].values())} faults struck; seeds from 0",
        *(f"violation: {one['violation']} ({one['command']})" for one in chaos["violations"]),
    )
    return figures, notes


def _run(module: str, *arguments: str, may_fail: bool = False) -> dict[str, Any]:
    """The JSON that a module prints, run as a process of its own: what forks must have no threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False, env=environment)
    if not done.stdout or (done.returncode and not may_fail):
        raise WorkerDiedError(
            f"{module} ended with {done.returncode}: {done.stderr.strip()[-500:]}", hint=f"run it alone: python -m {module}"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
