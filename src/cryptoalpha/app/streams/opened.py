"""The live sources of the settings, opened with what they share; who cannot run is said."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import Clock
from cryptoalpha.data.sources.contract import Source
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.recording import open_recorder
from cryptoalpha.data.sources.registry import Unavailable, open_sources
from cryptoalpha.store.state.contract import StateStore

RECORDINGS = "recordings"


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
