"""The grid of blocks: which bars are computed together, the same for training, replay and live.

Block k answers bars k·b to k·b + b − 1, counted since 1970, and looks back at the c bars before them: c + b rows, always. A row that does
not exist, not yet or not at all, is padding with `present` False. So a bar stands in the same place of a tensor of the same shape whoever
asks for it and however much is known after it; with a causal network its answer is the same to the last bit.

Rows are named by their place in the frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.forecaster.values import ForecastInputs, ForecastTargets
from cryptoalpha.signals.config import ForecastConfig
from cryptoalpha.signals.forecast.arrays import ForecastArrays
from cryptoalpha.signals.forecast.labels import ForecastLabels
from cryptoalpha.signals.forecast.scaling import ForecastScaler

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of some arrays.

    Args:
        arrays: what is looked at.
        config: `context_bars` and `block_bars`.
        labels: of the whole frame the arrays were made of; only `targets` needs them.
    """

    arrays: ForecastArrays
    config: ForecastConfig
    labels: ForecastLabels | None = None

    @property
    def rows_per_block(self) -> int:
        """S: context and answered bars."""
        return self.config.context_bars + self.config.block_bars

    def holding(self, rows: Rows) -> Rows:
        """The blocks that answer at least one of these rows, ascending. `[n]` → `[k]`."""
        return np.unique((self.arrays.first_bar + rows - self.arrays.begin) // self.config.block_bars).astype(np.int64)

    def rows_of(self, blocks: Rows) -> Rows:
        """The frame's row in each place of each block, −1 where there is none. `[B]` → `[B, S]`."""
        start = blocks * self.config.block_bars - self.config.context_bars - self.arrays.first_bar  # places in the arrays
        place = start[:, None] + np.arange(self.rows_per_block)
        return np.where((place >= 0) & (place < len(self.arrays)), place + self.arrays.begin, -1)

    def inputs(self, blocks: Rows, scaler: ForecastScaler) -> ForecastInputs:
        """What the network sees of these blocks, scaled. `[B]` → `ForecastInputs` with the leading axes `[B, S]`."""
        rows = self.rows_of(blocks)
        there, place = rows >= 0, np.maximum(rows - self.arrays.begin, 0)
        present = self.arrays.present[place] & there[:, :, None]
        both = present[:, :, :, None] & present[:, :, None, :]
        price = _scaled(scaler.price.apply(self.arrays.price[place], scaler.clip), present[..., None])
        chain = _scaled(scaler.chain.apply(self.arrays.chain[place], scaler.clip), present[..., None])
        pair = _scaled(scaler.pair.apply(self.arrays.pair[place], scaler.clip), both[..., None])
        text, weight = self.arrays.text.rows(np.where(there, place, -1).ravel())
        assets = present.shape[2]
        return ForecastInputs(
            *price,
            *chain,
            text=torch.from_numpy(text.reshape(*rows.shape, assets, -1)),
            text_weight=torch.from_numpy(weight.reshape(*rows.shape, assets)),
            pair=pair[0],
            pair_seen=pair[1],
            present=torch.from_numpy(present),
        )

    def targets(self, blocks: Rows, *, known_by: int, rows: Rows | None = None) -> ForecastTargets:
        """What happened after the answered bars of these blocks, as far as it was known at the moment `known_by`.

        Args:
            rows: count these rows only; all by default. The context never counts.

        Raises:
            ConfigError: if there are no labels.
        """
        if self.labels is None:
            raise ConfigError("blocks without labels have no targets", hint="Blocks(arrays, config, forecast_labels(…))")
        found = self.rows_of(blocks)
        place = np.maximum(found, 0)
        taught = (found >= 0) & (np.arange(self.rows_per_block) >= self.config.context_bars)
        if rows is not None:
            taught &= np.isin(found, rows)
        settled = taught[..., None] & (self.labels.known_at[place] <= known_by)  # [B, S, H]
        closed = taught & (self.labels.correlation_known_at[place] <= known_by)
        move = np.where(settled[:, :, None], self.labels.move[place], np.float32(np.nan))
        volatility = np.where(settled[:, :, None], self.labels.volatility[place], np.float32(np.nan))
        correlation = np.where(closed[:, :, None, None], self.labels.correlation[place], np.float32(np.nan))
        supervised = taught & (np.isfinite(move).any(axis=(2, 3)) | np.isfinite(correlation).any(axis=(2, 3)))
        return ForecastTargets(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (move, volatility, correlation, supervised)))

    def samples(self, rows: Rows, scaler: ForecastScaler, *, known_by: int, every: int = 1) -> BlockSamples:
        """The blocks that hold these rows and a label known by `known_by`, ready for `learn.fit`; only these rows are taught.

        Args:
            every: of how many blocks one is taken.
        """
        blocks = self.holding(rows)
        blocks = blocks[blocks % every == 0]
        taught = self.targets(blocks, known_by=known_by, rows=rows).supervised.any(dim=1).numpy()
        return BlockSamples(self, blocks[taught], scaler, rows, known_by)


class BlockSamples:
    """Blocks as training samples (`learn.fit.samples.Samples`): a batch is its inputs and its targets."""

    def __init__(self, blocks: Blocks, numbers: Rows, scaler: ForecastScaler, rows: Rows, known_by: int) -> None:
        self.blocks, self.numbers, self.scaler = blocks, numbers, scaler
        self._rows, self._known_by = rows, known_by
        self._fingerprint = ""

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, indices: Tensor) -> tuple[ForecastInputs, ForecastTargets]:
        """The blocks of these indices: int64 `[b]` → inputs and targets `[b, S, …]`."""
        numbers = self.numbers[indices.cpu().numpy()]
        return self.blocks.inputs(numbers, self.scaler), self.blocks.targets(numbers, known_by=self._known_by, rows=self._rows)

    def fingerprint(self) -> str:
        """Hash of data, labels, scalers, blocks and moment; computed once."""
        if not self._fingerprint:
            digest = hashlib.blake2b(self.blocks.arrays.fingerprint().encode(), digest_size=16)
            labels = self.blocks.labels
            arrays: list[npt.NDArray[Any]] = [] if labels is None else [labels.move, labels.volatility, labels.known_at, labels.correlation]
            digest.update(f"{self._known_by} {self.scaler.clip} {self.blocks.config.model_dump_json(exclude={'model'})}".encode())
            for array in (*arrays, *self.scaler.as_arrays().values(), self.numbers, self._rows):
                digest.update(f"{array.shape} {array.dtype}".encode())
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def _scaled(applied: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]], there: npt.NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Scaled values as float32, and which were observed; nothing was at padding. `[B, S, …, F]` each."""
    values, observed = applied
    seen = observed & there
    return torch.from_numpy(np.where(seen, values, 0.0).astype(np.float32)), torch.from_numpy(seen)
