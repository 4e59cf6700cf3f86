"""Settings of the `risk` room: what may never be exceeded, whatever the agents want."""

from __future__ import annotations

from typing import Literal

from cryptoalpha.core.config import Fraction, NonNegative, Positive, Section


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

    max_drawdown: Fraction = 0.35
    """Equity lost from its peak (0–1) at which everything is closed and entries are refused until a person resumes. At 30 % volatility a
    book without skill touches 0.35 in 30 % of years, one with a Sharpe ratio of 1 in 9 %, of 2 in 2 % (20,000 simulated years, t4
    days)."""

    no_trade_band: Fraction = 0.02
    """Changes smaller than this fraction of equity (0–1) are not traded, closing a position excepted. 0.02: at 12 basis points a trade,
    chasing hourly drift costs more than it corrects."""

    max_state_age_minutes: NonNegative = 180.0
    """Age of a market state, in minutes (≥ 0), beyond which nothing is entered on it. Three hourly bars, after which a feed counts as
    stale."""
