"""Agents as the configuration names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.pulse import Pulse
from cryptoalpha.signals.agents.reading import ReadHere, ReadInProcesses
from cryptoalpha.signals.agents.sieve import assets_of
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import RegimeConfig, SignalsConfig, SourceName
from cryptoalpha.signals.text.tone import open_tone
from cryptoalpha.store.tables import Dataset

TEXT_SOURCES: tuple[SourceName, ...] = ("news_tone",)
CHAIN_SOURCES: tuple[SourceName, ...] = ("funding", "fear_greed")
PRICE_SOURCES: tuple[SourceName, ...] = ("momentum", "momentum_short", "trend", "volatility", "features")


def sources_by_agent(config: SignalsConfig) -> dict[str, tuple[SourceName, ...]]:
    """Which agent asks which of the configured sources: `text`, `chain`, `price`, `genome`, `forecast`; those with none are left out."""
    kinds: dict[str, tuple[SourceName, ...]] = {
        "text": TEXT_SOURCES,
        "chain": CHAIN_SOURCES,
        "price": PRICE_SOURCES,
        "genome": ("genome",),
        "forecast": ("forecast",),
    }
    chosen = {name: tuple(source for source in config.sources if source in sources) for name, sources in kinds.items()}
    return {name: sources for name, sources in chosen.items() if sources}


@contextmanager
def open_agent(
    name: str, config: SignalsConfig, start: Dataset, *, sources: Sequence[SourceName] | None = None, clock: Clock | None = None
) -> Iterator[SignalAgent]:
    """An agent that asks some of the configured sources; its reading processes end with the block.

    Args:
        sources: which; those that `sources_by_agent` gives to an agent of this name where None.

    Raises:
        ConfigError: if no source is left to ask, or a model is named that is not there.
        ModelError: if a model does not fit.
    """
    asked = tuple(sources) if sources is not None else sources_by_agent(config).get(name, ())
    if not asked:
        raise ConfigError(
            f"agent {name} has no source to ask", hint=f"agents of these settings: {', '.join(sources_by_agent(config)) or 'none'}"
        )
    settings = config.model_copy(update={"sources": asked, "keep_features": False, "regime": _without_model(config)})
    learned = None
    if config.agents.model and "news_tone" in asked:
        from cryptoalpha.signals.agents.learned import LearnedTexts  # torch, for those alone who name a model

        learned = LearnedTexts(config.agents.model, config)
    assets = assets_of(start)
    enough = config.agents.sieve.relevance_threshold
    workers = config.agents.workers
    reader = ReadInProcesses(assets, workers, enough=enough) if workers else ReadHere(assets, enough=enough)
    pulse = Pulse(tuple(start.bars), assets, config) if config.agents.between_bars and "news_tone" in asked else None
    tones = open_tone(config.text)
    try:
        yield SignalAgent(
            name, SignalBook(settings), start, config.agents, clock=clock, reader=reader, tones=tones, learned=learned, pulse=pulse
        )
    finally:
        if isinstance(reader, ReadInProcesses):
            reader.close()


def _without_model(config: SignalsConfig) -> RegimeConfig:
    """Regimes are the engine's business: no signal reads them."""
    return config.regime.model_copy(update={"model": ""})
