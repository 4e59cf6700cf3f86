"""What the counts of one stage say: stay, advance, go back, or hold. A pure function; the controller and the simulations share it.

In this order, so that what is known to be bad goes before what is missing:

    back     the canary fails more often than stable (relative test), is late more often, slower (shadow), contradicts it (shadow), or its
             Brier score is worse; its own failure rate is bad while stable's is not
    hold     both fail: that is an outage, and says nothing of the canary; or requests are not divided as the weights say
    back     no verdict after `undecided_multiple` times the requests that a good canary needs, or after `step_hours`
    stay     too few requests, too little time, a guard is red
    advance  Wald's test calls the canary good

On hold only the comparison with stable is asked, and only if requests are divided as set: counts of a hold are those of the outage too, so
what an arm did by itself says nothing of it. What goes on from there counts afresh.

Source: design facts §9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.evidence import (
    Sprt,
    ceiling_evidence,
    not_worse_evidence,
    relative_evidence,
    rise_statistic,
    share_evidence,
    worse_evidence,
)
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, ArmCounts, Counts
from cryptoalpha.lifecycle.rollout.state import Carried, RolloutState

Action = Literal["stay", "advance", "back", "hold"]
NOT_DIVIDED = math.log(1e5)
"""Evidence from which requests are not divided as the weights say. One in 100,000 per step: the cause would be a fault, not chance."""
QUIET_REQUESTS = math.log(1e7)
"""CUSUM at which a canary that answers everything is called bad: at `error_rate` ten million requests go by on average before that."""
_HOUR, _SECOND = 3_600_000_000_000, 1_000_000_000


@dataclass(frozen=True)
class Judgement:
    """What to do and why; `evidence` is what every test said (logs of e-values and ratios), `carried` what the next look needs."""

    action: Action
    reason: str
    evidence: dict[str, float]
    carried: Carried


@dataclass(frozen=True)
class Case:
    """One look at a stage.

    Args:
        state: where the rollout stands.
        counts: what both arms did under this stage's split.
        brier: differences of Brier scores (canary − stable) over the whole rollout, in order.
        now: UTC ns.
        guards: what must hold before a step is left, by name (memory, no kill switch, …).
    """

    state: RolloutState
    counts: Counts
    brier: Sequence[float]
    now: int
    guards: Mapping[str, bool]
    config: CanaryConfig

    @property
    def canary(self) -> ArmCounts:
        return self.counts[CANARY]

    @property
    def stable(self) -> ArmCounts:
        return self.counts[STABLE]

    @property
    def weight(self) -> float:
        return self.state.target.weights.get(CANARY, 0.0)

    @cached_property
    def sprt(self) -> Sprt:
        c = self.config
        return Sprt(c.error_rate, c.bad_error_rate, c.false_stop, c.false_pass)

    @cached_property
    def against_stable(self) -> dict[str, float]:
        """Evidence that the canary is worse than stable, by what it is worse in."""
        if self.state.tests_as == "shadow":
            pairs = self.canary.pairs
            return {
                "fails more often than stable": relative_evidence(pairs.canary_failed, pairs.stable_failed, 0.5),
                "is late more often than stable": relative_evidence(pairs.canary_late, pairs.stable_late, 0.5),
                "is slower than stable": relative_evidence(pairs.canary_slower, pairs.stable_slower, 0.5),
                "contradicts stable": ceiling_evidence(pairs.disagreed, pairs.both_fine, self.config.parity_share),
            }
        if 0.0 < self.weight < 1.0:
            return {
                "fails more often than stable": relative_evidence(self.canary.failed, self.stable.failed, self.weight),
                "is late more often than stable": relative_evidence(self.canary.late, self.stable.late, self.weight),
            }
        return {}

    @cached_property
    def carried(self) -> Carried:
        """The CUSUM of the canary's failures, which sees a fault that begins late."""
        last = self.state.carried
        new, failed = self.canary.requests - last.requests, self.canary.failed - last.failed
        rise = rise_statistic(last.rise, self.sprt, failed, new)
        calm = self.canary if rise == 0.0 else last
        return Carried(
            requests=self.canary.requests, failed=self.canary.failed, rise=rise,
            fallbacks=calm.fallbacks, fallback_failures=calm.fallback_failures,
        )  # fmt: skip

    @cached_property
    def evidence(self) -> dict[str, float]:
        """All tests, as numbers."""
        found = dict(self.against_stable)
        found["failures: likelihood ratio"] = self.sprt.ratio(self.canary.failed, self.canary.requests)
        found["stable's failures: likelihood ratio"] = self.sprt.ratio(self.stable.failed, self.stable.requests)
        found["late"] = _late(self.canary, self.config)
        if self.brier:
            found["Brier score is worse"] = worse_evidence(self.brier)
            found["Brier score is not worse"] = not_worse_evidence(self.brier, self.config.quality_margin)
        if 0.0 < self.weight < 1.0:
            requests = self.canary.requests + self.stable.requests
            found["not divided by weight"] = share_evidence(self.canary.requests, requests, self.weight)
        if self.weight == 1.0:
            found["failures have risen"] = self.carried.rise
        return found

    @property
    def is_outage(self) -> bool:
        """Whether stable is no better: by its own requests, or by what it was asked after the canary failed, since failures began to rise:
        what it could answer in an hour before says nothing of an outage now."""
        rescues = self.canary.fallbacks - self.carried.fallbacks
        lost = self.canary.fallback_failures - self.carried.fallback_failures
        return self.sprt.verdict(self.stable.failed, self.stable.requests) == "bad" or (
            self.weight == 1.0 and rescues > 0 and 2 * lost >= rescues
        )


def judge(case: Case) -> Judgement:
    """What to do with the rollout after this look."""
    on_hold = case.state.stage == "hold"
    for ask in (_as_divided, _against_stable, _stays_held) if on_hold else (_against_stable, _by_itself, _as_divided, _too_long, _not_yet):
        found = ask(case)
        if found is not None:
            return Judgement(found[0], found[1], case.evidence, case.carried)
    return Judgement("advance", f"good after {case.canary.requests:,} requests of the canary", case.evidence, case.carried)


Found = tuple[Action, str] | None


def _late(counts: ArmCounts, config: CanaryConfig) -> float:
    return ceiling_evidence(counts.late, counts.requests - counts.failed, config.late_share)


def _against_stable(case: Case) -> Found:
    """What only the comparison with stable shows."""
    bar = -math.log(case.config.false_stop)
    for what, evidence in case.against_stable.items():
        if evidence >= bar:
            return "back", f"the canary {what}: odds of e^{evidence:.1f} against chance, {_counted(case)}"
    if case.brier and case.evidence["Brier score is worse"] >= bar:
        mean = math.fsum(case.brier) / len(case.brier)
        return "back", f"the canary's Brier score is worse by {mean:.4f} over {len(case.brier):,} labels"
    return None


def _by_itself(case: Case) -> Found:
    """What the canary's own counts show, unless stable's show it too."""
    bad = ""
    if case.sprt.verdict(case.canary.failed, case.canary.requests) == "bad":
        bad = f"the canary fails too often: {_counted(case)}"
    elif case.weight == 1.0 and case.carried.rise >= QUIET_REQUESTS:
        bad = f"the canary has begun to fail: {_counted(case)}"
    if bad:
        return ("hold", f"{bad}; but stable fails too, so it is an outage") if case.is_outage else ("back", bad)
    bar = -math.log(case.config.false_stop)
    if _late(case.canary, case.config) >= bar:
        late = f"{case.canary.late:,} of {case.canary.requests:,} answers of the canary took longer than {case.config.latency_seconds} s"
        return ("hold", f"{late}; but so do stable's") if _late(case.stable, case.config) >= bar else ("back", late)
    return None


def _as_divided(case: Case) -> Found:
    """Whether requests go where the weights send them."""
    if case.evidence.get("not divided by weight", 0.0) < NOT_DIVIDED:
        return None
    both = case.canary.requests + case.stable.requests
    return "hold", f"the canary got {case.canary.requests:,} of {both:,} requests at a weight of {case.weight:g}: weights do not act as set"


def _too_long(case: Case) -> Found:
    """No verdict in the requests or the time that a step may take."""
    limit = case.config.undecided_multiple * case.sprt.expected_requests
    is_open = case.sprt.verdict(case.canary.failed, case.canary.requests) == "open"
    if is_open and case.canary.requests > limit:
        return "back", f"undecided after {case.canary.requests:,} requests: {_counted(case)}"
    if case.now - case.state.entered_at > case.config.step_hours * _HOUR + _bake(case):
        return "back", f"not done within {case.config.step_hours:g} hours: {_waits_for(case) or 'guards'}"
    return None


def _stays_held(case: Case) -> Found:
    """Until a person ends it, or its time is over, which the controller sees to."""
    return "hold", case.state.reason


def _not_yet(case: Case) -> Found:
    waits = _waits_for(case)
    return ("stay", f"waits for {waits}") if waits else None


def _waits_for(case: Case) -> str:
    """What is missing before the stage may be left."""
    config, canary = case.config, case.canary
    if case.sprt.verdict(canary.failed, canary.requests) != "good" or canary.requests < config.minimum_requests:
        return f"more requests of the canary than {canary.requests:,}"
    least = max(config.minimum_seconds * _SECOND, _bake(case))
    if case.now - case.state.entered_at < least:
        return f"{(least - (case.now - case.state.entered_at)) / _SECOND:.0f} s more"
    red = sorted(name for name, green in case.guards.items() if not green)
    if red:
        return f"guards: {', '.join(red)}"
    if config.quality == "require" and case.state.tests_as == "shadow":
        reached = case.evidence.get("Brier score is not worse", 0.0)
        if reached < -math.log(config.quality_alpha):
            return f"labels that show its Brier score not worse by {config.quality_margin:g}, after {len(case.brier):,}"
    return ""


def _bake(case: Case) -> int:
    return int(case.config.bake_seconds * _SECOND) if case.state.tests_as == "bake" else 0


def _counted(case: Case) -> str:
    causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(case.canary.failures.items())) or "no failure"
    return (
        f"{case.canary.failed:,} of {case.canary.requests:,} failed ({causes}), stable {case.stable.failed:,} of {case.stable.requests:,}"
    )
