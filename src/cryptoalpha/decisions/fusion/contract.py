"""What a fusion is: many opinions in, one `FusedSignal` per instrument out.

A fusion sees nothing but values: signals, and the market states whose prices later tell how right they were. It cannot look ahead, because
it is never handed anything from ahead. `EqualWeights` is the one that learns nothing and that every other has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cryptoalpha.core.values import FusedSignal, FusionSearch, MarketState, Signal

TEXT_TYPES = frozenset({"news", "mood"})
"""Signal types that count as sentiment."""


class Fusion(Protocol):
    """Weighs signals. One instance serves one run and is called once per step, in time order."""

    name: str

    @property
    def search(self) -> FusionSearch | None:
        """What the newest call of `fuse` searched; None where a fusion does not search."""
        ...

    def fuse(
        self,
        at: int,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
        *,
        state_events: Sequence[int],
        signal_events: Sequence[int],
    ) -> list[FusedSignal]:
        """One fused signal per market state, in the order of `states`. Event ids run parallel to `states` and `signals`."""
        ...


def compose(
    at: int,
    state: MarketState,
    state_event: int,
    opinions: Sequence[tuple[Signal, int, float]],
    *,
    direction: float | None = None,
    expected_move: float | None = None,
    horizon: int = 0,
    confidence: float | None = None,
) -> FusedSignal:
    """Build the fused signal of one instrument from its (signal, event id, weight) triples.

    Weights may be negative (a source that is reliably wrong) and are normalised so that absolute values sum to 1. `direction` defaults to
    the weighted mean of the signal values, `confidence` to that of their confidence; `expected_move` over `horizon` ns is passed on.
    Urgency is the weighted mean of bar length over horizon, capped at 1.
    """
    scale = 0.0
    for _, _, raw in opinions:  # a loop: for a few opinions a generator costs more than the sum
        scale += raw if raw >= 0.0 else -raw
    if scale == 0.0:
        return FusedSignal(
            happened_at=state.happened_at, known_at=at, instrument=state.instrument, sentiment=0.0, direction=0.0,
            volatility=state.volatility, confidence=0.0, urgency=0.0, weights=(),
            signals=tuple([event for _, event, _ in opinions]), market_state=state_event, expected_move=expected_move, horizon=horizon,
        )  # fmt: skip
    bar = at - state.happened_at
    mean = sure = urgency = text = text_scale = 0.0
    weights, events = [], []
    for signal, event, raw in opinions:
        weight = raw / scale
        share = weight if weight >= 0.0 else -weight
        mean += weight * signal.value
        sure += share * signal.confidence
        urgency += share * bar / signal.horizon
        if signal.type in TEXT_TYPES:
            text += weight * signal.value
            text_scale += share
        weights.append((signal.source, weight))
        events.append(event)
    wanted = mean if direction is None else direction
    if confidence is not None:
        sure = confidence
    return FusedSignal(
        happened_at=state.happened_at,
        known_at=at,
        instrument=state.instrument,
        sentiment=_clip(text / text_scale) if text_scale else 0.0,
        direction=_clip(wanted),
        volatility=state.volatility,
        confidence=sure if sure < 1.0 else 1.0,
        urgency=urgency if urgency < 1.0 else 1.0,
        weights=tuple(weights),
        signals=tuple(events),
        market_state=state_event,
        expected_move=expected_move,
        horizon=horizon,
    )


def _clip(value: float) -> float:
    return 1.0 if value > 1.0 else -1.0 if value < -1.0 else value


class EqualWeights:
    """Every source that has an opinion counts the same."""

    name = "equal"
    search: FusionSearch | None = None

    def fuse(
        self,
        at: int,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
        *,
        state_events: Sequence[int],
        signal_events: Sequence[int],
    ) -> list[FusedSignal]:
        by_instrument: dict[str, list[tuple[Signal, int, float]]] = {}
        for state in states:
            by_instrument[state.instrument] = []
        for place, signal in enumerate(signals):  # event ids are ranges: looking one up costs less than walking them with `zip`
            by_instrument[signal.instrument].append((signal, signal_events[place], 1.0))
        fused = []
        for place, state in enumerate(states):
            fused.append(compose(at, state, state_events[place], by_instrument[state.instrument]))
        return fused
