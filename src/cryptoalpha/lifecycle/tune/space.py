"""The space that is searched: what may be drawn, and what the settings one begins with are in it.

Heads and head width are drawn and the width is their product, so that heads always divide it and no draw is refused; the range of the head
width depends on the heads, which a sampler of one variable at a time takes as it comes.

Source of the conditional draw: the design's facts on hyperparameter search; ranges are the user's (`TuneConfig`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.tune.config import TuneConfig
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.presets import EVOFORMERS

Value = float | int
Params = dict[str, Value]

COARSE = 4
"""Head widths are multiples of this where the range holds two of them: odd widths compute slower and teach nothing more."""


class Draws(Protocol):
    """Who draws: a trial of Optuna, or anything that can do the same."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...


class Space(Protocol):
    """What can be drawn."""

    def draw(self, by: Draws) -> Params:
        """One point; the same names in the same order every time."""
        ...

    @property
    def begin(self) -> Params:
        """The settings the search begins with, as far as they lie in the space; empty if they do not."""
        ...


@dataclass(frozen=True)
class ForecasterSpace:
    """The forecaster's: step size, blocks per step, noise of evolution, dropout, heads and head width.

    Args:
        config: the ranges.
        sizes: the trunk one begins with; `config.relative` scales heads and width by its size.
        block_bars: bars that one block answers.
        now: settings in use, by the names of the space.
    """

    config: TuneConfig
    sizes: EvoformerConfig
    block_bars: int
    now: Mapping[str, Value]

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of one step: samples are bars."""
        low, high = self.config.batch
        return max(1, round(low / self.block_bars)), max(1, round(high / self.block_bars))

    @property
    def heads(self) -> tuple[int, int]:
        return self._sized(self.config.heads, self.sizes.heads, EVOFORMERS["seed"].heads)

    @property
    def width(self) -> tuple[int, int]:
        return self._sized(self.config.width, self.sizes.sequence_width, EVOFORMERS["seed"].sequence_width)

    def head_width(self, heads: int) -> tuple[int, int, int]:
        """Lowest, highest and step of the width of one of so many heads.

        Raises:
            ConfigError: if no width makes a product inside the range.
        """
        low, high = self.width
        lowest, highest = -(-low // heads), high // heads
        if lowest > highest:
            raise ConfigError(
                f"no width from {low} to {high} is a multiple of {heads} heads",
                hint="widen lifecycle.tune.width",
            )
        coarse = -(-lowest // COARSE) * COARSE, highest // COARSE * COARSE
        return (*coarse, COARSE) if coarse[0] < coarse[1] else (lowest, highest, 1)

    def draw(self, by: Draws) -> Params:
        config = self.config
        found: Params = {
            "learning_rate": by.suggest_float("learning_rate", *config.learning_rate, log=True),
            "batch": by.suggest_int("batch", *self.blocks),
        }
        if config.generations:
            found["sigma"] = by.suggest_float("sigma", *config.sigma, log=True)
        found["dropout"] = by.suggest_float("dropout", *config.dropout)
        found["heads"] = by.suggest_int("heads", *self.heads)
        low, high, step = self.head_width(int(found["heads"]))
        found["head_width"] = by.suggest_int("head_width", low, high, step=step)
        return found

    @property
    def begin(self) -> Params:
        mine = dict(self.now)
        if not self.config.generations:
            mine.pop("sigma", None)
        heads, (fewest, most), (least, widest) = int(mine["heads"]), self.heads, self.width
        low, high, step = self.head_width(heads) if fewest <= heads <= most else (1, 0, 1)
        inside = (
            self.config.learning_rate[0] <= mine["learning_rate"] <= self.config.learning_rate[1]
            and self.blocks[0] <= mine["batch"] <= self.blocks[1]
            and self.config.dropout[0] <= mine["dropout"] <= self.config.dropout[1]
            and ("sigma" not in mine or self.config.sigma[0] <= mine["sigma"] <= self.config.sigma[1])
            and least <= heads * mine["head_width"] <= widest
            and low <= mine["head_width"] <= high
            and (int(mine["head_width"]) - low) % step == 0
        )
        return mine if inside else {}

    def trunk(self, params: Mapping[str, Value]) -> EvoformerConfig:
        """The trunk of a point: its width is heads × head width."""
        heads, head_width, dropout = int(params["heads"]), int(params["head_width"]), float(params["dropout"])
        sized = {"heads": heads, "head_width": head_width, "sequence_width": heads * head_width}
        return self.sizes.model_copy(update={**sized, "row_dropout": dropout, "pair_dropout": dropout})

    def _sized(self, bounds: tuple[int, int], own: int, seed: int) -> tuple[int, int]:
        if not self.config.relative:
            return bounds
        low, high = (max(1, round(bound * own / seed)) for bound in bounds)
        return low, high
