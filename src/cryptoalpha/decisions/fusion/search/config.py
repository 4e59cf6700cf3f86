"""Settings of the searched fusion."""

from __future__ import annotations

from pydantic import Field

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, PositiveFraction, Section


class SearchConfig(Section):
    """[fusion.search] How the searched fusion weighs families of evidence, and when it may act."""

    families: tuple[str, ...] = Field(default=("price", "volatility", "funding", "mood", "news", "chain", "model"), max_length=10)
    """Families of evidence (`Signal.type`) that have a fixed place in the state, at most ten. Others take the places left as they appear;
    the last place holds all that find none. A trained network belongs to one order."""

    simulations: Count = 64
    """Simulations per bar in a replay. A Gumbel root needs few; `cryptoalpha bench decisions` tells what 800 would change."""

    live_simulations: Count = 800
    """Simulations per bar in a live run, where a bar lasts an hour."""

    outcomes: tuple[int, ...] = (4, 2)
    """Scenarios drawn after an action, by depth; the last one holds for all deeper ones."""

    max_depth: Count = 6
    """Horizons looked ahead at most."""

    discount: PositiveFraction = 0.9
    """Worth of the next horizon's reward relative to this one's (0–1). Signals are forgotten, markets change: ten days of memory."""

    delta: PositiveFraction = 0.1
    """Weight that one step adds to or takes from a family (0–1)."""

    half_life_bars: Positive = 8760.0
    """Age at which an outcome counts half in what the families are known to be worth, bars. A year of hours, as in the ridge."""

    regime_share: Fraction = 0.5
    """How much the past counts by the likeness of its regime to the present one (0: not at all, 1: only by that). Half, because regimes are
    believed, not known."""

    prior_ic: Positive = 0.05
    """Standard deviation of the correlation with the outcome that a family has if it knows anything. Five hundredths are a good signal."""

    prior_share: PositiveFraction = 0.3
    """Chance, before any evidence, that a family knows anything (0–1). Three in ten: with a year of
    bars a t statistic of 2 then makes it even, which is also where the ridge's floor begins."""

    ridge_share: NonNegative = 0.1
    """Pull towards uncorrelated families when several are believed together, as a share of each one's variance."""

    pool: Count = 256
    """Scenarios of the past that are kept."""

    pool_stride_bars: Count = 12
    """Bars between two of them. Half a day: 256 of them are four months."""

    target_volatility: Positive = 0.30
    """Annualised volatility of the book at full conviction that rewards are reckoned for; the rule agent's."""

    assumed_correlation: Fraction = 0.6
    """Correlation between instruments by which that target is shared among them; the rule agent's (0–1)."""

    risk_aversion: NonNegative = 1.0
    """λ: what a unit of variance costs, over and above what log growth itself takes off."""

    trade_cost: NonNegative = 0.001
    """Cost of a traded unit, fraction of notional, where the market state tells none. Ten basis points: taker fee and half a spread."""

    turnover_cost: NonNegative = 2e-5
    """Cost of moving a whole unit of weight between families, in log growth: so that weights do not dance for nothing."""

    alpha: PositiveFraction = 0.05
    """Chance that a fusion put in charge is not better than those it replaces (0–1), at each promotion. It loses charge when its scores,
    forgotten by `half_life_bars`, fall behind."""
