"""Benchmark `decisions`: how fast the whole loop decides, and what its learning parts reach where the optimum is known.

Each part runs once per commit and is kept in `.bench/decisions`, so that a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptoalpha.app.summary import code_version
from cryptoalpha.core.errors import WorkerDiedError
from cryptoalpha.store.whole_file import write_whole

KEPT = Path(".bench") / "decisions"
FUSION_SEEDS, OU_SEEDS, COURNOT_SEEDS = 10, 4, 3
MANY = 800
"""Simulations of a live bar (`fusion.search.live_simulations`), beside the 64 of a replay."""

Part = Callable[[], Mapping[str, float]]


def bench_decisions(*, repeats: int, advance: Callable[[int], None], kept: Path = KEPT) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Figures and notes. `repeats` plays no part: seeds are stated, and live bars are counted by the hundred. Some twenty-five minutes."""
    parts: dict[str, Part] = {
        "speed": _speed, "fusion": _fusion, "noise": _noise, "simulations": _simulations, "agent": _agent, "league": _league,
    }  # fmt: skip
    found: dict[str, Mapping[str, float]] = {}
    for name, part in parts.items():
        found[name] = once(kept, name, part)
        advance(1)
    speed, fusion, noise, many, agent, league = (found[name] for name in parts)
    figures: dict[str, float | None] = {
        "full_loop_bars_per_second": speed["full_loop_bars_per_second"],
        "live_decision_p50_ms": speed["live_decision_p50_ms"],
        "live_decision_p99_ms": speed["live_decision_p99_ms"],
        "fusion_ic_over_equal": fusion["fused_over_equal"],
        "fusion_ic_over_oracle": fusion["fused_of_oracle"],
        "ou_share_of_optimum": agent["ou_share_mean"],
        "cournot_distance": league["cournot_distance"],
    }
    notes = (
        "speed: eight simulated assets, hourly, everything switched on: all sources, a regime model, a network that guides the fusion, "
        "value functions of the agents; networks of the preset `small`, all untrained, which costs the same time",
        f"live: CPU time of {speed['live_bars']:.0f} bars, of it signals {speed['live_signals_p50_ms']:.0f} ms (median); by the wall clock "
        f"{speed['live_wall_p50_ms']:.0f} ms (median) and {speed['live_wall_p99_ms']:.0f} ms (p99); the full loop runs on one core",
        f"fusion: {FUSION_SEEDS} seeds of a planted edge that changes its source; IC of who acted {_with_error(fusion, 'ic_fused')}, "
        f"equal {_with_error(fusion, 'ic_equal')}, ridge {_with_error(fusion, 'ic_ridge')}, Hedge {_with_error(fusion, 'ic_hedge')}, "
        f"oracle {_with_error(fusion, 'ic_oracle')}",
        f"noise: {FUSION_SEEDS} seeds in which nobody knows anything; IC of the search {_with_error(noise, 'ic_search')}, of who acted "
        f"{_with_error(noise, 'ic_fused')}; the search is in charge of {noise['share_of_bars_searched_acts']:.1%} of the bars and claims "
        f"nothing in {noise['share_of_bars_nothing_claimed']:.0%}",
        f"simulations: {MANY} instead of 64 move the direction by {many['direction_mean_difference']:.4f} in the mean (correlation "
        f"{many['direction_correlation']:.3f}) and cost {many['milliseconds_many']:.0f} ms a bar instead of {many['milliseconds_few']:.0f}",
        f"agent: mean of {OU_SEEDS} seeds, worst {agent['ou_share_worst']:.3f}; a myopic agent reaches {agent['ou_myopic']:.3f}",
        f"league: the worst of {COURNOT_SEEDS} seeds; of the exploitability {league['cournot_exploitability_share']:.3f} is left",
    )
    return figures, notes


def once(kept: Path, name: str, part: Part) -> Mapping[str, float]:
    """The figures of a part: those kept of this very commit, else measured and kept."""
    file, commit = kept / f"{name}.json", code_version()
    figures = None if commit == "unknown" else _figures_of(file, commit)
    if figures is None:
        figures = {key: float(value) for key, value in part().items()}
        kept.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({"commit": commit, "figures": figures}, indent=1) + "\n")
    return figures


def _figures_of(file: Path, commit: str) -> Mapping[str, float] | None:
    """What `file` keeps of `commit`; none where it is absent, of another commit, or not ours."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return {key: float(value) for key, value in document["figures"].items()} if document["commit"] == commit else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _with_error(figures: Mapping[str, float], name: str) -> str:
    mean, error = figures.get(f"{name}_mean", math.nan), figures.get(f"{name}_error", math.nan)
    return f"{mean:.3f} ± {error:.3f}"


def _speed() -> Mapping[str, float]:
    """In a process of its own: the memory and the threads of the other parts must not count."""
    module = "cryptoalpha.app.bench.decisions_speed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, check=False, env=environment)
    if done.returncode or not done.stdout:
        raise WorkerDiedError(f"{module} ended with {done.returncode}: {done.stderr.strip()[-500:]}", hint=f"run it: python -m {module}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _fusion() -> Mapping[str, float]:
    from cryptoalpha.app.bench.decisions_fusion import planted_fusion

    return planted_fusion(range(FUSION_SEEDS))


def _noise() -> Mapping[str, float]:
    from cryptoalpha.app.bench.decisions_fusion import noise_fusion

    return noise_fusion(range(FUSION_SEEDS))


def _simulations() -> Mapping[str, float]:
    from cryptoalpha.app.bench.decisions_fusion import simulations_compared

    return simulations_compared(many=MANY)


def _agent() -> Mapping[str, float]:
    from cryptoalpha.app.bench.decisions_agent import ou_share_of_optimum

    return ou_share_of_optimum(OU_SEEDS, self_play=False)


def _league() -> Mapping[str, float]:
    from cryptoalpha.app.bench.decisions_league import cournot

    return cournot(range(COURNOT_SEEDS))
