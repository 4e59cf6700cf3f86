"""A history as the searched fusion meets it: steps of a few hours, and what came of each.

A training cannot afford a search at every hour of six years. It walks in steps of `stride` bars that begin at fixed moments, as if these
were the bars: states are stamped with the longer step, and everything that is counted in bars is counted in steps, so that the horizon, the
memory and the pool of scenarios span the same time as in a run. Shorter are the steps by which weights may move: a run takes `stride` of
them where the training takes one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.values import MarketState, Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.charge import NAMES
from cryptoalpha.decisions.fusion.experience import MaturedBar
from cryptoalpha.decisions.fusion.search.searched import SearchedFusion
from cryptoalpha.lifecycle.recipes.resampling import Columns
from cryptoalpha.signals.tape import SignalTape


@dataclass(frozen=True, eq=False)
class WalkStep:
    """What is handed to the fusion at one moment."""

    at: int
    states: tuple[MarketState, ...]
    signals: tuple[Signal, ...]


def coarse(config: FusionConfig, stride: int) -> FusionConfig:
    """The same fusion where a bar lasts `stride` bars.

    Raises:
        ConfigError: if the horizon is no whole number of steps.
    """
    if config.horizon_bars % stride:
        raise ConfigError(
            f"a horizon of {config.horizon_bars} bars is no whole number of steps of {stride}",
            hint="choose a lifecycle.train.stride_bars that divides fusion.horizon_bars",
        )
    search = config.search.model_copy(
        update={
            "half_life_bars": config.search.half_life_bars / stride,
            "pool_stride_bars": max(1, config.search.pool_stride_bars // stride),
        }
    )
    return config.model_copy(
        update={
            "horizon_bars": config.horizon_bars // stride,
            "half_life_bars": config.half_life_bars / stride,
            "search": search,
        }
    )


def steps_of(tape: SignalTape, stride: int) -> list[WalkStep]:
    """Every `stride`-th bar of the tape, by the clock: a gap does not shift those after it."""
    interval = tape.panel.interval
    rows = np.flatnonzero((tape.panel.open_time // interval + 1) % stride == 0)
    found = []
    for t in rows.tolist():
        at, since = int(tape.panel.known_at[t]), int(tape.panel.known_at[t]) - stride * interval
        states = tuple(msgspec.structs.replace(state, happened_at=since) for state in tape.states_at(t))
        if states:
            found.append(WalkStep(at, states, tuple(tape.signals_at(t))))
    return found


def walk(
    fusion: SearchedFusion,
    steps: Sequence[WalkStep],
    *,
    before: Callable[[int], None] | None = None,
    told: Callable[[int], None] | None = None,
) -> list[MaturedBar]:
    """Let the fusion decide each step; returns what matured, oldest first.

    Args:
        before: called with a step's moment before it is decided.
        told: called with the number of steps done.
    """
    matured: list[MaturedBar] = []
    for number, step in enumerate(steps):
        if before is not None:
            before(step.at)
        fusion.fuse(
            step.at, step.states, step.signals, state_events=range(len(step.states)), signal_events=range(len(step.signals))
        )  # fmt: skip
        matured.extend(fusion.matured)
        if told is not None:
            told(number + 1)
    return matured


def columns_of(matured: Sequence[MaturedBar]) -> Columns:
    """Per-moment sums `[T]` for judging: log scores, what the search earned, and what a correlation is made of, for each fusion."""
    columns: Columns = {"n": np.ones(len(matured))}
    columns["decided_at"] = np.array([one.decided_at for one in matured], np.float64)
    columns["reward"] = np.array([one.reward if np.isfinite(one.reward) else 0.0 for one in matured])
    told = [np.isfinite(one.outcomes) for one in matured]
    columns["cells"] = np.array([float(known.sum()) for known in told])
    outcomes = [one.outcomes[known] for one, known in zip(matured, told, strict=True)]
    columns["y"] = np.array([float(y.sum()) for y in outcomes])
    columns["yy"] = np.array([float((y**2).sum()) for y in outcomes])
    for f, name in enumerate(NAMES):
        predicted = [one.predictions[f][known] for one, known in zip(matured, told, strict=True)]
        columns[f"{name} score"] = np.array([float(one.scores[f]) for one in matured])
        columns[f"{name} p"] = np.array([float(p.sum()) for p in predicted])
        columns[f"{name} pp"] = np.array([float((p**2).sum()) for p in predicted])
        columns[f"{name} py"] = np.array([float((p * y).sum()) for p, y in zip(predicted, outcomes, strict=True)])
    return columns
