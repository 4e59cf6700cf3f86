"""Settings of the council."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section


class CouncilConfig(Section):
    """[agent.council] How the decisions of several agents become one."""

    horizon_bars: Count = 24
    """Bars over which a member's book is held before its growth counts as one outcome. A day of hours: shares that moved every bar would
    themselves cost turnover, and outcomes of a day hardly overlap."""

    half_life_outcomes: Positive = 365.0
    """Age at which an outcome counts half, in outcomes. A year of days: two agents that differ by one in annual Sharpe ratio stand about
    1.7 standard errors apart then; anything shorter would follow luck."""

    least_outcomes: Annotated[int, Field(ge=2)] = 30
    """Outcomes below which everybody has the same share. Thirty: a standard error from fewer is itself a guess."""

    noise_floor: NonNegative = 2.0
    """Square of the t statistic by which a member must differ from the others to leave the equal share. Two: what it adds to the fit is
    then worth more than a parameter costs (Akaike)."""

    loss_floor: NonNegative = 4.0
    """Square of the t statistic of a member's own growth beyond which, below zero, it is shut out. Four, two standard errors: to be less
    good than others costs share, to lose beyond chance costs the seat, until the losses are forgotten."""

    disagreement: Fraction = 1.0
    """How much of the spread of the votes counts against their size (0–1). One: as if the members shared their
    errors (see `decisions.council.council`); 0: the plain mean."""
