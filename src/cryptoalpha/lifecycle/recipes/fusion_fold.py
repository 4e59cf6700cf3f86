"""One fold of the fusion, in the process that trains it: the lessons of its past, the settings of its search, validation and test.

The network is taught what the search without a network lived through before the fold's accept stretch (matured rewards and the search's own
policy), stopped at the pass that foretells the accept stretch best, and guides the search over the validation stretch. If it earned more
there than the search without a network, and is worse beyond doubt in nothing, it is kept; else the fold answers as the search does without.

A fold that is done lies in the workshop as `result_NN.safetensors`; one that was interrupted goes on from what its learner and its
evolution had reached, to the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha.core.time import DAY
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.experience import Lessons
from cryptoalpha.decisions.fusion.guided import EVOLVED, KIND
from cryptoalpha.decisions.fusion.learning import FusionLearner, chained
from cryptoalpha.decisions.fusion.network import SMALLEST_SCALE, Guide, build_network, guide_from, guide_of, network_from, weights_of
from cryptoalpha.decisions.fusion.online.student import losses
from cryptoalpha.decisions.fusion.search.actions import ACTIONS
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.searched import SearchedFusion
from cryptoalpha.learn.actor_critic.learner import KIND as LEARNER
from cryptoalpha.learn.actor_critic.learner import UpdateReport
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.fold_progress import result_file, train_once
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.fusion_evolving import Trial, evolve_settings, settings_of
from cryptoalpha.lifecycle.recipes.fusion_judging import UNTRAINED, FusionJudgement, beside, judge_fusion
from cryptoalpha.lifecycle.recipes.fusion_walk import WalkStep, columns_of, walk
from cryptoalpha.lifecycle.recipes.resampling import Columns
from cryptoalpha.lifecycle.recipes.trained import as_json
from cryptoalpha.lifecycle.recipes.workshop import UNITS, Workshop
from cryptoalpha.store.array_file import Array, read_arrays, write_arrays
from cryptoalpha.store.model_folder import write_fold

MODEL = "fusion"
RESULT = "fusion fold result"
LEARNED = "fusion learned"

GENERATIONS = 3
"""Generations at most, whatever `lifecycle.train.evolve_generations` allows: each costs minutes of searching."""

HALF_STEPS = 400
"""Steps of each half of the accept stretch at most, the newest."""

AFTER_LEARNING, AFTER_EVOLUTION, AFTER_VALIDATION = 200, 650, 800
"""Units of progress."""


@dataclass(frozen=True, eq=False)
class FusionMaterial:
    """What every fold is made of; sent to each process once.

    `lessons` and `untrained` are of the walk without a network; `snapshots[moment]` is that fusion before the first step at or after it.
    `config` counts in steps, `whole` in bars.
    """

    steps: tuple[WalkStep, ...]
    lessons: Lessons
    untrained: Columns
    snapshots: Mapping[int, SearchedFusion]
    config: FusionConfig
    whole: FusionConfig
    train: TrainConfig
    seed: int
    out: Path

    def between(self, since: int, until: int) -> list[WalkStep]:
        """Steps at or after `since` and before `until`."""
        return [step for step in self.steps if since <= step.at < until]

    def trial(self, since: int, until: int) -> Trial:
        """The fusion as it stood at `since`, and the steps before `until`."""
        return Trial(self.snapshots[since], self.between(since, until))


def middle_of(fold: Fold) -> int:
    """Where the accept stretch is halved, and its newer part begins."""
    return (fold.accept_since + fold.validation_since) // 2


def moments_of(fold: Fold) -> tuple[int, ...]:
    """Where the walk is remembered for this fold."""
    return fold.accept_since, middle_of(fold), fold.validation_since, fold.test_since


def train_fusion_fold(material: FusionMaterial, fold: Fold) -> None:
    """Train one fold and leave its model and its result in the workshop.

    Raises:
        ModelError: if a loss is not finite.
    """
    shop = Workshop(material.out)
    train_once(shop, fold, lambda: _train(material, fold, shop))


def read_fusion_result(shop: Workshop, fold: Fold) -> tuple[Columns, dict[str, Any]]:
    """The per-moment sums of the fold's test stretch, and how training went."""
    arrays, state = read_arrays(result_file(shop, fold), kind=RESULT)
    return {name: array.astype(np.float64) for name, array in arrays.items()}, state


def _train(material: FusionMaterial, fold: Fold, shop: Workshop) -> None:
    number = fold.number
    shop.tell(number, 1, "learning")
    guide, weights, learned = _learned(material, fold, shop)
    shop.tell(number, AFTER_LEARNING, "evolving")
    factors, evolution = _evolved(material, fold, shop, guide)
    search = settings_of(material.config.search, factors)
    shop.tell(number, AFTER_EVOLUTION, "validating")
    horizon = material.config.horizon_bars
    checked = _walked(material, fold.validation_since, fold.test_since, guide, search)
    validation = judge_fusion(checked, horizon=horizon, seed=material.seed, resamples=200)
    kept = is_kept(validation)
    if not kept:
        net = build_network(ACTIONS, seed=material.seed)  # an even prior and no value: the search as it is without
        guide, weights, factors = guide_of(net), weights_of(net), [0.0] * len(EVOLVED)
        search = settings_of(material.config.search, factors)
    shop.tell(number, AFTER_VALIDATION, "testing")
    columns = _walked(material, fold.test_since, fold.test_until, guide, search)
    carried = settings_of(material.whole.search, factors)
    brought = {name: getattr(carried, name) for name in EVOLVED}
    arrays: dict[str, Array] = {"graph": np.frombuffer(guide.graph, np.uint8), **{f"net.{name}": array for name, array in weights.items()}}
    shop.draft.mkdir(parents=True, exist_ok=True)
    told = {"usable_from": fold.usable_from, "version": guide.version, "search": brought, "guides": kept}
    file = write_fold(shop.draft, number, arrays, told, kind=KIND)
    state = {
        "fold": fold.as_dict(),
        **learned,
        "evolution": evolution,
        "search": brought,
        "kept": kept,
        "version": guide.version,
        "validation": validation.as_dict(),
        "file": {"file": file.file, "usable_from": file.usable_from, "sha256": file.sha256},
    }
    write_arrays(result_file(shop, fold), columns, as_json(state), kind=RESULT)
    shop.tell(number, UNITS, "done")


def is_kept(validation: FusionJudgement) -> bool:
    """Whether the trained search earned more than the untrained one where it had learned nothing, and is worse beyond doubt in nothing."""
    gaps = {name: validation.differences[name][UNTRAINED] for name in ("reward", "score")}
    return gaps["reward"].estimate > 0.0 and not any(gap.high < 0.0 for gap in gaps.values())


def _learned(material: FusionMaterial, fold: Fold, shop: Workshop) -> tuple[Guide, dict[str, Array], dict[str, Any]]:
    """The network after its best pass, its weights, and how learning went. What was reached is kept after every pass."""
    file = shop.place / f"learned_{fold.number:02d}.safetensors"
    checkpoint = shop.place / f"learner_{fold.number:02d}.safetensors"
    settings, seed = material.config.learning, material.seed + fold.number
    embargo = round(material.train.embargo_days * DAY)
    taught, held_out = _split(material.lessons, fold, embargo)
    net = build_network(ACTIONS, seed=seed)
    learner = FusionLearner(net, settings, discount=material.config.search.discount, seed=seed)
    best, state = _gone_on(learner, file, checkpoint)
    while state["passes"] < settings.passes:
        reports: list[UpdateReport] = []
        lesson = learner.teach(taught, now=fold.accept_since, passes=1, told=reports.append)
        if not state["validations"]:  # the scale is known by now: what the fresh network lost
            fresh = build_network(ACTIONS, seed=seed)
            fresh.scale_values(float(net.value_mean), float(net.value_scale))
            best, state["validations"] = weights_of(fresh), [_lost(fresh, held_out, material)]
        lost = _lost(net, held_out, material)
        if lost < min(state["validations"]):
            best, state["best"] = weights_of(net), state["passes"] + 1
        state |= {
            "passes": state["passes"] + 1,
            "validations": [*state["validations"], lost],
            "losses": [*state["losses"], *(report.value_loss + report.distillation_loss for report in reports)],
            "rollbacks": state["rollbacks"] + lesson.rollbacks,
            "taught": lesson.taught,
            "updates": learner.updates,
        }
        learner.save(checkpoint)
        write_arrays(file, best, state, kind=LEARNED)
    guide = guide_of(network_from(best))
    return guide_from(guide.graph, version=guide.version), best, dict(state)


def _gone_on(learner: FusionLearner, file: Path, checkpoint: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """What an interrupted learner had reached, or the beginning. Its two files are written one after the other: a kill between them leaves
    a learner that is one pass ahead of its state, and it begins again."""
    if file.exists() and checkpoint.exists():
        kept = read_arrays(file, kind=LEARNED)
        if read_arrays(checkpoint, kind=LEARNER).state["updates"] == kept.state["updates"]:
            learner.restore(checkpoint)
            return dict(kept.arrays), dict(kept.state)
    beginning = {"passes": 0, "best": 0, "losses": [], "validations": [], "rollbacks": 0, "taught": 0, "updates": 0}
    return weights_of(learner.net), beginning


def _split(lessons: Lessons, fold: Fold, embargo: int) -> tuple[Lessons, Lessons]:
    """What teaches, and what decides when to stop: labels of each are settled an embargo before the next stretch begins."""
    taught = lessons.known_by(fold.accept_since - embargo)
    newer = lessons.rows(lessons.decided_at >= fold.accept_since)
    return taught, newer.known_by(fold.validation_since - embargo)


def _lost(net: Any, lessons: Lessons, material: FusionMaterial) -> float:
    """Mean loss on lessons that taught nothing: the value's error against realised chains, and the search's policy."""
    discount, trace = material.config.search.discount, material.config.learning.gae_lambda
    fresh = np.full(len(lessons), float(net.value_mean))
    found = chained(lessons, fresh, discount=discount, trace=trace)  # the same targets for every network that is compared
    scale = max(float(net.value_scale), SMALLEST_SCALE)
    return float(losses(net, lessons.rows(found.rows), found.returns, scale).mean()) if len(found.rows) else 0.0


def _evolved(material: FusionMaterial, fold: Fold, shop: Workshop, guide: Guide) -> tuple[list[float], dict[str, float | int]]:
    middle = middle_of(fold)
    first = material.trial(fold.accept_since, middle)
    second = material.trial(middle, fold.validation_since)
    halves = [Trial(half.fusion, half.steps[:HALF_STEPS]) for half in (first, second)]

    def growth_on(half: Trial, config: SearchConfig) -> float:
        return half.growth(guide.evaluator, guide.version, config)

    return evolve_settings(
        material.config.search,
        lambda config: growth_on(halves[0], config),
        lambda config: growth_on(halves[1], config),
        generations=min(GENERATIONS, material.train.evolve_generations),
        seed=material.seed + fold.number,
        checkpoint=shop.place / f"evolution_{fold.number:02d}.safetensors",
    )


def _walked(material: FusionMaterial, since: int, until: int, guide: Guide, search: SearchConfig) -> Columns:
    """The stretch with the network, beside the same stretch without; decisions of the stretch that matured inside it."""
    trial = material.trial(since, until)
    fusion = copy.deepcopy(trial.fusion)
    fusion.adopt(guide.evaluator, guide.version, search)
    matured = [one for one in walk(fusion, trial.steps) if one.decided_at >= since]
    trained = columns_of(matured)
    there = np.isin(material.untrained["decided_at"], trained["decided_at"])
    return beside(trained, {name: column[there] for name, column in material.untrained.items()})
