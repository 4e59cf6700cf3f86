"""A policy/value network that answers one state at a time, compiled: what a search of a single tree asks, thousands of times a second.

The network is the ONNX graph that `nets.onnx_writer` writes: a trunk of linear layers with ReLU and two heads. Its matrices are read from
the graph and laid out one after the other. With one state a call, time goes into fetching the matrices from memory; about half of all
hidden units are 0 after a ReLU, and the weights that leave them are never fetched. Every row is computed by itself: its answer has the same
bits whatever is asked beside it.

When it is opened it is held against ONNX Runtime on random states: what the graph says and what is computed here are the same network.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.search.contract import Floats
from cryptoalpha.learn.search.evaluators import Answers, OnnxEvaluator

TOLERANCE = 1e-5
"""Largest difference to ONNX Runtime, relative to the size of the answers."""

PROBES = 16
LINE = 16
"""Floats in one line of a processor's cache: where a matrix may begin."""

PARTS = ("trunk", "policy", "value")


class Layers(NamedTuple):
    """A network as the kernels read it: layers of the trunk, then two of the policy head, then two of the value head.

    Shapes: weights `[·]` all matrices `[inputs, outputs]`, each followed by its biases; places `[L, 3]` where a layer's matrix begins, its
    inputs and its outputs.
    """

    weights: NDArray[np.float32]
    places: NDArray[np.int64]


class Room(NamedTuple):
    """Room to compute in, `[W]` of the widest layer; `active`: numbers of the inputs that are not 0."""

    found: NDArray[np.float32]
    other: NDArray[np.float32]
    active: NDArray[np.int64]


@njit(cache=True, nogil=True)
def accumulate(weights: Any, begin: int, width: int, inputs: Any, count: int, active: Any, out: Any) -> None:
    """out `[width]` += the rows of a matrix times the inputs that are not 0, eight rows at once."""
    n = 0
    for k in range(count):  # no branch: which units are 0 is as good as random, and a wrong guess costs more than the write
        active[n] = k
        n += inputs[k] != 0.0
    i = 0
    while i + 8 <= n:
        a, b, c, d, e, f, g, h = (
            active[i], active[i + 1], active[i + 2], active[i + 3], active[i + 4], active[i + 5], active[i + 6], active[i + 7]
        )  # fmt: skip
        xa, xb, xc, xd, xe, xf, xg, xh = inputs[a], inputs[b], inputs[c], inputs[d], inputs[e], inputs[f], inputs[g], inputs[h]
        wa, wb = weights[begin + a * width : begin + (a + 1) * width], weights[begin + b * width : begin + (b + 1) * width]
        wc, wd = weights[begin + c * width : begin + (c + 1) * width], weights[begin + d * width : begin + (d + 1) * width]
        we, wf = weights[begin + e * width : begin + (e + 1) * width], weights[begin + f * width : begin + (f + 1) * width]
        wg, wh = weights[begin + g * width : begin + (g + 1) * width], weights[begin + h * width : begin + (h + 1) * width]
        for j in range(width):
            left = (xa * wa[j] + xb * wb[j]) + (xc * wc[j] + xd * wd[j])
            out[j] += left + ((xe * we[j] + xf * wf[j]) + (xg * wg[j] + xh * wh[j]))
        i += 8
    while i < n:
        x, row = inputs[active[i]], weights[begin + active[i] * width : begin + (active[i] + 1) * width]
        for j in range(width):
            out[j] += x * row[j]
        i += 1


@njit(cache=True, nogil=True)
def linear(net: Any, layer: int, inputs: Any, active: Any, out: Any) -> None:
    """out ← inputs · matrix + biases."""
    begin, count, width = net.places[layer, 0], net.places[layer, 1], net.places[layer, 2]
    biases = begin + count * width
    for j in range(width):
        out[j] = net.weights[biases + j]
    accumulate(net.weights, begin, width, inputs, count, active, out)


@njit(cache=True, nogil=True)
def rectify(out: Any, width: int) -> None:
    """out ← max(out, 0); NaN stays."""
    for j in range(width):
        out[j] = np.float32(0.0) if out[j] < np.float32(0.0) else out[j]


@njit(cache=True, nogil=True)
def head(net: Any, layer: int, found: Any, hidden: Any, active: Any, answer: Any) -> None:
    """The two layers of a head, from what the trunk found."""
    linear(net, layer, found, active, hidden)
    rectify(hidden, net.places[layer, 2])
    linear(net, layer + 1, hidden, active, answer)


@njit(cache=True, nogil=True)
def finish(net: Any, room: Any, logits: Any, values: Any) -> None:
    """Logits `[A]` and values `[1]` from the first layer's sums in `room.found`."""
    depth = net.places.shape[0] - 4
    found, other = room.found, room.other
    rectify(found, net.places[0, 2])
    for layer in range(1, depth):
        linear(net, layer, found, room.active, other)
        rectify(other, net.places[layer, 2])
        found, other = other, found
    head(net, depth, found, other, room.active, logits)
    head(net, depth + 2, found, other, room.active, values)


@njit(cache=True, nogil=True)
def answer_rows(net: Any, room: Any, states: Any, logits: Any, values: Any) -> None:
    """Logits `[n, A]` and values `[n]` of states `[n, D]`, one after the other."""
    for i in range(states.shape[0]):
        linear(net, 0, states[i], room.active, room.found)
        finish(net, room, logits[i], values[i : i + 1])


class RowNetwork:
    """The graph of a policy/value network with one value, asked row by row; an `Evaluator`.

    Args:
        graph: bytes of the ONNX graph, as `nets.onnx_writer` writes it.
        digest: SHA-256 that the bytes must have; None: any.

    Shapes:
        states `[n, D]` → logits `[n, A]`, values `[n]`; both belong to the caller.

    Raises:
        ModelError: if the bytes are not the ones meant or no such graph, if ONNX Runtime answers something else, or (on a call) for
            another width.
    """

    def __init__(self, graph: bytes, *, digest: str | None = None) -> None:
        runtime = OnnxEvaluator(graph, digest=digest)
        self.name, self.digest = runtime.name, runtime.digest
        self.state_width, self.actions = runtime.state_width, runtime.actions
        self.layers = _layers(graph, self.state_width, self.actions, runtime.value_outputs)
        self.room = room_for(self.layers)
        states = stream(0, "row network", self.state_width).standard_normal((PROBES, self.state_width)).astype(np.float32)
        for what, ours, theirs in zip(("logits", "values"), self(states), runtime(states), strict=True):
            difference, size = float(np.abs(ours - theirs).max()), float(np.abs(theirs).max())
            if not difference <= TOLERANCE * max(size, TOLERANCE):
                raise ModelError(f"{self.name}: {what} computed row by row differ from ONNX Runtime by {difference:.1e} (size {size:.1e})")

    def __call__(self, states: Floats) -> Answers:
        if states.ndim != 2 or states.shape[1] != self.state_width:
            raise ModelError(f"{self.name} takes states of shape [n, {self.state_width}], got {list(states.shape)}")
        logits, values = np.empty((len(states), self.actions), np.float32), np.empty(len(states), np.float32)
        answer_rows(self.layers, self.room, np.ascontiguousarray(states, np.float32), logits, values)
        return logits, values


def room_for(layers: Layers) -> Room:
    """Room to compute a network in."""
    widest = int(layers.places[:, 1:].max())
    return Room(np.zeros(widest, np.float32), np.zeros(widest, np.float32), np.zeros(widest, np.int64))


def _layers(graph: bytes, width: int, actions: int, value_outputs: int | None) -> Layers:
    import onnx
    from onnx import numpy_helper

    named = {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(graph).graph.initializer}
    pattern = re.compile(r"(trunk|policy|value)\.(\d+)\.weight")
    found = sorted((PARTS.index(match[1]), int(match[2]), name) for name in named if (match := pattern.fullmatch(name)))
    pairs = [(named[name], named[name.removesuffix("weight") + "bias"]) for _, _, name in found]
    depth, last = sum(part == 0 for part, _, _ in found), len(pairs) - 1
    fits = depth >= 1 and last == depth + 3 and value_outputs is None
    if fits:
        sources = (*range(-1, depth), depth, depth - 1, depth + 2)  # which layer feeds each: both heads read the trunk's last
        feeds = [width if i < 0 else pairs[i][1].size for i in sources]
        fits = all(w.shape == (n, b.size) and w.dtype == b.dtype == np.float32 for (w, b), n in zip(pairs, feeds, strict=True))
        fits = fits and (pairs[depth + 1][1].size, pairs[last][1].size) == (actions, 1)
    if not fits:
        raise ModelError(f"the graph is no trunk with two heads of two layers: {[name for _, _, name in found]}")
    places, begin = np.zeros((len(pairs), 3), np.int64), 0
    for layer, (matrix, bias) in enumerate(pairs):
        places[layer] = begin, *matrix.shape
        begin += -(-(matrix.size + bias.size) // LINE) * LINE
    weights = _aligned(begin)
    for (start, inputs, outputs), (matrix, bias) in zip(places.tolist(), pairs, strict=True):
        end = start + inputs * outputs
        weights[start:end], weights[end : end + outputs] = matrix.ravel(), bias
    return Layers(weights, places)


def _aligned(size: int) -> NDArray[np.float32]:
    """Zeros `[size]` that begin with a line of the cache."""
    memory = np.zeros(size + LINE, np.float32)
    skip = -(memory.ctypes.data // memory.itemsize) % LINE
    return memory[skip : skip + size]
