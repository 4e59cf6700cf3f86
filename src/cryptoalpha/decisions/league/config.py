"""Settings of the league: the market that its players share, and how a learner is trained in it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section

Script = Literal["value", "noise", "momentum", "maker"]


class LeagueMarketConfig(Section):
    """[agent.league.market] The market that all players of a league share. Prices in ticks, inventories in lots."""

    steps: Count = 6
    """Auctions of an episode; after the last one every inventory is delivered at the fundamental value."""

    fundamental_volatility: NonNegative = 15.0
    """Standard deviation of the fundamental's step from auction to auction, ticks."""

    mispricing_volatility: NonNegative = 60.0
    """Standard deviation of what noise adds to the price, ticks. Four fundamental steps: enough to be worth trading against."""

    mispricing_persistence: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.8
    """Share of the noise in the price that lasts to the next auction (0 up to but not 1)."""

    mispricing_start: float | None = None
    """Noise in the first price, ticks; unset: drawn. Fixed, and everything else at rest, one auction is a Cournot game."""

    drift: float = 0.0
    """What the fundamental gains from auction to auction, ticks; unknown to the players."""

    permanent_impact: NonNegative = 1.0
    """Ticks by which the price moves for good per lot bought, all players together."""

    temporary_impact: NonNegative = 1.5
    """Ticks paid on top of the new price per lot bought, all players together."""

    half_spread: Annotated[int, Field(ge=0)] = 2
    """Half of the spread, whole ticks, paid by whoever trades."""

    targets: Annotated[tuple[int, ...], Field(min_length=2)] = (-12, -9, -6, -3, 0, 3, 6, 9, 12)
    """Inventories (lots) that a learner may choose between. Rising, 0 among them."""

    limit: Count = 24
    """Largest inventory of any player, lots; orders beyond it are cut."""

    scripts: tuple[Script, ...] = ("value", "noise", "momentum", "maker")
    """Scripted players that sit in every market, one each."""

    @model_validator(mode="after")
    def _targets_fit(self) -> Self:
        rising = all(a < b for a, b in zip(self.targets, self.targets[1:], strict=False))
        if not rising or 0 not in self.targets or max(map(abs, self.targets)) > self.limit:
            raise ValueError(f"targets {self.targets} must rise, hold 0 and stay within the limit {self.limit}")
        return self

    @property
    def impact(self) -> float:
        """Ticks per lot that a fill costs: both impacts together (κ)."""
        return self.permanent_impact + self.temporary_impact


class LeagueConfig(Section):
    """[agent.league] Training of an agent against the population of its own past selves."""

    market: LeagueMarketConfig = LeagueMarketConfig()
    """Where they meet."""

    players: Annotated[int, Field(ge=2)] = 3
    """Learners in one market (N ≥ 2): one and its past selves. Three, because best responses to the latest self cycle from three on."""

    rounds: Count = 32
    """Rounds of training; each ends with a look whether the learner may join the population."""

    iterations: Count = 2
    """Lessons of a round."""

    episodes: Count = 64
    """Episodes played side by side while learning."""

    simulations: Count = 32
    """Simulations of one decision while learning; Gumbel search improves on its prior from 16 on."""

    outcomes: Annotated[tuple[Count, ...], Field(min_length=1)] = (4, 2)
    """Outcomes of a chance node by depth; the last number holds for all deeper nodes."""

    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (32, 32)
    """Widths of the net's trunk. Seven numbers in, a smooth answer out: small is enough, and the tree asks it often."""

    steps: Count = 20
    """Steps of Adam per lesson."""

    batch: Count = 256
    """Decisions of one step."""

    learning_rate: Positive = 3e-3
    """Step size of Adam."""

    remembered_lessons: Count = 6
    """Lessons whose decisions are learned from; older ones were planned against another population."""

    judged_episodes: Count = 2048
    """Paired episodes on which a gate and an exploitability are judged."""

    gate_confidence: Annotated[Fraction, Field(gt=0.5, lt=1.0)] = 0.95
    """A learner is kept out if it is worse than the newest member with this confidence (above 0.5, below 1). Near an equilibrium nothing is
    better than anything else, so to demand an improvement would close the league."""
