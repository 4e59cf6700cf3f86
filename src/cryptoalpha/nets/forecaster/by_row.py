"""The forecaster read some rows at a time: the answers of new bars, from what is kept of the bars before (`nets.evoformer.by_row`).

A block is cut into groups of rows, the same whoever reads it, and each group is read in one pass of its own shape. A group of which not
all bars are known yet is padded and read again with the next bar. So the cost of a live bar is that of its group, and a bar's answer is the
same to the last bit however much of its block is known.
"""

from __future__ import annotations

import torch

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.evoformer import Evoformer
from cryptoalpha.nets.evoformer.by_row import TrunkByRow, numbers_kept
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.nets.forecaster.values import Forecast, ForecastInputs

MOST_NUMBERS = 2**26
"""Floats that one block may keep: a quarter of a gigabyte. Beyond, it is computed whole."""

CONTEXT_GROUP = 16
"""Rows of the context that are read together: the more, the less each costs; a live bar has to wait for a group."""

ANSWERED_GROUP = 8
"""Rows of the answered part that are read together. Preset `small`, eight assets: groups of 8 make a whole block cost what one pass over
it does, groups of 4 save a live bar 2 ms of 7 and make a replay a sixth slower, since what a pass costs besides its sums weighs more."""


class ForecasterByRow:
    """One block of S rows that is read group after group.

    `read(inputs, until)` reads what was not read yet of the groups that begin before row `until`. A group in which a row has other inputs
    than when it was read, and all after it, are read anew: so what is answered is a function of the inputs alone, whatever was read before.

    Args:
        net: in evaluation mode, its weights fixed; with a pair representation.
        assets: N.
        context, answered: rows of the two parts; S together.

    Raises:
        ConfigError: for a net without pair representation.
    """

    def __init__(self, net: Forecaster, *, assets: int, context: int, answered: int) -> None:
        if not isinstance(net.trunk_net, Evoformer):
            raise ConfigError("a forecaster without pair representation is computed whole")
        self._net, self._context = net, context
        self.assets = assets
        self._trunk = TrunkByRow(net.trunk_net, rows=context + answered, columns=assets)
        self._groups = groups(context, answered)
        self._inputs: ForecastInputs | None = None
        self._answers: list[Forecast | None] = []

    @staticmethod
    def pays(net: Forecaster, *, assets: int, context: int, answered: int) -> bool:
        """Whether it can be read so, and what must be kept fits `MOST_NUMBERS`. A rule of sizes alone."""
        if not isinstance(net.trunk_net, Evoformer):
            return False
        cuts = len(groups(context, answered))
        return numbers_kept(net.sizes, rows=context + answered, columns=assets, cuts=cuts) <= MOST_NUMBERS

    @property
    def next_stop(self) -> int:
        """The row before which the group ends that is to be read next; S if all are read."""
        return self._groups[min(len(self._answers), len(self._groups) - 1)][1]

    @torch.inference_mode()
    def read(self, inputs: ForecastInputs, until: int) -> list[tuple[int, Forecast]]:
        """The answers of the groups of the answered part that begin before `until`, each with its first row.

        Shapes: `ForecastInputs` of the whole block, B = 1; rows that are not known yet are padding → `Forecast` with `[1, R, …]`.
        """
        same = self._same_rows(inputs)
        del self._answers[sum(stop <= same for _, stop in self._groups) :]
        self._inputs = inputs
        wanted = [group for group in self._groups if group[0] < until]
        for first, stop in wanted[len(self._answers) :]:
            # Copied, so that it is aligned alike every time: a kernel may round by where its input lies.
            part = ForecastInputs(*(each[:, first:stop].clone() for each in inputs))
            m, z = self._net.embedded(part, first=first)
            assert z is not None
            m, z = self._trunk.read(first, m, z, part.present, look_back=stop <= self._context)
            self._answers.append(self._net.answer(m, z, part) if stop > self._context else None)
        return [(first, said) for (first, _), said in zip(wanted, self._answers, strict=False) if said is not None]

    def _same_rows(self, inputs: ForecastInputs) -> int:
        """How many rows, from the first on, hold what they held when the block was last read."""
        if self._inputs is None:
            return 0
        differs = torch.stack([(old != new).flatten(2).any(-1)[0] for old, new in zip(self._inputs, inputs, strict=True)]).any(0)
        return int(differs.logical_not().long().cumprod(0).sum())


def groups(context: int, answered: int) -> list[tuple[int, int]]:
    """First row and the row after the last of every group."""
    parts = ((0, context, CONTEXT_GROUP), (context, context + answered, ANSWERED_GROUP))
    return [(first, min(first + size, stop)) for begin, stop, size in parts for first in range(begin, stop, size)]


def read_block(net: Forecaster, inputs: ForecastInputs, *, context: int) -> list[tuple[int, Forecast]]:
    """One block's answers as a source gives them, with their first rows: group after group if that pays, else in one pass."""
    assets, answered = inputs.present.shape[2], inputs.present.shape[1] - context
    if ForecasterByRow.pays(net, assets=assets, context=context, answered=answered):
        return ForecasterByRow(net, assets=assets, context=context, answered=answered).read(inputs, context + answered)
    # Copied into torch's own memory, which is aligned alike every time: a kernel may round by where its input lies.
    return [(0, net(ForecastInputs(*(part.clone() for part in inputs))))]
