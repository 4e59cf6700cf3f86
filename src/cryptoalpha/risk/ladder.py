"""The drawdown ladder: the deeper equity is below its peak, the less of every wanted size is left.

Down at once, up slowly: a rung is left only when equity has recovered a step above it and some time has passed, one rung at a time, so that
a book at the edge of a rung does not trade back and forth.

    caution ── deeper ──▶ reduced ── deeper ──▶ low ── `max_drawdown` ──▶ kill switch

Source: facts of drawdown control by exposure, Grossman & Zhou (1993), here in steps.
"""

from __future__ import annotations

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import RiskEvent
from cryptoalpha.risk.config import LadderConfig

NAME = "drawdown_ladder"


class DrawdownLadder:
    """See the module header.

    Args:
        config: the rungs, as shares of `max_drawdown`, and when to step up.
        max_drawdown: loss from the peak at which the book is closed, 0–1.
    """

    def __init__(self, config: LadderConfig, max_drawdown: float) -> None:
        shares, exposures = [share for share, _ in config.rungs], [left for _, left in config.rungs]
        self.depths = tuple(share * max_drawdown for share in shares)
        """Drawdown of each rung, shallow ones first."""
        self._exposures = (1.0, *exposures)
        self._step = config.step_up_share * max_drawdown
        self._least = int(config.step_up_hours * HOUR)
        self.rung = 0
        """0: on the ground."""
        self.since = 0
        """When the rung changed last, UTC ns."""

    @property
    def exposure(self) -> float:
        """Share of every size that is left, 0–1."""
        return self._exposures[self.rung]

    def update(self, at: int, drawdown: float) -> RiskEvent | None:
        """Take in a drawdown (≥ 0); the event if the rung changed."""
        rung = self.rung
        while rung < len(self.depths) and drawdown >= self.depths[rung]:
            rung += 1
        if rung == self.rung and rung and at - self.since >= self._least and drawdown <= self.depths[rung - 1] - self._step:
            rung -= 1
        if rung == self.rung:
            return None
        self.rung, self.since = rung, at
        message = f"{drawdown:.2%} below the peak: {self.exposure:.0%} of every size is left"
        return RiskEvent(happened_at=at, known_at=at, rule=NAME, state=str(rung), message=message)

    def restart(self, at: int) -> RiskEvent | None:
        """Back to the ground, because a person resumed and the peak counts from now."""
        if self.rung == 0:
            return None
        self.rung, self.since = 0, at
        return RiskEvent(happened_at=at, known_at=at, rule=NAME, state="0", message="resumed: the peak counts from present equity")


def regime_exposure(belief: tuple[float, ...], exposures: tuple[float, ...]) -> float:
    """Share of a size that the regimes leave, weighed by the belief in each; 1 without a belief over as many regimes."""
    if not belief or len(belief) != len(exposures):
        return 1.0
    left = sum(chance * share for chance, share in zip(belief, exposures, strict=True))
    return min(1.0, left) if left >= 0.0 else min(exposures)  # a belief that is no number is the worst
