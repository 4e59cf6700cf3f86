"""Settings of the market environment. What trading costs is `execution.costs`, the same as everywhere else."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section

Steps = Annotated[int, Field(ge=3, le=101)]


class EnvironmentConfig(Section):
    """Episodes in which an agent learns to trade one instrument. No setting of a run: whoever builds an environment says what it is."""

    positions: Steps = 21
    """Target positions on the grid, evenly spaced (3–101; 7 to 21 are customary). With shorts it must be odd, so that flat is one of
    them."""

    largest: Positive = 1.0
    """Largest target position, as a fraction of equity (> 0). 1: no leverage, which is what the engine's brokers allow."""

    shorts: bool = False
    """Whether the grid goes down to `-largest` instead of 0. Off: on spot there is nothing to borrow."""

    horizon: Count = 256
    """Decisions of an episode before it is cut off (truncated, not terminated). Eleven days of hours: long against a trade, short enough
    for thousands of different starts."""

    reward: Literal["log", "linear"] = "log"
    """`log`: log of equity after over equity before. `linear`: gain over a stake that is made whole after every step, as in problems that
    are stated in returns."""

    risk_aversion: NonNegative = 0.0
    """Weight λ of the penalty λ · position² · variance of a bar (≥ 0). 0: log utility is averse to risk by itself."""

    ruin_loss: Positive = 10.0
    """Reward lost at ruin, once, after which the episode ends (> 0). Ten: what is left is e⁻¹⁰ of the stake, as good as nothing."""

    maintenance: Fraction = 0.0
    """Equity below this fraction of the position is liquidated (0–1), judged at the worst price of each bar. 0: at nothing left."""

    minimum_trade: Fraction = 0.0
    """Targets nearer than this fraction of equity to what is held are not offered, holding excepted (as `risk.no_trade_band`)."""

    start: Literal["flat", "anywhere"] = "flat"
    """Position an episode starts with: none, or one drawn from the grid, so that all of them are met in learning."""

    initial_equity: Positive = 100_000.0
    """Equity at the start, in quote units. Only impact and volume limits depend on it. As `execution.initial_cash`."""

    @model_validator(mode="after")
    def _flat_is_on_the_grid(self) -> Self:
        if self.shorts and self.positions % 2 == 0:
            raise ValueError(f"a grid of {self.positions} positions from short to long has none that is flat: make it odd")
        return self
