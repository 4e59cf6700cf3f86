"""How labelled texts teach a head that reads five sentiments from vectors: the one way, whichever head it is.

All sets that people labelled teach together (`nets.text.head` says how two- and three-class labels teach five); within a set a class counts
by the square root of its rarity. Weights come from the training split, the moment to stop from the mean macro-F1 on validation; test texts
are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.lifecycle.recipes.sentiment_judging import call_by_shares, macro_f1
from cryptoalpha.lifecycle.recipes.sentiment_sets import SPLITS, LabelledSet, require_disjoint
from cryptoalpha.signals.text.encoder import TextEncoder, Vectors

if TYPE_CHECKING:
    import torch

    from cryptoalpha.learn.fit import FitReport

Tell = Callable[[int, int, str], None]
"""`tell(done, of, what)`: where training stands."""

HEAD_FIT = FitConfig(learning_rate=1e-3, batch=64, epochs=30, weight_decay=0.05, patience=6)
"""Settings of a head's fit: small enough to train in seconds, with early stopping."""

SPLIT = "hash of the normalised text, 70/15/15"

_AT_ONCE = 1024


def taught_by(sets: Sequence[LabelledSet]) -> list[LabelledSet]:
    """Those that teach: labelled by people.

    Raises:
        DataError: if there are none, or a text stands in two splits.
    """
    require_disjoint(sets)
    taught = [one for one in sets if not one.made_by]
    if not taught:
        raise DataError("no set was labelled by people", hint="a rule's answers teach nothing but the rule; add labelled texts")
    return taught


def encode_sets(sets: Sequence[LabelledSet], encoder: TextEncoder, tell: Tell | None) -> dict[str, Vectors]:
    """Vectors of every set, `[n, D]`."""
    total, done = sum(len(one.texts) for one in sets), 0
    found: dict[str, Vectors] = {}
    for one in sets:
        parts = []
        for first in range(0, len(one.texts), _AT_ONCE):
            parts.append(encoder.encode(one.texts[first : first + _AT_ONCE]))
            done += len(parts[-1])
            if tell is not None:
                tell(done, total, f"reading texts ({encoder.name})")
        found[one.name] = np.concatenate(parts)
    return found


def teach(
    head: torch.nn.Module,
    sets: Sequence[LabelledSet],
    vectors: Mapping[str, Vectors],
    *,
    config: FitConfig,
    seed: int,
    say: Callable[[int, int], None] | None = None,
) -> FitReport:
    """Train `head` (vectors `[n, D]` → logits `[n, 5]`) in place, in one thread, and leave it as it validated best.

    Args:
        say: told steps done, of steps.

    Raises:
        ModelError: if a loss is not finite.
    """
    import torch

    from cryptoalpha.learn.fit import FitProgress, TensorSamples, fit
    from cryptoalpha.nets.text.bert import one_thread
    from cryptoalpha.nets.text.head import label_set_loss

    samples = TensorSamples(*(torch.from_numpy(part) for part in lessons(sets, vectors)))

    def loss(model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return label_set_loss(model(batch[0]), *batch[1:])

    def validate(model: torch.nn.Module) -> float:
        return 1.0 - float(np.mean(list(macro_f1s(model, sets, vectors, split=1).values())))

    def progress(at: FitProgress) -> None:
        if say is not None:
            say(at.step, at.steps)

    with one_thread():
        return fit(head, loss, samples, config=config, seed=seed, validate=validate, progress=progress)


def macro_f1s(head: torch.nn.Module, sets: Sequence[LabelledSet], vectors: Mapping[str, Vectors], *, split: int) -> dict[str, float]:
    """Macro-F1 of the head on one split of each set."""
    import torch

    scores = {}
    with torch.no_grad():
        for one in sets:
            rows = one.rows(split)
            shares = head(torch.from_numpy(vectors[one.name][rows])).softmax(dim=-1).double().numpy()
            scores[one.name] = macro_f1(one.label[rows], call_by_shares(one, shares), len(one.classes))
    return scores


def lessons(sets: Sequence[LabelledSet], vectors: Mapping[str, Vectors]) -> tuple[Vectors, Any, Any, Vectors]:
    """Training vectors `[n, D]`, the grades each may have and was chosen among `[n, 5]`, and weights `[n]`."""
    x, may, among, weight = [], [], [], []
    for one in sets:
        rows = one.rows(0)
        label, grades = one.label[rows], one.grades
        count = np.bincount(label, minlength=len(one.classes))
        rarity = np.sqrt(len(rows) / (len(count) * count))
        x.append(vectors[one.name][rows])
        may.append(grades[label])
        among.append(np.broadcast_to(grades.any(axis=0), (len(rows), grades.shape[1])))
        weight.append(rarity[label].astype(np.float32))
    return np.concatenate(x), np.concatenate(may), np.concatenate(among), np.concatenate(weight)


def described(one: LabelledSet) -> dict[str, Any]:
    """What a lineage says of a set."""
    return {
        "texts": len(one.texts),
        "repeats": one.repeats,
        "classes": list(one.classes),
        "splits": {name: len(one.rows(number)) for number, name in enumerate(SPLITS)},
        "fingerprint": one.fingerprint(),
        "labels_made_by": one.made_by or "people",
    }
