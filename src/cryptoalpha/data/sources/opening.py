"""What a source is given when it is opened, and how it says that something is missing.

Every module of a source has `open_source(section, tools)`, which returns a source or several and raises `ConfigError` with a hint where a
key, an address or a package is missing. Nothing is connected by opening.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.sources.chain_config import TransfersSection
from cryptoalpha.data.sources.contract import Health
from cryptoalpha.data.sources.limits import Alert, Bucket, Budget, Limiter
from cryptoalpha.data.sources.reconnect import Line, Wait
from cryptoalpha.data.sources.section import SourceSection
from cryptoalpha.store.state.contract import StateStore

Record = Callable[[str, int, bytes], None]
"""Is given the channel, the time of receipt (UTC ns) and the raw message, before anybody reads it. Never waits."""


@dataclass(frozen=True)
class Tools:
    """What sources share."""

    state: StateStore
    clock: Clock = field(default_factory=SystemClock)
    wait: Wait = asyncio.sleep
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    instruments: tuple[str, ...] = ()
    """What is traded, such as `BTC/USDT`."""
    prices: Callable[[str], float] = lambda asset: math.nan
    """Dollars an asset is worth, by the newest trade known; NaN where none is."""
    transfers: TransfersSection = field(default_factory=TransfersSection)
    """What counts as a large transfer."""
    alert: Alert = lambda subject, text: None
    """Told what people should know."""
    record: Record | None = None
    seed: int = 0
    budget_alert: float = 0.8

    def secret(self, variable: str) -> str:
        """A key, from the environment.

        Raises:
            ConfigError: if it is not set; the message names the variable.
        """
        value = self.environment.get(variable, "").strip()
        if not value:
            raise ConfigError(f"{variable} is not set", hint=f"export {variable}=… before starting, or switch the source off")
        return value

    def limiter(self, name: str, section: SourceSection, health: Health, *, line: Line | None = None) -> Limiter:
        """Pace and bill as the section has them. Closing `line` ends its waits."""
        return Limiter(
            name,
            Bucket(section.requests_per_minute, section.burst, clock=self.clock),
            Budget.of(section, alert_share=self.budget_alert),
            self.state,
            health,
            clock=self.clock,
            wait=self.wait,
            alert=self.alert,
            end=line.end if line is not None else None,
        )

    def line(self, name: str, section: SourceSection, health: Health) -> Line:
        """A connect loop's waits as the section has them."""
        return Line(
            name,
            health,
            first_seconds=section.retry_seconds,
            limit_seconds=section.retry_limit_seconds,
            clock=self.clock,
            wait=self.wait,
            seed=self.seed,
        )


def needs(module: str, *, extra: str = "streams") -> ModuleType:
    """An optional package, imported now.

    Raises:
        ConfigError: if it is not installed, naming the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise ConfigError(f"the package {missing} is not installed", hint=f'pip install "cryptoalpha[{extra}]"') from None
