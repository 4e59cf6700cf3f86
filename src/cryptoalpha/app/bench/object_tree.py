"""The baseline: MuZero's PUCT as it is usually written in Python, one object per node, one network call per simulation.

It chooses and backs up exactly as the planner's arrays do (and as mctx does), so its visit counts are the planner's; only the data
structure and the batch differ. It is written to be read and not to be slow: children are created from the prior when their parent is
expanded, their states only when they are visited, and the network is asked once per simulation, in inference mode.

Source: Schrittwieser et al. (2020), "Mastering Atari, Go, chess and shogi by planning with a learned model", appendix B; min-max over a
parent and its visited children as in mctx, `qtransform_by_parent_and_siblings`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Evaluate = Callable[["Tensor"], tuple[list[float], float]]
"""State → probabilities of the actions, and value."""
Advance = Callable[["Tensor", int], tuple["Tensor", float, float]]
"""State and action → next state, reward, discount."""


class Node:
    """A state in the tree, or an action not tried yet."""

    def __init__(self, prior: float) -> None:
        self.prior = prior
        self.state: Tensor | None = None
        self.reward = 0.0
        self.discount = 1.0
        self.value = 0.0
        self.visits = 0
        self.children: list[Node] = []

    def expand(self, state: Tensor, reward: float, discount: float, priors: list[float], value: float) -> None:
        self.state, self.reward, self.discount = state, reward, discount
        self.children = [Node(prior) for prior in priors]
        self.value, self.visits = value, 1

    @property
    def action_value(self) -> float:
        """What the action that leads here is worth to its parent."""
        return self.reward + self.discount * self.value


class ObjectTree:
    """PUCT over `Node` objects, for one root.

    Args:
        evaluate: probabilities and value of a state.
        advance: the world: next state, reward and discount of an action.
        pb_c_init, pb_c_base: MuZero's c1 and c2.
    """

    def __init__(self, evaluate: Evaluate, advance: Advance, *, pb_c_init: float = 1.25, pb_c_base: float = 19_652.0) -> None:
        self.evaluate, self.advance = evaluate, advance
        self.pb_c_init, self.pb_c_base = pb_c_init, pb_c_base

    def search(self, state: Tensor, simulations: int) -> Node:
        """The root after this many simulations."""
        root = Node(1.0)
        root.expand(state, 0.0, 1.0, *self.evaluate(state))
        for _ in range(simulations):
            path, actions = [root], []
            while path[-1].children:
                action, child = self.select(path[-1])
                path.append(child)
                actions.append(action)
            parent = path[-2]
            assert parent.state is not None
            following, reward, discount = self.advance(parent.state, actions[-1])
            path[-1].expand(following, reward, discount, *self.evaluate(following))
            back_up(path)
        return root

    def select(self, node: Node) -> tuple[int, Node]:
        """The child with the best score; the first one where two are equal."""
        tried = [child.action_value for child in node.children if child.visits]
        lowest, highest = min([node.value, *tried]), max([node.value, *tried])
        spread = max(highest - lowest, 1e-8)
        weight = (self.pb_c_init + math.log((node.visits + self.pb_c_base + 1) / self.pb_c_base)) * math.sqrt(node.visits)
        best, best_action, best_score = node.children[0], 0, -math.inf
        for action, child in enumerate(node.children):
            score = weight * child.prior / (child.visits + 1)
            if child.visits:
                score += (child.action_value - lowest) / spread
            if score > best_score:
                best, best_action, best_score = child, action, score
        return best_action, best


def back_up(path: list[Node]) -> None:
    """Carry the value of the last node to the root; each node's value is the mean of what came through it."""
    gain = path[-1].value
    for parent, child in zip(path[-2::-1], path[:0:-1], strict=True):
        gain = child.reward + child.discount * gain
        parent.value = (parent.value * parent.visits + gain) / (parent.visits + 1)
        parent.visits += 1


def root_visits(root: Node) -> list[int]:
    """How often each action of the root was taken: a child's own expansion is its first visit."""
    return [child.visits for child in root.children]
