"""The live sources of the settings, opened with what they share, and the pump that runs them; who cannot run is said."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import Clock
from cryptoalpha.data.bus.contract import Bus
from cryptoalpha.data.sources.contract import Health, Source
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.pump import Pump
from cryptoalpha.data.sources.recording import open_recorder
from cryptoalpha.data.sources.registry import Unavailable, open_sources
from cryptoalpha.store.state.contract import StateStore

RECORDINGS = "recordings"
_LASTING_SECONDS = 1.0
"""Trouble that is over sooner, such as a stream that is only starting, is nobody's concern."""
_QUIET_SECONDS = 60.0
"""A source whose connection comes and goes is spoken of this often at most."""


class Notices:
    """Says that a source has trouble, and that it is over; what goes on as it was is not said again.

    Args:
        say: told one line.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._say, self._now = say, now
        self._troubled: set[str] = set()
        self._since: dict[str, float] = {}
        self._said: dict[str, float] = {}

    def look(self, health: Mapping[str, Health]) -> None:
        """Called every now and then. Those that pause for their budget or have ended are told of elsewhere."""
        for name, one in health.items():
            trouble = one.reason if one.state in ("waiting", "connected") else ""
            now = self._now()
            if not trouble:
                self._since.pop(name, None)
                if name in self._troubled and one.state == "connected":
                    self._troubled.discard(name)
                    self._say(f"{name} is well again")
                continue
            lasts = now - self._since.setdefault(name, now) >= _LASTING_SECONDS
            if lasts and name not in self._troubled and now - self._said.get(name, -_QUIET_SECONDS) >= _QUIET_SECONDS:
                self._troubled.add(name)
                self._said[name] = now
                self._say(f"{name}{' waits' if one.state == 'waiting' else ''}: {trouble}")


@asynccontextmanager
async def opened_pump(
    settings: Settings,
    folder: Path,
    bus: Bus,
    state: StateStore,
    instruments: Sequence[str],
    *,
    say: Callable[[str], None],
    alert: Callable[[str, str], None],
    clock: Clock,
    given: Sequence[Source] | None = None,
    prices: Callable[[], Mapping[str, float]] = dict,
) -> AsyncIterator[Pump]:
    """The sources of the settings, or `given`, on their way to the bus; they end with the block."""
    config = settings.data.streams.sources
    with opened_sources(settings, folder, state, instruments, say=say, alert=alert, clock=clock, given=given, prices=prices) as sources:
        async with Pump(
            bus,
            state,
            sources,
            position_seconds=config.position_seconds,
            most_waiting=config.most_waiting,
            alert=alert,
            seed=settings.engine.seed,
        ) as pump:
            pump.start()
            yield pump


@contextmanager
def opened_sources(
    settings: Settings,
    folder: Path,
    state: StateStore,
    instruments: Sequence[str],
    *,
    say: Callable[[str], None],
    alert: Callable[[str, str], None],
    clock: Clock,
    given: Sequence[Source] | None = None,
    prices: Callable[[], Mapping[str, float]] = dict,
) -> Iterator[list[Source]]:
    """Sources of the settings; where `recording` is on, what they receive is written under `folder`.

    Args:
        given: these instead.
        prices: dollars by asset, as they are known now.
    """
    if given is not None:
        yield list(given)
        return
    config = settings.data.streams.sources
    recorder = open_recorder(config.recording, folder / RECORDINGS)
    tools = Tools(
        state=state,
        clock=clock,
        instruments=tuple(instruments),
        transfers=config.transfers,
        alert=alert,
        seed=settings.engine.seed,
        budget_alert=config.budget_alert,
        prices=lambda asset: prices().get(asset, math.nan),
        record=None if recorder is None else recorder.record,
    )
    running: list[Source] = []
    for found in open_sources(config, tools):
        if not isinstance(found, Unavailable):
            running.append(found)
            say(f"listening to {found.name}")
        elif found.wanted:
            say(f"{found.name} cannot run: {found.reason}" + (f" → {found.hint}" if found.hint else ""))
    try:
        yield running
    finally:
        if recorder is not None:
            recorder.close()
