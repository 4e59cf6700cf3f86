"""Servers and limits of the streams. The defaults are the user's own numbers; nothing connects until `backend` says so."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from cryptoalpha.core.config import Count, Fraction, Positive, Section
from cryptoalpha.data.bus.config import BusConfig, WorkerConfig
from cryptoalpha.data.sources.config import SourcesConfig


def _without_password(address: str) -> str:
    if "@" in address:
        raise ValueError("an address holds no user or password: settings are printed and kept with every run")
    return address


Address = Annotated[str, AfterValidator(_without_password)]


class StreamsConfig(Section):
    """[data.streams] Where live messages come in and how they are kept."""

    backend: Literal["embedded", "servers"] = "embedded"
    """`embedded` needs no server: messages and state stay in this process and its files. `servers` uses Kafka and Redis."""

    listen: bool = False
    """Whether `trade` on a venue's bars also listens to `sources`: what they bring counts from the next bar on and is kept in the store."""

    kafka_servers: Address = "localhost:9092"
    """Kafka bootstrap servers, host:port, several with commas."""

    redis_address: Address = "localhost:6379"
    """Redis for shared state, host:port."""

    ray_address: Address = "ray://localhost:10001"
    """Ray cluster of agents with `learn.runtime.backend: ray` beside `backend: servers`; `learn.runtime.address` goes before it."""

    answer_seconds: Positive = 2.0
    """How long `check` and `status` wait for each server before they call it away. What runs is more patient: it waits for them."""

    relevance_threshold: Fraction = 0.3
    """Messages less relevant than this are dropped before they are scored (0–1)."""

    signal_types: Count = 10
    """Kinds of signal the fusion weighs."""

    regimes: tuple[str, ...] = ("bull", "bear", "sideways", "high_volatility", "low_volatility")
    """Market regimes that are told apart: three of trend, two of volatility."""

    regime_features: Count = 20
    """Features from which the regime is inferred."""

    sources: SourcesConfig = SourcesConfig()
    """Where messages come from."""

    bus: BusConfig = BusConfig()
    worker: WorkerConfig = WorkerConfig()
