"""Expert iteration with scenario trees: plan with the value function, then fit the value function to what the plan found.

A ScenarioDP plan values every position of a market state at once, and better than the value function at its leaves does. So the planned
V(x, ·) is what the net is regressed on, and the next plan has better leaves: value iteration with a tree as its backup operator.

Old plans had worse leaves: `recipe.reanalysed` of the states kept are planned over again each time, the ones with the oldest targets
first, with the value function of today (MuZero's Reanalyze with root values as targets). `save` and `load` keep everything, so that an
interrupted training goes on as if it had not been.

The net is the caller's: any torch module from features `[n, F]` to values `[n, K]` in the units of rewards. The market model is the
caller's too and must read the newest weights: `publish` is called after every fit, to copy them where `model.values` finds them.

Source: Anthony, Tian & Barber 2017, "Thinking fast and slow with deep learning and tree search"; here the tree is exact and the expert's
values are fitted rather than its moves, since the tree derives its moves from values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.config import ReplayConfig
from cryptoalpha.learn.descent import descend
from cryptoalpha.learn.replay.buffer import ReplayBuffer
from cryptoalpha.learn.replay.reanalyse import reanalyse, stalest
from cryptoalpha.learn.replay.schema import Column
from cryptoalpha.learn.search.contract import Budget, Floats, MarketModel, Roots
from cryptoalpha.learn.search.scenario_dp import plan_all_positions
from cryptoalpha.learn.sent_weights import packed_weights, put_weights
from cryptoalpha.learn.workers import Workers, outlive
from cryptoalpha.store.array_file import read_arrays, write_arrays

Features = Callable[[Floats], Floats]
"""States `[n, X]` → what the net reads, `[n, F]` float32."""

Baseline = Callable[[Floats], Floats]
"""States `[n, X]` → what is known of their value without a net, `[n, K]`."""

KEPT = "cryptoalpha expert iteration 1"
VERSION = "plan"
"""Column of the memory: the plan that a target is from."""


@dataclass(frozen=True)
class FitRecipe:
    """How planned values are learned."""

    steps: int = 20
    """Steps of Adam after every plan."""

    batch: int = 256
    """Market states of one step."""

    learning_rate: float = 3e-3
    value_scale: float = 1.0
    """Typical size of a value, by which errors are divided: keeps the loss near 1 whatever the units of rewards."""

    gradient_clip: float = 1.0
    """Largest norm of the gradient."""

    memory: int = 1_000
    """Planned market states kept to fit on; old plans had worse leaves, so few are better than many."""

    planned_at_once: int = 0
    """Market states of one plan; 0 plans all of them together. Workers share out plans of this size, whatever their number."""

    reanalysed: int = 0
    """States kept that are planned over again after every plan, those with the oldest targets first."""


@dataclass(frozen=True)
class Planner:
    """What a worker plans with: its own net inside its own market model, `publish` making the net's new weights visible to the model."""

    net: nn.Module
    model: MarketModel
    budget: Budget
    publish: Callable[[], None]


class ExpertIteration:
    """Alternates planning and fitting.

    Args:
        net: features `[n, F]` → values `[n, K]`.
        model: the market, whose `values` are the net's.
        features: what the net reads of a market state.
        roots: draws the market states `[B, X]` of one plan; only past ones, if the market has a history.
        budget: of one plan.
        publish: makes new weights visible to `model.values`; called once before the first plan and after every fit.
        seed: of scenarios, roots and batches.
        baseline: `[n, X]` → `[n, K]`, what the model adds to the net's answer at its leaves; the net then learns the rest.
        planners: who plan, each with a net, model and budget built like these; None plans here. The same bits, if `planned_at_once` is.

    Raises:
        ConfigError: a recipe that fits nothing.
        ModelError: from the plan or from a loss that is not finite.
    """

    def __init__(
        self,
        net: nn.Module,
        model: MarketModel,
        features: Features,
        roots: Callable[[np.random.Generator], Floats],
        budget: Budget,
        *,
        publish: Callable[[], None],
        seed: int,
        recipe: FitRecipe = FitRecipe(),
        baseline: Baseline | None = None,
        planners: Workers[Planner] | None = None,
    ) -> None:
        if (
            min(recipe.steps, recipe.batch, recipe.memory) < 1
            or recipe.planned_at_once < 0
            or min(recipe.learning_rate, recipe.value_scale, recipe.gradient_clip) <= 0.0
        ):
            raise ConfigError(f"{recipe} fits nothing: counts must be ≥ 1, sizes above 0")
        self.net, self.model, self.features, self.roots = net, model, features, roots
        self.budget, self.publish, self.seed, self.recipe = budget, publish, seed, recipe
        self.baseline, self.planners = baseline, planners
        self.optimiser = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate, fused=True)
        self.plans = 0
        """Plans made so far."""
        self._memory: ReplayBuffer | None = None
        publish()

    def iterate(self) -> float:
        """One plan and its fit; returns the mean loss of its steps (squared error in units of `value_scale`)."""
        states = self.roots(stream(self.seed, "expert iteration", "roots", self.plans))
        scenarios = int(stream(self.seed, "expert iteration", "scenarios", self.plans).integers(2**62))
        read, values = self._targets(states, scenarios)
        memory = self._memory_for(states, read, values)
        memory.add({"states": states, "features": read, "values": values, VERSION: np.full(len(states), self.plans)})
        if self.recipe.reanalysed:
            old = stalest(memory, self.recipe.reanalysed, version=self.plans, column=VERSION)
            if len(old):
                reanalyse(memory, old, lambda rows: self._thought_over(rows, scenarios), version=self.plans, column=VERSION)
        losses = [self._fit(memory) for _ in range(self.recipe.steps)]
        self.plans += 1
        self.publish()
        return float(np.mean(losses))

    def save(self, folder: Path) -> None:
        """Keep everything in a folder: weights, optimiser, memory, and how many plans there were. `learner.safetensors` is written last."""
        if self._memory is not None:
            self._memory.save(folder / f"memory_{self.plans}.safetensors")
        arrays = {f"net/{name}": tensor.detach().numpy() for name, tensor in self.net.state_dict().items()}
        steps = self.optimiser.state_dict()["state"]
        arrays |= {f"adam/{row}/{name}": tensor.detach().numpy() for row, kept in steps.items() for name, tensor in kept.items()}
        write_arrays(folder / "learner.safetensors", arrays, {"plans": self.plans, "remembers": self._memory is not None}, kind=KEPT)
        for old in folder.glob("memory_*.safetensors"):
            if old.name != f"memory_{self.plans}.safetensors":
                old.unlink()

    def load(self, folder: Path) -> None:
        """Go on from what `save` kept: the next plan and its fit are those that the saved learner would have made.

        Raises:
            DataMissingError: if nothing was kept there.
            StoreError: if it is damaged.
        """
        kept = read_arrays(folder / "learner.safetensors", kind=KEPT)
        steps: dict[int, dict[str, torch.Tensor]] = {}
        weights = {}
        for name, array in kept.arrays.items():
            part, _, rest = name.partition("/")
            if part == "net":
                weights[rest] = torch.from_numpy(array.copy())
            else:
                row, _, key = rest.partition("/")
                steps.setdefault(int(row), {})[key] = torch.from_numpy(array.copy())
        self.net.load_state_dict(weights)
        self.optimiser.load_state_dict({"state": steps, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.plans = int(kept.state["plans"])
        self._memory = ReplayBuffer.restore(folder / f"memory_{self.plans}.safetensors") if kept.state["remembers"] else None
        self.publish()

    def _targets(self, states: Floats, scenarios: int) -> tuple[Floats, Floats]:
        """What the net reads of these states `[n, F]`, and what it should answer `[n, K]`."""
        values = self._planned(states, scenarios)
        if self.baseline is not None:
            values = values - self.baseline(states)
        return np.asarray(self.features(states), dtype=np.float32), values.astype(np.float32)

    def _planned(self, states: Floats, scenarios: int) -> Floats:
        """The planned values `[n, K]`, in plans whose sizes do not depend on who makes them: net and model round by the size of a batch."""
        at_once = self.recipe.planned_at_once or len(states)
        items = [(states[first : first + at_once], scenarios) for first in range(0, len(states), at_once)]
        workers = self.planners
        if workers is None:
            here = Planner(self.net, self.model, self.budget, self.publish)
            found = [plan_values(here, item) for item in items]
        else:
            weights = packed_weights(self.net)

            def ask() -> list[Floats]:
                workers.each(adopt_weights, weights)
                return workers.map(plan_values, items)

            found = outlive(workers, ask, prepare=lambda: None)
        return cast("Floats", np.concatenate(found))

    def _thought_over(self, rows: Mapping[str, NDArray[Any]], scenarios: int) -> dict[str, Floats]:
        return {"values": self._targets(rows["states"], scenarios)[1]}

    def _memory_for(self, states: Floats, read: Floats, values: Floats) -> ReplayBuffer:
        if self._memory is None:
            schema = {
                "states": Column((states.shape[1],), str(states.dtype)),
                "features": Column((read.shape[1],)),
                "values": Column((values.shape[1],)),
                VERSION: Column((), "int64"),
            }
            rows = max(self.recipe.memory, len(read))
            self._memory = ReplayBuffer(schema, ReplayConfig(capacity=rows), seed=self.seed, name="expert iteration")
        return self._memory

    def _fit(self, memory: ReplayBuffer) -> float:
        rows = memory.sample(self.recipe.batch).rows
        guessed = self.net(torch.from_numpy(rows["features"]))
        error = (guessed - torch.from_numpy(rows["values"])) / self.recipe.value_scale
        what = f"expert iteration, plan {self.plans}"
        return descend(self.net, self.optimiser, error.square().mean(), clip=self.recipe.gradient_clip, what=what)


def plan_values(planner: Planner, item: tuple[Floats, int]) -> Floats:
    """In a worker: the planned values `[n, K]` of market states, with the scenarios of that seed."""
    states, scenarios = item
    return plan_all_positions(Roots(states), planner.model, planner.budget, seed=scenarios).values


def adopt_weights(planner: Planner, weights: bytes) -> None:
    """In a worker: the learner's weights, seen by the market model too."""
    put_weights(planner.net, weights)
    planner.publish()
