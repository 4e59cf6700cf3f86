"""Asking the model, and holding it to its shapes: an answer that does not fit is an error that names the root, never a silent move.

What is in the arrays (NaN, masks, weights) is checked by the kernels while they read it; `fault` words what they found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ModelError
from cryptoalpha.learn.search import kernels
from cryptoalpha.learn.search.chance import EDGE
from cryptoalpha.learn.search.contract import FLAGS, ChanceModel, Roots, StepModel
from cryptoalpha.learn.search.kernels import FALL, FAN, ROW, Answers
from cryptoalpha.learn.search.kernels_chance import settle
from cryptoalpha.learn.search.tree import Trees

Floats32 = NDArray[np.float32]

FAULTS = {
    kernels.BAD_REWARD: "a reward that is NaN or infinite",
    kernels.BAD_DISCOUNT: "a discount that is NaN or infinite",
    kernels.BAD_VALUE: "a value that is NaN or infinite",
    kernels.BAD_LOGIT: "a logit of a legal action that is NaN or infinite",
    kernels.NO_LEGAL: "a state that is not terminal but has no legal action",
    kernels.BAD_STATE: "a state that holds NaN or infinity",
    kernels.BAD_WEIGHT: "weights of outcomes that are negative, NaN or do not sum to 1",
}


class Asking:
    """The model of one plan, with the buffers that its questions are written into (`[B, ·]`, rows beyond those in use are stale).

    Attributes:
        evaluated: states given to the evaluator so far.
    """

    def __init__(self, model: ChanceModel | StepModel, trees: Trees, roots: Roots) -> None:
        B, D, m = trees.roots, trees.arrays.states.shape[2], max(trees.fanouts, default=1)
        self.model: Any = model
        self.roots = roots
        self.trees = trees
        self.evaluated = 0
        self.requests = np.zeros((B, 6), np.int64)
        self.moves = np.zeros(B, np.int64)
        self.states = np.zeros((B, D), np.float32)
        self.uniforms = np.full((B, m), 0.5)
        self.first = np.zeros(1, np.int64)
        self.no_mask = np.zeros((0, trees.actions), np.bool_)
        self.no_weights = np.zeros((0, 1), np.float32)
        self.nothing = np.zeros(0, np.float32), np.zeros((0, trees.actions), np.float32)

    def answers(self, n: int) -> Answers:
        """What the model says to the first n requests."""
        states, rewards, discounts, terminal, legal, weights = self._outcomes(n) if self.trees.chance else self._step(n)
        asked = states[~terminal] if terminal.any() else states
        values, logits = self.evaluate(asked, self.requests[:n, ROW]) if asked.shape[0] else self.nothing
        return Answers(states, rewards, discounts, terminal, legal, weights, values, logits)

    def evaluate(self, states: Floats32, rows: Any) -> tuple[Floats32, Floats32]:
        """Values `[n]` and logits `[n, A]`."""
        n = states.shape[0]
        self.evaluated += n
        logits, values = self.model.evaluate(states)
        return self.exact(values, (n,), np.float32, "values", rows), self.exact(logits, (n, self.trees.actions), np.float32, "logits", rows)

    def _step(self, n: int) -> tuple[Any, ...]:
        whole = n == self.trees.roots
        step = self.model.step(self.states if whole else self.states[:n], self.moves if whole else self.moves[:n])
        rows = self.requests[:n, ROW]
        return (
            self.exact(step.states, (n, self.states.shape[1]), np.float32, "states", rows),
            self.exact(step.rewards, (n,), np.float32, "rewards", rows),
            self.exact(step.discounts, (n,), np.float32, "discounts", rows),
            self.exact(step.terminal, (n,), np.bool_, "terminal", rows),
            self.no_mask if step.legal is None else self.exact(step.legal, (n, self.trees.actions), np.bool_, "legal", rows),
            self.no_weights,
        )

    def _outcomes(self, n: int) -> tuple[Any, ...]:
        """One call for each number of outcomes that occurs; then the outcome that each request falls on."""
        if n == 1:
            return self._outcomes_of_one()
        D, A, m = self.states.shape[1], self.trees.actions, self.uniforms.shape[1]
        states, rewards, discounts = np.zeros((n, D), np.float32), np.zeros(n, np.float32), np.zeros(n, np.float32)
        terminal, legal, weights = np.zeros(n, np.bool_), self.no_mask, np.zeros((n, m), np.float32)
        for k in np.unique(self.requests[:n, FAN]):
            at = np.flatnonzero(self.requests[:n, FAN] == k)
            rows, size = self.requests[at, ROW], (len(at), int(k))
            # Not in `write_uniforms`, which is compiled into the walk: a limit there makes searches without chance slower by a quarter.
            uniforms = np.clip(self.uniforms[at, :k], EDGE, 1.0 - EDGE)
            fan = self.model.outcomes(self.states[at], self.moves[at], uniforms)
            weights[at, :k] = chances = self.exact(fan.weights, size, np.float32, "weights", rows)
            bad = settle(self.trees.arrays, self.requests, at, chances, ROW, kernels.AT, FALL)
            if bad >= 0:
                raise self.fault(kernels.BAD_WEIGHT, bad)
            pick = np.arange(len(at)), self.requests[at, FALL]
            states[at] = self.exact(fan.states, (*size, D), np.float32, "states", rows)[pick]
            rewards[at] = self.exact(fan.rewards, size[:1], np.float32, "rewards", rows)
            discounts[at] = self.exact(fan.discounts, size, np.float32, "discounts", rows)[pick]
            terminal[at] = self.exact(fan.terminal, size, np.bool_, "terminal", rows)[pick]
            if fan.legal is not None:
                legal = legal if legal.shape[0] else np.ones((n, A), np.bool_)
                legal[at] = self.exact(fan.legal, (*size, A), np.bool_, "legal", rows)[pick]
        return states, rewards, discounts, terminal, legal, weights

    def _outcomes_of_one(self) -> tuple[Any, ...]:
        """`_outcomes` of a single request: one tree asks as often as it simulates, and gathering would take longer than answering."""
        D, A, k, rows = self.states.shape[1], self.trees.actions, int(self.requests[0, FAN]), self.requests[:1, ROW]
        uniforms = np.minimum(np.maximum(self.uniforms[:1, :k], EDGE), 1.0 - EDGE)
        fan = self.model.outcomes(self.states[:1], self.moves[:1], uniforms)
        chances = self.exact(fan.weights, (1, k), np.float32, "weights", rows)
        bad = settle(self.trees.arrays, self.requests, self.first, chances, ROW, kernels.AT, FALL)
        if bad >= 0:
            raise self.fault(kernels.BAD_WEIGHT, bad)
        weights, fall = np.zeros((1, self.uniforms.shape[1]), np.float32), int(self.requests[0, FALL])
        weights[:, :k] = chances
        return (
            self.exact(fan.states, (1, k, D), np.float32, "states", rows)[:, fall],
            self.exact(fan.rewards, (1,), np.float32, "rewards", rows),
            self.exact(fan.discounts, (1, k), np.float32, "discounts", rows)[:, fall],
            self.exact(fan.terminal, (1, k), np.bool_, "terminal", rows)[:, fall],
            self.no_mask if fan.legal is None else self.exact(fan.legal, (1, k, A), np.bool_, "legal", rows)[:, fall],
            weights,
        )

    def exact(self, array: Any, shape: tuple[int, ...], dtype: Any, what: str, rows: Any) -> Any:
        """The array as the kernels need it: of this shape and type, contiguous, writable."""
        if type(array) is np.ndarray and array.dtype == dtype and array.shape == shape and array.flags.carray:
            return array
        array = np.asarray(array)
        if array.shape == shape and (dtype is not np.bool_ or array.dtype.kind in FLAGS):
            return np.array(array, dtype, order="C")
        names = ", ".join(self.roots.name(int(row)) for row in rows[:3]) + (" …" if len(rows) > 3 else "")
        if array.shape != shape:
            wrong = f"of shape {list(array.shape)}, expected {list(shape)}"
        else:
            wrong = f"of type {array.dtype}, expected True or False"
        raise ModelError(f"{names}: the model answered {what} {wrong}; nothing was decided")

    def fault(self, what: int, i: int) -> ModelError:
        """The error of request i."""
        row, node, action = (int(self.requests[i, column]) for column in (ROW, kernels.AT, kernels.MOVE))
        if node >= 0:
            where = f"after action {action} in node {node} the model answered {FAULTS[what]}"
        else:
            where = "no action is legal" if what == kernels.NO_LEGAL else f"the model answered {FAULTS[what]}"
        return ModelError(f"{self.roots.name(row)}: {where}; nothing was decided")

    def overflow(self, row: int) -> ModelError:
        """The error of a tree whose values have left the range of float32."""
        return ModelError(
            f"{self.roots.name(row)}: the values backed up grew beyond float32; nothing was decided", hint="scale the rewards"
        )
