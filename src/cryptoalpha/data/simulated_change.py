"""A simulated market whose edge dies at a bar and comes up elsewhere: what was learned before is worth nothing after, or the contrary.

Two markets of one seed see the same hidden states, posts and shocks; they differ in what the states do to prices. The first one's bars are
followed by the second one's, whose prices go on from the first one's last. Before the change all is bit-equal to the first market.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.store.tables import BarTable, Dataset, ReadingTable

MAY_DIFFER = frozenset({"edge", "pure_noise", "news_share", "funding_share", "flow_share"})


def simulate_change(before: SimulatedConfig, after: SimulatedConfig, at_bar: int, seed: int = 0) -> Dataset:
    """The market of `before` up to bar `at_bar`, that of `after` from there on.

    Raises:
        ConfigError: if they differ in more than in their edge, or there is no such bar.
    """
    one, other = before.model_dump(), after.model_dump()
    if differing := sorted(name for name in one if one[name] != other[name] and name not in MAY_DIFFER):
        raise ConfigError(f"the markets differ in {', '.join(differing)}", hint=f"they may differ in {', '.join(sorted(MAY_DIFFER))}")
    if not 0 < at_bar < before.bars:
        raise ConfigError(f"bar {at_bar} is not inside a market of {before.bars} bars")
    first, second = simulate(before, seed).dataset, simulate(after, seed).dataset
    moment = int(next(iter(first.bars.values())).known_at[at_bar - 1])
    mark = hashlib.sha256(f"{first.fingerprint} {second.fingerprint} {at_bar}".encode()).hexdigest()
    return replace(
        first,
        origin=f"{first.origin}; from bar {at_bar} on {second.origin}",
        bars={name: _followed(table, second.bars[name], at_bar) for name, table in first.bars.items()},
        readings={name: _told(table, second.readings[name], moment) for name, table in first.readings.items()},
        fingerprint=mark,
        notes=(*first.notes, *second.notes),
    )


def _told(first: ReadingTable, second: ReadingTable, moment: int) -> ReadingTable:
    return replace(first, value=np.where(first.known_at <= moment, first.value, second.value))


def _followed(first: BarTable, second: BarTable, at: int) -> BarTable:
    scale = first.close[at - 1] / second.close[at - 1]
    mixed: dict[str, Any] = {
        name: np.concatenate((getattr(first, name)[:at], getattr(second, name)[at:] * factor))
        for name, factor in (
            ("open", scale), ("high", scale), ("low", scale), ("close", scale), ("volume", 1.0 / scale), ("taker_buy_volume", 1.0 / scale),
        )
    }  # fmt: skip
    return replace(first, **mixed)
