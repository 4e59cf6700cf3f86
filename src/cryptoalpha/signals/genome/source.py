"""The market genome as a source of opinions: trend, next movement, and levels of support and resistance with their chance to hold.

Each window that holds an asked-for bar is read for all instruments of the book at once, column by column (`nets.genome.by_column`), in
shapes that depend on the column's place and the number of instruments alone, in one thread: the bars before the frame, after the newest bar
or never printed are padding. So a bar's opinion is the same to the last bit live, in a replay of the same book, after a restart, and when
later data are removed or poisoned. What was read stays for the next call as long as its inputs are the same: a live bar costs a column of
its window and a column of the context of the next, which is read ahead. Windows too large to be kept are computed whole, one instrument at
a time. Every bar is answered by the newest fold that may be used at the moment the bar is known; before the first there is no opinion.
A window in which folds change is read once per fold.

Value = P(up) − P(down) over the horizon, the trend's strength. Confidence = the calibrated chance of the likeliest of up, down, sideways.
Impact = value × the mean size of a move that is not sideways, were moves normal: E|z| given |z| > .43 = φ(.43) / (1 − Φ(.43)) = 1.09 σ √h.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import interval_name
from cryptoalpha.nets.genome.by_column import GenomeByColumn
from cryptoalpha.nets.genome.values import ColumnAnswers, GenomeInputs
from cryptoalpha.signals.config import GenomeSignalConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.arrays import PRICE_REACH, GenomeArrays, genome_arrays
from cryptoalpha.signals.genome.frames import frames_reach
from cryptoalpha.signals.genome.model import GenomeModel, open_genome
from cryptoalpha.signals.genome.targets import DOWN, SIDEWAYS, UP
from cryptoalpha.signals.genome.token_memory import TokenMemory
from cryptoalpha.signals.genome.windows import Window, Windows
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.single_thread import single_thread
from cryptoalpha.store.tables import Floats

READERS_KEPT = 3
"""Windows that stay read: the one that answers, the next one's context, and one more while folds change."""

TYPICAL_MOVE = NormalDist().pdf(SIDEWAYS) / (1.0 - NormalDist().cdf(SIDEWAYS))
"""Mean size of a normal move beyond `SIDEWAYS`, in standard deviations."""

Answers = dict[str, Floats]


class GenomeSource:
    """Opinions of a trained genome.

    Args:
        config: names the folder of models; the rest must be what they were trained with.

    Raises:
        ConfigError: if no model is named or there is none.
        ModelError: if it does not fit these settings.
    """

    source = "genome"
    type = "model"

    def __init__(self, config: GenomeSignalConfig) -> None:
        self._folder, self._design = open_genome(config)
        self.horizon = config.horizon_bars * self._design.interval
        self._models: dict[int, GenomeModel] = {}
        self._readers: dict[tuple[int, int], GenomeByColumn] = {}
        self._tokens = TokenMemory()

    def reach(self, interval: int) -> int:
        return max(PRICE_REACH, frames_reach(self._design.intervals)) + self._design.grid.columns

    def compute(self, frame: Frame) -> Opinions:
        """Opinions and traces of every row from `frame.first` on.

        Traces, supports nearest first and then resistances nearest first: `genome/levels` `[T, A, 2K]` prices, `genome/hold` `[T, A, 2K]`
        chances that no close lies beyond within the horizon; `genome/trend`, `genome/movement` `[T, A, 3]` chances of up, down, sideways
        over the horizon and over the next bar; `weights/genome` `[T]` the fold that answered, −1 for none.

        Raises:
            ModelError: if the bars have another length than those the model was trained on, or the network answers with numbers that are
                not finite.
        """
        if frame.panel.interval != self._design.interval:
            raise ModelError(
                f"{self._folder.path} was trained on bars of {interval_name(self._design.interval)}, "
                f"these have {interval_name(frame.panel.interval)}",
                hint="ask for the bars it was trained on with --interval, or train it on these",
            )
        answers, fold = self._answers(frame)
        trend, confidence = answers["trend"], np.full(frame.shape, np.nan)
        confidence[frame.first :] = trend[frame.first :].max(axis=2)  # of a live bar that is one row of thousands
        value = trend[:, :, UP] - trend[:, :, DOWN]
        traces = {**{f"genome/{name}": values for name, values in answers.items()}, "weights/genome": fold}
        return opinions(frame, value, confidence, TYPICAL_MOVE * value, traces=traces)

    def _answers(self, frame: Frame) -> tuple[Answers, npt.NDArray[np.int64]]:
        """What the network says at every row, NaN where it is not asked, and the fold that says it. `[T, A, …]`, `[T]`."""
        sizes, grid = self._design.sizes, self._design.grid
        levels, kinds = sizes.supports + sizes.resistances, sizes.trend_classes
        widths = {"levels": levels, "hold": levels, "trend": kinds, "movement": kinds}
        answers = {name: np.full((*frame.shape, width), np.nan) for name, width in widths.items()}
        self._folder = self._folder.refreshed()
        fold = self._folder.numbers_at(frame.panel.known_at)
        fold[: frame.first] = -1
        asked = np.flatnonzero((fold >= 0) & frame.usable.any(axis=1))
        if not asked.size:
            return answers, fold
        begin = max(0, int(asked[0]) - grid.columns)
        arrays = genome_arrays(frame, self._design.config.frames, begin=begin, memory=self._tokens)
        windows = Windows(arrays, grid)
        with single_thread():
            for number in windows.holding(asked).tolist():
                found = windows.rows_of(int(number))
                rows = np.maximum(found, 0)
                answered = (found >= 0) & (np.arange(grid.columns) >= grid.context) & (fold[rows] >= 0)
                mine = answered[:, None] & arrays.sets.present[rows, :, 0] & np.isfinite(arrays.atr[rows])  # [N, A]
                for model in np.unique(fold[rows[mine.any(axis=1)]]).tolist():
                    columns = np.flatnonzero(mine.any(axis=1) & (fold[rows] == model))
                    for name, values in self._ask(model, windows, number, columns).items():
                        if name == "levels":
                            values = _prices(values, arrays, rows[columns], sizes.supports)
                        there = mine[columns][..., None]
                        answers[name][rows[columns]] = np.where(there, values, answers[name][rows[columns]])
            self._read_ahead(windows, int(fold[-1]))
        return answers, fold

    def _ask(self, model_number: int, windows: Windows, number: int, columns: npt.NDArray[np.int64]) -> Answers:
        """One fold's answers at some columns of one window for every instrument, `[n, A, …]` each; levels as distances in ATR.

        Raises:
            ModelError: if one is not finite.
        """
        model = self._model(model_number)
        inputs = _stacked(windows, number)
        present = inputs.present[:, 0].numpy().T[columns]  # [n, A]
        said = [_called(one, model.temperature) for one in self._columns(model_number, inputs, number, columns)]
        found = {name: torch.stack([one[name] for one in said]).double().numpy() for name in said[0]}
        for name, values in found.items():
            if not np.isfinite(values[present]).all():
                raise ModelError(
                    f"fold {model_number} of {self._folder.path} answered {name} with a number that is not finite",
                    hint="train it anew: cryptoalpha train genome",
                )
        return found

    def _columns(
        self, model_number: int, inputs: GenomeInputs, number: int, columns: npt.NDArray[np.int64]
    ) -> list[tuple[torch.Tensor, ...]]:
        """What the network says at these columns, ascending: supports, resistances, hold, trend, movement, `[A, …]` each."""
        net, batch = self._model(model_number).net, len(inputs.present)
        if GenomeByColumn.pays(net, batch=batch, columns=self._design.grid.columns):
            found = self._reader(model_number, number, batch).read(inputs, int(columns[-1]) + 1)
            return [found[t] for t in columns.tolist()]
        alone = [net(GenomeInputs(*(part[a : a + 1].clone() for part in inputs))) for a in range(batch)]
        whole = [torch.cat([getattr(one, name) for one in alone]) for name in ColumnAnswers._fields]  # [A, N, …] each
        return [tuple(part[:, t].clone() for part in whole) for t in columns.tolist()]

    def _reader(self, model_number: int, number: int, batch: int) -> GenomeByColumn:
        """What a fold has read of a window; the windows asked for last are kept."""
        key = (model_number, number)
        reader = self._readers.pop(key, None)
        if reader is None or reader.batch != batch:
            reader = GenomeByColumn(self._model(model_number).net, batch=batch, columns=self._design.grid.columns)
        self._readers[key] = reader
        for old in list(self._readers)[:-READERS_KEPT]:
            del self._readers[old]
        return reader

    def _read_ahead(self, windows: Windows, model_number: int) -> None:
        """Read the newest bars as the context of the next window too: else the first bar of a window would have to wait for its context."""
        arrays, grid = windows.arrays, windows.grid
        number = (arrays.first_bar + len(arrays) - 1) // grid.answered + 1
        rows, batch = windows.rows_of(number), len(arrays.instruments)
        if model_number < 0 or not (rows >= 0).any():
            return
        if GenomeByColumn.pays(self._model(model_number).net, batch=batch, columns=grid.columns):
            self._reader(model_number, number, batch).read(_stacked(windows, number), int(np.flatnonzero(rows >= 0)[-1]) + 1)

    def _model(self, number: int) -> GenomeModel:
        if number not in self._models:
            self._models[number] = GenomeModel.load(self._folder, number, self._design)
        return self._models[number]


def _called(said: Sequence[torch.Tensor], temperature: float) -> dict[str, torch.Tensor]:
    """What the network says at one column as levels, `[A, 2K]`, and chances. One column at a time: a row's last bit must not depend on
    how many rows are asked for."""
    supports, resistances, hold, trend, movement = said
    return {
        "levels": torch.cat((supports, resistances), -1),
        "hold": torch.sigmoid(hold),
        "trend": torch.softmax(trend / temperature, -1),
        "movement": torch.softmax(movement / temperature, -1),
    }


def _stacked(windows: Windows, number: int) -> GenomeInputs:
    """A window of every instrument, in torch's own memory: aligned alike every time, since a kernel may round by where its input lies."""
    alone = [windows.inputs(Window(number, a)) for a in range(len(windows.arrays.instruments))]
    return GenomeInputs(*(torch.cat(parts) for parts in zip(*alone, strict=True)))


def _prices(distances: Floats, arrays: GenomeArrays, rows: npt.NDArray[np.int64], supports: int) -> Floats:
    """Distances in ATR as prices around the close. `[n, A, 2K]` → `[n, A, 2K]`."""
    side = np.where(np.arange(distances.shape[2]) < supports, -1.0, 1.0)
    close, atr = arrays.close[rows], arrays.atr[rows]
    return np.asarray(close[..., None] + side * atr[..., None] * distances, np.float64)


@dataclass(frozen=True, eq=False)
class Levels:
    """Levels around the price, nearest first: prices `[K]` and the chance of each that no close lies beyond it within the horizon `[K]`.

    A support that lies below a price of 0 is beyond what can happen and keeps its number.
    """

    supports: Floats
    resistances: Floats
    support_holds: Floats
    resistance_holds: Floats


def levels_at(traces: Mapping[str, npt.NDArray[Any]], row: int, instrument: int, *, supports: int = 5) -> Levels | None:
    """The levels of one bar, ready to be drawn; None where there were none.

    Args:
        traces: of `Opinions` or of the tape's source.
        row: of the traces.
        instrument: place of the instrument.
        supports: how many of the levels are supports.

    Raises:
        ModelError: if these are no traces of a genome.
    """
    if not {"genome/levels", "genome/hold"} <= traces.keys():
        raise ModelError("these traces hold no levels", hint="add 'genome' to signals.sources and take its traces")
    price, hold = traces["genome/levels"][row, instrument], traces["genome/hold"][row, instrument]
    if not np.isfinite(price).all():
        return None
    return Levels(price[:supports], price[supports:], hold[:supports], hold[supports:])
