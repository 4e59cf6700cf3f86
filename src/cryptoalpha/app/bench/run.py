"""Runs a benchmark by name and says what it measured, in which environment. Format: one object with `bench`, `schema`, `environment`,
`figures` and `notes`; ratios are written so that larger is better, and a peer that is not installed gives `null` and a note."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cryptoalpha.app.output import Table
from cryptoalpha.app.summary import code_version
from cryptoalpha.core.errors import ConfigError

SCHEMA = 1
BENCHES = {
    "engine": ("cryptoalpha.app.bench.engine", "bench_engine"),
    "planner": ("cryptoalpha.app.bench.planner", "bench_planner"),
    "evolution": ("cryptoalpha.app.bench.evolution", "bench_evolution"),
    "networks": ("cryptoalpha.app.bench.networks", "bench_networks"),
    "risk": ("cryptoalpha.app.bench.risk", "bench_risk"),
    "skill": ("cryptoalpha.app.bench.skill", "bench_skill"),
    "drift": ("cryptoalpha.app.bench.drift", "bench_drift"),
    "execution": ("cryptoalpha.app.bench.execution", "bench_execution"),
    "decisions": ("cryptoalpha.app.bench.decisions", "bench_decisions"),
    "streams": ("cryptoalpha.app.bench.streams", "bench_streams"),
    "serving": ("cryptoalpha.app.bench.serving", "bench_serving"),
    "rollout": ("cryptoalpha.app.bench.rollout", "bench_rollout"),
}
"""Where each benchmark is; imported only when it runs. Each takes `repeats` and `advance`, and returns figures and notes."""


@dataclass(frozen=True)
class BenchResult:
    """What one benchmark measured."""

    name: str
    figures: dict[str, float | None]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        return {"bench": self.name, "schema": SCHEMA, "environment": environment(), "figures": self.figures, "notes": list(self.notes)}

    def lines(self) -> list[str | Table]:
        rows = [(key, "not installed" if value is None else f"{value:,.2f}") for key, value in self.figures.items()]
        return [Table(("figure", "value"), rows, f"bench {self.name}"), *self.notes]


def run_bench(name: str, *, repeats: int, advance: Callable[[int], None]) -> BenchResult:
    """Run the benchmark of that name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in BENCHES:
        raise ConfigError(f"no benchmark {name!r}", hint=f"there are: {', '.join(BENCHES)}")
    module, function = BENCHES[name]
    figures, notes = getattr(import_module(module), function)(repeats=repeats, advance=advance)
    return BenchResult(name, figures, notes)


def environment() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "numpy": _installed("numpy"),
        "torch": _installed("torch"),
        "cpu": _cpu(),
        "threads": 1,
        "commit": code_version(),
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
