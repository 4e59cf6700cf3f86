"""Speed of the planner, beside a plain object tree and, where they are installed, mctx and OpenSpiel.

    cryptoalpha bench planner --json --repeats 5

CPU seconds of one core, median of the repeats after a warm-up, all engines in turns, so that a machine that slows down slows all of them.
Everyone plans the same roots in the same world with the same weights (`planner_workload`), 800 simulations each, PUCT, no noise; the
object tree and mctx must also find the same visits. A live decision is one root with the rules that act (`Rules()`).

`tree_share_of_network`: all that a plan takes beyond its network calls (selection, back-up, the world's step, Python), divided by what the
same calls take alone, 64 roots.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from cryptoalpha.app.bench import planner_workload as workload
from cryptoalpha.app.bench.object_tree import ObjectTree, root_visits
from cryptoalpha.app.bench.planner_peers import INSTALL, PeerRun, Peers, one_core
from cryptoalpha.learn.problems.connect4 import Connect4, empty_board
from cryptoalpha.learn.search.contract import Budget, Evaluator, PlanResult, Roots, Rules, StepModel
from cryptoalpha.learn.search.plan import plan

Figures = dict[str, float | None]
PUCT = Rules(root="puct")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    simulations: int = workload.SIMULATIONS
    branching: tuple[int, int] = (28, 28)
    object_roots: int = 64
    object_repeats: int = 3
    """Times that the object tree plans 64 roots: 20 seconds each."""
    peers: bool = True


class Clock:
    """CPU seconds by job, each job once untimed before its first time."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def warm(self, jobs: dict[str, Callable[[], object]]) -> None:
        for name, job in jobs.items():
            job()
            self.seconds[name] = []

    def time(self, name: str, job: Callable[[], object]) -> None:
        started = time.process_time()
        job()
        self.seconds[name].append(time.process_time() - started)

    def median(self, name: str) -> float | None:
        times = self.seconds.get(name)
        return statistics.median(times) if times else None

    def spread(self) -> str:
        return ", ".join(f"{name} {min(times):.3f}–{max(times):.3f} s" for name, times in self.seconds.items() if times)


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
    clock = Clock()
    ours, slow = _our_jobs(sizes), _slow_jobs(sizes)
    asked = _peer_jobs(peers, sizes)
    clock.warm(ours)
    equal, notes = compare_visits(peers, sizes)
    for name, ask in asked.items():
        ask()  # compiles
        clock.seconds[name] = []
    advance(1)
    for repeat in range(repeats):
        for name, job in ours.items():
            clock.time(name, job)
        for name, job in slow.items():
            if name == "object b1" or repeat < sizes.object_repeats:
                clock.seconds.setdefault(name, [])
                clock.time(name, job)
        for name, ask in asked.items():
            clock.seconds[name].append(ask().seconds)
        advance(1)
    notes += [
        f"object tree with {sizes.object_roots} roots: median of {min(repeats, sizes.object_repeats)} repeats, one root after another",
        *(f"{peer} is not installed: {INSTALL}" for peer in peers.missing),
        f"mctx at A = 7, 16 roots: ours {_shown(_ratio(clock, 'mctx a7 b16', 'plan a7 b16'))} times as fast",
        f"network alone, 64 roots, states per second: {_rate(clock, 'net a7 b64', sizes, 64):,.0f} (A = 7), "
        f"{_rate(clock, 'net a21 b64', sizes, 64):,.0f} (A = 21)",
        "spread of the repeats: " + clock.spread(),
    ]
    return _figures(clock, sizes, equal), tuple(notes)


def _figures(clock: Clock, sizes: Sizes, equal: float | None) -> Figures:
    live, scenarios = clock.median("live"), clock.median("scenarios")
    assert live is not None
    assert scenarios is not None
    object_all = _ratio(clock, "object b64", "plan a21 b64")
    return {
        **{f"sims_per_second_b{batch}": _rate(clock, f"plan a21 b{batch}", sizes, batch) for batch in (1, 16, 64, 256)},
        "ratio_object_tree_b1": _ratio(clock, "object b1", "plan a21 b1"),
        "ratio_object_tree_b64": object_all * 64 / sizes.object_roots if object_all is not None else None,
        "ratio_mctx_b1": _ratio(clock, "mctx a21 b1", "plan a21 b1"),
        "ratio_mctx_b16": _ratio(clock, "mctx a21 b16", "plan a21 b16"),
        "ratio_open_spiel_b1": _ratio(clock, "open_spiel", "connect4"),
        "tree_share_of_network_a7": _share(clock, "a7"),
        "tree_share_of_network_a21": _share(clock, "a21"),
        "live_decision_800_ms": 1e3 * live,
        "scenario_dp_784_ms": 1e3 * scenarios,
        "mctx_visits_equal": equal,
    }


def _our_jobs(sizes: Sizes) -> dict[str, Callable[[], object]]:
    nets = {actions: workload.onnx_net(actions) for actions in (7, 21)}
    jobs: dict[str, Callable[[], object]] = {}
    for actions, batch in ((21, 1), (21, 16), (21, 64), (21, 256), (7, 16), (7, 64)):
        world = workload.latent_world(actions, batch)
        model, roots = workload.LatentModel(world, nets[actions]), world.roots
        jobs[f"plan a{actions} b{batch}"] = partial(_plan, model, roots, sizes)
        if batch == 64:
            jobs[f"net a{actions} b64"] = partial(_ask, nets[actions], roots, sizes)
    world = workload.latent_world(21, 1)
    acting = workload.LatentModel(world, nets[21])
    jobs["live"] = lambda: plan(Roots(world.roots), acting, Budget(sizes.simulations), seed=0)
    game = Connect4(workload.connect4_evaluator())
    jobs["connect4"] = lambda: _plan(game, empty_board(), sizes)
    market = workload.LatentMarket(workload.onnx_net(21, value_outputs=21))
    flat = Roots(world.roots, np.array([10]))
    jobs["scenarios"] = lambda: plan(flat, market, Budget(branching=sizes.branching), seed=0)
    return jobs


def _slow_jobs(sizes: Sizes) -> dict[str, Callable[[], object]]:
    tree, roots = latent_tree(21, sizes.object_roots)
    return {
        "object b1": lambda: tree.search(roots[0], sizes.simulations),
        "object b64": lambda: [tree.search(root, sizes.simulations) for root in roots],
    }


def _peer_jobs(peers: Peers, sizes: Sizes) -> dict[str, Callable[[], PeerRun]]:
    if not sizes.peers:
        return {}
    jobs: dict[str, Callable[[], PeerRun]] = {}
    if peers.has("mctx"):
        for actions, batch in ((21, 1), (21, 16), (7, 16)):
            jobs[f"mctx a{actions} b{batch}"] = partial(peers.run, "mctx", actions=actions, batch=batch, simulations=sizes.simulations)
    if peers.has("open_spiel"):
        jobs["open_spiel"] = partial(peers.run, "open_spiel", actions=7, batch=1, simulations=sizes.simulations)
    return jobs


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


def _ask(net: Evaluator, states: workload.Numbers, sizes: Sizes) -> None:
    for _ in range(sizes.simulations):
        net(states)


def _rate(clock: Clock, name: str, sizes: Sizes, batch: int) -> float:
    seconds = clock.median(name)
    assert seconds is not None
    return sizes.simulations * batch / seconds


def _ratio(clock: Clock, theirs: str, ours: str) -> float | None:
    slow, fast = clock.median(theirs), clock.median(ours)
    return slow / fast if slow is not None and fast is not None else None


def _share(clock: Clock, actions: str) -> float:
    whole, network = clock.median(f"plan {actions} b64"), clock.median(f"net {actions} b64")
    assert whole is not None
    assert network is not None
    return (whole - network) / network


def _shown(ratio: float | None) -> str:
    return "? (not installed)" if ratio is None else f"{ratio:.1f}"
