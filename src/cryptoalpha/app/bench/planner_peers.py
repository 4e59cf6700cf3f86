"""The planner's peers, in a process of their own on one core: mctx (JAX) and OpenSpiel.

    python -m cryptoalpha.app.bench.planner_peers

XLA reads its thread settings when it is loaded, and a gigabyte of JAX has no business in the process that is being measured. The process
answers one JSON line per JSON line asked, so that peers and planner are timed in turns and a machine that slows down slows both.

mctx gets the same weights, world and roots as the planner; its timed call is the compiled search alone, after a warm-up that compiles.
OpenSpiel needs one of its own games: Connect Four, with the same net on 42 inputs, asked by ONNX Runtime. What the net said of a node is
kept between OpenSpiel's separate questions for value and prior, so that each node costs one call, as ours do; neither side shares answers
between two paths to the same board.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from cryptoalpha.core.errors import CryptoAlphaError

INSTALL = "python -m pip install --group peers"
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",
}


@dataclass(frozen=True)
class PeerRun:
    """One search of a peer: CPU seconds, simulations that it made, and visits of the roots `[B, A]` (mctx)."""

    seconds: float
    simulations: int
    visits: list[list[int]]


class Peers:
    """The process, and what it answers. A peer that is not installed is named in `missing`."""

    def __init__(self) -> None:
        wanted = {"mctx": ("jax", "mctx"), "open_spiel": ("pyspiel",)}
        self.missing = tuple(name for name, modules in wanted.items() if any(find_spec(module) is None for module in modules))
        self._process: subprocess.Popen[str] | None = None

    def has(self, engine: str) -> bool:
        return engine not in self.missing

    def run(self, engine: str, *, model: str = "net", actions: int, batch: int, simulations: int) -> PeerRun:
        """One timed search; the first one of its kind also compiles, before the clock starts.

        Raises:
            CryptoAlphaError: if the process died.
        """
        if self._process is None:
            command = [sys.executable, "-m", "cryptoalpha.app.bench.planner_peers"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD}
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"engine": engine, "model": model, "actions": actions, "batch": batch, "simulations": simulations}
        answered = ""
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            answered = self._process.stdout.readline()
        if not answered:
            raise CryptoAlphaError(
                f"the process that runs {engine} ended with code {self._process.wait()}", hint="its error is printed above"
            )
        found = json.loads(answered)
        return PeerRun(found["seconds"], found["simulations"], found["visits"])

    def close(self) -> None:
        """End the process: it stops when nothing more can be asked."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def one_core() -> Iterator[None]:
    """Hold this process and its children on one CPU, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class MctxSearch:
    """`mctx.muzero_policy` without noise on the benchmark's world, compiled for one batch size."""

    def __init__(self, model: str, actions: int, batch: int, simulations: int) -> None:
        import jax
        import mctx

        params, roots, evaluate, advance = _jax_net(actions, batch) if model == "net" else _jax_table(actions, batch)

        def recurrent(params: Any, key: Any, action: Any, state: Any) -> Any:
            following, reward, discount = advance(params, state, action)
            logits, value = evaluate(params, following)
            return mctx.RecurrentFnOutput(reward=reward, discount=discount, prior_logits=logits, value=value), following

        def search(params: Any, roots: Any, key: Any) -> Any:
            logits, value = evaluate(params, roots)
            root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=roots)
            found = mctx.muzero_policy(params, key, root, recurrent, simulations, dirichlet_fraction=0.0)
            return found.search_tree.summary().visit_counts

        self._search = jax.jit(search).lower(params, roots, jax.random.PRNGKey(0)).compile()
        self._arguments = (params, roots, jax.random.PRNGKey(0))
        self._simulations = simulations * batch

    def run(self) -> PeerRun:
        started = time.process_time()
        visits = np.asarray(self._search(*self._arguments))
        return PeerRun(time.process_time() - started, self._simulations, visits.astype(int).tolist())


def _jax_net(actions: int, batch: int) -> tuple[Any, ...]:
    import jax
    import jax.numpy as jnp
    import torch

    from cryptoalpha.app.bench.planner_workload import DISCOUNT, KEEP, latent_world, sketch_net

    net, world = sketch_net(actions), latent_world(actions, batch)

    def weights(layers: Any) -> list[tuple[Any, Any]]:
        linear = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
        return [(jnp.asarray(layer.weight.numpy().T.copy()), jnp.asarray(layer.bias.numpy())) for layer in linear]

    params = {
        "trunk": weights(net.trunk),
        "policy": weights(net.policy),
        "value": weights(net.value),
        "moves": jnp.asarray(world.moves),
        "rewards": jnp.asarray(world.rewards),
    }

    def layers(entered: Any, parts: list[tuple[Any, Any]], *, end_with_relu: bool) -> Any:
        for position, (matrix, bias) in enumerate(parts):
            entered = entered @ matrix + bias
            if end_with_relu or position < len(parts) - 1:
                entered = jax.nn.relu(entered)
        return entered

    def evaluate(params: Any, states: Any) -> tuple[Any, Any]:
        features = layers(states, params["trunk"], end_with_relu=True)
        return layers(features, params["policy"], end_with_relu=False), layers(features, params["value"], end_with_relu=False)[:, 0]

    def advance(params: Any, states: Any, action: Any) -> tuple[Any, Any, Any]:
        return KEEP * states + params["moves"][action], params["rewards"][action], jnp.full(states.shape[0], DISCOUNT)

    return params, jnp.asarray(world.roots), evaluate, advance


def _jax_table(actions: int, batch: int) -> tuple[Any, ...]:
    import jax.numpy as jnp

    from cryptoalpha.app.bench.planner_workload import TABLE_KEEP, TABLE_STATES, TableModel

    table = TableModel(actions)
    params = {"logits": jnp.asarray(table.logits), "values": jnp.asarray(table.values), "rewards": jnp.asarray(table.rewards)}

    def evaluate(params: Any, states: Any) -> tuple[Any, Any]:
        return params["logits"][states], params["values"][states]

    def advance(params: Any, states: Any, action: Any) -> tuple[Any, Any, Any]:
        following = (states * actions + action + 1) % TABLE_STATES
        return following, params["rewards"][states, action], jnp.full(states.shape[0], TABLE_KEEP, jnp.float32)

    return params, jnp.asarray(table.roots(batch)[:, 0].astype(np.int32)), evaluate, advance


class OpenSpielSearch:
    """OpenSpiel's Python MCTS with PUCT and a net, from the first position of Connect Four."""

    def __init__(self, simulations: int) -> None:
        import pyspiel
        from open_spiel.python.algorithms import mcts

        from cryptoalpha.app.bench.planner_workload import connect4_evaluator

        ask = connect4_evaluator()

        class NetEvaluator(mcts.Evaluator):  # type: ignore[misc]
            """Both questions about a node from one answer of the net, kept while a search lasts, by the moves that lead to it."""

            def __init__(self) -> None:
                self.kept: dict[tuple[int, ...], tuple[Any, float]] = {}

            def _ask(self, state: Any) -> tuple[Any, float]:
                key = tuple(state.history())
                if key not in self.kept:
                    mover = state.current_player()
                    planes = np.asarray(state.observation_tensor(mover), np.float32).reshape(3, -1)
                    logits, values = ask((planes[mover] - planes[1 - mover])[None])
                    self.kept[key] = logits[0], float(values[0])
                return self.kept[key]

            def evaluate(self, state: Any) -> Any:
                value = self._ask(state)[1]
                return np.array([value, -value] if state.current_player() == 0 else [-value, value])

            def prior(self, state: Any) -> Any:
                actions = state.legal_actions()
                logits = self._ask(state)[0][actions]
                weights = np.exp(logits - logits.max())
                return list(zip(actions, (weights / weights.sum()).tolist(), strict=True))

        self._game = pyspiel.load_game("connect_four")
        self._simulations = simulations
        self._evaluator = NetEvaluator
        self._mcts = mcts

    def run(self) -> PeerRun:
        bot = self._mcts.MCTSBot(
            self._game,
            1.25,
            self._simulations,
            self._evaluator(),
            solve=False,
            random_state=np.random.RandomState(0),
            child_selection_fn=self._mcts.SearchNode.puct_value,
        )
        state = self._game.new_initial_state()
        started = time.process_time()
        root = bot.mcts_search(state)
        return PeerRun(time.process_time() - started, root.explore_count, [])


def serve() -> None:
    """Answer questions until the input ends."""
    import torch

    torch.set_num_threads(1)
    ready: dict[tuple[Any, ...], MctxSearch | OpenSpielSearch] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = tuple(asked.values())
        if key not in ready:
            if asked["engine"] == "mctx":
                ready[key] = MctxSearch(asked["model"], asked["actions"], asked["batch"], asked["simulations"])
            else:
                ready[key] = OpenSpielSearch(asked["simulations"])
        found = ready[key].run()
        print(json.dumps({"seconds": found.seconds, "simulations": found.simulations, "visits": found.visits}), flush=True)


if __name__ == "__main__":
    serve()
