"""Expert iteration of the trading agent: plan past states, fit the value function to the plans, let it lead if it plans better.

The roots are states that were seen in the training stretch; what follows them in a plan is drawn by the model fitted there, never read
from the bars that followed. The net learns what the formula at the leaves leaves out (`market.TradingModel`, header). After every round
the challenger plays the champion on the same held-out scenarios (`episodes`) and takes over only if it earns more beyond chance; the first
champion is the formula alone.

Imports torch: for training only. At run time the function is plain NumPy (`value`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.alphazero.episodes import EPISODE_BARS, judged, play
from cryptoalpha.decisions.alphazero.market import LeafValue, TradingModel
from cryptoalpha.decisions.alphazero.state import DRIFT, Array, drift_per_bar
from cryptoalpha.decisions.alphazero.value import FEATURES, HIDDEN, Array32, ValueFunction, features
from cryptoalpha.learn.expert_iteration import ExpertIteration, FitRecipe
from cryptoalpha.learn.search.contract import Budget, Floats, Roots
from cryptoalpha.learn.search.scenario_dp import plan_all_positions
from cryptoalpha.nets.policy_value import perceptron
from cryptoalpha.store.array_file import read_arrays, write_arrays

SMALLEST_SCALE = 1e-9

EXPLORED_BARS = 24.0
"""Horizon of opinions drawn at random, bars."""

KEPT = "cryptoalpha trading learner 1"


@dataclass(frozen=True)
class Lessons:
    """How long and on what an agent is trained."""

    rounds: int = 3
    """Times that a challenger is judged."""

    plans: int = 20
    """Plans of a round."""

    roots: int = 128
    """Past states of a plan."""

    explored: float = 0.5
    """Share of the states (0–1) that get an opinion drawn at random: where a fusion kept silent, nothing would be learned of opinions."""

    explored_move: float = 0.15
    """Standard deviation of such an expected move, volatilities over a day of bars. Where trading at usual costs begins to pay."""

    episodes: int = 128
    """Episodes of the gate."""

    episode_bars: int = EPISODE_BARS
    fit: FitRecipe = field(default_factory=lambda: FitRecipe(steps=20, batch=256, memory=2_000, reanalysed=32))


@dataclass
class Progress:
    """What came of a training so far."""

    champion: ValueFunction | None = None
    """None: the formula alone."""

    gates: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


class ScaledPerceptron(nn.Module):
    """Features `[n, 12]` → s · net `[n, K]`, in the units of rewards. The last layer begins at zero: it says what the formula says."""

    scale: Tensor

    def __init__(self, outputs: int, scale: Array) -> None:
        super().__init__()
        self.layers = perceptron((FEATURES, *HIDDEN, outputs))
        nn.init.zeros_(self._linear()[-1].weight)
        nn.init.zeros_(self._linear()[-1].bias)
        self.register_buffer("scale", torch.from_numpy(scale.astype(np.float32)))

    def forward(self, read: Tensor) -> Tensor:
        values: Tensor = self.scale * self.layers(read)
        return values

    def weights(self) -> tuple[tuple[Array32, Array32], ...]:
        """Copies of matrix `[inputs, outputs]` and bias of each layer."""
        return tuple((one.weight.detach().numpy().T.copy(), one.bias.detach().numpy().copy()) for one in self._linear())

    def _linear(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


class TradingLearner:
    """Expert iteration of one law of scenarios.

    Args:
        market: makes the model with a value function at its leaves, None for the formula alone.
        past: states of the training stretch `[n, WIDTH]`.
        held_out: states of a later stretch `[m, WIDTH]`, in order of time.
        budget: of a plan; its branching decides how many rows go through the net at once.
        seed: of everything.
    """

    def __init__(
        self,
        market: Callable[[LeafValue | None], TradingModel],
        past: Floats,
        held_out: Floats,
        budget: Budget,
        *,
        seed: int,
        lessons: Lessons = Lessons(),
    ) -> None:
        self.market, self.past, self.budget, self.seed, self.lessons = market, past, budget, seed, lessons
        self.formula = market(None)
        chosen = np.linspace(0, len(held_out) - 1, min(lessons.episodes, len(held_out))).round().astype(np.int64)
        self.held_out = self._with_opinions(held_out[chosen], stream(seed, "agent", "held out"))
        self.model = market(None)
        count = len(self.formula.positions)
        self.mean, self.scale = self._sizes()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(seed, "agent", "net").integers(2**62)))
            self.net = ScaledPerceptron(count, self.scale)
        self.learner = ExpertIteration(
            self.net, self.model, features, self._roots, budget, publish=self._publish, seed=seed,
            recipe=replace(lessons.fit, value_scale=float(self.scale[0])), baseline=self._known,
        )  # fmt: skip
        self.progress = Progress()

    def function(self) -> ValueFunction:
        """The net of today as a value function."""
        return ValueFunction(self.net.weights(), self.mean, self.scale, int(np.prod(self.budget.branching)))

    def round(self) -> None:
        """Some plans and fits, then the gate."""
        for _ in range(self.lessons.plans):
            self.progress.losses.append(self.learner.iterate())
        number = len(self.progress.gates)
        challenger, champion = self.function(), self.progress.champion
        world, seed = self.formula, int(stream(self.seed, "agent", "gate", number).integers(2**61))
        played = [
            play(self.market(leaf), world, self.held_out, self.budget, bars=self.lessons.episode_bars, seed=seed)
            for leaf in (challenger, champion)
        ]
        gate = judged(*played, seed=seed)
        if gate.passed:
            self.progress.champion = challenger
        found = gate.interval
        self.progress.gates.append(
            {
                "passed": gate.passed,
                "difference": [found.estimate, found.low, found.high],
                "challenger": float(played[0].mean()),
                "champion": float(played[1].mean()),
                "episodes": len(self.held_out),
            }
        )

    def run(self, folder: Path | None = None, look: Callable[[int], None] | None = None) -> Progress:
        """All rounds; with a folder, an interrupted training goes on after its last whole round.

        Args:
            look: told the number of rounds done.
        """
        if folder is not None and (folder / "learner.safetensors").is_file():
            self._load(folder)
        while len(self.progress.gates) < self.lessons.rounds:
            self.round()
            if folder is not None:
                self._save(folder)
            if look is not None:
                look(len(self.progress.gates))
        return self.progress

    def _known(self, states: Floats) -> Array:
        return self.mean + self.formula.values(states)

    def _publish(self) -> None:
        self.model.leaf = self.function()

    def _roots(self, generator: np.random.Generator) -> Floats:
        return self._with_opinions(self.past[generator.integers(len(self.past), size=self.lessons.roots)], generator)

    def _with_opinions(self, states: Floats, generator: np.random.Generator) -> Floats:
        """Copies of states, some of them with an opinion drawn at random."""
        drawn: Array32 = np.array(states, dtype=np.float32)
        size = drift_per_bar(self.lessons.explored_move, EXPLORED_BARS, self.formula.dynamics.persistence)
        moved = generator.random(len(drawn)) < self.lessons.explored
        drawn[moved, DRIFT] = size * generator.standard_normal(int(moved.sum()))
        return drawn

    def _sizes(self) -> tuple[Array, Array]:
        """μ and s of what plans add to the formula, from one plan of past states."""
        states = self._roots(stream(self.seed, "agent", "sizes"))
        added = plan_all_positions(Roots(states), self.formula, self.budget, seed=self.seed).values - self.formula.values(states)
        return added.mean(axis=0), np.full(added.shape[1], max(float(added.std()), SMALLEST_SCALE))

    def _save(self, folder: Path) -> None:
        """The learner's own file is written last: what lies beside it belongs to it if its number of plans says so."""
        champion = self.progress.champion
        arrays = {"losses": np.array(self.progress.losses)} | ({} if champion is None else champion.arrays("champion"))
        state = {"gates": self.progress.gates, "has_champion": champion is not None}
        kept = folder / f"progress_{self.learner.plans}.safetensors"
        write_arrays(kept, arrays, state, kind=KEPT)
        self.learner.save(folder)
        for old in folder.glob("progress_*.safetensors"):
            if old != kept:
                old.unlink()

    def _load(self, folder: Path) -> None:
        self.learner.load(folder)
        kept = read_arrays(folder / f"progress_{self.learner.plans}.safetensors", kind=KEPT)
        block = int(np.prod(self.budget.branching))
        champion = ValueFunction.of(kept.arrays, "champion", block=block) if kept.state["has_champion"] else None
        self.progress = Progress(champion, list(kept.state["gates"]), kept.arrays["losses"].tolist())
