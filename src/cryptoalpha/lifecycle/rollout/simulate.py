"""Made-up rollouts with known error rates: how often does the controller stop a canary that is good, and catch one that is not?

A rollout is simulated look by look: requests of the look are divided by the weight, fail and are late by chance, and the very `judge` and
`after` of the controller say what follows (a test holds both equal, transition by transition). Looks happen every `look_seconds`.
`sprt_table` and `relative_table` simulate the two tests alone, request by request.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt

from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.evidence import ODDS, Sprt
from cryptoalpha.lifecycle.rollout.judgement import Case, Judgement, judge
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, ArmCounts, Pairs, summed
from cryptoalpha.lifecycle.rollout.state import RolloutState, Stage, after, target_of

_SECOND = 1_000_000_000
_MOST_HOLDS = 10


@dataclass(frozen=True)
class Behaviour:
    """How an arm answers: shares of requests (0–1) that fail, and of answers that are late."""

    fails: float = 0.01
    late: float = 0.002
    cause: str = "error"


@dataclass(frozen=True)
class Scenario:
    """Two arms and their traffic.

    Args:
        outage: share of all requests (0–1) that fail whoever answers, from `outage_from` until `outage_until`, seconds of the rollout.
        watched: seconds that a hold goes on, look by look, before a person resumes it; if the outage still lasts, it ends held instead.
        brier_worse: by how much the canary's Brier score is worse on average; labels come one in `label_every` requests.
    """

    name: str
    canary: Behaviour
    stable: Behaviour = Behaviour()
    requests_per_second: float = 10.0
    outage: float = 0.0
    outage_from: float = 0.0
    outage_until: float = math.inf
    watched: float = 1800.0
    brier_worse: float = 0.0
    label_every: int = 0
    brier_spread: float = 0.1

    def at(self, now: int) -> Scenario:
        """The scenario as it is in the look that ends then, ns from the beginning: without the outage before and after it."""
        is_out = self.outage_from < now / _SECOND <= self.outage_until
        return self if is_out or not self.outage else replace(self, outage=0.0)


@dataclass(frozen=True)
class Ended:
    """How one simulated rollout ended: `stage` and `step` before the end, requests of the canary in all and in its last stage.
    `held`: it was still on hold; `holds`: how often it was."""

    promoted: bool
    held: bool
    stage: str
    step: int
    canary_requests: int
    last_requests: int
    reason: str
    holds: int = 0


def counts_of(scenario: Scenario, weight: float, shadow: bool, requests: int, random: np.random.Generator) -> dict[str, ArmCounts]:
    """What both arms do with that many requests."""

    def arm(behaviour: Behaviour, number: int) -> ArmCounts:
        share = behaviour.fails + (1.0 - behaviour.fails) * scenario.outage
        failed = int(random.binomial(number, share))
        return ArmCounts(
            requests=number,
            failures={behaviour.cause: failed} if failed else {},
            late=int(random.binomial(number - failed, behaviour.late)),
        )

    if not shadow:
        to_canary = int(random.binomial(requests, weight))
        return {STABLE: arm(scenario.stable, requests - to_canary), CANARY: _rescued(scenario, arm(scenario.canary, to_canary), random)}
    stable, canary = scenario.stable, scenario.canary
    bad = random.random((requests, 3)) < (stable.fails, canary.fails, scenario.outage)
    bad_stable, bad_canary = bad[:, 0] | bad[:, 2], bad[:, 1] | bad[:, 2]
    fine = ~bad_stable & ~bad_canary
    late = random.random((requests, 2)) < (stable.late, canary.late)
    pairs = Pairs(
        both_fine=int(fine.sum()), canary_failed=int((bad_canary & ~bad_stable).sum()), stable_failed=int((bad_stable & ~bad_canary).sum()),
        both_failed=int((bad_stable & bad_canary).sum()), canary_late=int((fine & late[:, 1] & ~late[:, 0]).sum()),
        stable_late=int((fine & late[:, 0] & ~late[:, 1]).sum()),
    )  # fmt: skip

    def single(failed: npt.NDArray[np.bool_], is_late: npt.NDArray[np.bool_], cause: str, compared: Pairs) -> ArmCounts:
        number = int(failed.sum())
        failures = {cause: number} if number else {}
        return ArmCounts(requests=requests, failures=failures, late=int((is_late & ~failed).sum()), pairs=compared)

    return {
        STABLE: single(bad_stable, late[:, 0], stable.cause, Pairs()),
        CANARY: single(bad_canary, late[:, 1], canary.cause, pairs),
    }


def _rescued(scenario: Scenario, canary: ArmCounts, random: np.random.Generator) -> ArmCounts:
    """The canary's counts with what stable could do for its failures: nothing where the outage was the cause, all without one."""
    failing = canary.failed
    if not scenario.outage:
        return msgspec.structs.replace(canary, fallbacks=failing)
    outage = scenario.outage / (scenario.canary.fails + (1.0 - scenario.canary.fails) * scenario.outage)
    lost = int(random.binomial(failing, outage + (1.0 - outage) * scenario.stable.fails))
    return msgspec.structs.replace(canary, fallbacks=failing, fallback_failures=lost)


def labels_of(scenario: Scenario, requests: int, random: np.random.Generator) -> list[float]:
    """Differences of Brier scores that mature during that many requests."""
    if not scenario.label_every:
        return []
    number = int(random.binomial(requests, 1.0 / scenario.label_every))
    drawn = np.clip(random.normal(scenario.brier_worse, scenario.brier_spread, number), -1.0, 1.0)
    return [float(value) for value in drawn]


def simulate_rollout(scenario: Scenario, config: CanaryConfig, random: np.random.Generator) -> Ended:
    """One rollout from shadow to its end. A hold is watched for a while and then resumed, if what caused it is over."""
    stage, step = after("idle", -1, config.steps, shadow=config.shadow)
    now, asked, holds, brier = 0, 0, 0, list[float]()
    while True:
        one = _Stage(scenario, config, random, stage, step, now, brier)
        found = one.until_judged()
        if found.action == "hold":
            holds += 1
            found = one.held(found.reason)
        now, last = one.now, one.counts[CANARY].requests
        asked += last
        if found.action == "hold" and scenario.at(now).outage == 0.0 and holds < _MOST_HOLDS:
            continue  # resumed: the stage begins anew
        following = after(stage, step, config.steps, shadow=config.shadow)
        if found.action != "advance" or following[0] == "promoted":
            return Ended(found.action == "advance", found.action == "hold", stage, step, asked, last, found.reason, holds)
        stage, step = following


class _Stage:
    """One stage of a simulated rollout, look by look; `now` ns from the rollout's beginning, `brier` the labels of all of it."""

    def __init__(
        self, scenario: Scenario, config: CanaryConfig, random: np.random.Generator, stage: Stage, step: int, now: int, brier: list[float],
    ) -> None:  # fmt: skip
        self._scenario, self._config, self._random, self._brier = scenario, config, random, brier
        self.now = now
        self.counts = {arm: ArmCounts() for arm in (STABLE, CANARY)}
        self._state = RolloutState(
            id=1, name="simulated", stable="a", canary="b", started_at=0, stage=stage, step=step, entered_at=now,
            target=target_of(stage, step, config.steps),
        )  # fmt: skip

    def until_judged(self) -> Judgement:
        """Looks until one says something else than to stay."""
        while (found := self._look()).action == "stay":
            pass
        return found

    def held(self, reason: str) -> Judgement:
        """Looks on hold, until one says that it is over or it was watched for long enough."""
        self._state = msgspec.structs.replace(self._state, stage="hold", held_from=self._state.stage, reason=reason, entered_at=self.now)
        until = self.now + int(self._scenario.watched * _SECOND)
        while (found := self._look()).action == "hold" and self.now < until:
            pass
        return found

    def _look(self) -> Judgement:
        self.now += int(self._config.look_seconds * _SECOND)
        requests = int(self._random.poisson(self._scenario.requests_per_second * self._config.look_seconds))
        self._brier += labels_of(self._scenario, requests, self._random)
        target = self._state.target
        new = counts_of(self._scenario.at(self.now), target.weights[CANARY], target.shadow, requests, self._random)
        self.counts = {arm: summed([self.counts[arm], new[arm]]) for arm in self.counts}
        found = judge(Case(state=self._state, counts=self.counts, brier=self._brier, now=self.now, guards={}, config=self._config))
        self._state = msgspec.structs.replace(self._state, carried=found.carried)
        return found


def simulate_rollouts(
    scenario: Scenario, config: CanaryConfig, *, runs: int, seed: int, advance: Callable[[int], None] = lambda steps: None
) -> tuple[Ended, ...]:
    """Many of them, each with a stream of chance of its own."""
    found = []
    for run in range(runs):
        found.append(simulate_rollout(scenario, config, stream(seed, "rollout", scenario.name, run)))
        advance(1)
    return tuple(found)


@dataclass(frozen=True)
class Lengths:
    """How many requests a test took: mean and 95th percentile, and the share of runs that ended at its upper bound."""

    mean: float
    p95: float
    bad: float


def sprt_table(sprt: Sprt, rate: float, *, runs: int, seed: int, longest: int = 20_000) -> Lengths:
    """Wald's test on requests that fail at a rate, one look per request."""
    random = stream(seed, "sprt", repr(sprt), repr(rate))
    ratio, length, bad = np.zeros(runs), np.zeros(runs, np.int64), np.zeros(runs, np.bool_)
    active = np.arange(runs)
    for request in range(1, longest + 1):
        fails = random.random(active.size) < rate
        ratio[active] += np.where(fails, sprt.per_failure, sprt.per_success)
        ended = (ratio[active] >= sprt.upper) | (ratio[active] <= sprt.lower)
        length[active[ended]], bad[active[ended]] = request, ratio[active[ended]] >= sprt.upper
        active = active[~ended]
        if not active.size:
            break
    length[active] = longest
    return Lengths(float(length.mean()), float(np.quantile(length, 0.95)), float(bad.mean()))


def relative_table(
    weight: float, canary: float, stable: float, *, false_stop: float, runs: int, seed: int, failures: int = 400
) -> tuple[float, float, float]:
    """The relative test, failure by failure: share of runs that stop, and median and 95th percentile of the canary's requests until then.

    Args:
        canary, stable: failure rates. Requests between two failures follow from them.
        failures: after so many without a stop a run counts as never stopped.
    """
    random = stream(seed, "relative", repr((weight, canary, stable)))
    rate = weight * canary + (1.0 - weight) * stable
    ours = random.random((runs, failures)) < weight * canary / rate
    requests = np.cumsum(random.geometric(rate, (runs, failures)), axis=1)
    canary_failures = np.cumsum(ours, axis=1)
    both = np.arange(1, failures + 1)
    logs = np.stack([canary_failures * np.log(r) - both * np.log(weight * r + 1.0 - weight) for r in ODDS])
    evidence = np.logaddexp.reduce(logs, axis=0) - np.log(len(ODDS))
    reached = evidence >= -np.log(false_stop)
    stopped = reached.any(axis=1)
    first = reached.argmax(axis=1)[stopped]
    rows = np.flatnonzero(stopped)
    sound = requests[rows, first] - both[first]
    to_canary = canary_failures[rows, first] + random.binomial(sound, weight * (1.0 - canary) / (1.0 - rate))
    if not to_canary.size:
        return 0.0, float("nan"), float("nan")
    return float(stopped.mean()), float(np.median(to_canary)), float(np.quantile(to_canary, 0.95))
