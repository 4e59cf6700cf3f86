"""[signals] Which opinions are formed, and over which windows.

Windows are calendar days, not bars: a 28-day return means the same on hourly and on daily bars. None of the numbers was tuned on the data
it is evaluated on; where a number follows common practice or a paper, its reason says so.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section
from cryptoalpha.signals.agents.config import AgentsConfig

SourceName = Literal[
    "momentum", "momentum_short", "trend", "volatility", "funding", "fear_greed", "news_tone", "features", "forecast", "genome"
]

ALL_SOURCES: tuple[SourceName, ...] = (
    "momentum",
    "momentum_short",
    "trend",
    "volatility",
    "funding",
    "fear_greed",
    "news_tone",
    "features",
)
"""What is asked where no other list is given. `forecast` and `genome` need a trained model and so have to be named."""


class MomentumConfig(Section):
    """[signals.momentum] Assets that rose go on rising, for a while."""

    look_back_days: Positive = 28.0
    """Days of return of `momentum`. Four weeks: the horizon with the best-documented continuation in crypto (Liu & Tsyvinski 2021)."""

    short_look_back_days: Positive = 7.0
    """Days of return of `momentum_short`. One week, the shortest horizon of the same study."""

    horizon_days: Positive = 7.0
    """Days the opinion of `momentum` looks ahead."""

    short_horizon_days: Positive = 2.0
    """Days the opinion of `momentum_short` looks ahead."""


class TrendConfig(Section):
    """[signals.trend] Price against its own averages, at several speeds."""

    span_days: tuple[Positive, ...] = (8.0, 16.0, 32.0, 64.0)
    """Spans in days of the exponential averages. Doubling steps, so that no single speed decides."""

    horizon_days: Positive = 7.0
    """Days the opinion looks ahead."""


class VolatilityConfig(Section):
    """[signals.volatility] Calm against stormy markets: risk is shunned when volatility leaves its usual level."""

    fast_half_life_days: Positive = 1.5
    """Half-life in days of the volatility now."""

    slow_half_life_days: Positive = 20.0
    """Half-life in days of the usual volatility. It sees eight half-lives: 160 days."""

    full_strength: Positive = 0.5
    """Log ratio of the two at which the opinion is strong (tanh 1). 0.5 means 65 % above or 39 % below the usual level."""

    horizon_days: Positive = 1.0
    """Days the opinion looks ahead."""


class FundingConfig(Section):
    """[signals.funding] A crowded side of the perpetual market pays, and is squeezed."""

    mean_days: Positive = 3.0
    """Days over which settlements are averaged: nine settlements, so that one spike does not decide."""

    history_days: Positive = 90.0
    """Days of past averages that say what is usual."""

    horizon_days: Positive = 3.0
    """Days the opinion looks ahead."""

    stale_after_days: Positive = 1.0
    """Age in days at which the newest settlement no longer counts: three missed settlements."""


class MoodConfig(Section):
    """[signals.mood] Extreme greed is sold, extreme fear is bought; between them there is no opinion to have."""

    history_days: Positive = 365.0
    """Days of the index that say what is usual."""

    extreme: NonNegative = 1.0
    """Standard deviations from the usual level at which the opinion begins."""

    horizon_days: Positive = 7.0
    """Days the opinion looks ahead."""

    stale_after_days: Positive = 3.0
    """Age in days at which the newest reading no longer counts; the longest hole in the record is three days."""


class NewsConfig(Section):
    """[signals.news] The tone of what was published."""

    half_life_hours: Positive = 6.0
    """Hours after which a text weighs half. News is priced within hours."""

    window_hours: Positive = 24.0
    """Hours after which a text no longer counts."""

    market_weight: Fraction = 0.5
    """Weight (0–1) of a text that names no asset of the book, for every asset. One that names the asset weighs 1."""

    shrinkage: NonNegative = 1.0
    """Weight of imagined neutral texts mixed in, so that a single headline does not make an extreme tone."""

    history_days: Positive = 30.0
    """Days of past tone that say what is usual: headlines lean to one side for months."""

    repeat_days: Positive = 7.0
    """Days within which a text seen before does not count again. Feeds republish word for word."""

    horizon_days: Positive = 1.0
    """Days the opinion looks ahead."""


class FeatureRidgeConfig(Section):
    """[signals.ridge] A ridge regression on the 50 price and 30 on-chain features, refitted as it walks forward."""

    horizon_days: Positive = 1.0
    """Days from the next open to the open that ends the label: 24 hourly bars."""

    train_days: Positive = 252.0
    """Days of rows a fit sees. Nine fits of 28 days: long enough for stable signs, short enough to forget a regime."""

    refit_days: Positive = 28.0
    """Days between fits, counted from 1970-01-01 so that a fit never depends on where a run starts."""

    embargo_days: NonNegative = 1.0
    """Days left out between the newest label used and the fit, beyond the label's own horizon."""

    stride_bars: Count = 4
    """Every how many bars a row is used for training. Neighbouring labels overlap, so little is lost."""

    minimum_train_days: Positive = 90.0
    """Days of labelled rows without which there is no fit, and so no opinion."""

    prior_r2: Positive = 0.0025
    """Share of label variance that all features together are believed to explain before seeing data; sets the ridge penalty. (5 % IC)²."""

    asset_correlation: Fraction = 0.6
    """Believed mean correlation of labels across assets (0–1): eight assets are far fewer than eight independent observations."""

    label_clip: Positive = 5.0
    """Labels are cut at this many volatilities, so that one crash does not choose the weights."""


class TextConfig(Section):
    """[signals.text] How texts become numbers."""

    encoder: str = "lexicon"
    """`lexicon` (no download), `minilm` (extra, offline), or `hf:REPOSITORY` / `hf:FOLDER` for any BERT of Hugging Face."""

    revision: str = ""
    """Commit of an `hf:` repository. Without it a model may change under a running system, so it is asked for."""

    sentiment_model: str = ""
    """File of a trained sentiment head (`cryptoalpha train sentiment`). Empty: the lexicon's tone, or the encoder's own labels."""

    batch: Count = 64
    """Texts encoded at once."""

    relevance_threshold: Fraction = 0.3
    """Relevance (0–1) below which an agent leaves a text unread."""


class ForecastConfig(Section):
    """[signals.forecast] The cross-asset forecaster."""

    model: str = ""
    """Folder of trained models (`cryptoalpha train forecaster`). Every bar is answered by the newest one trained before it."""

    horizon_bars: tuple[Count, ...] = (1, 6, 24)
    """Horizons in bars, rising. The last one is the opinion's; the first one gives the planners their scenarios."""

    context_bars: Count = 32
    """Bars before a block that its first bar may look back at."""

    block_bars: Count = 16
    """Bars answered in one pass. Blocks begin at fixed multiples since 1970, so that a bar is computed alike live and in a replay."""

    sideways: Positive = 0.43
    """Moves within this many volatilities are sideways: thirds of a normal distribution."""

    correlation_bars: tuple[Count, ...] = (24, 96, 336)
    """Windows of the trailing correlations between two assets."""

    text_window_hours: Positive = 24.0
    """Hours after which a text no longer counts."""

    text_half_life_hours: Positive = 6.0
    """Hours after which a text weighs half."""

    clip: Positive = 8.0
    """Scaled features are cut at this many deviations."""

    @model_validator(mode="after")
    def _horizons_rise(self) -> Self:
        if not self.horizon_bars or any(b <= a for a, b in zip(self.horizon_bars, self.horizon_bars[1:], strict=False)):
            raise ValueError("the horizons must rise, and there must be one")
        return self


class GenomeSignalConfig(Section):
    """[signals.genome] The market genome."""

    model: str = ""
    """Folder of trained models (`cryptoalpha train genome`). Every bar is answered by the newest one trained before it."""

    frames: tuple[str, ...] = ("5m", "15m", "1h", "4h", "1d")
    """Time frames; those shorter than the bars at hand are left out, the bars' own is always the first row."""

    horizon_bars: Count = 24
    """Bars over which levels must hold and the trend is called."""

    context_share: Fraction = 0.5
    """Share of a window (0–1) that its first answered bar may look back at; windows begin at fixed multiples since 1970."""


class RegimeConfig(Section):
    """[signals.regime] Which kind of market it is: trend and volatility, as a belief."""

    model: str = ""
    """Folder of trained models (`cryptoalpha train regime`); empty = none. Every bar is answered by the newest one trained before it."""

    block_bars: Count = 64
    """Bars answered in one pass. Blocks begin at fixed multiples since 1970, so that a bar is computed alike live and in a replay."""

    warm_up_bars: Count = 512
    """Bars before a block over which its belief forms. Three weeks of hourly bars: beliefs then differed from those of an endless filter by
    .003 on average where a bar counted a hundredth, by nothing where it counted a tenth; half as many by .02. Ages stop there, too."""

    spell_days: Positive = 5.0
    """Mean length in days of a regime that is believed before seeing data."""

    prior_spells: NonNegative = 20.0
    """How many such spells of each regime that belief counts as; a few hundred are seen in training."""


class SignalsConfig(Section):
    """[signals] Sources of opinion and their windows."""

    sources: tuple[SourceName, ...] = ALL_SOURCES
    """Sources that are asked, in this order. Leave one out to switch it off."""

    typical_ic: Fraction = 0.02
    """Correlation (0–1) of an opinion with the return it foretells, believed before seeing data: a prior, not an estimate. It turns
    opinions into expected moves. Good single signals reach 0.02–0.05. `features` predicts its own move instead."""

    act_at: Fraction = 0.2
    """Strength (0–1) from which a signal proposes to buy or sell."""

    act_strongly_at: Fraction = 0.6
    """Strength (0–1) from which it proposes to do so strongly."""

    keep_features: bool = True
    """Keep all features in the tape for the audit even where no source reads them. 0.6 kB per asset and bar."""

    momentum: MomentumConfig = MomentumConfig()
    """28-day and 7-day momentum."""

    trend: TrendConfig = TrendConfig()
    """Multi-speed trend."""

    volatility: VolatilityConfig = VolatilityConfig()
    """Calm against storm."""

    funding: FundingConfig = FundingConfig()
    """Funding, against the crowd."""

    mood: MoodConfig = MoodConfig()
    """Fear and greed, against the crowd."""

    news: NewsConfig = NewsConfig()
    """News tone."""

    ridge: FeatureRidgeConfig = FeatureRidgeConfig()
    """Walk-forward ridge on the features."""

    text: TextConfig = TextConfig()
    """Encoders of text."""

    forecast: ForecastConfig = ForecastConfig()
    """The cross-asset forecaster."""

    genome: GenomeSignalConfig = GenomeSignalConfig()
    """The market genome."""

    regime: RegimeConfig = RegimeConfig()
    """Regimes of the market."""

    agents: AgentsConfig = AgentsConfig()
    """Signals from live streams."""
