"""The signal tape: what the book says at each bar of a period, handed out as values one bar at a time.

The loop asks for one bar after another; the tape turns its arrays into Python numbers a stretch of bars at a time, so that a step costs the
construction of its signals and nothing else. `arrays` names everything the tape rests on, for the look-ahead audit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.core.values import Action, MarketState, ObservationRef, Signal
from cryptoalpha.signals.chain_features import CHAIN_FEATURES
from cryptoalpha.signals.price_features import PRICE_FEATURES
from cryptoalpha.signals.regime.source import Beliefs
from cryptoalpha.store.as_of import as_of_value
from cryptoalpha.store.panel import FIELDS, Panel
from cryptoalpha.store.tables import Dataset, Floats

STRETCH = 512
"""Bars turned into Python numbers at a time: 10 MB for a book of 8 instruments and 8 sources."""

ACTIONS: tuple[Action, ...] = get_args(Action)
"""Proposed actions from strong sell to strong buy."""


def proposed_actions(value: Floats, act_at: float, act_strongly_at: float) -> list[Action]:
    """What signals of these values propose; at a threshold the stronger action. `[n]` → `n` actions.

    >>> proposed_actions(np.array([-0.6, 0.1, 0.2]), 0.2, 0.6)
    ['strong_sell', 'hold', 'buy']
    """
    steps = 2 + (value >= act_at) + (value >= act_strongly_at) - (value <= -act_at) - (value <= -act_strongly_at)
    return [ACTIONS[step] for step in steps.tolist()]


@dataclass(frozen=True, eq=False)
class SourceTape:
    """One source's opinions over the period. Shapes: `[T, A]`, NaN = none; `reference` indexes `references`, −1 = none.

    `quantiles` `[T, A, Q]` of the move over the source's shortest horizon h, in units of σ_t √h; None for a source without them.
    """

    source: str
    type: str
    horizon: int
    value: Floats
    confidence: Floats
    impact: Floats
    reference: npt.NDArray[np.int64] | None
    references: tuple[str, ...]
    traces: Mapping[str, npt.NDArray[Any]]
    quantiles: Floats | None = None


@dataclass(frozen=True, eq=False)
class _Stretch:
    """Some bars' signals as flat columns of Python numbers: those of bar `start + i` stand at `bounds[i]` to `bounds[i + 1]`.

    Flat, because a list of records would keep the garbage collector busy for longer than the rest of a step takes (measured: 3×).
    """

    start: int
    bounds: list[int]
    source: list[int]
    instrument: list[int]
    value: list[float]
    confidence: list[float]
    impact: list[float]
    action: list[Action]
    reference: list[str]
    quantiles: dict[int, tuple[float, ...]]
    """By column, for those that have them."""


@dataclass(frozen=True, eq=False)
class SignalTape:
    """Signals of one period. Axes: `T` bars of `panel`, `A` instruments.

    Shapes: `sigma` `[T, A]` volatility per bar; `price` `[T, A, 50]` and `chain` `[T, A, 30]` features, None where they were not kept.
    """

    panel: Panel
    dataset: Dataset
    assets: tuple[str, ...]
    sigma: Floats
    sources: tuple[SourceTape, ...]
    price: Floats | None
    chain: Floats | None
    act_at: float
    act_strongly_at: float
    regime: Beliefs | None = None
    """Beliefs about the regime; None where no model is named."""
    _open: dict[int, _Stretch] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.panel)

    def source(self, name: str) -> SourceTape:
        """One source's arrays by name.

        Raises:
            KeyError: if the tape has no such source.
        """
        return {tape.source: tape for tape in self.sources}[name]

    def signals_at(self, t: int) -> list[Signal]:
        """The signals of bar t, instrument by instrument in the order of the panel, sources in the order of the configuration."""
        stretch = self._stretch_of(t)
        happened_at, known_at = int(self.panel.open_time[t]), int(self.panel.known_at[t])
        signals = []
        for i in range(stretch.bounds[t - stretch.start], stretch.bounds[t - stretch.start + 1]):
            source = self.sources[stretch.source[i]]
            signals.append(
                Signal(
                    happened_at=happened_at,
                    known_at=known_at,
                    source=source.source,
                    type=source.type,
                    instrument=self.panel.instruments[stretch.instrument[i]],
                    value=stretch.value[i],
                    confidence=stretch.confidence[i],
                    predicted_impact=stretch.impact[i],
                    proposed_action=stretch.action[i],
                    horizon=source.horizon,
                    quantiles=stretch.quantiles.get(i),
                    reference=stretch.reference[i],
                )
            )
        return signals

    def states_at(self, t: int) -> list[MarketState]:
        """The market state of every instrument with a bar at t, in the order of the panel."""
        happened_at, known_at = int(self.panel.open_time[t]), int(self.panel.known_at[t])
        bars_per_year = DAYS_PER_YEAR * DAY / self.panel.interval
        seen = zip(self.panel.instruments, self.panel.close[t].tolist(), self.sigma[t].tolist(), strict=True)
        if self.regime is None:  # most runs: what has a default is not passed
            return [
                MarketState(
                    happened_at=happened_at,
                    known_at=known_at,
                    instrument=instrument,
                    price=price,
                    volatility=sigma * math.sqrt(bars_per_year),
                )
                for instrument, price, sigma in seen
                if price > 0.0  # false for the NaN of an absent bar
            ]
        return [
            MarketState(
                happened_at=happened_at,
                known_at=known_at,
                instrument=instrument,
                price=price,
                volatility=sigma * math.sqrt(bars_per_year),
                regime=belief,
                regime_age=age,
                regime_change=change,
            )
            for (instrument, price, sigma), (belief, age, change) in zip(seen, self._regimes_at(self.regime, t), strict=True)
            if price > 0.0
        ]

    @staticmethod
    def _regimes_at(regime: Beliefs, t: int) -> list[tuple[tuple[float, ...], float | None, float | None]]:
        """Belief, age and chance of change of every instrument at t; empty and None where there is no belief."""
        columns = zip(regime.belief[t].tolist(), regime.age[t].tolist(), regime.change[t].tolist(), strict=True)
        return [(tuple(belief), age, change) if age == age else ((), None, None) for belief, age, change in columns]  # NaN: no belief

    def references_at(self, t: int) -> list[ObservationRef]:
        """Where the bars of t lie in the store, one for every instrument that has one."""
        known_at = int(self.panel.known_at[t])
        return [
            ObservationRef(
                happened_at=int(self.panel.open_time[t]),
                known_at=known_at,
                subject=instrument,
                partition=str(self.dataset.bars[instrument].partition[row]),
                row=int(self.dataset.bars[instrument].row[row]),
            )
            for instrument, row in zip(self.panel.instruments, self.panel.source_row[t].tolist(), strict=True)
            if row >= 0
        ]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything the tape rests on, by name: `[T, ...]` each, row t holding only what was known at `known_at[t]`.

        Labels and fitted statistics appear at the row at which they were known and used, so that one rule checks all: two tapes that share
        what was known at t agree at t to the last bit.
        """
        named: dict[str, npt.NDArray[Any]] = {"open_time": self.panel.open_time, "known_at": self.panel.known_at}
        named |= {f"bar/{name}": getattr(self.panel, name) for name in FIELDS}
        named["sigma"] = self.sigma
        for family, values, specs in (("price", self.price, PRICE_FEATURES), ("chain", self.chain, CHAIN_FEATURES)):
            if values is not None:
                named |= {f"{family}/{spec.name}": values[:, :, f] for f, spec in enumerate(specs)}
        for (asset, metric), table in sorted(self.dataset.readings.items()):
            named[f"join/{asset}/{metric}"] = as_of_value(table.known_at, table.value, self.panel.known_at)
        for name, posts in sorted(self.dataset.posts.items()):
            named[f"join/posts/{name}"] = np.searchsorted(posts.known_at, self.panel.known_at, side="right")
        for tape in self.sources:
            named |= {f"signal/{tape.source}/{part}": getattr(tape, part) for part in ("value", "confidence", "impact")}
            if tape.quantiles is not None:
                named[f"signal/{tape.source}/quantiles"] = tape.quantiles
            named |= dict(tape.traces)
        return named if self.regime is None else named | self.regime.as_arrays()

    def _stretch_of(self, t: int) -> _Stretch:
        """The stretch that holds bar t; only the newest one opened is kept.

        Raises:
            IndexError: if the tape has no bar t.
        """
        if not 0 <= t < len(self):
            raise IndexError(f"bar {t} of a tape of {len(self)}")
        start = t - t % STRETCH
        if start not in self._open:
            self._open.clear()
            self._open[start] = self._open_stretch(start)
        return self._open[start]

    def _open_stretch(self, start: int) -> _Stretch:
        """The signals of up to `STRETCH` bars from `start` on."""
        rows = slice(start, min(start + STRETCH, len(self)))
        shape = (rows.stop - start, len(self.panel.instruments), len(self.sources))
        value, confidence, impact = (np.empty(shape) for _ in range(3))
        newest = np.full(shape, -1, np.int64)
        for s, tape in enumerate(self.sources):
            value[:, :, s], confidence[:, :, s], impact[:, :, s] = tape.value[rows], tape.confidence[rows], tape.impact[rows]
            if tape.reference is not None:
                newest[:, :, s] = tape.reference[rows]
        bar, instrument, source = np.nonzero(np.isfinite(value))  # bar by bar, then instrument by instrument
        there = (bar, instrument, source)
        texts = zip(source.tolist(), newest[there].tolist(), strict=True)
        quantiles: dict[int, tuple[float, ...]] = {}
        for s, tape in enumerate(self.sources):
            if tape.quantiles is not None:
                places = np.flatnonzero(source == s)
                values = tape.quantiles[rows][bar[places], instrument[places]].tolist()
                quantiles |= zip(places.tolist(), map(tuple, values), strict=True)
        return _Stretch(
            start=start,
            bounds=np.searchsorted(bar, np.arange(shape[0] + 1)).tolist(),
            source=source.tolist(),
            instrument=instrument.tolist(),
            value=value[there].tolist(),
            confidence=confidence[there].tolist(),
            impact=impact[there].tolist(),
            action=proposed_actions(value[there], self.act_at, self.act_strongly_at),
            reference=[self.sources[s].references[index] if index >= 0 else "" for s, index in texts],
            quantiles=quantiles,
        )
