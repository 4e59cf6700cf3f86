"""What the gates are shown: values that whoever owns the data brings (`app`), and the callables that bring them.

Times are UTC ns, returns are simple daily returns after all costs. A callable that cannot bring its evidence raises a `CryptoAlphaError`;
its gates are then answered "could not be judged", with its words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.lifecycle.gates.values import Contender

Floats = NDArray[np.float64]
Times = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Probabilities `[n, K]` said at `moments` `[n]` and the class `[n]` that came true, out of sample."""

    moments: Times
    probabilities: Floats
    outcomes: NDArray[np.int64]


@dataclass(frozen=True)
class Stretch:
    """A fold of a model, and the moment (UTC ns) from which it may answer: every label that it was made of was settled before."""

    model: str
    usable_from: int


@dataclass(frozen=True, eq=False)
class TrackRecord:
    """What a contender would have earned on days that none of its models had seen: a purged walk forward, after costs.

    Shapes: `days` `[D]` (00:00 UTC at which each begins), `returns` and each baseline `[D]`.
    """

    days: Times
    returns: Floats
    baselines: Mapping[str, Floats]
    stretches: tuple[Stretch, ...]
    """Every fold of every model that had a say; empty where nothing was trained."""
    data: str
    """Names the data set and the period."""
    forecasts: Forecasts | None = None


@dataclass(frozen=True, eq=False)
class TrialRecord:
    """Every look at these data. `count` includes failed ones and the candidate."""

    count: int
    sharpes: Floats | None = None
    """Daily Sharpe ratios `[n]` of those trials whose ratio is known; their spread deflates. None: that of worthless trials is taken."""
    returns: Floats | None = None
    """Daily returns `[D, n]` of those trials that are kept, over the same days, the candidate's among them."""


@dataclass(frozen=True, eq=False)
class PathReturns:
    """Daily returns after costs of each path of a combinatorial purged cross-validation, `[paths, D]`."""

    returns: Floats
    splits: int
    """Trainings behind them."""


@dataclass(frozen=True)
class AuditFindings:
    """What the look-ahead audit compared and what leaked, in words."""

    compared: int
    leaks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Footprint:
    """How long answers took (CPU seconds `[n]`) and how much memory their process held at most (bytes)."""

    seconds: Floats
    peak_bytes: int


@dataclass(frozen=True, eq=False)
class ShadowRecord:
    """Candidate and champion over the newest bars, one at a time with what was known then, beside their own replays in one batch."""

    decisions: int
    """Decisions of the candidate that were compared."""
    mismatches: int
    """Of these, how many the batch decided otherwise."""
    failures: int
    """Bars at which the candidate failed, or answered what cannot be used."""
    seconds: Floats
    """CPU time of each bar's decision, seconds `[n]`."""
    disagreements: int = 0
    """Decisions that champion and candidate took otherwise. It is told and judged by nobody: a candidate is there to differ."""
    first_mismatch: str = ""


@dataclass(frozen=True, eq=False)
class HoldoutLook:
    """What the locked stretch said, and the how manieth look at it this was."""

    touches: int
    returns: Floats


@dataclass(frozen=True)
class Checks:
    """How evidence is brought. Each is asked at most once per contender."""

    evaluate: Callable[[Contender], TrackRecord]
    trials: Callable[[Contender], TrialRecord]
    paths: Callable[[Contender], PathReturns]
    audit: Callable[[Contender], AuditFindings]
    latency: Callable[[Contender], Footprint]
    shadow: Callable[[Contender, Contender | None], ShadowRecord]
    holdout: Callable[[Contender], HoldoutLook]
