"""A search that takes no time: the value is the squared distance from a known point, the same in every fold but for a shift."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.tune.space import Draws, Params
from cryptoalpha.lifecycle.tune.trial import Score, Search

BEST = 0.3
FOLDS = 3
DAYS = 10


@dataclass(frozen=True)
class Line:
    """x from 0 to 1."""

    first: Params = field(default_factory=lambda: {"x": 0.9})

    def draw(self, by: Draws) -> Params:
        return {"x": by.suggest_float("x", 0.0, 1.0)}

    @property
    def begin(self) -> Params:
        return dict(self.first)


@dataclass(frozen=True)
class Trap:
    """What a worker holds: where it writes down what it judged, and what befalls it."""

    diary: Path
    seconds: float = 0.0
    diverges_above: float = 2.0
    dies_above: float = 2.0
    dies_once: bool = True


def judge(trap: Trap, params: Params, fold: int) -> Score:
    x = float(params["x"])
    with trap.diary.open("a") as diary:
        diary.write(f"{os.getpid()} {fold} {x!r}\n")
    time.sleep(trap.seconds)
    if x > trap.diverges_above:
        raise ModelError("the loss is not finite")
    if x > trap.dies_above and not (trap.dies_once and (trap.diary.parent / "died").exists()):
        (trap.diary.parent / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    rng = np.random.default_rng(1000 + fold)
    returns = rng.normal(0.002 * (1.0 - abs(x - BEST)), 0.01, DAYS)
    return Score((x - BEST) ** 2 + fold, np.arange(fold * DAYS, (fold + 1) * DAYS) * DAY, returns, {"shift": float(fold)})


def given(trap: Trap) -> Trap:
    return trap


def search(diary: Path, *, holdout: bool = False, first: Params | None = None, **trap: object) -> Search[Trap]:
    return Search(
        name="line",
        space=Line({"x": 0.9} if first is None else first),
        direction="minimize",
        folds=FOLDS,
        start=partial(given, Trap(diary, **trap)),  # type: ignore[arg-type]
        judge=judge,
        identity={"what": "a line"},
        data="d",
        since=0,
        until=FOLDS * DAYS * DAY,
        holdout=(FOLDS * DAYS * DAY, (FOLDS + 1) * DAYS * DAY) if holdout else None,
        startup_trials=5,
        unpruned_trials=3,
    )
