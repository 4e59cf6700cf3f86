"""[lifecycle.gates] and [lifecycle.ramp]: what a version must prove before it is promoted, and how its capital then grows."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, PositiveFraction, Section
from cryptoalpha.lifecycle.gates.values import GATES, GateName

Confidence = Annotated[float, Field(gt=0.5, lt=1.0)]


class GateConfig(Section):
    """[lifecycle.gates] What a version must prove before it may become champion. All of `required` must hold at once."""

    required: tuple[GateName, ...] = GATES
    """Gates without which nobody is promoted; the others are judged and told. Leaving one out is a decision to be answered for."""

    stop_at_first: bool = True
    """Whether gates after one that refused are left out: combinatorial training and the shadow run take long."""

    confidence: Confidence = 0.95
    """One-sided confidence of every bootstrap bound and of the track record (above 0.5, below 1)."""

    resamples: Count = 2000
    """Resamples of each bootstrap."""

    minimum_days: Annotated[int, Field(ge=30)] = 180
    """Fewest judged days (30 or more): with fewer every interval is as wide as the question."""

    deflated_sharpe: Confidence = 0.95
    """Least probability that the Sharpe ratio exceeds what the best of all counted trials reaches by luck."""

    overfitting: Fraction = 0.2
    """Largest probability of backtest overfitting (0-1); .5 means that picking the best was worth nothing."""

    overfitting_blocks: Annotated[int, Field(ge=4, le=16, multiple_of=2)] = 10
    """Blocks of the cross-validation behind it (even, 4-16): 10 give 252 choices of halves."""

    path_blocks: Annotated[int, Field(ge=3, le=12)] = 6
    """Blocks N of combinatorial purged cross-validation (3-12). 6 with 2 tested are 15 trainings and 5 paths."""

    path_tested: Annotated[int, Field(ge=2, le=4)] = 2
    """Blocks k that each split tests (2-4, below N); with one there would be a single path."""

    path_quantile: Fraction = 0.2
    """Quantile of the paths' Sharpe ratios after costs that must lie above 0: at .2 four paths of five must earn."""

    calibration_margin: NonNegative = 0.01
    """By how much the Brier score (0-2) may be worse than the champion's, at the end of its one-sided interval."""

    latency_seconds: Positive = 0.1
    """99th percentile of one answer's CPU time, and of one decision's; the user's own limit."""

    latency_answers: Annotated[int, Field(ge=100)] = 200
    """Fewest answers timed (100 or more, so that there is a 99th percentile)."""

    memory_mib: Positive = 2048.0
    """Largest resident memory of a process that answers, MiB."""

    audit_bars: Annotated[int, Field(ge=16)] = 1500
    """Newest judged bars (16 or more) over which the candidate's own signals and decisions are audited for look-ahead."""

    audit_cuts: Annotated[int, Field(ge=1, le=64)] = 4
    """Moments at which the future is removed and poisoned (1-64)."""

    audit_training: bool = True
    """Whether the recipe is audited as well: small models trained with the future, without it, and with it poisoned."""

    shadow_days: Positive = 14.0
    """Days, the newest, that candidate and champion are replayed side by side; of hourly bars enough for `latency_answers`."""

    shadow_decisions: Count = 100
    """Fewest decisions compared in the shadow run."""

    holdout_days: Count = 90
    """Days, the newest, that nobody looks at before every other gate has passed. A look is counted for ever."""

    holdout_probability: Fraction = 0.2
    """Least probability of a positive Sharpe ratio in the holdout (0-1). Low: a quarter tells a good version from a broken one, no more."""

    @model_validator(mode="after")
    def _fewer_tested_than_blocks(self) -> Self:
        if self.path_tested >= self.path_blocks:
            raise ValueError("path_tested must be below path_blocks")
        return self


class RampConfig(Section):
    """[lifecycle.ramp] How much of the capital a new champion decides over, and when it gets more. Never because it earned."""

    steps: tuple[PositiveFraction, ...] = (0.1, 0.25, 0.5, 1.0)
    """Shares of the capital (above 0 up to 1), rising, the last one 1."""

    healthy_days: Positive = 3.0
    """Days in a row without a fault before the next step."""

    least_decisions: Count = 50
    """Decisions on a step before the next one."""

    stop_loss: PositiveFraction = 0.1
    """Equity lost since the ramp began (0-1) at which it stops: profit advances nothing, a loss ends everything."""

    @model_validator(mode="after")
    def _steps_rise_to_one(self) -> Self:
        rising = all(earlier < later for earlier, later in zip(self.steps, self.steps[1:], strict=False))
        if not rising or not self.steps or self.steps[-1] != 1.0:
            raise ValueError("the steps must rise to exactly 1")
        return self
