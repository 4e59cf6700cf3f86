"""What goes into a plan and what comes out of it: the words that both back ends share.

Axes: B roots (instruments, episodes or agents, planned independently), A actions, D numbers of a state, X numbers of a market state,
K positions on the grid (then A = K: the action is the position to hold), m outcomes of a chance node. Arrays are NumPy, C-contiguous;
states are float32. Rewards are expected ones and carry everything: what follows a terminal state is worth 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int32] | NDArray[np.int64]
Booleans = NDArray[np.bool_]

FLAGS = "biu"
"""Kinds of arrays taken for truth values. Not floats: NaN would be True."""


@dataclass(frozen=True)
class Roots:
    """The states to plan from.

    Shapes: states `[B, D]` (market states `[B, X]` with `positions`), positions `[B]` index into the grid, legal `[B, A]` True = allowed.
    """

    states: Floats
    positions: Integers | None = None
    legal: Booleans | None = None
    names: tuple[str, ...] = ()
    """What to call each root in an error, such as its instrument; without names their row numbers are used."""

    def name(self, row: int) -> str:
        return f"root {row} ({self.names[row]})" if self.names else f"root {row}"


@dataclass(frozen=True)
class Budget:
    """How much may be spent on one plan."""

    simulations: int = 800
    """Simulations per root (tree search)."""

    branching: tuple[int, ...] = (28, 28)
    """Outcomes per node and depth (scenario tree); their product is the number of leaves."""

    outcomes: tuple[int, ...] = (8, 4)
    """Outcomes of a chance node by depth (tree search); the last one holds for all deeper nodes."""

    max_depth: int | None = None
    """Decisions below the root (tree search); None = as deep as the simulations reach."""

    memory_bytes: int = 2 << 30
    """Largest memory of all trees of one plan together; more is refused before anything is searched."""


@dataclass(frozen=True)
class Rules:
    """How tree search chooses. The defaults are what acts on a live decision: no noise, no temperature."""

    root: Literal["gumbel", "puct"] = "gumbel"
    pb_c_init: float = 1.25
    """Weight of the prior against the value, both rescaled to 0–1 (MuZero's c1)."""

    pb_c_base: float = 19_652.0
    """Visits after which the weight of the prior grows (MuZero's c2)."""

    first_play_reduction: float | None = None
    """None: an unvisited action has value 0 after rescaling, as in MuZero; a number: its parent's rescaled value less this."""

    gumbel_scale: float = 0.0
    """Scale of the Gumbel noise at the root: 1 in self-play, 0 when acting."""

    considered: int = 16
    """Actions that the Gumbel root considers at most."""

    dirichlet_fraction: float = 0.0
    """Share of Dirichlet noise in the root's prior: for self-play with the PUCT root only."""

    dirichlet_alpha: float = 0.3
    """Concentration of that noise."""

    temperature: float = 0.0
    """The PUCT root plays an action with probability ∝ visits^(1/temperature); 0 plays the best."""


@dataclass(frozen=True)
class Step:
    """What follows an action for certain. Shapes: states `[n, D]`, rewards and discounts `[n]`, terminal `[n]`, legal `[n, A]`.

    A discount of −1 (or −γ) says that the opponent moves next.
    """

    states: Floats
    rewards: Floats
    discounts: Floats
    terminal: Booleans
    legal: Booleans | None = None


@dataclass(frozen=True)
class Outcomes:
    """What may follow an action, and how likely. Shapes: states `[n, m, D]`, weights `[n, m]` (rows sum to 1), rewards `[n]` (expected over
    the outcomes, so that luck drawn inside the tree is not mistaken for skill), discounts and terminal `[n, m]`, legal `[n, m, A]`."""

    states: Floats
    weights: Floats
    rewards: Floats
    discounts: Floats
    terminal: Booleans
    legal: Booleans | None = None


@runtime_checkable
class Evaluator(Protocol):
    """Guesses for a batch of states: `[n, D]` float32 → logits `[n, A]` of the prior and values `[n]`, both float32."""

    def __call__(self, states: Floats) -> tuple[Floats, Floats]: ...


@runtime_checkable
class StepModel(Protocol):
    """A world in which an action has one consequence."""

    @property
    def actions(self) -> int: ...

    def evaluate(self, states: Floats) -> tuple[Floats, Floats]: ...

    def step(self, states: Floats, actions: Integers) -> Step: ...


@runtime_checkable
class ChanceModel(Protocol):
    """A world in which chance moves after every action.

    `outcomes` is a pure function: `uniforms` `[n, m]` in (0, 1), one per stratum and in random order, are all the chance it may use; it is
    called again with the same ones whenever the same edge is expanded.
    """

    @property
    def actions(self) -> int: ...

    def evaluate(self, states: Floats) -> tuple[Floats, Floats]: ...

    def outcomes(self, states: Floats, actions: Integers, uniforms: Floats) -> Outcomes: ...


@runtime_checkable
class SimulatesItself(Protocol):
    """A `ChanceModel` that can run all simulations of a single tree by itself: compiled as a whole, without a call from Python for each."""

    def simulate(self, trees: Any, choice: Any, asking: Any) -> tuple[int, int, int] | None:
        """Do what `batched_mcts` does for one tree, with the same result to the last bit.

        Args: the plan's `tree.Trees`, `kernels_select.Choice` and `answers.Asking`.

        Returns what is wrong with an answer (`kernels.FINE`: nothing), how many states were answered, and what `descend` said at last (< 0:
        its values are no numbers any more); None: it cannot, and has touched nothing.
        """
        ...


@dataclass(frozen=True)
class Draws:
    """Where the market may go next. Shapes: states `[n, m, X]`, returns `[n, m]` (simple), expected `[n]` (the mean return that the model
    stands for, to which the planner matches the drawn ones), weights `[n, m]` (rows sum to 1), terminal `[n, m]`."""

    states: Floats
    returns: Floats
    expected: Floats
    weights: Floats
    terminal: Booleans | None = None


@dataclass(frozen=True)
class Gains:
    """What holding each position over a return earns, before the cost of getting there. Shapes: rewards `[n, m, K]`; alive `[n, m, K]`
    False = ruined, nothing follows (None: nobody can be)."""

    rewards: Floats
    alive: Booleans | None = None


@runtime_checkable
class MarketModel(Protocol):
    """A price taker's world: the market moves by itself, the action only chooses the next position on a grid (an Exo-MDP)."""

    positions: NDArray[np.float64]
    """The grid `[K]`."""

    discount: float
    allowed: Booleans | None
    """`[K, K]`: may position p become a? None: always."""

    def draw(self, states: Floats, uniforms: Floats) -> Draws:
        """Next market states from `[n, X]` through the conditional quantile function at `uniforms` `[n, m]`."""
        ...

    def gains(self, states: Floats, returns: Floats) -> Gains:
        """What positions earn over `returns` `[n, m]` from `states` `[n, X]`."""
        ...

    def costs(self, states: Floats) -> Floats:
        """Cost of changing position, `[n, K, K]` or `[1, K, K]`, from p (second axis) to a (last)."""
        ...

    def values(self, states: Floats) -> Floats:
        """A guess of what is still to come, `[n, K]`, from `states` `[n, X]` while holding each position."""
        ...

    def logits(self, states: Floats) -> Floats | None:
        """Logits of the prior, `[n, K, K]` from p to a; None: no opinion."""
        ...


@dataclass(frozen=True)
class LineStep:
    """One step of the line that the planner expects: the action, the outcome assumed after it, and what speaks for it."""

    action: int
    outcome: int
    """Index of the outcome followed; 0 where there is only one."""

    visits: int | None
    prior: float
    value: float
    """Q of the action: expected discounted reward from here."""


@dataclass(frozen=True)
class PlanStats:
    """What a plan cost."""

    evaluated_states: int
    """States given to the evaluator."""

    depth: int
    """Decisions from a root to the deepest state looked at."""

    memory_bytes: int


@dataclass(frozen=True)
class PlanResult:
    """What to do and why. Shapes: action `[B]`, policy_target, q and visits `[B, A]`, value `[B]`; visits are None for a scenario tree.

    `value` of a scenario tree is that of its best action. Of a tree search it is the mean of what its simulations found, those included
    that tried what is bad (mctx's search value): less than the best Q, most of all below a Gumbel root, which tries every action it
    considers. `q[row, action[row]]` is what the chosen action is worth.

    An illegal action has policy target 0 and Q −inf; one never visited in a tree search has the Q that completes it (Gumbel) or 0 visits.
    """

    action: NDArray[np.int64]
    policy_target: NDArray[np.float64]
    q: NDArray[np.float64]
    value: NDArray[np.float64]
    visits: NDArray[np.int64] | None
    stats: PlanStats
    lines: tuple[tuple[LineStep, ...], ...] = field(default=(), repr=False)
    """Per root, the principal line."""

    trees: object | None = field(default=None, repr=False)
    """The trees themselves, to go on from an observed outcome (`learn.search.reuse`)."""
