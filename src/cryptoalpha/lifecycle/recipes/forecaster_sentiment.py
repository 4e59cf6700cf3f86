"""The forecaster's sentiment head, taught by labelled texts once per training and given to every fold.

The texts carry no outcome of a market, so one head serves all folds; but words that were written after a fold's test bars may know them, so
sets whose dates reach into the test period are named in the lineage and by `lines`. Sets without dates cannot be checked: named, too.
Without labelled texts the head stays untaught: the lineage says "unavailable", and the source's trace of it is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import iso
from cryptoalpha.lifecycle.recipes.sentiment_sets import LabelledSet, read_labelled
from cryptoalpha.lifecycle.recipes.sentiment_teaching import HEAD_FIT, SPLIT, Tell, described, encode_sets, macro_f1s, taught_by, teach
from cryptoalpha.nets.text.labels import SENTIMENTS
from cryptoalpha.signals.text.encoder import TextEncoder

if TYPE_CHECKING:
    from cryptoalpha.signals.forecast.model import ForecastDesign

UNAVAILABLE: Mapping[str, Any] = {"available": False, "why": "unavailable: no labelled texts were given (--labelled)"}
"""What the lineage says of a head that nobody taught."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled texts that teach the head; `left_out`: sets whose labels a rule made."""

    sets: tuple[LabelledSet, ...]
    left_out: tuple[str, ...]
    files: Mapping[str, str]

    @classmethod
    def read(cls, source: Path) -> Labelled:
        """The sets of a folder, or of one file.

        Raises:
            DataMissingError, DataError: if there are no labelled texts, none labelled by people, or one stands in two splits.
        """
        sets, files = read_labelled(source)
        return cls(tuple(taught_by(sets)), tuple(one.name for one in sets if one.made_by), files)

    def identity(self) -> dict[str, Any]:
        """What the head depends on, beside seed and encoder."""
        return {"sets": {one.name: one.fingerprint() for one in self.sets}, "files": dict(self.files), "fit": HEAD_FIT.model_dump()}


def teach_sentiment(
    labelled: Labelled, design: ForecastDesign, encoder: TextEncoder, *, test_since: int, seed: int, tell: Tell | None = None
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, Any]]:
    """Weights of the head by name, and what the lineage says of it.

    Args:
        test_since: the first moment (UTC ns) that is judged; sets with later dates are named.

    Raises:
        ConfigError: if the head has other classes than labels are read in.
        ModelError: if a loss is not finite.
    """
    from cryptoalpha.nets.forecaster.heads import SentimentHead

    if design.heads.sentiment_classes != len(SENTIMENTS):
        raise ConfigError(
            f"nets.heads.sentiment_classes is {design.heads.sentiment_classes}; labelled texts teach {len(SENTIMENTS)}",
            hint=f"set it to {len(SENTIMENTS)}, or train without --labelled",
        )
    sets = labelled.sets
    vectors = encode_sets(sets, encoder, tell)
    head = SentimentHead(encoder.width, design.heads.sentiment_classes)

    def say(step: int, steps: int) -> None:
        if tell is not None:
            tell(step, steps, f"training the sentiment head ({encoder.name})")

    report = teach(head, sets, vectors, config=HEAD_FIT, seed=seed, say=say)
    head.eval()
    scores = {name: macro_f1s(head, sets, vectors, split=split) for name, split in (("validation", 1), ("test", 2))}
    lineage = {
        "available": True,
        "sets": {one.name: {**described(one), "newest": None if one.newest is None else iso(one.newest)} for one in sets},
        "left_out": list(labelled.left_out),
        "texts": sum(len(one.texts) for one in sets),
        "split": SPLIT,
        "steps": report.best_step,
        **{f"{name}_macro_f1": {**found, "mean": float(np.mean(list(found.values())))} for name, found in scores.items()},
        **_dates(sets, test_since),
    }
    return {name: part.detach().numpy().copy() for name, part in head.state_dict().items()}, lineage


def lines(lineage: Mapping[str, Any] | None) -> list[str]:
    """What a person is told of the head; nothing for a model that does not say."""
    if not lineage:
        return []
    if not lineage["available"]:
        return [f"sentiment head {lineage['why']}"]
    validation, test = lineage["validation_macro_f1"]["mean"], lineage["test_macro_f1"]["mean"]
    told = [f"sentiment head: {lineage['texts']:,} texts, macro-F1 {validation:.3f} on validation, {test:.3f} on test texts"]
    if lineage["after_test_since"]:
        told.append(f"texts of the test period taught the sentiment head: {', '.join(lineage['after_test_since'])}")
    if lineage["without_dates"]:
        told.append(f"no dates, so nobody can say that these texts are older than the test period: {', '.join(lineage['without_dates'])}")
    return told


def _dates(sets: Sequence[LabelledSet], test_since: int) -> dict[str, list[str]]:
    return {
        "after_test_since": [one.name for one in sets if one.newest is not None and one.newest >= test_since],
        "without_dates": [one.name for one in sets if one.newest is None],
    }
