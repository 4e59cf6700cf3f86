"""Regimes of a frame: every bar answered by the newest fold that may be used when it is known, the same whatever is prepared.

The filter has an endless memory, a row must not: bars are answered in blocks that begin at fixed multiples of `block_bars` since 1970, and
every block's filter begins `warm_up_bars` before it, with what the chains settle in. So a belief is the same to the last bit live, in a
replay, after a restart, and when later data are removed or poisoned. An age beyond the warm-up is not told apart from one of its length.
A block in which folds change is computed once per fold. Without any observation since the warm-up there is no belief.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import interval_name
from cryptoalpha.core.values import REGIMES
from cryptoalpha.signals.config import RegimeConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.regime.features import REGIME_FEATURES, features_reach
from cryptoalpha.signals.regime.filter import Filtered
from cryptoalpha.signals.regime.memory import FeatureMemory
from cryptoalpha.signals.regime.model import RegimeModel, open_regime
from cryptoalpha.store.tables import Floats


@dataclass(frozen=True, eq=False)
class Beliefs:
    """`belief` `[T, A, 6]` over `core.values.REGIMES`, `age` (bars) and `change` (chance) `[T, A]`, NaN = none; `fold` `[T]`, −1 = none."""

    belief: Floats
    age: Floats
    change: Floats
    fold: npt.NDArray[np.int64]

    def rows(self, first: int) -> Beliefs:
        """From row `first` on."""
        return Beliefs(self.belief[first:], self.age[first:], self.change[first:], self.fold[first:])

    def as_arrays(self) -> dict[str, npt.NDArray[np.float64] | npt.NDArray[np.int64]]:
        """For the audit."""
        return {"regime/belief": self.belief, "regime/age": self.age, "regime/change": self.change, "weights/regime": self.fold}


class RegimeSource:
    """Beliefs of a trained model.

    Args:
        config: names the folder of models; the rest must be what they were trained with.

    Raises:
        ConfigError: if no model is named or there is none.
        ModelError: if it does not fit these settings.
    """

    def __init__(self, config: RegimeConfig) -> None:
        self._folder, self._design = open_regime(config)
        self._config = config
        self._models: dict[int, RegimeModel] = {}
        self._memory = FeatureMemory()

    def reach(self, interval: int) -> int:
        """Rows before a bar that its belief may depend on."""
        return features_reach(interval) + self._config.warm_up_bars + self._config.block_bars

    def compute(self, frame: Frame) -> Beliefs:
        """Beliefs of every row from `frame.first` on.

        Raises:
            ModelError: if the bars have another length than those the model was trained on.
        """
        if frame.panel.interval != self._design.interval:
            raise ModelError(
                f"{self._folder.path} was trained on bars of {interval_name(self._design.interval)}, "
                f"these have {interval_name(frame.panel.interval)}",
                hint="ask for the bars it was trained on with --interval, or train it on these",
            )
        self._folder = self._folder.refreshed()
        fold = self._folder.numbers_at(frame.panel.known_at)
        fold[: frame.first] = -1
        found = no_beliefs(frame.shape, fold)
        asked = np.flatnonzero((fold >= 0) & frame.usable.any(axis=1))
        if asked.size:
            first_bar = int(frame.panel.open_time[0]) // frame.panel.interval
            begin = max(0, filter_begin(first_bar, self._config, int(asked[0])))
            features = self._memory.features(frame, begin)
            for number in np.unique(fold[asked]).tolist():
                answer(features, begin, frame.usable, first_bar, self._model(number), asked[fold[asked] == number], found)
        return found

    def _model(self, number: int) -> RegimeModel:
        if number not in self._models:
            self._models[number] = RegimeModel.load(self._folder, number, self._design)
        return self._models[number]


def no_beliefs(shape: tuple[int, int], fold: npt.NDArray[np.int64]) -> Beliefs:
    """Nothing said yet. `shape`: (T, A)."""
    return Beliefs(np.full((*shape, len(REGIMES)), np.nan), np.full(shape, np.nan), np.full(shape, np.nan), fold)


def filter_begin(first_bar: int, config: RegimeConfig, row: int) -> int:
    """The row at which the filter that answers `row` begins, below 0: before the frame. `first_bar`: number of row 0 since 1970."""
    return (first_bar + row) // config.block_bars * config.block_bars - config.warm_up_bars - first_bar


def answer(
    features: Floats,
    from_row: int,
    usable: npt.NDArray[np.bool_],
    first_bar: int,
    model: RegimeModel,
    rows: npt.NDArray[np.int64],
    into: Beliefs,
) -> None:
    """Write what a model believes at these rows into `into`, block by block.

    Args:
        features: `[T − from_row, A, 20]` of the rows from `from_row` on, no later than where the first block's filter begins.
        usable: `[T, A]` where an instrument has a bar.
        first_bar: number of row 0, counted since 1970.
        rows: ascending.
    """
    config = model.design.config
    begins = np.array([filter_begin(first_bar, config, row) for row in rows.tolist()], np.int64)
    for begin in np.unique(begins).tolist():
        mine = rows[begins == begin]
        end = int(mine[-1]) + 1
        for a in range(usable.shape[1]):
            window = np.full((end - begin, len(REGIME_FEATURES)), np.nan)  # bars before the frame never printed
            window[max(0, -begin) :] = features[max(0, begin) - from_row : end - from_row, a]
            said: Filtered = model.filter(window)
            there = mine[usable[mine, a] & said.seen[mine - begin]]
            into.belief[there, a] = said.belief[there - begin]
            into.age[there, a] = said.age[there - begin]
            into.change[there, a] = said.change[there - begin]
