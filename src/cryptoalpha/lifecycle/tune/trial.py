"""One trial: a point is drawn, judged fold by fold, given up where it is worse than the others were, and counted whatever became of it.

In the process that works on it; what it knows of other trials it reads from the journal.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.clock import SystemClock
from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.tune.journal import Place, needed
from cryptoalpha.lifecycle.tune.ledger import Look, State, TrialLedger
from cryptoalpha.lifecycle.tune.space import Params, Space, Value
from cryptoalpha.monitoring.daily import Floats

if TYPE_CHECKING:
    import optuna

M = TypeVar("M")

Direction = Literal["minimize", "maximize"]

WRONG = (ModelError, MemoryError, ArithmeticError)
"""What a point may cause: its trial fails. Anything else ends the search."""

ABANDONED, RETRY_OF, ERROR, FIGURES, SECONDS = "abandoned", "retry_of", "error", "figures", "seconds"
"""Names of what is noted beside a trial."""


@dataclass(frozen=True, eq=False)
class Score:
    """What a fold found.

    Args:
        value: what is searched for; not finite is a failure.
        days: 00:00 UTC (ns) of each judged day, rising `[n]`.
        returns: net return of each of them `[n]`; added up where folds share a day.
        figures: what else is worth knowing.
    """

    value: float
    days: npt.NDArray[np.int64]
    returns: Floats = field(repr=False)
    figures: Mapping[str, float] = field(default_factory=dict)


Judge = Callable[[M, Params, int], Score]
"""Judges a point on a fold (0 is the oldest), with what a worker holds. Raises `ModelError` where training went wrong: the trial fails, the
search goes on."""


@dataclass(frozen=True)
class Search(Generic[M]):
    """What is searched, how it is judged, and on what.

    Args:
        name: of the study.
        space: what is drawn.
        direction: whether less or more is better.
        folds: how many judge a trial.
        start: builds what a worker holds; an importable function or a `functools.partial` of one.
        judge: judges a point on one fold; importable. With `holdout` it is asked for fold `folds`, too, once.
        identity: JSON values that all depends on besides the point: settings, data, versions.
        data: fingerprint of the data set.
        since, until: the days that the folds judge, UTC ns.
        holdout: the days that no trial sees, or None.
    """

    name: str
    space: Space
    direction: Direction
    folds: int
    start: Callable[[], M]
    judge: Judge[M]
    identity: Mapping[str, Any]
    data: str
    since: int
    until: int
    holdout: tuple[int, int] | None = None
    startup_trials: int = 10
    unpruned_trials: int = 5

    def look(self, params: Mapping[str, Value]) -> Look:
        """What the ledger calls a trial of these parameters."""
        return Look(self.data, self.since, self.until, self._digest(params), "tune")

    def last_look(self, params: Mapping[str, Value]) -> Look:
        """What it calls their judgement on the days that no trial sees."""
        assert self.holdout is not None
        return Look(self.data, *self.holdout, self._digest(params), "tune holdout")

    def _digest(self, params: Mapping[str, Value]) -> str:
        content = json.dumps([self.identity, self.name, dict(params)], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Bench(Generic[M]):
    """What a worker works with."""

    search: Search[M]
    study: optuna.Study
    ledger: TrialLedger
    seed: int
    material: M
    joined: int
    """Descriptor that says that this process works on the study."""


def sit_down(search: Search[M], place: Place, ledger: Path, seed: int) -> Bench[M]:
    """Begin to work on a study, in the process that does."""
    joined = place.join()
    return Bench(search, open_study(search, place), TrialLedger(ledger, now=SystemClock().now), seed, search.start(), joined)


def open_study(search: Search[M], place: Place) -> optuna.Study:
    """The study, made where there is none."""
    needed()
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=search.unpruned_trials)
    return optuna.create_study(
        storage=place.storage(), study_name=search.name, direction=search.direction, load_if_exists=True, pruner=pruner
    )


def work(bench: Bench[M], until: float | None) -> bool:
    """Do one trial, unless the time is up (`until`, of the machine's monotonic clock). Whether one was done.

    Not Optuna's `optimize`: it has one outcome for all that goes wrong, and no budget that processes share.

    Raises:
        StoreError: if journal or ledger cannot be written.
        Whatever the judge raises that says nothing about the point; the trial is begun again by the next search.
    """
    if until is not None and time.monotonic() >= until:
        return False
    begun = Begun.on(bench)
    error, goes_on = "", True
    for fold in range(bench.search.folds):
        try:
            goes_on, error = begun.hear(fold, bench.search.judge(bench.material, begun.params, fold))
        except WRONG as wrong:
            goes_on, error = False, f"{type(wrong).__name__}: {wrong}"
        if not goes_on:
            break
    begun.end(error)
    return True


@dataclass(eq=False)
class Begun(Generic[M]):
    """A trial that is being worked on, here or elsewhere: who hears what its folds found says whether it goes on, and how it ended."""

    bench: Bench[M]
    trial: optuna.Trial
    params: Params
    began: float
    scores: list[Score] = field(default_factory=list)

    @classmethod
    def on(cls, bench: Bench[M]) -> Begun[M]:
        """Draw the next point, and write the look down."""
        import optuna

        began, trial = time.monotonic(), bench.study.ask()
        # Chance is a function of seed and number, whoever works on it: the search of one process is the same search every time.
        chance = int(stream(bench.seed, "tune", bench.search.name, trial.number).integers(2**31))
        bench.study.sampler = optuna.samplers.TPESampler(seed=chance, n_startup_trials=bench.search.startup_trials)
        params = bench.search.space.draw(trial)
        bench.ledger.enter(bench.search.look(params))
        return cls(bench, trial, params, began)

    def hear(self, fold: int, score: Score) -> tuple[bool, str]:
        """What a fold found: whether the next one is worth judging, and what went wrong, if anything did."""
        if not math.isfinite(score.value):
            return False, f"fold {fold} found {score.value}, which is no number"
        self.scores.append(score)
        self.trial.report(_mean(self.scores), fold)
        is_last = fold + 1 >= self.bench.search.folds
        return is_last or not self.trial.should_prune(), ""

    def end(self, error: str = "") -> None:
        """Say how it ended, to the ledger first.

        What diverges says something about the point: the sampler is told that it was given up, which counts as worse than any that was
        judged. A failure in Optuna's words would teach it nothing, and it would come back.
        """
        import optuna

        is_whole = not error and len(self.scores) == self.bench.search.folds
        told: State = "failed" if error else "done" if is_whole else "pruned"
        days, returns = by_day(self.scores)
        is_kept = is_whole and len(days) > 0
        look = self.bench.search.look(self.params)
        self.bench.ledger.settle(look, told, first_day=int(days[0]) if is_kept else None, returns=returns if is_kept else None)
        _note(self.trial, self.scores, error, time.monotonic() - self.began)
        state = optuna.trial.TrialState.COMPLETE if is_whole else optuna.trial.TrialState.PRUNED
        self.bench.study.tell(self.trial, _mean(self.scores) if is_whole else None, state=state)


def _mean(scores: list[Score]) -> float:
    return float(np.mean([score.value for score in scores]))


def _note(trial: optuna.Trial, scores: list[Score], error: str, seconds: float) -> None:
    names = list(dict.fromkeys(name for score in scores for name in score.figures))
    found = {name: [score.figures[name] for score in scores if name in score.figures] for name in names}
    means = {name: float(np.mean(values)) for name, values in found.items()}
    trial.set_user_attr(FIGURES, {name: value for name, value in means.items() if math.isfinite(value)})
    trial.set_user_attr(SECONDS, round(seconds, 3))
    if error:
        trial.set_user_attr(ERROR, error[:500])


def by_day(scores: list[Score]) -> tuple[npt.NDArray[np.int64], Floats]:
    """Judged days and their returns over all folds, without gaps: a day on which nothing was judged returned nothing."""
    if not scores:
        return np.empty(0, np.int64), np.empty(0)
    days = np.concatenate([score.days for score in scores]).astype(np.int64)
    place = (days - days.min()) // DAY
    returns = np.bincount(place, weights=np.concatenate([score.returns for score in scores]))
    return np.asarray(days.min() + DAY * np.arange(len(returns)), np.int64), np.asarray(returns, np.float64)


def leave(bench: Bench[M]) -> None:
    """Stop to count as a worker."""
    with suppress(OSError):
        os.close(bench.joined)
