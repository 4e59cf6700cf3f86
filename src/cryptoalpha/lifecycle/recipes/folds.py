"""Walk-forward folds of one history: what teaches, what accepts, what stops the training, and what judges.

    |←────────────────────── train_days ──────────────────────→|←─ test_days ─→|
    | train                    ·│ accept      ·│ validation   ·│ test          |
                               ·│             ·│              ·│  labels end an embargo before the next stretch begins

A bar belongs to a stretch if it is known inside it and its label is settled, with an embargo, before the next stretch begins: purged by
the label's own end, not by a count of bars. So nothing that a fold's model was made of, the calibration of its confidence included, had
seen a price that its test is judged by. The model may be used from the first bar of its test on.

With `expanding` every fold learns from the first bar of the history on; validation and accept keep their shares of what it learns from.

Test stretches lie end to end and are counted back from the end of the history: the newest bars are always judged.

Source: López de Prado (2018), "Advances in Financial Machine Learning", chapters 7 and 12 (`learn.splits`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import DAY, iso, iso_second
from cryptoalpha.learn.splits.labels import Indices, Labels, earlier, labels
from cryptoalpha.lifecycle.config import TrainConfig

PARTS = ("train", "accept", "validation", "test")


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold: its stretches as moments (UTC ns, each begins where the one before ends) and as rows of the panel, ascending."""

    number: int
    train_since: int
    accept_since: int
    validation_since: int
    test_since: int
    test_until: int
    train: Indices
    accept: Indices
    validation: Indices
    test: Indices

    @property
    def usable_from(self) -> int:
        """The moment from which bars may be answered: every label that was used is settled an embargo before it."""
        return self.test_since

    def as_dict(self) -> dict[str, object]:
        """Times and counts, for the lineage."""
        times = {name: iso(getattr(self, name)) for name in ("train_since", "accept_since", "validation_since", "test_since", "test_until")}
        return {"number": self.number, **times, "bars": {part: len(getattr(self, part)) for part in PARTS}}

    def __str__(self) -> str:
        learns, judged, ends = (iso(moment)[:10] for moment in (self.train_since, self.test_since, self.test_until))
        return f"fold {self.number}: learns from {learns}, judged {judged} to {ends}"


def plan_folds(
    known_at: ArrayLike,
    label_ends_at: ArrayLike,
    config: TrainConfig,
    *,
    test_since: int | None = None,
    test_until: int | None = None,
    most: int | None = None,
) -> tuple[Fold, ...]:
    """The folds of a history, oldest first.

    Args:
        known_at: `[T]` UTC ns, rising: when each row of the panel is known.
        label_ends_at: `[T]` when the last of the row's labels is settled; a label that never is lies far in the future.
        config: lengths of the stretches.
        test_since: first moment that may be judged; without it, the first that leaves room to learn before it.
        test_until: end of what is judged, exclusive; without it, the end of the history.
        most: folds at most, the newest ones.

    Raises:
        DataMissingError: if the history is too short for one fold; says how many days are needed.
        ConfigError: if the shares leave a stretch without a single settled row.
    """
    samples = labels(known_at, label_ends_at)
    late = np.flatnonzero(np.diff(samples.known_at) <= 0)
    if late.size:
        raise ConfigError(
            f"rows are not in the order of time: the bar known at {iso_second(int(samples.known_at[late[0]]))} "
            "is known no earlier than the one after it",
            hint="folds are planned over the rows of one panel; a bar that came as late as its successor has to be left out of it",
        )
    if len(samples) < 2:
        raise DataMissingError(f"{len(samples)} bars are no history to learn from")
    # The oldest row is known one bar after it opens: the history begins there.
    first, end = 2 * int(samples.known_at[0]) - int(samples.known_at[1]) + 1, int(samples.known_at[-1]) + 1
    until = end if test_until is None else min(test_until, end)
    learn, test = config.train_days * DAY, config.test_days * DAY
    earliest = first + learn if test_since is None else test_since
    if earliest - learn < first or until - max(earliest, first + learn) < (test if test_since is None else 1):
        _refuse_short(first, until, config, test_since)
    starts = []
    start = until - test
    while start >= earliest:
        starts.append(start)
        start -= test
    if test_since is not None and (not starts or starts[-1] > earliest):
        starts.append(earliest)  # what was asked for is judged from its first day on: the oldest stretch is a shorter one
    starts = sorted(starts)[-most:] if most is not None else sorted(starts)
    ends = [*starts[1:], until]
    since = first if config.expanding else None
    return tuple(_fold(number, samples, config, begin, stop, since) for number, (begin, stop) in enumerate(zip(starts, ends, strict=True)))


def _fold(number: int, samples: Labels, config: TrainConfig, test_since: int, test_until: int, since: int | None) -> Fold:
    """`since`: begin of an expanding stretch; None where only the newest `train_days` teach."""
    length = config.train_days * DAY if since is None else test_since - since
    validation = test_since - round(config.validation_share * length)
    accept = validation - round(config.accept_share * length)
    bounds = (test_since - length, accept, validation, test_since)
    embargo = round(config.embargo_days * DAY)
    known, ends = samples.known_at, samples.ends_at
    parts = [np.flatnonzero((known >= since) & (ends < earlier(following, embargo))) for since, following in pairwise(bounds)]
    parts.append(np.flatnonzero((known >= test_since) & (known < test_until)))
    for name, rows, share in zip(PARTS, parts, (1.0, config.accept_share, config.validation_share, 1.0), strict=True):
        if not len(rows) and share > 0.0:
            raise ConfigError(
                f"fold {number} has no {name} rows left after purge and embargo",
                hint="give more lifecycle.train.train_days, larger shares, or a shorter lifecycle.train.embargo_days",
            )
    return Fold(number, *bounds, test_until, *parts)


def _refuse_short(first: int, until: int, config: TrainConfig, test_since: int | None) -> None:
    have = max(0, until - first) // DAY
    if test_since is None:
        raise DataMissingError(
            f"the history holds {have} days from {iso_second(first)} on; one fold needs {config.train_days + config.test_days}: "
            f"{config.train_days} to learn from and {config.test_days} to be judged on",
            hint="bring more history, or set lifecycle.train.train_days and lifecycle.train.test_days lower",
        )
    raise DataMissingError(
        f"judging from {iso(test_since)} on needs bars from {iso(test_since - config.train_days * DAY)} on "
        f"and at least one after it; the history goes from {iso(first)} to {iso(until)}",
        hint="choose a later --test-since, bring more history, or set lifecycle.train.train_days lower",
    )
