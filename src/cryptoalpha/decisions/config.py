"""Settings of the fusion and of the agents."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section
from cryptoalpha.decisions.alphazero.config import AlphaZeroConfig, ScenarioName
from cryptoalpha.decisions.council.config import CouncilConfig
from cryptoalpha.decisions.fusion.learning_config import FusionLearningConfig, FusionOnlineConfig
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.league.config import LeagueConfig


class FusionConfig(Section):
    """[fusion] How opinions are weighed into one. Ridge, Hedge and equal weights stay as the baselines of the searched one."""

    method: Literal["ridge", "hedge", "equal", "search"] = "ridge"
    """`ridge` learns signed weights by rolling regression, `hedge` by multiplicative updates with sharing, `equal` does not learn. `search`
    plans the weights of families of evidence by tree search and acts on them only while they beat the other three."""

    horizon_bars: Count = 24
    """How far ahead outcomes are measured when weights are learned, bars. A day of hourly bars: costs drown anything faster."""

    half_life_bars: Positive = 8760.0
    """Age at which an outcome counts half in the ridge, bars. A year of hours: some 500 independent outcomes per asset, among which an
    IC of 0.1 stands out by two standard errors."""

    ridge_penalty: Positive = 30.0
    """Pull of the ridge weights towards zero, in independent outcomes. Thirty: a source must earn its weight for about a month."""

    noise_floor: NonNegative = 4.0
    """Square of the t statistic a source of the ridge must exceed to have any weight (see `decisions.fusion.ridge`). Four: two standard
    errors, which one worthless source in twenty passes at any time, with little weight left. Chosen on simulated markets and by theory
    alone."""

    warmup_days: NonNegative = 365.0
    """Days before a run on which a learning fusion may learn without trading, as far as there are data. One half-life of the ridge."""

    ridge_scale: Positive = 0.10
    """Expected move, in units of volatility over the horizon, at which the direction reaches tanh(1) = 0.76."""

    hedge_rate: Positive = 2.0
    """Learning rate of the hedge per independent outcome. Gains are small (an IC of 0.1 gains 0.03), hence a rate above one."""

    hedge_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.02
    """Share of weight handed back to the prior per independent outcome (0–1), so that a dead source can return."""

    search: SearchConfig = SearchConfig()
    """How the searched fusion weighs families of evidence, and when it may act."""

    learning: FusionLearningConfig = FusionLearningConfig()
    """How the network of a searched fusion is taught."""

    online: FusionOnlineConfig = FusionOnlineConfig()
    """Learning beside the loop."""


MemberName = Literal["rule", ScenarioName]
MEMBERS: tuple[MemberName, ...] = get_args(MemberName)
"""All that may sit in a council."""


class AgentConfig(Section):
    """[agent] Who decides what to hold. The values here are the rule agent's: a volatility-targeted position from the fused direction."""

    target_volatility: Positive = 0.30
    """Annualised volatility of the whole book at full conviction. The customary target of the trend-following baselines."""

    assumed_correlation: Fraction = 0.6
    """Correlation between instruments assumed when the target is shared among them (0–1). Crypto majors moved together at about 0.6–0.8."""

    smoothing_half_life_bars: NonNegative = 12.0
    """Half-life over which directions are averaged before they are acted on, bars; 0 acts at once. Half a day of hours: with costs, trading
    part of the way towards a decaying opinion earns more than chasing it (Gârleanu & Pedersen 2013)."""

    dead_band: Fraction = 0.10
    """Directions weaker than this are treated as no opinion (0–1), so that noise does not trade."""

    long_only: bool = True
    """Refuse to want a short position. On spot there is nothing to borrow."""

    members: Annotated[tuple[MemberName, ...], Field(min_length=1)] = ("rule",)
    """Who decides: `rule` follows the fused direction; `bootstrap`, `quantiles` and `garch` plan over scenarios of that kind. Several
    sit in a council (`agent.council`). The rule alone: it needs no training and every other has to beat it."""

    council: CouncilConfig = CouncilConfig()

    planner: AlphaZeroConfig = AlphaZeroConfig()
    """How a planning agent looks ahead."""

    league: LeagueConfig = LeagueConfig()
    """How an agent is trained against its own past in a market that it moves (`train agent --league`)."""
