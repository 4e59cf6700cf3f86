"""The council: several agents decide, one target results.

Every member is asked about every instrument and heard with the share its out-of-sample skill has earned (`skill`). With shares `s_k` and
targets `w_k` the mean is `m = Σ s_k w_k`, and the council wants `m · m² / (m² + c Σ s_k (w_k − m)²)`. For c = 1 the factor is the multiple
of a single vote that comes closest to what all agree on, by least squares: members hear the same signals, so their errors do not average
out, and a book sized as if they did would be too large. Members of one mind are followed unchanged; votes that cancel leave nothing; in
between, the more the votes differ relative to their size, the smaller the position. It never leaves the hull of the votes and no position.

The expected return is the mean of those that name one, where they have half the say; else the size rests on none.
The decision carries everybody's vote and the principal line of whoever has the greatest share. Everything depends on what was handed in:
members, states up to now, the order of calls; not on the order of members, which are sorted by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.values import Decision, FusedSignal, MarketState, PortfolioState, Signal
from cryptoalpha.decisions.council.config import CouncilConfig
from cryptoalpha.decisions.council.skill import PaperBook, Skill
from cryptoalpha.decisions.rule_agent import Agent
from cryptoalpha.store.tables import Floats


@runtime_checkable
class Learner(Protocol):
    """An agent that can learn from bars without deciding anything: its pool of past moves, its filters."""

    def learn(self, at: int, fused: Sequence[FusedSignal], states: Sequence[MarketState], signals: Sequence[Signal]) -> None:
        """Take in one bar of the past. What was learned may depend on nothing known after `at`."""
        ...


class Council:
    """Several agents as one.

    Args:
        members: agents with different names. One alone is followed unchanged.
        config: how shares are learned and how much disagreement counts.
        cost: what trading one unit costs, fraction of notional: charged to every member's paper book.
        band: the no-trade band of the risk gate, fraction of equity: what it would not trade costs a member nothing.

    Raises:
        ConfigError: if there is no member or two share a name; from `decide`, if a member leaves out an instrument it was asked about.
    """

    name = "council"

    def __init__(self, members: Sequence[Agent], config: CouncilConfig, *, cost: float = 0.0, band: float = 0.0) -> None:
        names = [member.name for member in members]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"a council of {names} cannot vote", hint="name at least one member in agent.members, and each once")
        self.members: tuple[Agent, ...] = tuple(sorted(members, key=lambda member: member.name))
        self._config = config
        self._skill = Skill(len(self.members), config)
        self._books = [PaperBook(cost=cost, band=band) for _ in self.members]
        self._prices: dict[str, float] = {}
        self._bars = 0

    @property
    def shares(self) -> dict[str, float]:
        """What each member's vote counts now; sums to 1."""
        return {member.name: share for member, share in zip(self.members, self._skill.shares.tolist(), strict=True)}

    def learn(self, at: int, fused: Sequence[FusedSignal], states: Sequence[MarketState], signals: Sequence[Signal]) -> None:
        """Pass a bar of the past to the members that can learn from it. Shares stay equal: nobody was asked then, so nobody was right."""
        for member in self.members:
            if isinstance(member, Learner):
                member.learn(at, fused, states, signals)

    def decide(
        self,
        at: int,
        fused: Sequence[FusedSignal],
        *,
        fused_events: Sequence[int],
        portfolio: PortfolioState,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
    ) -> list[Decision]:
        """One decision per fused signal, in their order."""
        self._settle(states)
        asked = [
            member.decide(at, fused, fused_events=fused_events, portfolio=portfolio, states=states, signals=signals)
            for member in self.members
        ]
        for member, decisions, book in zip(self.members, asked, self._books, strict=True):
            if [decision.instrument for decision in decisions] != [signal.instrument for signal in fused]:
                raise ConfigError(
                    f"agent {member.name!r} did not decide about every instrument in turn", hint="decide in the order of `fused`"
                )
            book.trade({decision.instrument: decision.target_weight for decision in decisions})
        shares = self._skill.shares
        return [self._join(at, votes, shares) for votes in zip(*asked, strict=True)]

    def _settle(self, states: Sequence[MarketState]) -> None:
        """Mark every book at the new prices; when the horizon has closed, let the outcome count."""
        returns: dict[str, float] = {}
        for state in states:
            before = self._prices.get(state.instrument)
            if before is not None:
                returns[state.instrument] = state.price / before - 1.0
            self._prices[state.instrument] = state.price
        for book in self._books:
            book.mark(returns)
        if self._bars and self._bars % self._config.horizon_bars == 0:
            self._skill.learn(np.array([book.take_growth() for book in self._books]))
        self._bars += 1

    def _join(self, at: int, votes: Sequence[Decision], shares: Floats) -> Decision:
        weighed = [(vote, float(share)) for vote, share in zip(votes, shares, strict=True)]
        target, factor = join_targets([vote.target_weight for vote in votes], shares.tolist(), self._config.disagreement)
        leader, _ = max(weighed, key=lambda pair: pair[1])  # the first by name where shares are equal
        named = [(share, vote.expected_return) for vote, share in weighed if vote.expected_return is not None]
        heard = sum(share for share, _ in named)
        return Decision(
            happened_at=at,
            known_at=at,
            instrument=leader.instrument,
            agent=self.name,
            target_weight=target,
            confidence=min(1.0, sum(share * vote.confidence for vote, share in weighed) * factor),
            reason=_reason(weighed, factor),
            fused=leader.fused,
            expected_return=sum(share * value for share, value in named) / heard if 2.0 * heard >= 1.0 else None,
            votes=tuple((vote.agent, vote.target_weight, share, _claimed(vote)) for vote, share in weighed),
            line=leader.line,
        )


def join_targets(targets: Sequence[float], shares: Sequence[float], disagreement: float = 1.0) -> tuple[float, float]:
    """The council's target and the factor that disagreement left of the mean (0–1).

    Between 0 and the mean of the votes, so within the hull of the votes and 0. `shares` are ≥ 0 and sum to 1.
    """
    heard = [target for target, share in zip(targets, shares, strict=True) if share > 0.0]
    if min(heard) == max(heard):
        return heard[0], 1.0  # of one mind: to the last bit
    mean = math.fsum(share * target for target, share in zip(targets, shares, strict=True))
    mean = min(max(mean, min(heard)), max(heard))  # rounding must not leave the hull
    spread = math.fsum(share * (target - mean) ** 2 for target, share in zip(targets, shares, strict=True))
    size = mean * mean
    factor = size / (size + disagreement * spread) if size > 0.0 else 0.0
    return mean * factor, factor


def _claimed(vote: Decision) -> float:
    """What the plan behind a vote claims to earn; a planning agent says so in the one vote of its own decision."""
    return vote.votes[0][3] if len(vote.votes) == 1 else math.nan


def _reason(weighed: Sequence[tuple[Decision, float]], factor: float) -> str:
    if len(weighed) == 1:
        return weighed[0][0].reason
    if factor == 1.0:
        return f"{len(weighed)} agents of one mind"
    return f"{len(weighed)} agents, {factor:.0%} of their mean left by disagreement"
