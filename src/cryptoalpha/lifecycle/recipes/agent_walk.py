"""What an agent would have been handed at every bar of a history: fused signals, market states and forecasts, as arrays.

The baseline fusion runs over the signal tape once, in time order, learning as it goes: row t holds what it said at bar t and nothing
later. From the arrays the values are built again for whoever walks a stretch of them, so that a fold's process needs no tape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.values import REGIMES, FusedSignal, MarketState, Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.baselines import baseline_fusion
from cryptoalpha.lifecycle.recipes.workshop import Tell
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.tables import Floats, Times

Moment = tuple[int, list[FusedSignal], list[MarketState], list[Signal]]
"""When, and what an agent is handed then."""

FORECAST = "forecast"
"""Name under which the walk hands out the quantiles it kept."""

TOLD_EVERY = 500


@dataclass(frozen=True, eq=False)
class Walk:
    """Shapes: moments `[T]`; `[T, A]` each, NaN where an instrument has no bar; belief `[T, A, R]`, quantiles `[T, A, Q]` or None.

    `step` is the simple return from the open after the bar to the next one, which an agent that decides at the bar can earn.
    """

    instruments: tuple[str, ...]
    interval: int
    opened_at: Times
    known_at: Times
    price: Floats
    volatility: Floats
    direction: Floats
    confidence: Floats
    move: Floats
    horizon: Floats
    belief: Floats
    quantiles: Floats | None
    step: Floats

    def fingerprint(self) -> str:
        """Hash of everything in it: a path in the settings may hold another model tomorrow."""
        digest = hashlib.blake2b(f"{self.instruments} {self.interval}".encode(), digest_size=16)
        said = (self.price, self.volatility, self.direction, self.confidence, self.move, self.horizon, self.belief, self.step)
        for array in (self.opened_at, self.known_at, *said, *(() if self.quantiles is None else (self.quantiles,))):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def moments(self, rows: range) -> Iterator[Moment]:
        """What is handed out at each of these rows."""
        for t in rows:
            at, since = int(self.known_at[t]), int(self.opened_at[t])
            fused, states, signals = [], [], []
            for a in np.flatnonzero(np.isfinite(self.price[t])).tolist():
                name = self.instruments[a]
                move, horizon = float(self.move[t, a]), int(self.horizon[t, a])
                fused.append(
                    FusedSignal(
                        happened_at=since, known_at=at, instrument=name, sentiment=0.0, direction=float(self.direction[t, a]),
                        volatility=float(self.volatility[t, a]), confidence=float(self.confidence[t, a]), urgency=0.0, weights=(),
                        expected_move=move if move == move else None, horizon=horizon,
                    )
                )  # fmt: skip
                belief = tuple(self.belief[t, a].tolist())
                states.append(
                    MarketState(
                        happened_at=since, known_at=at, instrument=name, price=float(self.price[t, a]),
                        volatility=float(self.volatility[t, a]), regime=belief if belief[0] == belief[0] else (),
                    )
                )  # fmt: skip
                if self.quantiles is not None and np.isfinite(self.quantiles[t, a]).all():
                    shape = tuple(self.quantiles[t, a].tolist())
                    signals.append(
                        Signal(
                            happened_at=since, known_at=at, source=FORECAST, type="model", instrument=name, value=0.0, confidence=0.0,
                            predicted_impact=0.0, proposed_action="hold", horizon=self.interval, quantiles=shape,
                        )
                    )  # fmt: skip
            yield at, fused, states, signals


def walked(tape: SignalTape, config: FusionConfig, tell: Tell | None = None) -> Walk:
    """Run the baseline fusion over the tape and keep what it said: agents are taught on what needs no training."""
    panel, fusion = tape.panel, baseline_fusion(config)
    shape = (len(panel), len(panel.instruments))
    price, volatility, direction, confidence, move = (np.full(shape, np.nan) for _ in range(5))
    horizon, belief = np.zeros(shape), np.full((*shape, len(REGIMES)), np.nan)
    place = {name: a for a, name in enumerate(panel.instruments)}
    for t, at in enumerate(panel.known_at.tolist()):
        if tell is not None and t % TOLD_EVERY == 0:
            tell(t, len(panel), "walking the history with the baseline fusion")
        states, signals = tape.states_at(t), tape.signals_at(t)
        fused = fusion.fuse(at, states, signals, state_events=range(len(states)), signal_events=range(len(signals)))
        for state, said in zip(states, fused, strict=True):
            a = place[state.instrument]
            price[t, a], volatility[t, a] = state.price, said.volatility
            direction[t, a], confidence[t, a], horizon[t, a] = said.direction, said.confidence, said.horizon
            if said.expected_move is not None:
                move[t, a] = said.expected_move
            if state.regime:
                belief[t, a] = state.regime
    with_quantiles = [source.quantiles for source in tape.sources if source.quantiles is not None]
    step = np.full(shape, np.nan)
    step[:-2] = panel.open[2:] / panel.open[1:-1] - 1.0
    return Walk(
        panel.instruments, panel.interval, panel.open_time, panel.known_at, price, volatility, direction, confidence, move, horizon,
        belief, with_quantiles[0] if with_quantiles else None, step,
    )  # fmt: skip
