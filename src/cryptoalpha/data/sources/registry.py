"""From settings to sources: which live sources run, and which cannot, why, and what to do about it.

A source's module is imported only when the source is enabled, and its packages only when it is opened, so a missing extra takes one source
away and nothing else. Opening connects to nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.sources.config import SourcesConfig
from cryptoalpha.data.sources.contract import Source
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.section import SourceSection

Open = Callable[[SourceSection, Tools], "Source | Sequence[Source]"]

MODULES: Final = {
    "x": "x",
    "reddit": "reddit",
    "news": "news",
    "exchange": "exchange",
    "mempool": "mempool",
    "ethereum": "ethereum",
    "coinmetrics": "coinmetrics_live",
    "fear_greed": "fear_greed",
}
"""Field of `SourcesConfig` → module beside this one that has `open_source`."""


@dataclass(frozen=True)
class Unavailable:
    """A source that does not run. `wanted`: it is enabled, so somebody should know."""

    name: str
    reason: str
    hint: str
    wanted: bool = True


def open_sources(config: SourcesConfig, tools: Tools) -> list[Source | Unavailable]:
    """Every source of the settings, in their order: opened, or why not. Never raises for a source that cannot run."""
    found: list[Source | Unavailable] = []
    for name, module in MODULES.items():
        section: SourceSection = getattr(config, name)
        if not section.enabled:
            found.append(Unavailable(name, "switched off", f"data.streams.sources.{name}.enabled=true switches it on", wanted=False))
            continue
        try:
            opened = _opener(module)(section, tools)
        except ConfigError as error:
            found.append(Unavailable(name, str(error), error.hint))
            continue
        found.extend(opened if isinstance(opened, Sequence) else [opened])
    return found


def _opener(module: str) -> Open:
    """`open_source` of a module.

    Raises:
        ConfigError: if a package it imports is not installed.
    """
    try:
        return importlib.import_module(f"cryptoalpha.data.sources.{module}").open_source  # type: ignore[no-any-return]
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("", "cryptoalpha"):
            raise  # a mistake of ours, not a package that is missing
        raise ConfigError(f"the package {error.name} is not installed", hint='pip install "cryptoalpha[streams]"') from None
