"""Settings of the planning agents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, PositiveFraction, Section

ScenarioName = Literal["bootstrap", "quantiles", "garch"]
"""How a planner imagines the next return."""


class AlphaZeroConfig(Section):
    """[agent.planner] How a planning agent looks ahead."""

    model: str = ""
    """Folder of a trained agent (`train agent`), whose fitted dynamics and value function are used; empty: dynamics are fitted on the way
    and positions at the end of a plan are valued by a formula."""

    positions: Annotated[int, Field(ge=3, le=41)] = 9
    """Positions on the grid, from short to long or, long only, from flat to long. Nine: steps of an eighth of the unit, below which a
    trade is lost in costs."""

    branching: tuple[Count, ...] = (12, 8)
    """Outcomes per node and bar ahead in a replay; two bars deep, because a plan of one bar cannot wait."""

    discount: PositiveFraction = 0.999
    """Worth of a reward one bar later (0–1). Interest alone would be nearer one; opinions about a market do not last longer."""

    reward: Literal["log", "linear"] = "log"
    """`log`: growth of equity; `linear`: return less half the risk aversion times its variance."""

    risk_aversion: Positive = 2.0
    """Relative risk aversion γ; 1 is log utility (full Kelly). Two, half Kelly: an edge is known badly."""

    leaf: Literal["hold", "zero"] = "hold"
    """What a position at the end of a plan is worth without a trained value function: `hold` until the opinion has decayed, then closed at
    cost; or nothing. With nothing, a plan of two bars must earn a round trip within two bars and never trades."""

    typical_ic: NonNegative = 0.03
    """Expected move, in units of volatility over the horizon, that a full direction (±1) stands for where the fusion names no expected
    move: the correlation with outcomes that an opinion on crypto majors usually has."""

    horizon_bars: Count = 24
    """Bars over which such a direction is expected to come true."""

    persistence_half_life_bars: Positive = 24.0
    """Half-life of an opinion until history has told another, bars."""

    volatility_half_life_bars: Positive = 72.0
    """Half-life with which volatility returns to its long-run level until history has told another, bars."""

    memory_bars: Count = 8760
    """Bars whose residuals make up the pool of the bootstrap; the oldest make room. A year of hours."""

    refresh_bars: Count = 24
    """Bars between two looks at what history tells of persistence, and at the pool where a twentieth of it is new."""

    pool_bins: Annotated[int, Field(ge=16, le=1024)] = 128
    """Kinds of residual that the pool is summed up in; a plan draws from these."""

    pool_prior: NonNegative = 200.0
    """Residuals that a regime's pool borrows from the pool of all regimes."""

    student_degrees: Annotated[float, Field(gt=2.0, allow_inf_nan=False)] = 4.0
    """Degrees of freedom of shocks before there is a pool, and of `garch` without a fitted model. Four: hourly crypto returns."""

    garch_alpha: Fraction = 0.05
    """Reaction of variance to a squared return without a fitted model (0–1)."""

    garch_beta: Fraction = 0.93
    """Memory of variance without a fitted model (0–1)."""

    equity_over_volume: NonNegative = 1e-4
    """Equity as a share of an instrument's daily volume, on which the expected impact of a trade rests. No agent sees volume; a ten
    thousandth is 100,000 in a market of a billion a day."""

    largest_weight: Positive = 1.0
    """Largest unit of an instrument, fraction of equity; limits stay the risk gate's."""

    carry_per_day: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """What holding one unit long is expected to pay per day, fraction of notional (negative: earns). Zero on spot; on perpetuals the usual
    funding is about 0.0003 a day."""
