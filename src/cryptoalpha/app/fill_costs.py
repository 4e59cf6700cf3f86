"""Tells the risk gate what fills cost and when the venue refuses, so that its breakers `slippage` and `venue` can act.

The cost of a fill is counted from the price its order was decided on. Only the bar in which an order first fills counts: what is left of it
fills later at prices that the market moved meanwhile, and the market is not what a cost model is about. All fills of a bar are one
observation: what moved the market between decision and fill moved it for all of them. The same steps tell the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cryptoalpha.core.values import Fill, MarketState, Order, Refusal
from cryptoalpha.execution.broker import REJECTED, Outcome
from cryptoalpha.risk.gate import RiskGate


class _Sent(NamedTuple):
    client_id: str
    price: float


class FillCosts:
    """One for each engine. It remembers one order per instrument: a newer order replaces what is left of an older one."""

    def __init__(self, gate: RiskGate) -> None:
        self._gate = gate
        self._sent: dict[str, _Sent] = {}

    def sent(self, order: Order, states: Mapping[str, MarketState]) -> None:
        """An order leaves, decided on these states."""
        state = states.get(order.instrument)
        if state is not None and state.price > 0.0:
            self._sent[order.instrument] = _Sent(order.client_id, state.price)
        else:
            self._sent.pop(order.instrument, None)

    def judge(self, now: int, happened: Sequence[Outcome]) -> None:
        """What the broker said of a bar. Costs are fractions of what was traded, at the prices decided on, so that a fill at the modelled
        price costs nothing beyond the model."""
        filled, value, worse, modelled = set(), 0.0, 0.0, 0.0
        for event in happened:
            if isinstance(event, Fill):
                sent = self._sent.get(event.instrument)
                if sent is None or sent.client_id != event.client_id:
                    continue
                filled.add(event.instrument)
                quantity = float(event.quantity)
                value += quantity * sent.price
                worse += quantity * (float(event.price) - sent.price) * (1.0 if event.side == "buy" else -1.0)
                modelled += float(event.spread_cost + event.impact_cost)
            elif isinstance(event, Refusal) and event.rule == REJECTED:
                self._gate.note_reject(now)
        if value > 0.0:
            self._gate.note_fill(now, realised=worse / value, modelled=modelled / value)
        for name in filled:
            del self._sent[name]
