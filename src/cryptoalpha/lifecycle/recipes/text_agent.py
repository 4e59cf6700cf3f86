"""Train the text agent's networks: walk-forward folds on matured outcomes, judged beside no learning, kept with where they come from.

    trained = train_text_agent(plan, dataset, Period(), home / "models" / "text")

States are computed once, of the news tone's opinions and the texts behind them. Each fold learns from its own past alone and is judged on
its test bars as it would answer them live. The folder is written whole at the end or not at all (`workshop`).
"""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryptoalpha import __version__
from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.lifecycle.recipes.folds import Fold, plan_folds
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan, plan_folds_at
from cryptoalpha.lifecycle.recipes.page import page
from cryptoalpha.lifecycle.recipes.text_agent_fold import TextMaterial, read_text_result, train_text_fold
from cryptoalpha.lifecycle.recipes.text_agent_judging import judge_text_agent
from cryptoalpha.lifecycle.recipes.text_agent_trained import TextAgentTrained
from cryptoalpha.lifecycle.recipes.trained import as_json
from cryptoalpha.lifecycle.recipes.workshop import Tell, Workshop, side_by_side
from cryptoalpha.signals.agents.learned import KIND, TextAgentDesign
from cryptoalpha.signals.agents.text_states import text_states
from cryptoalpha.signals.book import build_model
from cryptoalpha.signals.config import SourceName
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.labels import NEVER, forward_return
from cryptoalpha.signals.tape import ACTIONS, proposed_actions
from cryptoalpha.signals.text.encoder import EncoderId
from cryptoalpha.signals.text.tiers import open_encoder
from cryptoalpha.store.model_folder import FoldFile, write_folder
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole

SOURCE: SourceName = "news_tone"
"""The source whose opinions are weighed."""

CLIP = 5.0
"""Moves are cut at this many volatilities, so that one crash does not choose the weights (as `signals.ridge.label_clip`)."""

MODEL = "text agent"


def train_text_agent(
    plan: Plan,
    dataset: Dataset,
    period: Period,
    out: Path,
    *,
    instruments: Sequence[str] | None = None,
    fresh: bool = False,
    tell: Tell | None = None,
) -> TextAgentTrained:
    """Train, judge, and leave the model at `out`.

    Args:
        fresh: begin anew, and replace a model that lies at `out`; without it an interrupted training is gone on with.
        tell: told where training stands.

    Raises:
        DataMissingError: if the history is too short, or holds no texts.
        ConfigError: if `out` holds something else, another model, or another training that was interrupted; if a stretch has no texts.
        KeyboardInterrupt: after Ctrl-C; passes that are done are kept.
    """
    shop = Workshop(out)
    old = shop.finished(KIND, fresh=fresh)
    panel, folds = _folds(plan, dataset, period, instruments)
    material = _material(plan, panel, dataset, folds, out)
    identity = _identity(plan, material, dataset, folds, panel)
    if (done := shop.begin(old, identity, fresh=fresh)) is not None:
        return TextAgentTrained(out, done, already=True)
    with shop.watched([fold.number for fold in folds], tell):
        side_by_side(partial(_given, material), train_text_fold, folds, processes=plan.train.processes)
    lineage = as_json({"identity": identity, **_judged(material, folds, shop, plan.seed)})
    _write(shop, material.design, folds, lineage)
    return TextAgentTrained(out, lineage)


def _given(material: TextMaterial) -> TextMaterial:
    """What a worker holds: that which it was sent."""
    return material


def _horizon(plan: Plan, interval: int) -> int:
    """Bars the source looks ahead."""
    return max(1, round(plan.signals.news.horizon_days * DAY / interval))


def _folds(plan: Plan, dataset: Dataset, period: Period, instruments: Sequence[str] | None) -> tuple[Panel, tuple[Fold, ...]]:
    """The panel from as far back as the first row that is used can see, and the folds by its rows."""
    if not any(len(table) for table in dataset.posts.values()):
        raise DataMissingError(f"{dataset.origin} holds no texts", hint="`cryptoalpha data import` takes a folder with texts")
    since, until = period.since or 0, period.until or np.iinfo(np.int64).max
    whole = build_panel(dataset, since=0, until=int(until), instruments=instruments)
    begin = int(np.searchsorted(whole.open_time, since))
    if begin >= len(whole):
        raise DataMissingError(f"{dataset.origin} has no bars from {iso(since)} on", hint="choose an earlier --since")
    known = np.maximum.accumulate(whole.known_at)[begin:]
    ends, ahead = np.full(len(known), NEVER, np.int64), 1 + _horizon(plan, whole.interval)
    ends[: max(0, len(known) - ahead)] = known[ahead:]
    bounds = {"test_since": period.test_since, "test_until": period.test_until, "most": period.folds}
    folds = plan_folds(known, ends, plan.train, **bounds)
    reach = build_model(SOURCE, plan.signals).reach(whole.interval)
    cut = max(0, begin + int(folds[0].train[0]) - reach)
    return whole.rows(cut, len(whole)), plan_folds_at(folds, begin - cut)


def _material(plan: Plan, panel: Panel, dataset: Dataset, folds: Sequence[Fold], out: Path) -> TextMaterial:
    """States and outcomes of all rows."""
    frame = Frame(panel, dataset, first=int(folds[0].train[0]))
    encoder, horizon = open_encoder(plan.signals.text), _horizon(plan, panel.interval)
    opinions = build_model(SOURCE, plan.signals).compute(frame)
    rows = np.arange(frame.first, len(panel))
    states = text_states(frame, opinions.value, opinions.confidence, encoder, plan.signals.news, rows=rows)
    sigma = frame.sigma
    labels = forward_return(panel, horizon, sigma)
    at = (states.row, states.asset)
    costs = 2.0 * (plan.costs.taker_fee + plan.costs.half_spread) / (sigma[at] * np.sqrt(horizon))
    actions = proposed_actions(opinions.value[at], plan.signals.act_at, plan.signals.act_strongly_at)
    return TextMaterial(
        row=states.row,
        inputs=states.inputs,
        move=np.where(np.isfinite(costs), np.clip(labels.value[at], -CLIP, CLIP), np.nan),
        cost=costs,
        own=np.array([ACTIONS.index(action) for action in actions], np.int64),
        impact=opinions.impact[at],
        decided_at=np.maximum.accumulate(panel.known_at)[states.row],
        settled_at=np.maximum(labels.known_at[states.row], panel.known_at[states.row]),
        design=TextAgentDesign(
            SOURCE,
            EncoderId.of(encoder),
            plan.signals.news,
            panel.interval,
            horizon,
            plan.learn.actor_critic.policy_widths,
            plan.learn.actor_critic.value_widths,
        ),
        learning=plan.learn.actor_critic,
        passes=plan.train.epochs,
        batch=plan.train.batch * 32,
        seed=plan.seed,
        out=out,
    )


def _identity(plan: Plan, material: TextMaterial, dataset: Dataset, folds: Sequence[Fold], panel: Panel) -> dict[str, Any]:
    """What makes a training this one: everything that its result depends on."""
    digest = hashlib.blake2b(np.ascontiguousarray(material.inputs).view(np.uint8).data, digest_size=16)
    for array in (material.row, material.move, material.cost, material.own, material.settled_at):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    found = {
        "version": __version__,
        "seed": plan.seed,
        "data": {
            "origin": dataset.origin,
            "fingerprint": dataset.fingerprint,
            "simulated": dataset.simulated,
            "arrays": digest.hexdigest(),
        },
        "instruments": list(panel.instruments),
        "design": material.design.described(),
        "learning": material.learning.model_dump(),
        "passes": material.passes,
        "batch": material.batch,
        "folds": [fold.as_dict() for fold in folds],
    }
    return dict(as_json(found))


def _judged(material: TextMaterial, folds: Sequence[Fold], shop: Workshop, seed: int) -> dict[str, Any]:
    """Everything that was found out."""
    results = [read_text_result(shop, fold) for fold in folds]
    columns = {name: np.concatenate([found[name] for found, _ in results]) for name in results[0][0]}
    judged = judge_text_agent(columns, horizon_bars=material.design.horizon_bars, seed=seed)
    return {
        "versions": {"cryptoalpha": __version__, "numpy": np.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "model": MODEL,
        "judgement": judged.as_dict(),
        "verdict": judged.verdict(),
        "training": [state for _, state in results],
    }


def _write(shop: Workshop, design: TextAgentDesign, folds: Sequence[Fold], lineage: Mapping[str, Any]) -> None:
    files = [FoldFile(**read_text_result(shop, fold)[1]["file"]) for fold in folds]
    kept = {file.file for file in files}
    for left in shop.draft.iterdir():
        if left.name not in kept:
            left.unlink() if left.is_file() else shutil.rmtree(left)
    write_whole(shop.draft / "report.html", page(TextAgentTrained(shop.out, lineage)))
    write_folder(shop.draft, kind=KIND, description=design.described(), lineage=lineage, folds=files)
    shop.publish()
