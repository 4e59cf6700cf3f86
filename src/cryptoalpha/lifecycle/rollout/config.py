"""Settings of `lifecycle.canary`: how a new model takes over. Error rates of the defaults are measured in docs/rollout.md."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section

Rate = Annotated[float, Field(gt=0.0, lt=1.0)]
Chance = Annotated[float, Field(gt=0.0, lt=0.5)]


class CanaryConfig(Section):
    """[lifecycle.canary] How a new model takes over."""

    steps: tuple[Fraction, ...] = (0.05, 0.10, 0.25, 0.50, 1.0)
    """Share of requests the new model answers at each step (0–1), rising, the last one 1."""

    shadow: bool = True
    """Whether the new model first scores every request and answers none: 20 times the sample of a step of 5 %, at nobody's risk."""

    error_rate: Rate = 0.01
    """Share of failed requests (0–1) that is good enough to advance. Set it above the rate that stable has by itself."""

    bad_error_rate: Rate = 0.05
    """Share of failed requests (0–1, above `error_rate`) that must not pass."""

    false_stop: Chance = 0.002
    """Probability (0–0.5) per step of stopping a canary that fails at `error_rate`, and, in each test against stable, one that fails as
    often as stable. Small because there are six steps and several tests."""

    false_pass: Chance = 0.01
    """Probability (0–0.5) per step of passing a canary that fails at `bad_error_rate`."""

    minimum_requests: Count = 100
    """Requests of the canary without which no step is left for the next."""

    minimum_seconds: NonNegative = 300.0
    """Seconds without which no step is left for the next. Five minutes: what leaks or warms up slowly shows in time, not in requests."""

    bake_seconds: NonNegative = 3600.0
    """Seconds for which the canary answers everything while stable is kept ready, before it is stable itself."""

    undecided_multiple: Positive = 8.0
    """How many times the mean number of requests that a good canary needs a step may take (> 0); undecided after that, it is rolled back.
    With 4 that alone stops one good canary in 200."""

    step_hours: Positive = 72.0
    """Hours after which a step that has not been left is rolled back (> 0). Three days: at few requests an hour a sample takes long."""

    hold_hours: Positive = 24.0
    """Hours after which a hold that nobody ended is rolled back (> 0), unless another hand set the weights."""

    latency_seconds: Positive = 0.1
    """Latency above which an answer is late, seconds (> 0)."""

    late_share: Rate = 0.01
    """Share of answers that may be late (0–1). 0.01: the limit is the 99th percentile's."""

    slower_ratio: Annotated[float, Field(gt=1.0)] = 3.0
    """How many times slower than the other's an answer to the same request counts as slower (> 1). Compared in shadow, and only from a
    quarter of `latency_seconds` on: below that nobody minds."""

    parity_share: Rate = 0.5
    """Share of requests (0–1) whose two answers may contradict each other in shadow. One half: an honest new model contradicts the old one
    often where little can be known, one whose sign is turned always."""

    quality: Literal["veto", "require"] = "veto"
    """What matured labels do. `veto`: a canary whose Brier score is worse is rolled back. `require`: besides, shadow is left only when it
    is shown not to be worse by `quality_margin`, which takes hundreds of labels."""

    quality_margin: Rate = 0.02
    """Brier score (0–1) by which the canary must be shown not to be worse, where that is required."""

    quality_alpha: Chance = 0.05
    """Probability (0–0.5) of so showing it of one that is worse by the margin."""

    look_seconds: Positive = 10.0
    """Seconds between two looks of `deploy canary` (> 0)."""

    lease_seconds: Positive = 60.0
    """Seconds after which a controller that says nothing counts as gone (> 0), and another may go on."""

    write_attempts: Count = 3
    """How often weights are written that do not stay, before it is held."""

    @model_validator(mode="after")
    def _steps_rise_to_one(self) -> Self:
        rising = all(earlier < later for earlier, later in zip(self.steps, self.steps[1:], strict=False))
        if not rising or not self.steps or self.steps[0] <= 0.0 or self.steps[-1] != 1.0:
            raise ValueError("the steps must rise from above 0 to exactly 1")
        if self.error_rate >= self.bad_error_rate:
            raise ValueError(f"error_rate {self.error_rate} is not below bad_error_rate {self.bad_error_rate}")
        return self
