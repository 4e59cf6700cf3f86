"""Speed of the planner, beside a plain object tree and, where they are installed, mctx and OpenSpiel.

    cryptoalpha bench planner --json --repeats 5

CPU seconds of one core after a warm-up. Engines are timed in turns, those that are compared one right after the other; a ratio is the
median of the turns' ratios, so that a machine that slows down for a while slows both sides. What lasts less than a tenth of a second is
run five times a turn. Everyone plans the same roots in the same world with the same weights (`planner_workload`), 800 simulations each,
PUCT, no noise; the object tree and mctx must also find the same visits. A live decision is one root with the rules that act (`Rules()`).

`tree_share_of_network`: all that a plan takes beyond its network calls (selection, back-up, the world's step, Python), divided by what the
same calls take alone, 64 roots.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from cryptoalpha.app.bench import planner_workload as workload
from cryptoalpha.app.bench.object_tree import ObjectTree, root_visits
from cryptoalpha.app.bench.planner_peers import INSTALL, Peers, one_core
from cryptoalpha.learn.problems.connect4 import Connect4, empty_board
from cryptoalpha.learn.search.contract import Budget, PlanResult, Roots, Rules, StepModel
from cryptoalpha.learn.search.plan import plan

Figures = dict[str, float | None]
PUCT = Rules(root="puct")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    simulations: int = workload.SIMULATIONS
    branching: tuple[int, int] = (28, 28)
    object_roots: int = 64
    object_turns: int = 3
    """Turns in which the object tree plans 64 roots: 20 seconds each."""
    peers: bool = True


@dataclass(frozen=True)
class Job:
    """Something to time: what it returns is the CPU seconds that it took."""

    name: str
    run: Callable[[], float]
    times: int = 1
    """Runs of one turn; their mean is the turn's time."""
    turns: int | None = None
    """Turns in which it is timed at most."""


class Times:
    """CPU seconds of each job by turn."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def turn(self, jobs: list[Job], number: int) -> None:
        for job in jobs:
            if job.turns is None or number < job.turns:
                self.seconds.setdefault(job.name, []).append(statistics.fmean(job.run() for _ in range(job.times)))

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, theirs: str, ours: str) -> float | None:
        """How many times as long they take; None where one was not run."""
        pairs = zip(self.seconds.get(theirs, ()), self.seconds.get(ours, ()), strict=False)
        return statistics.median([slow / fast for slow, fast in pairs] or [math.nan]) if theirs in self.seconds else None

    def spread(self) -> str:
        return ", ".join(f"{name} {min(times):.3f}–{max(times):.3f} s" for name, times in self.seconds.items())


def bench_planner(*, repeats: int, advance: Callable[[int], None], sizes: Sizes = Sizes()) -> tuple[Figures, tuple[str, ...]]:
    """Measure; returns figures by key and notes. About four minutes with peers, two without."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_core(), Peers() as peers:
            return _bench(repeats, advance, sizes, peers)
    finally:
        torch.set_num_threads(threads)


def _bench(repeats: int, advance: Callable[[int], None], sizes: Sizes, peers: Peers) -> tuple[Figures, tuple[str, ...]]:
    jobs, times = _jobs(sizes, peers), Times()
    for job in jobs:
        if job.turns is None:  # the others are long, and their code is warm by then
            job.run()
    equal, notes = compare_visits(peers, sizes)
    advance(1)
    for number in range(repeats):
        times.turn(jobs, number)
        advance(1)
    network = {actions: sizes.simulations * 64 / times.median(f"net a{actions} b64") for actions in (7, 21)}
    notes += [
        f"object tree with {sizes.object_roots} roots: median of {min(repeats, sizes.object_turns)} turns, one root after another",
        *(f"{peer} is not installed: {INSTALL}" for peer in peers.missing),
        f"network alone, 64 roots: {network[7]:,.0f} states per second (A = 7), {network[21]:,.0f} (A = 21)",
        "spread of the turns: " + times.spread(),
    ]
    other = times.ratio("mctx a7 b16", "plan a7 b16")
    if other is not None:
        notes.append(f"ratios to mctx are at A = 21; at A = 7 with 16 roots it is {other:.1f}")
    return _figures(times, sizes, equal), tuple(notes)


def _figures(times: Times, sizes: Sizes, equal: float | None) -> Figures:
    object_all = times.ratio("object b64", "plan a21 b64")
    assert object_all is not None
    return {
        **{f"sims_per_second_b{batch}": sizes.simulations * batch / times.median(f"plan a21 b{batch}") for batch in (1, 16, 64, 256)},
        "ratio_object_tree_b1": times.ratio("object b1", "plan a21 b1"),
        "ratio_object_tree_b64": object_all * 64 / sizes.object_roots,
        "ratio_mctx_b1": times.ratio("mctx a21 b1", "plan a21 b1"),
        "ratio_mctx_b16": times.ratio("mctx a21 b16", "plan a21 b16"),
        "ratio_open_spiel_b1": times.ratio("open_spiel", "connect4"),
        **{f"tree_share_of_network_a{actions}": _share(times, actions) for actions in (7, 21)},
        "live_decision_800_ms": 1e3 * times.median("live"),
        "scenario_dp_784_ms": 1e3 * times.median("scenarios"),
        "mctx_visits_equal": equal,
    }


def _share(times: Times, actions: int) -> float:
    whole = times.ratio(f"plan a{actions} b64", f"net a{actions} b64")
    assert whole is not None
    return whole - 1


def _jobs(sizes: Sizes, peers: Peers) -> list[Job]:
    """All that is timed; what is compared stands side by side."""
    nets = {actions: workload.onnx_net(actions) for actions in (7, 21)}
    tree, roots = latent_tree(21, sizes.object_roots)
    acting, one = workload.LatentModel(workload.latent_world(21, 1), nets[21]), workload.latent_world(21, 1).roots
    market, flat = workload.LatentMarket(workload.onnx_net(21, value_outputs=21)), Roots(one, np.array([10]))
    game = Connect4(workload.connect4_evaluator())

    def planned(actions: int, batch: int, times: int = 1) -> Job:
        world = workload.latent_world(actions, batch)
        model = workload.LatentModel(world, nets[actions])
        return Job(f"plan a{actions} b{batch}", timed(lambda: _plan(model, world.roots, sizes)), times)

    def network(actions: int) -> Job:
        states = workload.latent_world(actions, 64).roots
        return Job(f"net a{actions} b64", timed(lambda: [nets[actions](states) for _ in range(sizes.simulations)]))

    def mctx(actions: int, batch: int, times: int = 1) -> list[Job]:
        ask = partial(peers.run, "mctx", actions=actions, batch=batch, simulations=sizes.simulations)
        return [Job(f"mctx a{actions} b{batch}", lambda: ask().seconds, times)] if sizes.peers and peers.has("mctx") else []

    def open_spiel() -> list[Job]:
        ask = partial(peers.run, "open_spiel", actions=7, batch=1, simulations=sizes.simulations)
        return [Job("open_spiel", lambda: ask().seconds, 5)] if sizes.peers and peers.has("open_spiel") else []

    def all_roots() -> None:
        for root in roots:
            tree.search(root, sizes.simulations)

    return [
        *(planned(21, 1, 5), Job("object b1", timed(lambda: tree.search(roots[0], sizes.simulations)), 5), *mctx(21, 1, 5)),
        Job("live", timed(lambda: plan(Roots(one), acting, Budget(sizes.simulations), seed=0)), 5),
        Job("scenarios", timed(lambda: plan(flat, market, Budget(branching=sizes.branching), seed=0)), 5),
        *(Job("connect4", timed(lambda: _plan(game, empty_board(), sizes)), 5), *open_spiel()),
        *(planned(21, 16), *mctx(21, 16), planned(7, 16), *mctx(7, 16)),
        *(planned(7, 64), network(7), planned(21, 64), network(21), Job("object b64", timed(all_roots), turns=sizes.object_turns)),
        planned(21, 256),
    ]


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """CPU seconds of a call in this process."""

    def run() -> float:
        started = time.process_time()
        call()
        return time.process_time() - started

    return run


def compare_visits(peers: Peers, sizes: Sizes) -> tuple[float | None, list[str]]:
    """Share of trees whose root visits equal mctx's (None without mctx), and what was compared."""
    notes = []
    found = {"object tree": _equal_to_object_tree(sizes)}
    if sizes.peers and peers.has("mctx"):
        found["mctx, the net in float32"] = _equal_to_mctx(peers, sizes, "net")
        found["mctx, a table without a net"] = _equal_to_mctx(peers, sizes, "table")
    for name, (same, trees) in found.items():
        notes.append(f"root visits equal to the {name}: {same} of {trees} trees")
    pairs = [pair for name, pair in found.items() if name.startswith("mctx")]
    return (sum(same for same, _ in pairs) / sum(trees for _, trees in pairs) if pairs else None), notes


def _equal_to_mctx(peers: Peers, sizes: Sizes, kind: str) -> tuple[int, int]:
    same = trees = 0
    for actions in (7, 21):
        for batch in (1, 16):
            theirs = np.array(peers.run("mctx", model=kind, actions=actions, batch=batch, simulations=sizes.simulations).visits)
            ours = visits_of(kind, actions, batch, sizes.simulations)
            same += int((ours == theirs).all(axis=1).sum())
            trees += batch
    return same, trees


def _equal_to_object_tree(sizes: Sizes) -> tuple[int, int]:
    """With the net: as rounding differs between a batch of 1 in torch and ONNX Runtime, a near-tie may fall differently."""
    same = trees = 0
    for actions in (7, 21):
        tree, roots = latent_tree(actions, 4)
        ours = visits_of("net", actions, 4, sizes.simulations)
        theirs = np.array([root_visits(tree.search(root, sizes.simulations)) for root in roots])
        same += int((ours == theirs).all(axis=1).sum())
        trees += len(theirs)
    return same, trees


def visits_of(kind: str, actions: int, batch: int, simulations: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Our root visits `[B, A]` in the latent world (`net`) or in the table's."""
    model: StepModel
    if kind == "table":
        model = workload.TableModel(actions)
        roots = model.roots(batch)
    else:
        world = workload.latent_world(actions, batch)
        model, roots = workload.LatentModel(world, workload.onnx_net(actions)), world.roots
    found = plan(Roots(roots), model, Budget(simulations), seed=0, rules=PUCT).visits
    assert found is not None
    return found


def latent_tree(actions: int, batch: int) -> tuple[ObjectTree, list[torch.Tensor]]:
    """The object tree in the latent world, asking torch state by state, and its roots."""
    net, world = workload.sketch_net(actions), workload.latent_world(actions, batch)
    moves, rewards = torch.from_numpy(world.moves), world.rewards.tolist()
    keep, discount = float(workload.KEEP), float(workload.DISCOUNT)

    def evaluate(state: torch.Tensor) -> tuple[list[float], float]:
        with torch.inference_mode():
            logits, value = net(state[None])
            return torch.softmax(logits[0], 0).tolist(), value.item()

    def advance(state: torch.Tensor, action: int) -> tuple[torch.Tensor, float, float]:
        with torch.inference_mode():
            return keep * state + moves[action], rewards[action], discount

    return ObjectTree(evaluate, advance), list(torch.from_numpy(world.roots))


def _plan(model: StepModel, roots: workload.Numbers, sizes: Sizes) -> PlanResult:
    return plan(Roots(roots), model, Budget(sizes.simulations), seed=0, rules=PUCT)
