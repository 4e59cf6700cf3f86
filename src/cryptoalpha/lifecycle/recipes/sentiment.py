"""Train the sentiment head: labelled texts → vectors of a frozen encoder → five sentiments, judged beside VADER on texts it never saw.

    trained = train_sentiment(Path("labelled"), TextConfig(encoder="minilm"), Path("sentiment.safetensors"))

One head learns from all sets together (`nets.text.head` says how two- and three-class labels teach five); within a set a class counts by
the square root of its rarity. Scalers and weights come from the training split, the moment to stop and the better of a linear and a
two-layer head from validation, figures from test. Sets whose labels a rule made are judged and shown, but neither learned from nor counted.
Beside the configured encoder's head stand the commonest class, VADER, the lexicon alone, and a head on the lexicon's vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha import __version__
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.lifecycle.recipes.sentiment_judging import (
    LEXICON_CUT,
    VADER_CUT,
    Scored,
    call_by_rule,
    call_by_shares,
    commonest,
    score_all,
    vader,
)
from cryptoalpha.lifecycle.recipes.sentiment_sets import SPLITS, LabelledSet, read_labelled
from cryptoalpha.lifecycle.recipes.sentiment_teaching import HEAD_FIT, SPLIT, Tell, described, encode_sets, lessons, taught_by, teach
from cryptoalpha.signals.config import TextConfig
from cryptoalpha.signals.text.encoder import EncoderId, TextEncoder, Vectors
from cryptoalpha.signals.text.lexicon_encoder import LexiconEncoder
from cryptoalpha.signals.text.sentiment import SentimentModel
from cryptoalpha.signals.text.tiers import open_encoder
from cryptoalpha.store.home import Home

HIDDEN = (0, 64)
"""Widths of the layer between that are tried; validation chooses."""

DROPOUT = 0.3
MARGIN = 0.10
"""Macro-F1 by which a trained head is expected to beat VADER on each set that people labelled."""


@dataclass(frozen=True, eq=False)
class SentimentTrained:
    """What came of it: where the head lies, how it was made, and how it does on each set's test texts."""

    out: Path
    model: SentimentModel
    sets: tuple[LabelledSet, ...]
    scores: dict[str, list[Scored]]
    head: str
    """The model in `scores` that was kept."""

    def as_dict(self) -> dict[str, object]:
        """Everything as plain values."""
        return {
            "out": str(self.out),
            "head": self.head,
            "encoder": self.model.encoder.as_dict(),
            "digest": self.model.digest,
            "lineage": dict(self.model.lineage),
            "sets": {one.name: {**described(one), "test": [scored.as_dict() for scored in self.scores[one.name]]} for one in self.sets},
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """What a reader must know about the figures."""
        notes = []
        for one in self.sets:
            own = next(scored for scored in self.scores[one.name] if scored.model == self.head)
            if one.made_by:
                answers = f"its labels are {one.made_by}'s own answers, so agreeing with them is no skill"
                notes.append(f"{one.name}: {answers}; not learned from, not counted")
            elif own.over_vader is None:
                notes.append(
                    f"{one.name}: vaderSentiment is not installed (python -m pip install vaderSentiment), so there is no comparison"
                )
            else:
                gain, low, high = own.over_vader
                verdict = "reached" if gain >= MARGIN else "missed"
                notes.append(f"{one.name}: {gain:+.3f} [{low:+.3f}, {high:+.3f}] over VADER; the target of +{MARGIN:.2f} is {verdict}")
        return notes

    def lines(self) -> list[str]:
        """A table for people."""
        lines = [f"sentiment head on {self.model.encoder} → {self.out}"]
        for one in self.sets:
            kept = len(one.texts)
            parts = ", ".join(f"{len(one.rows(number))} {name}" for number, name in enumerate(SPLITS))
            lines += ["", f"{one.name}: {kept} texts ({parts}; {one.repeats} repeats left out), {len(one.classes)} classes"]
            lines += [f"  {'model':<22} {'macro-F1':>8}  {'95 %':<16} {'accuracy':>8}  over VADER"]
            for scored in self.scores[one.name]:
                over = "" if scored.over_vader is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*scored.over_vader)
                interval = f"[{scored.low:.3f}, {scored.high:.3f}]"
                lines.append(f"  {scored.model:<22} {scored.macro_f1:>8.3f}  {interval:<16} {scored.accuracy:>8.3f}  {over}".rstrip())
        return [*lines, "", *self.notes()]


def train_sentiment(
    source: Path | Sequence[LabelledSet],
    config: TextConfig,
    out: Path,
    *,
    seed: int = 0,
    fit_config: FitConfig = HEAD_FIT,
    home: Home | None = None,
    tell: Tell | None = None,
) -> SentimentTrained:
    """Train a head on the configured encoder, judge it, and leave it at `out` (replaced only when all is done).

    Args:
        source: a folder of labelled files, one file, or sets that were read already.
        config: the encoder; each text is encoded once and kept in the store's text cache.
        seed: of initial weights, order and dropout, and of the intervals.
        home: where the text cache lies.
        tell: told where training stands.

    Raises:
        DataMissingError, DataError: if there are no labelled texts, none labelled by people, or one stands in two splits.
        ConfigError, ModelError: from the encoder, or if a loss is not finite.
        StoreError: if `out` cannot be written.
    """
    sets, files = read_labelled(source) if isinstance(source, Path) else (list(source), {})
    taught = taught_by(sets)
    encoder = open_encoder(config.model_copy(update={"sentiment_model": ""}), home=home)
    encoders: list[TextEncoder] = [encoder] if encoder.name == "lexicon" else [LexiconEncoder(), encoder]
    calls = {one.name: _rules(one) for one in sets}
    kept: tuple[SentimentModel, str] | None = None
    for each in encoders:
        vectors = encode_sets(sets, each, tell)
        model, tried = _train_head(taught, vectors, EncoderId.of(each), fit_config, seed, tell)
        name = f"{each.name} + head"
        for one in sets:
            calls[one.name][name] = call_by_shares(one, model.shares(vectors[one.name][one.rows(2)]))
        lineage = _lineage(sets, files, fit_config, seed, tried)
        kept = (SentimentModel(model.encoder, model.arrays, lineage), name)
    assert kept is not None
    head, name = kept
    scores = {one.name: score_all(one, one.rows(2), calls[one.name], seed=seed) for one in sets}
    figures = {one: [scored.as_dict() for scored in found] for one, found in scores.items()}
    head = SentimentModel(head.encoder, head.arrays, {**head.lineage, "test": figures})
    head.save(out)
    return SentimentTrained(out, head, tuple(sets), scores, name)


def _rules(labelled: LabelledSet) -> dict[str, Any]:
    """The calls of the test texts by what nobody trained here."""
    rows = labelled.rows(2)
    texts = [labelled.texts[row] for row in rows]
    calls = {"commonest class": np.full(len(rows), commonest(labelled), np.int64)}
    compound = vader()
    if compound is not None:
        calls["VADER"] = call_by_rule(labelled, compound(texts), cut=VADER_CUT)
    calls["lexicon, rules only"] = call_by_rule(labelled, LexiconEncoder().polarity(texts), cut=LEXICON_CUT)
    return calls


def _train_head(
    sets: Sequence[LabelledSet], vectors: dict[str, Vectors], encoder: EncoderId, config: FitConfig, seed: int, tell: Tell | None
) -> tuple[SentimentModel, list[dict[str, Any]]]:
    """The head that validated best, and what was tried."""
    import torch

    from cryptoalpha.nets.text.bert import one_thread
    from cryptoalpha.nets.text.head import SentimentHead

    x = torch.from_numpy(lessons(sets, vectors)[0])
    best: tuple[float, SentimentModel] | None = None
    tried: list[dict[str, Any]] = []
    for number, hidden in enumerate(HIDDEN):
        head = SentimentHead(encoder.width, hidden=hidden, dropout=DROPOUT, seed=seed)
        with one_thread():
            head.fit_scaler(x)

        def say(step: int, steps: int, number: int = number) -> None:
            if tell is not None:
                tell(number * steps + step, len(HIDDEN) * steps, f"training a head ({encoder.name})")

        report = teach(head, sets, vectors, config=config, seed=seed, say=say)
        reached = float(report.validations.min())
        tried.append({"hidden": hidden, "validation_macro_f1": 1.0 - reached, "steps": report.best_step, "stopped": report.stopped})
        if best is None or reached < best[0]:
            best = reached, SentimentModel(encoder, {name: part.numpy().copy() for name, part in head.state_dict().items()})
    assert best is not None
    return best[1], tried


def _lineage(
    sets: Sequence[LabelledSet], files: dict[str, str], config: FitConfig, seed: int, tried: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "version": __version__,
        "seed": seed,
        "files": files,
        "sets": {one.name: described(one) for one in sets},
        "taught_by": [one.name for one in sets if not one.made_by],
        "split": SPLIT,
        "fit": config.model_dump(),
        "dropout": DROPOUT,
        "tried": tried,
    }
