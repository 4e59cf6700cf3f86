"""What a trained genome says about rows it has not seen, window by window as the source asks it, and what happened there.

Tokens are asked for in a second pass over every second window in which single bars are hidden, one in four of those that are answered: the
bar before a hidden one is always seen, so the baseline that looks at the bar before has no unfair advantage. While the net learns, runs
of one to four bars are hidden, which is harder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cryptoalpha.lifecycle.recipes.genome_tallies import Happened, Said
from cryptoalpha.nets.genome.market_genome import MarketGenome
from cryptoalpha.nets.genome.values import GenomeInputs, GenomeReading
from cryptoalpha.signals.genome.arrays import GenomeArrays
from cryptoalpha.signals.genome.targets import Outcomes
from cryptoalpha.signals.genome.windows import Window, Windows
from cryptoalpha.signals.single_thread import single_thread
from cryptoalpha.store.tables import Floats

HIDDEN_WINDOWS, HIDDEN_COLUMNS = 2, 4
"""Of so many windows one is asked for hidden bars; of so many answered bars in it one is hidden."""

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def answers(net: MarketGenome, windows: Windows, rows: Rows, *, temperature: float = 1.0) -> Said:
    """Everything the net says at these rows of the frame; NaN where an instrument has no bar, tokens where nothing was hidden.

    Args:
        temperature: of trend and movement (`GenomeModel.temperature`).
    """
    assets, sizes = len(windows.arrays.instruments), net.sizes
    widths = {"supports": sizes.supports, "resistances": sizes.resistances, "hold": sizes.supports + sizes.resistances}
    widths |= {"trend": sizes.trend_classes, "movement": sizes.trend_classes}
    said = {name: np.full((len(rows), assets, width), np.nan) for name, width in widths.items()}
    tokens = np.full((len(rows), assets, net.frames, sizes.vocabulary), np.nan)
    place = {int(row): at for at, row in enumerate(rows)}
    for number in windows.holding(rows):
        at, columns = _places(windows, int(number), place)
        reading, present = _ask(net, windows, int(number))
        chances = ((logits / temperature).softmax(-1) for logits in (reading.trend, reading.movement))
        parts = (reading.supports, reading.resistances, reading.hold.sigmoid(), *chances)
        for name, part in zip(said, parts, strict=True):
            found = np.where(present[:, columns, None], part[:, columns].numpy(), np.nan)
            said[name][at] = found.swapaxes(0, 1)
        if number % HIDDEN_WINDOWS == 0:
            hidden = np.zeros(windows.grid.columns, bool)
            hidden[windows.grid.context + int(number) // HIDDEN_WINDOWS % HIDDEN_COLUMNS :: HIDDEN_COLUMNS] = True
            reading, present = _ask(net, windows, int(number), hidden)
            masked = np.where((present & hidden)[:, None, columns, None], reading.tokens[:, :, columns].sigmoid().numpy(), np.nan)
            tokens[at] = masked.transpose(2, 0, 1, 3)
    return Said(tokens=tokens, **said)


def happened(arrays: GenomeArrays, outcomes: Outcomes, rows: Rows) -> Happened:
    """What happened at these rows of the frame."""
    sets, before = arrays.sets, np.maximum(rows - 1, 0)
    told = sets.present[..., None] & ~sets.missing
    return Happened(
        below=outcomes.below[rows],
        above=outcomes.above[rows],
        close_below=outcomes.close_below[rows],
        close_above=outcomes.close_above[rows],
        trend=outcomes.trend[rows],
        movement=outcomes.movement[rows],
        tokens=sets.tokens[rows],
        tokens_before=sets.tokens[before],
        told=told[rows] & told[before],
    )


@dataclass(frozen=True, eq=False)
class Record:
    """Logits and what came true, instruments pooled: `hold`, `held` (1, 0, NaN where unknown) `[n, 2K]`; `trend`, `movement` `[n, 3]` with
    `trend_class`, `movement_class` `[n]`, −1 where unknown."""

    hold: Floats
    held: Floats
    trend: Floats
    movement: Floats
    trend_class: Rows
    movement_class: Rows


def record(net: MarketGenome, windows: Windows, rows: Rows) -> Record:
    """What the net says at these rows of the frame, and what came of it."""
    found = windows.outcomes
    assert found is not None
    place = {int(row): at for at, row in enumerate(rows)}
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    for number in windows.holding(rows):
        at, columns = _places(windows, int(number), place)
        reading, present = _ask(net, windows, int(number))
        there, asked = present[:, columns], rows[at]  # [A, n]
        levels = torch.cat((reading.supports, reading.resistances), -1)[:, columns].numpy()
        sides = ((found.close_below, reading.supports), (found.close_above, reading.resistances))
        reach = np.concatenate([np.repeat(close[asked].T[..., None], level.shape[-1], -1) for close, level in sides], -1)  # [A, n, 2K]
        with np.errstate(invalid="ignore"):
            held = np.where(there[..., None] & np.isfinite(reach), reach <= levels, np.nan)
        logits = (part[:, columns].double().numpy() for part in (reading.hold, reading.trend, reading.movement))
        classes = (np.where(there, part[asked].T, -1) for part in (found.trend, found.movement))
        said, trend, movement = (part.reshape(-1, part.shape[-1]) for part in logits)
        parts.append((said, held.reshape(said.shape), trend, movement, *(part.ravel() for part in classes)))
    return Record(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _places(windows: Windows, number: int, place: dict[int, int]) -> tuple[Rows, Rows]:
    """Which of the asked rows a window answers (as places among them), and in which columns."""
    found = windows.rows_of(number)
    pairs = [(place[int(found[n])], n) for n in range(windows.grid.context, windows.grid.columns) if int(found[n]) in place]
    at, columns = np.array(pairs, np.int64).T
    return at, columns


def _ask(net: MarketGenome, windows: Windows, number: int, hidden: Flags | None = None) -> tuple[GenomeReading, Flags]:
    """The net's reading of one window of all instruments, and where each has a bar, `[A, N]`.

    One instrument at a time, copied into memory of torch's own, as the source asks: what is judged is what a backtest hears, to the bit.
    """
    readings, present = [], []
    with single_thread():
        for a in range(len(windows.arrays.instruments)):
            inputs = GenomeInputs(*(part.clone() for part in windows.inputs(Window(number, a), hidden=hidden)))
            readings.append(net(inputs))
            present.append(inputs.present[0, 0].numpy())
    return GenomeReading(*(torch.cat(parts) for parts in zip(*readings, strict=True))), np.stack(present)
