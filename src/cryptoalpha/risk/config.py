"""Settings of the `risk` room: what may never be exceeded, whatever the agents want."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, PositiveFraction, Section
from cryptoalpha.core.values import REGIMES, VOLATILITIES


class TailConfig(Section):
    """[risk.tail] How bad a day the book may be in for."""

    max_expected_shortfall: Positive | None = 0.06
    """Expected shortfall of the whole book over one day, fraction of equity (> 0, none = no cap). 0.06: with the target volatility of 0.30
    a year a normal day's is 0.037 at this level, a fat-tailed one's about 0.045."""

    level: Annotated[float, Field(ge=0.9, lt=1.0)] = 0.975
    """Confidence of value at risk and expected shortfall (0.9–1). 0.975: at that level a normal book's expected shortfall equals its 99 %
    value at risk."""

    method: Literal["filtered", "historical", "normal"] = "filtered"
    """Where the bad days come from: past days rescaled to present volatility, past days as they were, or a normal law."""

    history_days: Count = 500
    """Days of the past that scenarios are drawn from. 500: a dozen days beyond the 97.5 % line."""

    least_days: Count = 60
    """Days an instrument must have been seen for its own past to be used; before, it borrows the shape of the others' past."""

    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.94
    """Weight of yesterday in the volatility that days are rescaled by (0–1), RiskMetrics' daily value."""

    @field_validator("least_days")
    @classmethod
    def _can_be_reached(cls, days: int, info: ValidationInfo) -> int:
        if days > info.data.get("history_days", days):
            raise ValueError("must not exceed risk.tail.history_days: no instrument's own past would ever be used")
        return days


class LadderConfig(Section):
    """[risk.ladder] Less exposure the deeper the drawdown, in shares of `risk.max_drawdown`."""

    rungs: tuple[tuple[PositiveFraction, Fraction], ...] = ((1 / 3, 0.75), (1 / 2, 0.5), (2 / 3, 0.25))
    """(share of `max_drawdown`, exposure left), each rung deeper than the one before and leaving less ([] = no ladder). With `max_drawdown`
    at 1.5 times the yearly target volatility a book of Sharpe ratio 0 touches them in 96, 72 and 32 % of years, and the limit itself in
    0.1 % instead of 17 %."""

    step_up_share: Fraction = 1 / 15
    """How far above a rung equity must recover before exposure grows again, share of `max_drawdown`."""

    step_up_hours: NonNegative = 24.0
    """Least time on a rung before exposure grows again, hours."""

    regime_exposure: tuple[Fraction, ...] = (0.75, 0.25, 1.0, 0.5, 1.0, 0.75)
    """Exposure in bear, sideways and bull markets, each calm and stormy, in the order of `core.values.REGIMES`; weighed by the belief of
    `MarketState.regime`, 1 without one. A calm market leaves all but in a fall, a stormy one half, more in a rise, and a quarter in a
    fall: caps on volatility follow a storm only while it lasts, a book that may not be short loses in a fall whatever its size."""

    @field_validator("rungs")
    @classmethod
    def _go_down(cls, rungs: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        if any(after[0] <= before[0] or after[1] >= before[1] for before, after in pairwise(((0.0, 1.0), *rungs))):
            raise ValueError("each rung must be deeper than the one before and leave less, the first less than 1")
        return rungs

    @field_validator("step_up_share")
    @classmethod
    def _can_step_up(cls, share: float, info: ValidationInfo) -> float:
        rungs = info.data.get("rungs")
        if rungs and share > rungs[0][0]:
            raise ValueError("must not exceed the share of the first of risk.ladder.rungs: equity could never rise far enough above it")
        return share

    @field_validator("regime_exposure")
    @classmethod
    def _falls(cls, exposures: tuple[float, ...]) -> tuple[float, ...]:
        columns = len(VOLATILITIES)
        if len(exposures) != len(REGIMES):
            raise ValueError(f"needs an exposure for each of the {len(REGIMES)} regimes: {', '.join(map(' '.join, REGIMES))}")
        rows = [exposures[start : start + columns] for start in range(0, len(REGIMES), columns)]
        if any(after > before for row in rows for before, after in pairwise(row)):
            raise ValueError("no exposure may be larger than that of the calmer market with the same trend")
        return exposures


class OrderLimitsConfig(Section):
    """[risk.orders] Limits on single orders, whatever their reason."""

    max_notional: Positive | None = None
    """Largest single entry, quote currency (> 0, none = no limit)."""

    max_entries_per_hour: Count | None = 60
    """Entries per hour over all instruments (none = no limit). Sixty: eight coins on hourly bars need eight; a loop gone mad sends more."""

    collar: Positive | None = 0.1
    """Largest distance of an entry's fill from the price it was decided on, to the worse side, fraction (> 0, none = no limit). 0.1: beyond
    it the market is no longer the one that was decided on, and the rest of the order is given up."""

    max_liquidation_days: Positive | None = 1.0
    """Days it may take to sell a position at `participation` of what is traded (> 0, none = no limit)."""

    participation: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Share of the traded volume one may take without moving the price much (0–1)."""


class BreakerConfig(Section):
    """[risk.breakers] What stops entries for minutes or for the day."""

    daily_loss_reduce: Positive | None = 4.0
    """Loss since 00:00 UTC, in daily standard deviations of the target volatility, after which positions may only be reduced until the next
    day (none = never). Four: less than once a year on fat-tailed days."""

    daily_loss_kill: Positive | None = 8.0
    """Loss since 00:00 UTC, same unit, at which the kill switch trips (none = never). Eight: once in sixteen years on such days."""

    @field_validator("daily_loss_kill")
    @classmethod
    def _comes_later(cls, kill: float | None, info: ValidationInfo) -> float | None:
        reduce = info.data.get("daily_loss_reduce")
        if kill is not None and reduce is not None and kill < reduce:
            raise ValueError("must not be less than risk.breakers.daily_loss_reduce, which would never act")
        return kill

    bad_tick_score: Positive = 10.0
    """Robust z score of a bar's move beyond which its price is not believed until the next bar."""

    bad_tick_jump: Positive = 0.5
    """Move within one bar at which nothing is counted at its price until the next bar agrees, fraction; smaller moves that are not believed
    only stop entries."""

    slippage_run_length_days: Positive | None = 365.0
    """Mean days between false alarms of the slippage monitor (> 0, none = what fills cost is not watched). A year: it pauses entries."""

    rejects: Count = 5
    """Orders refused by the venue within a minute after which entries pause."""

    quiet_minutes: Positive = 180.0
    """Minutes without the fault before a breaker lets one try through."""


class RiskConfig(Section):
    """[risk] What may never be exceeded, whatever the agents want."""

    sizing: Literal["weight", "units"] = "weight"
    """How `Decision.target_weight` is read: a signed fraction of equity, or (`units`) a signed quantity in base units. `units` is for
    strategies that trade fixed sizes, such as the oracles; every cap applies to both."""

    volatility_target: Positive | None = 0.30
    """Annual volatility (365 days) the book may be expected to have (> 0, none = no cap): each position alone, and all together under
    `assumed_correlation`. 0.30 is about half of Bitcoin's own."""

    assumed_correlation: Fraction = 0.7
    """Correlation between any two instruments (0–1) when volatilities are added up. 0.7: large coins move together, more so in a crisis;
    all positions count as if on the same side."""

    max_position: Fraction = 0.25
    """Largest position in one instrument, fraction of equity (0–1). A quarter: four equal bets fill the book, one ruined coin costs a
    quarter."""

    risk_tolerance: Positive | None = None
    """Largest part of equity one position may lose on a day that is one standard deviation bad (> 0, none = no cap). None, because
    `volatility_target` binds first: 0.30 a year is 0.016 a day. The user's own configuration says 0.02."""

    max_gross: Fraction = 0.98
    """Largest sum of position sizes, fraction of equity (0–1: no leverage). 2 % stay in cash for costs and for the move from the decision
    to the fill; what cash does not cover is not filled."""

    allow_short: bool = False
    """Whether positions may be negative. Off: spot markets lend nothing by default."""

    max_drawdown: PositiveFraction = 0.35
    """Equity lost from its peak (above 0, at most 1) at which everything is closed and entries are refused until a person resumes. A fall
    of `breakers.bad_tick_jump` within one bar counts a bar later. At 30 % volatility a book without skill touches 0.35 in 30 % of years,
    one with a Sharpe ratio of 1 in 9 %, of 2 in 2 % (20,000 simulated years, t4 days)."""

    no_trade_band: Fraction = 0.02
    """Changes smaller than this fraction of equity (0–1) are not traded, closing a position excepted. 0.02: at 12 basis points a trade,
    chasing hourly drift costs more than it corrects."""

    kelly_scale: Annotated[float, Field(gt=0.0, le=0.5)] = 0.25
    """Share of the Kelly fraction a position may have, where its agent names an expected return (0–0.5). A quarter: full Kelly assumes
    that the edge is known exactly; out of sample it lost 99.99 % where a quarter lost 70 % at worst."""

    max_cluster: Fraction = 0.98
    """Largest sum of position sizes within one cluster of correlated instruments, fraction of equity (0–1)."""

    cluster_correlation: Fraction = 0.8
    """Correlation of daily returns above which instruments belong to one cluster (0–1)."""

    max_concentration: Positive | None = None
    """Largest sum of squared position sizes (> 0, none = no cap): 0.25 is four equal positions of a quarter each."""

    max_heat: Positive | None = None
    """Largest sum of what positions lose at their stops, fraction of equity (> 0, none = no cap)."""

    stop_volatilities: Positive = 2.0
    """Distance of the stop that `max_heat` assumes, daily standard deviations of the instrument."""

    tail: TailConfig = TailConfig()
    """Tail risk of the book."""

    ladder: LadderConfig = LadderConfig()
    """Drawdown ladder and regimes."""

    orders: OrderLimitsConfig = OrderLimitsConfig()
    """Single orders."""

    breakers: BreakerConfig = BreakerConfig()
    """Breakers."""

    max_state_age_minutes: NonNegative = 180.0
    """Age of a market state, in minutes (≥ 0), beyond which nothing is entered on it. Three hourly bars, after which a feed counts as
    stale."""
