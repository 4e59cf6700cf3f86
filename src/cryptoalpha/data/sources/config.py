"""Settings of the live sources, one subsection each: whether it runs, where it asks, which variable holds its key, what it may cost."""

from __future__ import annotations

from cryptoalpha.core.config import Count, Fraction, Positive, Section
from cryptoalpha.data.sources.chain_config import CoinMetricsSection, EthereumSection, FearGreedSection, MempoolSection, TransfersSection
from cryptoalpha.data.sources.exchange_config import ExchangeSection
from cryptoalpha.data.sources.text_config import NewsSection, RedditSection, XSection


class RecordingSection(Section):
    """[data.streams.sources.recording] Raw messages kept as they came, so that a day can be replayed through newer code."""

    enabled: bool = False
    """Off: one busy instrument takes 0.3 (spot) to 0.9 GB (perpetual) a day, compressed, by what 345 s of Binance took."""

    file_megabytes: Positive = 64.0
    """Size at which a file is completed and compressed, MB before compression."""

    keep_megabytes: Positive | None = 2_000.0
    """Complete files of one channel that are kept, MB; the oldest are removed beyond that. None keeps all."""


class SourcesConfig(Section):
    """[data.streams.sources] Live sources. Each that is enabled runs beside the others; one that fails stops no other."""

    x: XSection = XSection()
    """X."""

    reddit: RedditSection = RedditSection()
    """Reddit."""

    news: NewsSection = NewsSection()
    """News feeds."""

    exchange: ExchangeSection = ExchangeSection()
    """Exchanges."""

    mempool: MempoolSection = MempoolSection()
    """Bitcoin."""

    ethereum: EthereumSection = EthereumSection()
    """Ethereum."""

    coinmetrics: CoinMetricsSection = CoinMetricsSection()
    """Coin Metrics."""

    transfers: TransfersSection = TransfersSection()
    """What counts as a large transfer, on every chain."""

    fear_greed: FearGreedSection = FearGreedSection()
    """Fear & greed."""

    recording: RecordingSection = RecordingSection()
    """Raw messages on disk."""

    position_seconds: Positive = 0.2
    """How often at most a source's place is written down. What came after it is fetched again after a crash, with the same ids."""

    most_waiting: Count = 2_000
    """Messages of one source that may wait for the bus; beyond that the source is not read, and what it does then is its own affair."""

    budget_alert: Fraction = 0.8
    """Share of a daily budget at which a person is told, before the source pauses at the whole of it."""
