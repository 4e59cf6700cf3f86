"""The grid of windows: which bars are read together, the same for training, replay and live.

Window k answers the bars k·a to k·a + a − 1, counted since 1970, and looks back at the c bars before them: N = c + a columns, always. A bar
that does not exist, not yet or not at all, is padding with `present` False. So a bar stands in the same column of a tensor of the same
shape whoever asks for it and however much is known after it; with a network that is causal along its columns its answer is the same to the
last bit. A window holds one instrument: bars of others do not enter it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.nets.genome.values import GenomeInputs, GenomeTargets
from cryptoalpha.signals.genome.arrays import GenomeArrays, contact_within, flags_of, pair_features
from cryptoalpha.signals.genome.targets import UNKNOWN, Outcomes, distance_classes
from cryptoalpha.store.tables import Floats

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LONGEST_HIDDEN_RUN = 4
"""Bars hidden in a row at most: neighbours share most of their windows, and one hidden bar between two seen ones is no riddle."""


class Window(NamedTuple):
    """One window: its number since 1970, and the place of its instrument in the arrays."""

    number: int
    instrument: int


@dataclass(frozen=True)
class Grid:
    """Where windows lie. `context` bars are looked back at, `answered` bars answered."""

    context: int
    answered: int

    @staticmethod
    def of(window_bars: int, context_share: float) -> Grid:
        """The grid of windows of `window_bars`, of which `context_share` (0–1) is context; one bar at least is answered."""
        answered = min(window_bars, max(1, round(window_bars * (1.0 - context_share))))
        return Grid(window_bars - answered, answered)

    @property
    def columns(self) -> int:
        """N: bars of a window."""
        return self.context + self.answered


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of some arrays.

    Args:
        arrays: what is looked at.
        grid: where windows lie.
        outcomes: of the same rows; only `targets` needs them.
        distance_bins: classes of distance.
    """

    arrays: GenomeArrays
    grid: Grid
    outcomes: Outcomes | None = None
    distance_bins: int = 16

    def holding(self, rows: Rows) -> Rows:
        """Numbers of the windows that answer at least one of these rows of the frame, ascending. `[n]` → `[k]`."""
        return np.unique((self.arrays.first_bar + rows) // self.grid.answered).astype(np.int64)

    def rows_of(self, number: int) -> Rows:
        """The frame's row in each column, −1 where there is none. → `[N]`."""
        rows = number * self.grid.answered - self.grid.context - self.arrays.first_bar + np.arange(self.grid.columns)
        return np.where((rows >= self.arrays.begin) & (rows < len(self.arrays)), rows, -1)

    def inputs(self, window: Window, *, known_by: int | None = None, hidden: Flags | None = None) -> GenomeInputs:
        """What the network sees of one window, leading axis B = 1.

        Args:
            known_by: leave out bars known after this moment, as if they did not exist.
            hidden: columns hidden in all time frames, `[N]`; none by default.
        """
        arrays, rows = self.arrays, self.rows_of(window.number)
        place, there = np.maximum(rows, 0), rows >= 0
        if known_by is not None:
            there &= arrays.known_at[place] <= known_by
        tokens, missing, present = flags_of(arrays.sets, place, window.instrument)
        log_price = np.where(there, arrays.log_close[place, window.instrument], np.nan)
        pair = pair_features(log_price, contact_within(arrays, place, window.instrument), arrays.hour_of_week[place])
        nothing = np.zeros(self.grid.columns, bool) if hidden is None else hidden
        flags = (tokens & there[:, None], missing & there[:, None], nothing & there)
        parts = (*flags, pair.astype(np.float32), present & there)
        return GenomeInputs(*(torch.from_numpy(np.ascontiguousarray(part))[None] for part in parts))

    def targets(self, window: Window, *, known_by: int, rows: Rows | None = None) -> GenomeTargets:
        """What happened after the answered bars of one window, as far as it was known at the moment `known_by`; leading axis B = 1.

        Args:
            rows: count these rows only, ascending; all by default. The context never counts.

        Raises:
            ConfigError: if there are no outcomes.
        """
        found = self.outcomes
        if found is None:
            raise ConfigError("windows without outcomes have no targets", hint="Windows(arrays, grid, outcomes(arrays, horizon))")
        place, a = np.maximum(self.rows_of(window.number), 0), window.instrument
        supervised = self.supervised(window, known_by=known_by, rows=rows)

        def excursion(part: Floats) -> Tensor:
            return torch.from_numpy(np.where(supervised, part[place, a], np.nan).astype(np.float32))[None]

        def called(part: Rows) -> Tensor:
            return torch.from_numpy(np.where(supervised, part[place, a], UNKNOWN))[None]

        log_price, sigma = self.arrays.log_close[place, a], self.arrays.sigma[place, a]
        log_price = np.where(self.rows_of(window.number) >= 0, log_price, np.nan)
        ahead = np.where(supervised, found.ahead[place, a], np.nan)
        distance = torch.from_numpy(distance_classes(log_price, sigma, ahead, self.distance_bins))[None]
        return GenomeTargets(
            below=excursion(found.below),
            above=excursion(found.above),
            close_below=excursion(found.close_below),
            close_above=excursion(found.close_above),
            trend=called(found.trend),
            movement=called(found.movement),
            distance=distance,
            tokens=self.inputs(window, known_by=known_by).tokens,
            supervised=torch.from_numpy(supervised)[None],
        )

    def supervised(self, window: Window, *, known_by: int, rows: Rows | None = None) -> Flags:
        """Columns that teach: answered, there, their outcomes known by `known_by`, and among `rows`. → `[N]`."""
        found = self.rows_of(window.number)
        place = np.maximum(found, 0)
        taught: Flags = (found >= 0) & (np.arange(self.grid.columns) >= self.grid.context)
        taught &= self.arrays.sets.present[place, window.instrument, 0]
        if self.outcomes is not None:
            taught &= self.outcomes.known_at[place] <= known_by
        if rows is not None:
            taught &= _among(found, rows)
        return taught

    def samples(self, rows: Rows, *, known_by: int, hide: float = 0.0, seed: int = 0, every: int = 1) -> WindowSamples:
        """The windows that teach at one of these rows, ready for `learn.fit`; nothing known after `known_by` is in them.

        Args:
            rows: rows of the frame, ascending.
            hide: share of the columns among `rows` (0–1) whose tokens are hidden, for masked-token training.
            seed: of what is hidden; a sample always hides the same columns.
            every: of how many windows one is taken.
        """
        numbers = self.holding(rows)
        windows = [Window(int(k), a) for k in numbers[numbers % every == 0] for a in range(len(self.arrays.instruments))]
        kept = [window for window in windows if self.supervised(window, known_by=known_by, rows=rows).any()]
        return WindowSamples(self, kept, np.asarray(rows, np.int64), known_by, hide, seed)


def _among(values: Rows, ascending: Rows) -> Flags:
    """Which values occur in an ascending list."""
    if not len(ascending):
        return np.zeros(values.shape, bool)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[place] == values, bool)


class WindowSamples:
    """Windows as training samples (`learn.fit.samples.Samples`): a batch is its inputs and its targets."""

    def __init__(self, windows: Windows, chosen: list[Window], rows: Rows, known_by: int, hide: float, seed: int) -> None:
        self.windows, self.chosen = windows, chosen
        self._rows, self._known_by, self._hide, self._seed = rows, known_by, hide, seed
        self._fingerprint = ""

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, indices: Tensor) -> tuple[GenomeInputs, GenomeTargets]:
        """The windows of these indices: int64 `[b]` → inputs and targets with the leading axis b."""
        batch = [self._sample(index) for index in indices.tolist()]
        inputs = GenomeInputs(*(torch.cat(parts) for parts in zip(*(one for one, _ in batch), strict=True)))
        return inputs, GenomeTargets(*(torch.cat(parts) for parts in zip(*(other for _, other in batch), strict=True)))

    def _sample(self, index: int) -> tuple[GenomeInputs, GenomeTargets]:
        window = self.chosen[index]
        inputs = self.windows.inputs(window, known_by=self._known_by, hidden=self.hidden(window))
        return inputs, self.windows.targets(window, known_by=self._known_by, rows=self._rows)

    def hidden(self, window: Window) -> Flags:
        """Columns that masked-token training hides in this window, in runs of 1 to 4; a pure function of window and seed. → `[N]`.

        Only columns among the samples' rows and known by then. A hidden column is hidden in every time frame, for a longer bar that closes
        with it would tell; longer bars at later columns tell too, but a causal network cannot see them from where it is asked.
        """
        columns = self.windows.grid.columns
        hidden = np.zeros(columns, bool)
        if self._hide <= 0.0:
            return hidden
        draw = stream(self._seed, "genome", "hidden", window.number, self.windows.arrays.instruments[window.instrument])
        wanted = self._hide * columns
        while hidden.sum() < wanted:
            start, length = int(draw.integers(columns)), int(draw.integers(1, LONGEST_HIDDEN_RUN + 1))
            hidden[start : start + length] = True
        found = self.windows.rows_of(window.number)
        known = self.windows.arrays.known_at[np.maximum(found, 0)] <= self._known_by
        return hidden & (found >= 0) & known & _among(found, self._rows)

    def fingerprint(self) -> str:
        """Hash of data, outcomes, windows, rows, moment and what is hidden; computed once."""
        if not self._fingerprint:
            found = self.windows.outcomes
            settings = (self.windows.grid, self.windows.distance_bins, found and found.horizon, self._known_by, self._hide, self._seed)
            digest = hashlib.blake2b(f"{self.windows.arrays.fingerprint()} {settings} {self.chosen}".encode(), digest_size=16)
            digest.update(np.ascontiguousarray(self._rows).view(np.uint8).data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint
