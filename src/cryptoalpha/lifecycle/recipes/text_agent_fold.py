"""One fold of the text agent, in the process that trains it: learns from matured outcomes in the order of time, then is judged.

The first pass goes through the stretch as it would live: decide, wait, learn what has matured, decide the next. Further passes go through
it again; they end when the validation stretch says so. What was learned after the best look is forgotten. A fold that is done lies in the
workshop as `result_NN.safetensors`; an interrupted one goes on with the pass it was in.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.config import ActorCriticConfig
from cryptoalpha.lifecycle.recipes.fold_progress import result_file, train_once
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.resampling import Columns
from cryptoalpha.lifecycle.recipes.workshop import UNITS, Workshop
from cryptoalpha.signals.agents.learned import TextAgentDesign, TextAgentModel
from cryptoalpha.signals.agents.learner import POSITIONS, Actions, LearnerSettings, TextLearner, arrays_of, outcome
from cryptoalpha.store.array_file import read_arrays, write_arrays
from cryptoalpha.store.tables import Floats, Times

RESULT, PASS = "text agent fold result", "text agent pass"
USUAL = 0.9
"""Percentile of the training values by which values are scaled."""
JUDGING = 900
"""Units of progress (of `workshop.UNITS`) at which learning is done."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TextMaterial:
    """What every fold is made of. One entry per state, ordered by bar, then instrument.

    Shapes: all `[n]`, `inputs` `[n, D]`. `row` counts rows as the folds do; `move`, `cost` in units of volatility over the horizon, `move`
    NaN where it is not known; `own` is the source's own action, `impact` its expected move. `decided_at`, `settled_at` UTC ns.
    """

    row: Rows
    inputs: npt.NDArray[np.float32]
    move: Floats
    cost: Floats
    own: Actions
    impact: Floats
    decided_at: Times
    settled_at: Times
    design: TextAgentDesign
    learning: ActorCriticConfig
    passes: int
    batch: int
    seed: int
    out: Path

    def states(self, rows: Rows) -> Rows:
        """Places of the states at these rows whose outcome is known."""
        return np.flatnonzero(np.isin(self.row, rows) & np.isfinite(self.move))


def train_text_fold(material: TextMaterial, fold: Fold) -> None:
    """Train one fold and leave its model and its result in the workshop.

    Raises:
        ConfigError: if a stretch has no texts.
    """
    shop = Workshop(material.out)
    train_once(shop, fold, lambda: _train(material, fold, shop))


def _train(material: TextMaterial, fold: Fold, shop: Workshop) -> None:
    parts = {name: material.states(getattr(fold, name)) for name in ("train", "accept", "validation", "test")}
    for name in ("train", "validation"):
        if not parts[name].size:
            raise ConfigError(f"fold {fold.number} has no texts in its {name} stretch", hint="bring texts, or judge another period")
    learner = TextLearner(
        LearnerSettings(material.design.inputs, batch=material.batch, capacity=_most_waiting(material, parts["train"])),
        material.learning,
        seed=material.seed + fold.number,
    )
    learner.fit_scaler(material.inputs[parts["train"]])
    scores, best = _passes(material, learner, parts["train"], parts["validation"], fold, shop)
    for prefix, module in (("policy/", learner.policy), ("value/", learner.value)):
        module.load_state_dict({name.removeprefix(prefix): torch.from_numpy(a) for name, a in best.items() if name.startswith(prefix)})
    shop.tell(fold.number, JUDGING, "judging")
    model = _calibrated(material, learner, parts, fold)
    columns = _judged(material, model, fold)
    state = {
        "fold": fold.as_dict(),
        "file": asdict(model.save(shop.draft, fold.number)),
        "states": {name: len(places) for name, places in parts.items()},
        "validation_rewards": scores,
        "updates": learner.learner.updates,
        "rollbacks": learner.learner.rollbacks,
        "usual_value": model.usual_value,
        "slope": model.slope,
    }
    write_arrays(result_file(shop, fold), columns, state, kind=RESULT)
    shop.tell(fold.number, UNITS, "done")


def _passes(
    material: TextMaterial, learner: TextLearner, train: Rows, validation: Rows, fold: Fold, shop: Workshop
) -> tuple[list[float], dict[str, npt.NDArray[Any]]]:
    """Mean validation reward after each pass, and the weights of the best one (those of the beginning are one of them)."""
    file, kept = shop.place / f"pass_{fold.number:02d}.safetensors", shop.place / f"best_{fold.number:02d}.safetensors"
    scores = [_score(material, learner, validation)]
    best = arrays_of(learner.policy, learner.value)
    if kept.exists():
        found = read_arrays(kept, kind=PASS)
        learner.restore(file.with_stem(f"{file.stem}_{len(found.state['scores']) - 1}"))
        scores, best = list(found.state["scores"]), dict(found.arrays)
    while len(scores) <= material.passes:
        number = len(scores)
        one_pass(material, learner, train)
        scores.append(_score(material, learner, validation))
        if scores[-1] > max(scores[:-1]):
            best = arrays_of(learner.policy, learner.value)
        learner.save(file.with_stem(f"{file.stem}_{number}"))
        write_arrays(kept, best, {"scores": scores}, kind=PASS)  # last: it names the pass that is whole
        shop.tell(fold.number, JUDGING * number // material.passes, f"pass {number} of {material.passes}, reward {scores[-1]:+.4f}")
    return scores, best


def one_pass(material: TextMaterial, learner: TextLearner, places: Rows) -> None:
    """Go through states in the order of time: learn what has matured, then decide. Afterwards all outcomes are learned from."""
    moments, starts = np.unique(material.decided_at[places], return_index=True)
    ends = [*starts[1:].tolist(), len(places)]
    for moment, start, end in zip(moments.tolist(), starts.tolist(), ends, strict=True):
        now = places[start:end]
        if len(learner.waiting) >= material.batch:
            learner.learn(moment)
        settled = material.settled_at[now]
        actions, tickets = learner.decide(material.inputs[now], decided_at=material.decided_at[now], due_at=settled)
        # Said at once, handed out by `mature` when it is known and not before.
        learner.settle(tickets, outcome(actions, material.move[now], material.cost[now]), known_at=settled)
    learner.learn(int(material.settled_at[places].max()))


def _most_waiting(material: TextMaterial, places: Rows) -> int:
    """Decisions that may wait at once: those of a horizon, and a batch more."""
    per_row = np.unique(material.row[places], return_counts=True)[1].max()
    return int(2 * per_row * (material.design.horizon_bars + 2) + 2 * material.batch + 64)


def _score(material: TextMaterial, learner: TextLearner, places: Rows) -> float:
    """Mean reward of the likeliest actions."""
    actions = learner.answers(material.inputs[places])[1].argmax(axis=1)
    return float(outcome(actions, material.move[places], material.cost[places]).mean())


def _calibrated(material: TextMaterial, learner: TextLearner, parts: dict[str, Rows], fold: Fold) -> TextAgentModel:
    """The model with the scale of its values, from training, and the slope of its moves, from outcomes that taught nothing."""
    value, _ = learner.answers(material.inputs[parts["train"]])
    usual = float(max(np.quantile(value, USUAL), 0.0))
    model = TextAgentModel(material.design, learner.policy, learner.value, usual, 1.0, fold.usable_from)
    held_out = parts["accept"] if parts["accept"].size else parts["validation"]
    _, lean, _ = model.weigh(material.inputs[held_out])
    slope = float(lean @ material.move[held_out] / (lean @ lean)) if lean @ lean > 0.0 else 0.0
    return TextAgentModel(material.design, learner.policy, learner.value, usual, max(slope, 0.0), fold.usable_from)


def _judged(material: TextMaterial, model: TextAgentModel, fold: Fold) -> Columns:
    """Per test bar the sums that the judge needs, `[T]` each."""
    places = material.states(fold.test)
    scale, impact, action = model.weigh(material.inputs[places])
    move, cost = material.move[places], material.cost[places]
    own = outcome(material.own[places], move, cost)
    per_state = {
        "n": np.ones(len(places)),
        "learned reward": outcome(action.astype(np.int64), move, cost),
        "own reward": own,
        "scale": scale,
        "scaled own reward": scale * own,
        "learned error": (impact - move) ** 2,
        "own error": (material.impact[places] - move) ** 2,
        "no error": move**2,
        "acted": np.abs(POSITIONS[action]),
    }
    at = np.searchsorted(fold.test, material.row[places])
    return {name: np.bincount(at, weights=values, minlength=len(fold.test)).astype(np.float64) for name, values in per_state.items()}


def read_text_result(shop: Workshop, fold: Fold) -> tuple[Columns, dict[str, Any]]:
    """The per-moment sums of the fold's test bars, and how learning went."""
    arrays, state = read_arrays(result_file(shop, fold), kind=RESULT)
    return {name: array.astype(np.float64) for name, array in arrays.items()}, state
