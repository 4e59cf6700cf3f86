"""Speed, memory and harm of the evolution strategy, beside evotorch's SNES and the sketch's strategy.

    cryptoalpha bench evolution --json --repeats 5

One generation at 10M weights (ten matrices of 1000 × 1000), population 50, with a fitness that costs nothing: CPU seconds of this process,
one thread, median of the repeats after a warm-up, in turns with evotorch. "Ask" with low-rank noise makes the factors of all members, which
is all that a forward through shared weights needs (its own extra cost is in the notes); with full noise it writes all fifty members in
place, one after the other. Ours are user and system seconds together; evotorch's are its user seconds alone, because what the system takes
for its gigabytes of fresh pages (0.01 to 18 s a generation on one machine) says nothing about evotorch; the notes give both.
Memory is the peak of one generation above the state at rest, each in a fresh process; for evotorch that of its first one, the smallest.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torch.nn.functional import linear

from cryptoalpha.app.bench import evolution_finetune as finetune
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.evolution import Evolution, evolve
from cryptoalpha.learn.evolution.noise import members, noise_key, normals
from cryptoalpha.learn.workers import LocalProcesses

Figures = dict[str, float | None]

SIDE, MATRICES = 1_000, 10
POPULATION, SIGMA = 50, 0.02
WORKER_COUNTS = (1, 2, 3)


def bench_evolution(*, repeats: int, advance: Callable[[int], None]) -> tuple[Figures, tuple[str, ...]]:
    """Measure; returns figures by key and notes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        has_peer = find_spec("evotorch") is not None
        speed, speed_notes = _speed(repeats, advance, has_peer=has_peer)
        memory, memory_notes = _memory(has_peer=has_peer)
        harm, harm_notes = _harm()
        identical, workers_note = _workers()
        notes = [*speed_notes, _forward_note(), _generator_note(), *memory_notes, workers_note, *harm_notes]
        if not has_peer:
            notes.append("evotorch is not installed: python -m pip install --group peers")
        return {**speed, **memory, "workers_identical": identical, **harm}, tuple(notes)
    finally:
        torch.set_num_threads(threads)


def ask_tell(*, rank: int, matrices: int = MATRICES, side: int | None = None, write: bool = False) -> Callable[[], None]:
    """One generation of the project's strategy: with full noise (rank 0), or `write`, every member is put in place."""
    weights = {f"layer {number}": torch.zeros(side or SIDE, side or SIDE) for number in range(matrices)}
    strategy = Evolution(weights, EvolutionConfig(population=POPULATION, sigma=SIGMA, rank=rank), seed=0)
    table = stream(0, "bench", "evolution").normal(size=(POPULATION // 2, 2))  # what the members are worth does not change the work
    probe = weights["layer 0"]

    def generation() -> None:
        if rank == 0 or write:
            strategy.evaluate(lambda _: float(probe[0, 0]))
        else:
            words = members(strategy.generation, strategy.pairs)
            held = [tensor.factors(words) for tensor in strategy.tensors]
            assert len(held) == matrices
        strategy.tell(table)

    return generation


def evotorch_snes(*, matrices: int = MATRICES, side: int | None = None) -> Callable[[], None]:
    """One generation of evotorch's SNES on as many weights, with a vectorised fitness that reads one of them."""
    import logging
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it still uses what its own dependencies call outdated
        import evotorch
        from evotorch.algorithms import SNES

    logging.getLogger("evotorch").setLevel(logging.ERROR)
    problem = evotorch.Problem(
        "max",
        lambda rows: rows[:, 0],
        solution_length=matrices * (side or SIDE) ** 2,
        initial_bounds=(-0.01, 0.01),
        vectorized=True,
        dtype=torch.float32,
        device="cpu",
        seed=1,
    )
    searcher = SNES(problem, popsize=POPULATION, stdev_init=SIGMA)
    step: Callable[[], None] = searcher.step
    return step


def _speed(repeats: int, advance: Callable[[int], None], *, has_peer: bool) -> tuple[Figures, list[str]]:
    jobs = {"low rank": ask_tell(rank=1), "low rank, members written": ask_tell(rank=1, write=True), "full": ask_tell(rank=0)}
    for job in jobs.values():  # warm-up
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    peer_step = evotorch_snes() if has_peer else None
    user: list[float] = []
    system: list[float] = []
    if peer_step is not None:
        peer_step()  # its first step only asks
    for _ in range(repeats):
        for name, job in jobs.items():
            started = time.process_time()
            job()
            seconds[name].append(time.process_time() - started)
        if peer_step is not None:
            before = os.times()
            peer_step()
            after = os.times()
            user.append(after.user - before.user)
            system.append(after.system - before.system)
        advance(1)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    peer = statistics.median(user) if user else None
    shown = "; ".join(f"{name} {median[name]:.3f} ({min(times):.3f}–{max(times):.3f})" for name, times in seconds.items())
    if user:
        shown += (
            f"; evotorch SNES {peer:.2f} ({min(user):.2f}–{max(user):.2f}) in user mode"
            f" and {statistics.median(system):.2f} ({min(system):.2f}–{max(system):.2f}) in the system, which the ratios leave out"
        )
    return {
        "ask_tell_10m_seconds": median["low rank"],
        "ask_tell_full_10m_seconds": median["full"],
        "ratio_evotorch_low_rank": peer / median["low rank"] if peer else None,
        "ratio_evotorch_low_rank_written": peer / median["low rank, members written"] if peer else None,
        "ratio_evotorch_full": peer / median["full"] if peer else None,
    }, ["one generation at 10M weights, population 50, CPU seconds, median (range): " + shown]


def _memory(*, has_peer: bool) -> tuple[Figures, list[str]]:
    found = {kind: _peak(kind) for kind in ("low_rank", "full", *(("evotorch",) if has_peer else ()))}
    low, full, peer = found["low_rank"], found["full"], found.get("evotorch")
    shown = ", ".join(f"{kind} {value:,.1f}" for kind, value in found.items() if value is not None)
    notes = [f"peak of one generation above the state at rest, MB, fresh processes: {shown}; the state is three copies (120 MB here)"]
    if low is None or full is None:
        notes = ["memory is measured on Linux only"]
    return {
        "extra_memory_10m_mb": None if low is None or full is None else max(low, full),
        "ratio_evotorch_full_memory": peer / max(full, 0.1) if peer is not None and full is not None else None,
    }, notes


def _peak(kind: str) -> float | None:
    done = subprocess.run(
        [sys.executable, "-m", "cryptoalpha.app.bench.evolution_memory", kind], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1]) if done.stdout.strip() else None


def _harm() -> tuple[Figures, list[str]]:
    """Fine-tuning from an optimum: loss and drift of both strategies at the same σ."""
    start = finetune.trained_task()
    begin = start.loss()
    rows, ratio, drift = [], 0.0, 0.0
    for sigma in (SIGMA, SIGMA / 4):
        config = EvolutionConfig(population=POPULATION, sigma=sigma)
        sketch = finetune.fine_tune_as_sketched(start, sigma)
        ours = finetune.fine_tune(start, config, accept=False)
        held = finetune.fine_tune(start, config, accept=True)
        if sigma == SIGMA:
            ratio, drift = sketch.loss / ours.loss, ours.drift
        rows.append(
            f"σ {sigma:g}: sketch {sketch.loss:.2e} / {sketch.drift:.3f}, ours {ours.loss:.2e} / {ours.drift:.3f}, "
            f"ours with an accept split {held.loss:.2e} / {held.drift:.4f} ({held.undone} of {finetune.GENERATIONS} generations undone)"
        )
    head = f"fine-tuning for {finetune.GENERATIONS} generations from an optimum of loss {begin:.2e}; held-out loss / drift |w − w₀|/|w₀|"
    return {"finetune_drift": drift, "finetune_loss_ratio_to_sketch": ratio}, [head, *rows]


def _workers() -> tuple[float, str]:
    """Whether 1, 2 and 3 worker processes end with the bits of none."""
    ends = set()
    alone = finetune.replica()
    evolve(alone.strategy, alone.fitness, generations=3)
    ends.add(alone.strategy.fingerprint())
    for count in WORKER_COUNTS:
        here = finetune.replica()
        with LocalProcesses(count, finetune.replica) as workers:
            evolve(here.strategy, here.fitness, generations=3, workers=workers)
        ends.add(here.strategy.fingerprint())
    return float(len(ends) == 1), f"weights and moments after 3 generations here and with 1, 2 and 3 processes: {len(ends)} different"


def _forward_note() -> str:
    """What shared weights cost in the forward pass: ten layers of 1000 × 1000, 50 members, 16 samples each."""
    weights = {f"layer {number}": torch.randn(SIDE, SIDE) / SIDE**0.5 for number in range(MATRICES)}
    strategy = Evolution(weights, EvolutionConfig(population=POPULATION, sigma=SIGMA, rank=1), seed=0)
    x = torch.randn(POPULATION, 16, SIDE, generator=torch.Generator().manual_seed(0))

    def forward() -> float:
        started, values = time.process_time(), x
        for weight in weights.values():
            values = torch.tanh(linear(values, weight))
        return time.process_time() - started

    plain, perturbed = [], []
    with torch.no_grad():
        for _ in range(5):
            plain.append(forward())
            with strategy.population():
                perturbed.append(forward())
    ratio = statistics.median(perturbed) / statistics.median(plain)
    return f"a forward of 50 members (16 samples each, ten layers of 1000) costs {ratio:.2f} times one without noise, factors included"


def _generator_note() -> str:
    """Nanoseconds a normal, 16,384 at a time."""
    size, rounds, out = 1 << 14, 200, np.empty(1 << 14, np.float32)
    key, member, held = noise_key(0, "bench", "full"), members(0, 1), torch.empty(1 << 14)
    philox, sfc = np.random.Generator(np.random.Philox(0)), np.random.Generator(np.random.SFC64(0))
    jobs: dict[str, Callable[[], object]] = {
        "own Threefry": lambda: normals(key, member, 0, size),
        "torch normal_": held.normal_,
        "NumPy SFC64": lambda: sfc.standard_normal(out=out, dtype=np.float32),
        "NumPy Philox": lambda: philox.standard_normal(out=out, dtype=np.float32),
    }
    shown = []
    for name, job in jobs.items():
        started = time.process_time()
        for _ in range(rounds):
            job()
        shown.append(f"{name} {(time.process_time() - started) / (rounds * size) * 1e9:.1f}")
    return "nanoseconds a normal: " + ", ".join(shown)
