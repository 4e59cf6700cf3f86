"""Which decisions can be sized, what forbids to enter, and what stands in the book already."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from cryptoalpha.core.time import MINUTE
from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, PortfolioState, Refusal
from cryptoalpha.risk import daily_loss, kill_switch
from cryptoalpha.risk.book import Book, Proposal, Stake, only_reduces, stake
from cryptoalpha.risk.breakers import Breakers
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.equity_guard import EquityGuard
from cryptoalpha.risk.ladder import regime_exposure
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.order_limits import EntryRate
from cryptoalpha.risk.orders import ZERO, Verdict, refuse

BEYOND_REASON = 1e9
"""Nobody means a position that many times equity, or so many units of anything: not a wish to be cut, but a fault."""


class Admission:
    """See the module header. Holds what the gate owns; changes nothing but the breaker of model output."""

    def __init__(
        self,
        config: RiskConfig,
        rules: Mapping[str, InstrumentRules],
        *,
        guard: EquityGuard,
        breakers: Breakers,
        memory: MarketMemory,
        rate: EntryRate,
    ) -> None:
        self.config, self._rules = config, rules
        self.guard, self.breakers, self.memory, self._rate = guard, breakers, memory, rate
        self.max_age = int(config.max_state_age_minutes * MINUTE)
        """Age of a market state beyond which it counts as missing, ns."""

    def admit(
        self,
        at: int,
        decisions: Sequence[Decision],
        events: Sequence[int],
        states: Mapping[str, MarketState],
        positions: Mapping[str, Decimal],
        pending: Mapping[str, Decimal],
        book: Book,
        verdicts: list[Verdict],
    ) -> None:
        """Turn decisions into proposals, or into refusals where they cannot be sized."""
        seen: set[str] = set()
        fault = ""
        for decision, event in zip(decisions, events, strict=True):
            name = decision.instrument
            if name in seen:
                verdicts.append(refuse(at, decision, event, "duplicate_decision", "a second decision for it in one review"))
                continue
            seen.add(name)
            if not abs(decision.target_weight) <= BEYOND_REASON:
                fault = f"{decision.agent} wants {decision.target_weight} of {name}"
            admitted = self._admit(at, decision, event, states.get(name), positions.get(name, ZERO), pending.get(name, ZERO), book.equity)
            if isinstance(admitted, Proposal):
                book.proposals.append(admitted)
            else:
                verdicts.append(admitted)
        if decisions:
            self.breakers.note_output(at, fault)

    def _admit(
        self, at: int, decision: Decision, event: int, state: MarketState | None, position: Decimal, pending: Decimal, equity: float
    ) -> Proposal | Refusal:
        """A decision that can be sized, or why it cannot."""
        if decision.instrument not in self._rules:
            return refuse(at, decision, event, "unknown_instrument", "no lot and tick are known for it")
        wanted = decision.target_weight
        if not abs(wanted) <= BEYOND_REASON:
            return refuse(at, decision, event, "not_finite", f"{decision.agent} wants {wanted}")
        price = math.nan
        if state is not None and at - state.known_at <= self.max_age:
            price = self.breakers.believed_price(decision.instrument, state.price)
        if state is None or not 0.0 < price < math.inf:
            if wanted == 0.0 and position:  # closing needs no price
                return Proposal(decision, event, 0.0, math.copysign(1.0, position), math.nan, math.nan, position, pending, True)
            return refuse(at, decision, event, "no_market_state", "its market state is missing, stale or without a price")
        if self.config.sizing == "units":
            wanted = wanted * price / equity
            if not abs(wanted) <= BEYOND_REASON:
                return refuse(
                    at, decision, event, "not_finite", f"{decision.agent} wants {decision.target_weight} units, {wanted} of equity"
                )
        held = float(position) * price / equity
        reducing = only_reduces(wanted, held)
        volatility = state.volatility if 0.0 <= state.volatility < math.inf else math.nan
        if not reducing and volatility != volatility and self.config.volatility_target is not None:
            return refuse(at, decision, event, "no_market_state", f"a volatility of {state.volatility} says nothing: too little history")
        p = Proposal(decision, event, wanted, held, price, volatility, position, pending, reducing)
        own = stake("", held, held + float(pending) * price / equity if pending else held, math.nan)
        p.standing = own.long if wanted > 0.0 else own.short if wanted < 0.0 else 0.0
        p.growth = max(0.0, abs(wanted) - p.standing)
        p.exposure = regime_exposure(state.regime, self.config.ladder.regime_exposure)
        if not reducing:
            p.block, p.reason = self.block(at, decision.instrument)
        return p

    def block(self, at: int, name: str) -> tuple[str, str]:
        """Rule and reason that forbid to enter an instrument now; empty where nothing does."""
        if self.guard.kill.stands:
            return kill_switch.NAME, self.guard.kill.message
        if self.guard.daily.is_reduce_only:
            return daily_loss.NAME, "too much was lost today: positions may only be reduced until 00:00 UTC"
        blocked = self.breakers.block(name)
        if blocked is not None:
            return blocked
        if self._rate.is_spent(at):
            return "order_rate", f"{self._rate.most} entries were ordered within the hour"
        return "", ""

    def last_price(self, name: str, states: Mapping[str, MarketState]) -> float:
        """The last price of an instrument that is believed; NaN where nobody knows one."""
        state = states.get(name)
        price = state.price if state is not None and 0.0 < state.price < math.inf else self.memory.last_price(name)
        return self.breakers.believed_price(name, price)

    def lay_stakes(
        self,
        book: Book,
        portfolio: PortfolioState,
        positions: Mapping[str, Decimal],
        pending: Mapping[str, Decimal],
        states: Mapping[str, MarketState],
    ) -> None:
        """What stands, by instrument, at the last price known. Positions without any share what equity is left unexplained; long ones and
        short ones without any could hide each other's size there, and count as all of equity."""
        unexplained, blind = book.equity - float(portfolio.cash), set[bool]()
        for name in {**positions, **pending}:
            held, state = float(positions.get(name, ZERO)), states.get(name)
            price = self.last_price(name, states)
            if price != price:
                if held != 0.0:
                    blind.add(held > 0.0)
                continue
            unexplained -= held * price
            heading = held + float(pending.get(name, ZERO))
            volatility = math.nan if state is None else state.volatility
            book.stakes.append(stake(name, held * price / book.equity, heading * price / book.equity, volatility))
        if blind:
            size = max(abs(unexplained) / book.equity, 1.0 if len(blind) > 1 else 0.0)
            book.stakes.append(Stake("", size, size, math.nan))
        book.states = {name: state.volatility for name, state in states.items()}
