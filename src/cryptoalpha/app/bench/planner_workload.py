"""What every planner of the benchmark plans: one net with random weights, one latent world, the same numbers for all of them.

The net is the sketch's (100 → 512 → 512 → 256, heads 128 and 64) with He's weights, so that priors and values differ as much as a trained
net's do: trees become lopsided and deep, which is hard on selection and on nothing else. The world is x' = .9·x + move[a], reward[a],
discount .99: cheap beside the net, and the same four operations in NumPy, torch and JAX.

A second world without a net (`TableModel`) looks priors and values up, so that two engines see the same bits and must agree exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.search.contract import Booleans, Draws, Evaluator, Floats, Gains, Integers, Step
from cryptoalpha.learn.search.evaluators import OnnxEvaluator
from cryptoalpha.nets.config import PolicyValueConfig
from cryptoalpha.nets.onnx_writer import write_onnx
from cryptoalpha.nets.policy_value import PolicyValueNet

Numbers = NDArray[np.float32]

SEED = 3
KEEP, DISCOUNT = np.float32(0.9), np.float32(0.99)
SIMULATIONS = 800
TABLE_STATES, TABLE_KEEP = 65_536, 0.5


@dataclass(frozen=True)
class Latent:
    """The latent world's numbers. Shapes: moves `[A, D]`, rewards `[A]`, roots `[B, D]`."""

    moves: Numbers
    rewards: Numbers
    roots: Numbers


def latent_world(actions: int, batch: int, *, width: int = 100) -> Latent:
    """Moves of a size that keeps a state's variance at 1, and small rewards."""
    rng = stream(SEED, "bench", "planner", "world", actions)
    moves = np.sqrt(1 - KEEP**2) * rng.standard_normal((actions, width))
    rewards = 0.1 * rng.standard_normal(actions)
    roots = stream(SEED, "bench", "planner", "roots").standard_normal((batch, width))
    return Latent(moves.astype(np.float32), rewards.astype(np.float32), roots.astype(np.float32))


def sketch_net(actions: int, *, width: int = 100, value_outputs: int | None = None) -> PolicyValueNet:
    """The sketch's net with He's weights (variance 2/inputs before a ReLU, 1/inputs at the end) from a fixed seed."""
    net = PolicyValueNet(PolicyValueConfig(state_width=width), actions, value_outputs=value_outputs)
    rng = stream(SEED, "bench", "planner", "weights", actions, width)
    ends = {net.policy[-1], net.value[-1]}
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, torch.nn.Linear):
                gain = 1.0 if layer in ends else 2.0
                drawn = rng.standard_normal(tuple(layer.weight.shape)) * np.sqrt(gain / layer.in_features)
                layer.weight.copy_(torch.from_numpy(drawn.astype(np.float32)))
                layer.bias.zero_()
    return net.eval().requires_grad_(False)


class LatentModel:
    """The latent world as the planner asks for it."""

    def __init__(self, world: Latent, evaluator: Evaluator) -> None:
        self.actions = len(world.moves)
        self._moves, self._rewards = world.moves, world.rewards
        self._evaluator = evaluator

    def evaluate(self, states: Floats) -> tuple[Floats, Floats]:
        return self._evaluator(states)

    def step(self, states: Floats, actions: Integers) -> Step:
        rows = len(states)
        following = KEEP * states
        following += self._moves[actions]
        return Step(following, self._rewards[actions], np.full(rows, DISCOUNT), np.zeros(rows, np.bool_))


class TableModel:
    """A world without arithmetic: state s is a number, action a leads to (s·A + a + 1) mod 65,536, priors and values are looked up.

    Rewards and values are multiples of 1/1024 and the discount is ½, so that no engine has to round the sums on its way up differently.
    """

    def __init__(self, actions: int) -> None:
        rng = stream(SEED, "bench", "planner", "table", actions)
        self.actions = actions
        self.logits = (rng.integers(-2048, 2049, (TABLE_STATES, actions)) / 1024).astype(np.float32)
        self.values = (rng.integers(-1024, 1025, TABLE_STATES) / 1024).astype(np.float32)
        self.rewards = (rng.integers(-256, 257, (TABLE_STATES, actions)) / 1024).astype(np.float32)

    def roots(self, batch: int) -> Numbers:
        return stream(SEED, "bench", "planner", "table roots").integers(0, TABLE_STATES, (batch, 1)).astype(np.float32)

    def evaluate(self, states: Floats) -> tuple[Floats, Floats]:
        index = states[:, 0].astype(np.int64)
        return self.logits[index], self.values[index]

    def step(self, states: Floats, actions: Integers) -> Step:
        index = states[:, 0].astype(np.int64)
        following = (index * self.actions + actions + 1) % TABLE_STATES
        rows = len(states)
        return Step(
            following.astype(np.float32)[:, None],
            self.rewards[index, actions],
            np.full(rows, TABLE_KEEP, np.float32),
            np.zeros(rows, np.bool_),
        )


class LatentMarket:
    """A price taker's world around the same net, as V(x, ·) over 21 positions: x' = .9·x + move·z, return = .001·x₀ + .01·z.

    z is logistic, because that quantile function needs no library: z = ln(u/(1−u)).
    """

    discount = float(DISCOUNT)
    allowed: Booleans | None = None

    def __init__(self, evaluator: Evaluator, *, positions: int = 21, width: int = 100) -> None:
        self.positions = np.linspace(-1.0, 1.0, positions)
        self._evaluator = evaluator
        self._move = latent_world(1, 1, width=width).moves[0]
        self._costs = 0.001 * np.abs(self.positions[None, :, None] - self.positions[None, None, :])

    def draw(self, states: Floats, uniforms: Floats) -> Draws:
        z = np.log(uniforms / (1 - uniforms))
        following = (KEEP * states)[:, None, :] + z.astype(np.float32)[:, :, None] * self._move
        expected = 0.001 * states[:, 0].astype(np.float64)
        return Draws(following, expected[:, None] + 0.01 * z, expected, np.full(z.shape, 1 / z.shape[1]))

    def gains(self, states: Floats, returns: Floats) -> Gains:
        return Gains(returns[:, :, None] * self.positions)

    def costs(self, states: Floats) -> Floats:
        return self._costs

    def values(self, states: Floats) -> Floats:
        return self._evaluator(states)[1]

    def logits(self, states: Floats) -> Floats | None:
        return None


def onnx_net(actions: int, *, width: int = 100, value_outputs: int | None = None) -> OnnxEvaluator:
    """The net as it runs live."""
    return OnnxEvaluator(write_onnx(sketch_net(actions, width=width, value_outputs=value_outputs)).data)


def connect4_evaluator() -> OnnxEvaluator:
    """The sketch's net on the 42 numbers of a Connect Four board: the one game that OpenSpiel and we both have."""
    return onnx_net(7, width=42)
