"""How well sentiments are called: macro-F1 with intervals, beside rules that nobody trained here.

Macro-F1 is the mean over classes of 2·hits / (called + true): a class that is rare counts as much as one that is common, and always saying
the commonest class is worth little. Intervals are percentiles over resampled test texts, the same resamples for all, so that a difference
has an interval of its own; texts without repeats are independent, so single texts are drawn.

Rules call a text by a number in [−1, 1] and two cuts: VADER at ±0.05 as its authors say, the project's lexicon at ±0.1, both at ±0.5 for
the strong grades of five classes. Of two classes the sign decides; an exact 0 goes to the commoner class of the training split.

Source: Hutto & Gilbert (2014), "VADER".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.recipes.sentiment_sets import Ints, LabelledSet
from cryptoalpha.store.tables import Floats

VADER_CUT, LEXICON_CUT, STRONG_CUT = 0.05, 0.1, 0.5
RESAMPLES = 1_000
LEVEL = 0.95


def macro_f1(truth: Ints, called: Ints, classes: int) -> float:
    """Mean over classes of 2·hits / (called + true); a class that neither occurs nor is called counts 0. `[n]`, `[n]`."""
    return float(_macro_f1(np.bincount(truth * classes + called, minlength=classes * classes)[None], classes)[0])


def _macro_f1(counts: Ints, classes: int) -> Floats:
    """From tables of truth × call, flattened. `[R, K²]` → `[R]`."""
    table = counts.reshape(-1, classes, classes).astype(np.float64)
    hits = np.diagonal(table, axis1=1, axis2=2)
    either = table.sum(axis=1) + table.sum(axis=2)
    scores: Floats = np.where(either > 0.0, 2.0 * hits / np.maximum(either, 1.0), 0.0).mean(axis=1)
    return scores


@dataclass(frozen=True)
class Scored:
    """One way of calling a set's test texts."""

    model: str
    macro_f1: float
    low: float
    high: float
    accuracy: float
    over_vader: tuple[float, float, float] | None
    """Macro-F1 minus VADER's: estimate, low, high; None where VADER is not installed, and for VADER."""

    def as_dict(self) -> dict[str, object]:
        return {
            "model": self.model, "macro_f1": self.macro_f1, "interval": [self.low, self.high], "accuracy": self.accuracy,
            "over_vader": None if self.over_vader is None else list(self.over_vader),
        }  # fmt: skip


def score_all(labelled: LabelledSet, rows: Ints, calls: dict[str, Ints], *, seed: int) -> list[Scored]:
    """Score every model's calls of the same texts, `[n]` class places each, with paired intervals."""
    truth, classes = labelled.label[rows], len(labelled.classes)
    drawn = stream(seed, "sentiment", labelled.name).integers(0, len(rows), (RESAMPLES, len(rows)))
    resampled: dict[str, Floats] = {}
    for model, called in calls.items():
        cells = (truth * classes + called)[drawn] + classes * classes * np.arange(RESAMPLES)[:, None]
        counts = np.bincount(cells.ravel(), minlength=RESAMPLES * classes * classes)
        resampled[model] = _macro_f1(counts.reshape(RESAMPLES, -1), classes)
    edges = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)
    found = []
    for model, called in calls.items():
        estimate, over = macro_f1(truth, called, classes), None
        if "VADER" in calls and model != "VADER":
            low, high = np.quantile(resampled[model] - resampled["VADER"], edges)
            over = (estimate - macro_f1(truth, calls["VADER"], classes), float(low), float(high))
        low, high = np.quantile(resampled[model], edges)
        found.append(Scored(model, estimate, float(low), float(high), float(np.mean(called == truth)), over))
    return found


def commonest(labelled: LabelledSet) -> int:
    """The commonest class of the training split."""
    return int(np.bincount(labelled.label[labelled.rows(0)], minlength=len(labelled.classes)).argmax())


def call_by_rule(labelled: LabelledSet, tone: Floats, *, cut: float) -> Ints:
    """Classes by a tone in [−1, 1]: beyond the cuts, on the nearest grade there is. `[n]` → `[n]`."""
    polarity = np.array(labelled.polarity)
    if 0.0 not in labelled.polarity:
        return np.asarray(np.where(tone == 0.0, commonest(labelled), np.where(tone > 0.0, len(polarity) - 1, 0)), np.int64)
    side = np.where(np.abs(tone) >= cut, np.sign(tone), 0.0)
    grade = side * np.where(np.abs(tone) >= STRONG_CUT, 1.0, 0.5) if 0.5 in np.abs(polarity) else side
    return np.asarray(np.abs(grade[:, None] - polarity[None]).argmin(axis=1), np.int64)


def call_by_shares(labelled: LabelledSet, shares: Floats) -> Ints:
    """Classes by the shares of the five sentiments: the class whose grades have the most. `[n, 5]` → `[n]`."""
    return np.asarray((shares @ labelled.grades.T.astype(np.float64)).argmax(axis=1), np.int64)


def vader() -> Callable[[Sequence[str]], Floats] | None:
    """VADER's compound score of texts, or None where vaderSentiment is not installed."""
    if find_spec("vaderSentiment") is None:
        return None
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyser = SentimentIntensityAnalyzer()
    return lambda texts: np.array([analyser.polarity_scores(text)["compound"] for text in texts], np.float64)
