"""Which bus carries the messages: the embedded one or Kafka, as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.bus.memory import MemoryBus

if TYPE_CHECKING:
    from cryptoalpha.data.bus.kafka import KafkaBus
    from cryptoalpha.data.streams_config import StreamsConfig


def open_bus(config: StreamsConfig, path: Path | None, *, clock: Clock | None = None) -> MemoryBus | KafkaBus:
    """The bus the settings ask for; use it inside `async with`.

    Args:
        path: file of the embedded log; None keeps it in memory. Kafka keeps its own, and names its publishers in that folder.

    Raises:
        ConfigError: if Kafka is asked for and its client is not installed.
    """
    if config.backend == "embedded":
        return MemoryBus(config.bus, path, clock=clock)
    try:
        from cryptoalpha.data.bus.kafka import KafkaBus
    except ModuleNotFoundError as error:
        raise ConfigError(f"Kafka needs the package {error.name}", hint='pip install "cryptoalpha[streams]"') from None
    return KafkaBus(config.bus, config.kafka_servers, folder=None if path is None else path.parent, clock=clock)
