"""What a report shows of risk: how limits cut, what changed its state, what was left at the end, how bad days compare with forecasts, and
where the result came from by year, regime and instrument. Plain values, as in `content`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.app.run_risk import LimitUse
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.ratios import NAN

BOOK = "the book"
"""Subject of tail tests that concern all positions together."""


@dataclass(frozen=True)
class CutCount:
    """How often a limit decided a size that was journaled, and how much it took."""

    limit: str
    times: int
    mean_cut: float
    """Size wanted less size allowed, on average; fraction of equity."""
    orders: int
    """Orders that were sent with the size it left."""


@dataclass(frozen=True)
class StateChange:
    """A rung of the ladder, a daily loss, a breaker or the kill switch changed its state."""

    event: str
    """Event id as people type it."""
    time: int
    rule: str
    state: str
    message: str
    instrument: str = ""


@dataclass(frozen=True)
class AlarmNote:
    """A detector said that something is not as it was."""

    event: str
    time: int
    detector: str
    subject: str
    tier: str
    statistic: float
    threshold: float
    run_length: float
    message: str


@dataclass(frozen=True)
class RiskRecord:
    """What risk did in a run. Changes and alarms are the newest ones, oldest first; `*_total` says how many there were."""

    cuts: tuple[CutCount, ...] = ()
    changes: tuple[StateChange, ...] = ()
    changes_total: int = 0
    alarms: tuple[AlarmNote, ...] = ()
    alarms_total: int = 0
    limits: tuple[LimitUse, ...] = ()
    mode: str = ""
    """Mode of the gate at the end: `armed`, `reduce_only`, `tripping`, `tripped`; empty where it was never told."""
    exposure: float = 1.0
    """Share of the allowed size that ladder and regime left at the end."""
    limits_at: int | None = None
    """When limits, mode and exposure were told last, ns; they are told whenever something is decided, and once a day."""
    watching: str = ""
    """Why no alarm could be raised, or only few; empty where every watch was at work."""


@dataclass(frozen=True)
class TailTest:
    """How forecasts of one method came true for one return series. Probabilities are of the test statistic under a true forecast."""

    subject: str
    method: str
    level: float
    days: int
    """Days that had a forecast; `refused` had none, because the method does not hold for what came before them."""
    refused: int
    exceedances: int
    expected: float
    mean_value_at_risk: float
    kupiec_p: float
    christoffersen_p: float
    coverage_p: float
    verdict: str
    shortfall_z: float = NAN
    """Acerbi and Szekely's second statistic: 0 on average where the expected shortfall is right, negative where days were worse."""
    shortfall_p: float = NAN
    """Share of simulated right forecasts with a statistic as small."""


@dataclass(frozen=True, eq=False)
class TailSeries:
    """Daily returns beside the value at risk that was forecast for them. Shapes `[T]`; losses positive in `value_at_risk`."""

    subject: str
    method: str
    times: NDArray[np.int64]
    returns: NDArray[np.float64]
    value_at_risk: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.times.shape == self.returns.shape == self.value_at_risk.shape:
            raise ConfigError(
                f"tail of {self.subject}: {self.times.size} times, {self.returns.size} returns, {self.value_at_risk.size} risks"
            )


@dataclass(frozen=True)
class TailStudy:
    """Value at risk of each instrument and of the book, day by day, judged afterwards."""

    level: float
    tests: tuple[TailTest, ...]
    series: tuple[TailSeries, ...] = ()


@dataclass(frozen=True)
class Stress:
    """What one stress would have done to the book: profit (losses negative) in all and by instrument, fractions of equity."""

    name: str
    profit: float
    positions: tuple[tuple[str, float], ...]
    what: str


@dataclass(frozen=True)
class StressStudy:
    """The largest book of a run under every stress, told from what was known when it was held."""

    at: int | None
    """When it was held, ns; None where nothing ever was."""
    book: tuple[tuple[str, float], ...] = ()
    """Weight of every instrument held, signed fractions of equity."""
    results: tuple[Stress, ...] = ()
    """The worst first."""
    missing: tuple[tuple[str, str], ...] = ()
    """Stresses that could not be told, and why."""

    @property
    def gross(self) -> float:
        """Size of the book, fraction of equity."""
        return sum(abs(weight) for _, weight in self.book)


@dataclass(frozen=True)
class InstrumentRow:
    """What one instrument brought and cost, in the quote currency; `turnover` is its part of the book's, per year."""

    instrument: str
    net: float
    fees: float
    spread: float
    impact: float
    funding_received: float
    traded: float
    fills: int
    turnover: float
