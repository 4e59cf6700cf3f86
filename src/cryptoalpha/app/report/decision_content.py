"""What a report shows of who decided: fusions in charge, families of evidence, members of the council, regimes, and what each stage added.
Plain values, as in `content`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptoalpha.app.report.weight_history import WeightHistory
from cryptoalpha.monitoring.bootstrap import Interval


@dataclass(frozen=True)
class Charge:
    """A fusion that was in charge, and for how much of the run."""

    name: str
    bars: int
    share: float


@dataclass(frozen=True)
class ChargeChange:
    """Another fusion came into charge; the first of a run came with its first bar."""

    time: int
    name: str
    reason: str


@dataclass(frozen=True)
class FusionScore:
    """What the fused decisions were worth when a stretch after them had passed (`day`, `horizon`), newest counting most."""

    stretch: str
    judged: int
    hit_rate: float
    """Share of directions with the sign of the move."""
    ic: float
    log_score: float
    """Mean log score of the expected move over expecting nothing."""


@dataclass(frozen=True)
class Member:
    """A member of the council: what its vote counted, and what its plans claimed to earn (expected discounted log growth; NaN where it
    does not plan)."""

    name: str
    mean_share: float
    last_share: float
    mean_claim: float


@dataclass(frozen=True)
class RegimeShare:
    """Mean belief in one of the five named regimes. Trends sum to 1, volatilities too."""

    name: str
    share: float


@dataclass(frozen=True)
class StageRow:
    """One stage of the ablation: the same bars and costs, with everything up to it switched on."""

    name: str
    what: str
    sharpe: Interval
    total_return: float
    max_drawdown: Interval
    turnover: float
    costs: float
    """Fees, spread and impact paid less funding received, as a fraction of initial equity."""
    added: Interval | None
    """Annual Sharpe ratio less that of the stage before, paired; None for the first stage."""
    words: str


@dataclass(frozen=True, eq=False)
class Deciders:
    """Who decided. Empty fields: nothing of the kind took part."""

    charge: tuple[Charge, ...] = ()
    changes: tuple[ChargeChange, ...] = ()
    in_charge: WeightHistory | None = None
    """Share of each day's bars."""
    type_weights: WeightHistory | None = None
    """Weight of each family of evidence, once a day."""
    scores: tuple[FusionScore, ...] = ()
    members: tuple[Member, ...] = ()
    shares: WeightHistory | None = None
    regimes: tuple[RegimeShare, ...] = ()
    regime_beliefs: WeightHistory | None = None
    stages: tuple[StageRow, ...] = ()
    missing_stages: tuple[str, ...] = ()
    """Stages that were left out, and why."""
