"""Per-moment sums of what a genome and its baselines said and what happened: every measure is a function of them (`resampling`).

Assets of one moment are added up, so that a resample of whole moments is one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.lifecycle.recipes.genome_usual import Usual
from cryptoalpha.lifecycle.recipes.resampling import Columns, Flags, calibration_gaps
from cryptoalpha.nets.genome.heads import level_probabilities
from cryptoalpha.store.tables import Floats

NET, USUAL, LAST = "genome", "usual", "last bar"
"""Who speaks: the net; what is usual in its training stretch; for tokens, what is usual after what the bar before had."""

SMALLEST = 1e-6
"""Below it a probability counts as this in the logarithmic loss."""


@dataclass(frozen=True, eq=False)
class Said:
    """Answers at `T` moments for `A` assets; NaN where there was none. Probabilities, not logits.

    `supports`, `resistances` `[T, A, K]` in ATR, `hold` `[T, A, 2K]`, `trend`, `movement` `[T, A, 3]`, and `tokens` `[T, A, S, V]` where
    the bar was hidden from the net, NaN elsewhere.
    """

    supports: Floats
    resistances: Floats
    hold: Floats
    trend: Floats
    movement: Floats
    tokens: Floats


@dataclass(frozen=True, eq=False)
class Happened:
    """What happened at the same moments. Excursions `[T, A]` in ATR, NaN where unknown; classes `[T, A]`, −1 where unknown; tokens
    `[T, A, S, V]` of the bar and of the bar before it, and whether both could be told."""

    below: Floats
    above: Floats
    close_below: Floats
    close_above: Floats
    trend: npt.NDArray[np.int64]
    movement: npt.NDArray[np.int64]
    tokens: Flags
    tokens_before: Flags
    told: Flags


def tally(said: Said, happened: Happened, usual: Usual) -> Columns:
    """All columns, `[T]` each."""
    columns: Columns = {}
    columns |= _levels(said, happened, usual)
    columns |= _holding(said, happened, usual)
    for name in ("trend", "movement"):
        columns |= _classes(name, getattr(said, name), getattr(happened, name), getattr(usual, name))
    return columns | _tokens(said.tokens, happened, usual)


def _levels(said: Said, happened: Happened, usual: Usual) -> Columns:
    columns: Columns = {}
    for side, levels, reach, baseline in (
        ("below", said.supports, happened.below, usual.below),
        ("above", said.resistances, happened.above, usual.above),
    ):
        probabilities = np.array(level_probabilities(levels.shape[-1]))
        seen = np.isfinite(reach) & np.isfinite(levels).all(-1)
        columns[f"{side} n"] = _total(seen)
        for who, answer in ((NET, levels), (USUAL, np.broadcast_to(baseline, levels.shape))):
            error = np.where(seen[..., None], reach[..., None] - answer, 0.0)
            columns[f"{who} {side} pinball"] = _total(np.maximum(probabilities * error, (probabilities - 1.0) * error).mean(-1))
            for k in range(len(probabilities)):
                columns[f"{who} {side} within {k}"] = _total(seen & (error[..., k] <= 0.0))
    return columns


def _holding(said: Said, happened: Happened, usual: Usual) -> Columns:
    levels = np.concatenate((said.supports, said.resistances), -1)  # [T, A, 2K]
    sides = (happened.close_below, said.supports), (happened.close_above, said.resistances)
    reach = np.concatenate([np.broadcast_to(close[..., None], level.shape) for close, level in sides], -1)
    seen = np.isfinite(reach) & np.isfinite(levels) & np.isfinite(said.hold)
    with np.errstate(invalid="ignore"):
        held = reach <= levels
    answers = {NET: said.hold, USUAL: np.broadcast_to(usual.hold, said.hold.shape)}
    columns = {"hold n": _total(seen)} | _binary("hold", held, seen, answers)
    for who, p in answers.items():
        columns |= calibration_gaps(f"{who} hold", p, held, seen)
    return columns


def _binary(name: str, yes: Flags, seen: Flags, probabilities: dict[str, Floats]) -> Columns:
    columns: Columns = {}
    for who, p in probabilities.items():
        p = np.where(seen, p, 0.5)
        columns[f"{who} {name} brier"] = _total(np.where(seen, (p - yes) ** 2, 0.0))
        columns[f"{who} {name} log"] = _total(np.where(seen, -np.log(np.clip(np.where(yes, p, 1.0 - p), SMALLEST, 1.0)), 0.0))
        columns[f"{who} {name} right"] = _total(seen & ((p > 0.5) == yes))
    return columns


def _classes(name: str, p: Floats, found: npt.NDArray[np.int64], usual: Floats) -> Columns:
    seen = (found >= 0) & np.isfinite(p).all(-1)
    columns = {f"{name} n": _total(seen)}
    for who, answer in ((NET, np.where(seen[..., None], p, 1.0 / p.shape[-1])), (USUAL, np.broadcast_to(usual, p.shape))):
        right = answer.argmax(-1) == found
        happened = np.take_along_axis(answer, np.maximum(found, 0)[..., None], -1)[..., 0]
        columns[f"{who} {name} right"] = _total(seen & right)
        columns[f"{who} {name} log"] = _total(np.where(seen, -np.log(np.maximum(happened, SMALLEST)), 0.0))
        columns |= calibration_gaps(f"{who} {name}", answer.max(-1), right, seen)
    return columns


def _tokens(p: Floats, happened: Happened, usual: Usual) -> Columns:
    """Tokens of hidden bars: of the base frame one by one (for balanced accuracy), and of the longer frames together."""
    seen = np.isfinite(p) & happened.told
    after = np.where(happened.tokens_before, usual.after_on, usual.after_off)
    answers = {NET: p, USUAL: np.broadcast_to(usual.tokens, p.shape), LAST: after}
    columns: Columns = {}
    for name, part in (("token", np.s_[:, :, :1]), ("long token", np.s_[:, :, 1:])):
        columns[f"{name} n"] = _total(seen[part])
        columns |= _binary(name, happened.tokens[part], seen[part], {who: answer[part] for who, answer in answers.items()})
    for v in range(p.shape[-1]):
        yes, asked = happened.tokens[:, :, 0, v], seen[:, :, 0, v]
        columns[f"on n {v}"], columns[f"off n {v}"] = _total(asked & yes), _total(asked & ~yes)
        for who, answer in answers.items():
            called = np.where(asked, answer[:, :, 0, v], 0.0) > usual.tokens[0, v]  # likelier than usual: what balanced accuracy rewards
            columns[f"{who} on {v}"], columns[f"{who} off {v}"] = _total(asked & yes & called), _total(asked & ~yes & ~called)
    return columns


def _total(values: npt.NDArray[np.float64] | Flags) -> Floats:
    """Sum over everything but the moment. `[T, ...]` → `[T]`."""
    return np.asarray(values.reshape(len(values), -1).sum(1), np.float64)
