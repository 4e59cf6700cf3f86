"""Where a rollout stands: its stages, and which split belongs to each.

    idle → shadow → step (5, 10, 25, 50, 100 %) → bake → promoted
                     any of them → rolled_back, or → hold → where it was | rolled_back

Frozen values; `target_of` is the one place that says what weights a stage has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE

Stage = Literal["idle", "shadow", "step", "bake", "hold", "promoted", "rolled_back"]
OVER: tuple[Stage, ...] = ("promoted", "rolled_back")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What the split is to be."""

    weights: dict[str, float]
    shadow: bool = False


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What one look leaves to the next while the canary answers everything: counts it has seen, and the CUSUM up to there."""

    requests: int = 0
    failed: int = 0
    rise: float = 0.0
    fallbacks: int = 0
    """The canary's failures that stable was asked to answer, and those that it could not, when `rise` was last 0."""
    fallback_failures: int = 0


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as the book has it. Times are UTC ns."""

    id: int
    name: str
    """What is rolled out; one rollout per name at a time."""
    stable: str
    canary: str
    stage: Stage = "idle"
    step: int = -1
    """Index of the step, from 0; −1 before the first, that of the last one in bake and after."""
    target: Target = Target(weights={STABLE: 1.0, CANARY: 0.0})
    """What the split is to be in this stage."""
    version: str = ""
    """The split's version when it was last found to be ours."""
    since: int = 0
    """When the state of the split began whose counts are the evidence."""
    started_at: int
    first_since: int = 0
    """`since` of the first state of the split in this rollout: labels are compared from there on."""
    entered_at: int = 0
    """When this stage began."""
    reason: str = ""
    """Why it came here."""
    held_from: Stage | None = None
    held_by_hand: bool = False
    """Whether another hand set the weights, so that they are left alone."""
    carried: Carried = Carried()
    evidence: dict[str, float] = {}
    """Of the last look."""

    @property
    def is_over(self) -> bool:
        return self.stage in OVER

    @property
    def tests_as(self) -> Stage:
        """The stage whose tests apply: on hold, that from where it is held."""
        return self.held_from or "idle" if self.stage == "hold" else self.stage


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A transition that is written down and not yet known to have happened."""

    stage: Stage
    step: int
    target: Target
    reason: str
    evidence: dict[str, float] = {}
    decided_at: int
    prepares: bool = False
    """Whether both versions must first be made ready (`TrafficSplit.ensure`)."""
    attempts: int = 0
    """How often the weights were written without staying."""


def target_of(stage: Stage, step: int, steps: Sequence[float]) -> Target:
    """The split of a stage. A hold has none of its own: it keeps what there is."""
    share = {"step": steps[step] if stage == "step" else 0.0, "bake": 1.0, "promoted": 1.0}.get(stage, 0.0)
    return Target(weights={STABLE: 1.0 - share, CANARY: share}, shadow=stage == "shadow")


def after(stage: Stage, step: int, steps: Sequence[float], *, shadow: bool) -> tuple[Stage, int]:
    """The stage that follows one that went well, and its step."""
    if stage == "idle" and shadow:
        return "shadow", -1
    if stage in ("idle", "shadow"):
        return "step", 0
    if stage == "step":
        return ("step", step + 1) if step + 1 < len(steps) else ("bake", step)
    return "promoted", step
