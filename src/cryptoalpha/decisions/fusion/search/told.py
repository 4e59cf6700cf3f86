"""What a bar's search says to others: the fused signals by its weights, and the record of what it looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.values import FusedSignal, FusionSearch, MarketState, Signal
from cryptoalpha.decisions.fusion.charge import NAMES, Charge
from cryptoalpha.decisions.fusion.contract import compose
from cryptoalpha.decisions.fusion.search.actions import ACTIONS, action_names
from cryptoalpha.decisions.fusion.search.state import Reader, Reading
from cryptoalpha.learn.search.contract import Floats as AnyFloats
from cryptoalpha.learn.search.contract import PlanResult
from cryptoalpha.store.tables import Floats


def prior_shares(logits: AnyFloats, legal: NDArray[np.bool_]) -> Floats:
    """The prior at the root, `[A]`: softmax of its logits over what is legal."""
    shown = np.where(legal, logits.astype(np.float64), -np.inf)
    shares = np.exp(shown - shown.max())
    return np.asarray(shares / shares.sum())


def told(
    reading: Reading,
    families: Sequence[str],
    weights: tuple[Floats, Floats],
    result: PlanResult,
    *,
    prior: Floats,
    charge: Charge,
    version: str,
) -> FusionSearch:
    """What the bar's search found, for the journal. `weights`: before and after it, each `[K]`."""
    names, k = action_names(families), len(families)
    visits = result.visits[0] if result.visits is not None else np.zeros(ACTIONS, np.int64)
    order = sorted(np.flatnonzero(visits).tolist(), key=lambda a: (-int(visits[a]), a))
    return FusionSearch(
        happened_at=reading.at - reading.bar,
        known_at=reading.at,
        in_charge=NAMES[charge.acting],
        reason=charge.reason(),
        regime=tuple(reading.regime.tolist()) if reading.regime_known else (),
        types=tuple(families),
        weights_before=tuple(weights[0][:k].tolist()),
        weights_after=tuple(weights[1][:k].tolist()),
        action=names[int(result.action[0])],
        candidates=tuple((names[a], int(visits[a]), float(prior[a]), float(result.q[0, a])) for a in order),
        line=tuple((names[step.action], float(step.value)) for step in result.lines[0]),
        simulations=int(visits.sum()),
        version=version,
    )


def fused_signals(
    reading: Reading,
    reader: Reader,
    weights: Floats,
    moves: Floats,
    states: Sequence[MarketState],
    signals: Sequence[Signal],
    state_events: Sequence[int],
    signal_events: Sequence[int],
    *,
    scale: float,
    horizon: int,
    confidence: float,
) -> list[FusedSignal]:
    """Fused signals by the searched weights, which the sources of a family share.

    Args:
        weights: of the families, signed by which way round they are used, `[K]`.
        moves: expected outcome of each instrument, `[I]`.
        scale: expected move at which the direction is tanh(1).
        horizon: of the expected move, ns.
        confidence: chance that the families weighed know anything.
    """
    places = [reader.place(signal.type) for signal in signals]
    numbers: dict[tuple[str, int], int] = {}
    for signal, k in zip(signals, places, strict=True):
        numbers[signal.instrument, k] = numbers.get((signal.instrument, k), 0) + 1
    heard: dict[str, list[tuple[Signal, int, float]]] = {state.instrument: [] for state in states}
    for n, (signal, k) in enumerate(zip(signals, places, strict=True)):
        heard[signal.instrument].append((signal, signal_events[n], float(weights[k]) / numbers[signal.instrument, k]))
    fused = []
    for n, state in enumerate(states):
        move = float(moves[reader.instruments[state.instrument]])
        fused.append(
            compose(
                reading.at,
                state,
                state_events[n],
                heard[state.instrument],
                direction=math.tanh(move / scale),
                expected_move=move,
                horizon=horizon,
                confidence=confidence,
            )
        )
    return fused
