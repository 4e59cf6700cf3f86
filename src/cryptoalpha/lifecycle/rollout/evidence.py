"""The sequential tests of a rollout: what failures, latencies and labels say about two arms, valid at any look.

Each is a function of counts (or of a sequence of scores), so it does not matter how often one looks. Evidence is the logarithm of an
*e-value*: the wealth of a gambler who began with 1 and bets against the hypothesis, in a game that is fair if it holds. By Ville's
inequality wealth ever reaches 1/α with a probability of at most α, whenever one stops.

    relative   hypothesis: both arms fail equally often. Each failure asks "whose?"; no baseline, and an outage of both says nothing
    sprt       p₀ against p₁ on one arm's failures (Wald), the only test that can also say "good enough"
    ceiling    hypothesis: something happens in at most the share p₀ of cases
    share      hypothesis: requests are divided by the weight that was set (a write that was lost, a hand that turned it)
    worse      hypothesis: the canary's Brier score is no larger; not_worse: hypothesis: it is larger by the margin

Sources: Wald (1945); Ville (1939); Ramdas, Grünwald, Vovk & Shafer (2023), "Game-theoretic statistics and safe anytime-valid inference";
Waudby-Smith & Ramdas (2023), "Estimating means of bounded random variables by betting"; for canaries, cf. Lindon & Malek (2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cryptoalpha.core.errors import ConfigError

ODDS = (2.0, 4.0, 8.0, 16.0, 32.0)
"""How many times more often a bad canary fails than stable: the mixture of the relative test."""
RISES = (0.04, 0.1, 0.2, 0.4, 0.8)
"""How far above its ceiling a share lies, of the way from there to 1: the mixture of the ceiling test."""
BETS = (0.1, 0.25, 0.5, 0.9)
"""Stakes of the tests on scores, as shares of what a single score can take."""
_WEIGHT_OBSERVATIONS = 20.0
"""Strength of the mixture around the weight in `share_evidence`, in observations."""


def _mean_exp(logs: Iterable[float]) -> float:
    """log of the mean of exp, without overflow."""
    values = list(logs)
    top = max(values)
    return top if math.isinf(top) else top + math.log(math.fsum(math.exp(value - top) for value in values) / len(values))


def relative_evidence(canary_failures: int, stable_failures: int, weight: float) -> float:
    """Log e-value against "both arms fail equally often". In shadow the failures are discordant pairs and the weight is ½.

    A failure is the canary's with probability w if rates are equal, and r·w / (r·w + 1 − w) if the canary's are r times larger.

    Args:
        weight: the canary's share of requests, 0 < w < 1, the same for all these failures.
    """
    if not 0.0 < weight < 1.0:
        raise ConfigError(f"a weight of {weight} leaves nothing to compare", hint="between 0 and 1, both excluded")
    both = canary_failures + stable_failures
    return _mean_exp(canary_failures * math.log(r) - both * math.log(weight * r + 1.0 - weight) for r in ODDS)


@dataclass(frozen=True)
class Sprt:
    """Wald's sequential probability ratio test of a failure rate: p₀ (good) against p₁ (bad).

    Args:
        good: p₀; bad: p₁, both 0–1, rising.
        false_stop: a, the probability of calling p₀ bad.
        false_pass: b, the probability of calling p₁ good.
    """

    good: float = 0.01
    bad: float = 0.05
    false_stop: float = 0.002
    false_pass: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 < self.good < self.bad < 1.0 or not 0.0 < self.false_stop < 0.5 or not 0.0 < self.false_pass < 0.5:
            raise ConfigError(f"{self} is no test", hint="0 < good < bad < 1, and errors above 0 and below one half")

    @property
    def per_failure(self) -> float:
        return math.log(self.bad / self.good)

    @property
    def per_success(self) -> float:
        return math.log((1.0 - self.bad) / (1.0 - self.good))

    @property
    def upper(self) -> float:
        return math.log((1.0 - self.false_pass) / self.false_stop)

    @property
    def lower(self) -> float:
        return math.log(self.false_pass / (1.0 - self.false_stop))

    def ratio(self, failures: int, requests: int) -> float:
        """Log likelihood ratio."""
        return failures * self.per_failure + (requests - failures) * self.per_success

    def verdict(self, failures: int, requests: int) -> Literal["good", "bad", "open"]:
        """What the counts say by now."""
        ratio = self.ratio(failures, requests)
        return "bad" if ratio >= self.upper else "good" if ratio <= self.lower else "open"

    @property
    def failures_in_a_row(self) -> int:
        """Failures at once that are called bad."""
        return math.ceil(self.upper / self.per_failure)

    @property
    def clean_requests(self) -> int:
        """Requests without a failure that are called good; fewer never are."""
        return math.ceil(self.lower / self.per_success)

    @property
    def expected_requests(self) -> float:
        """Mean number of requests to a verdict at p₀, by Wald's formula (no overshoot)."""
        ends = (1.0 - self.false_stop) * self.lower + self.false_stop * self.upper
        return ends / (self.good * self.per_failure + (1.0 - self.good) * self.per_success)


def ceiling_evidence(hits: int, cases: int, ceiling: float) -> float:
    """Log e-value against "it happens in at most this share of cases" (0 < ceiling < 1). Smaller shares only lessen it."""
    if not 0.0 < ceiling < 1.0:
        raise ConfigError(f"a ceiling of {ceiling}", hint="between 0 and 1, both excluded")

    def bet(above: float) -> float:
        share = ceiling + (1.0 - ceiling) * above
        return hits * math.log(share / ceiling) + (cases - hits) * math.log((1.0 - share) / (1.0 - ceiling))

    return _mean_exp(bet(above) for above in RISES)


def share_evidence(canary: int, requests: int, weight: float) -> float:
    """Log e-value against "each request goes to the canary with probability w", to either side: a Beta mixture around w."""
    if not 0.0 < weight < 1.0:
        return math.inf if canary != round(weight) * requests else 0.0
    a, b = _WEIGHT_OBSERVATIONS * weight, _WEIGHT_OBSERVATIONS * (1.0 - weight)
    mixed = math.lgamma(a + canary) + math.lgamma(b + requests - canary) - math.lgamma(a + b + requests)
    prior = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return mixed - prior - canary * math.log(weight) - (requests - canary) * math.log(1.0 - weight)


def mean_above_evidence(values: Sequence[float], bound: float, *, largest_loss: float) -> float:
    """Log e-value against "the mean of each value, given those before it, is at most `bound`".

    The wealth of a few constant stakes, averaged: ∏ (1 + λ (x − bound)) with λ as shares of 1 / `largest_loss`, which is the most that
    bound − x can be, so wealth never falls below 0.
    """
    gaps = [value - bound for value in values]
    if any(not gap >= -largest_loss * (1.0 + 1e-12) for gap in gaps):
        raise ConfigError(f"a value lies more than {largest_loss} below {bound}", hint="scores lie in a known range; is one NaN?")
    return _mean_exp(math.fsum(math.log1p(bet / largest_loss * gap) for gap in gaps) for bet in BETS)


def worse_evidence(differences: Sequence[float]) -> float:
    """Log e-value against "the canary's Brier score is no larger on average". Differences: canary − stable, −1 to 1, no overlap."""
    return mean_above_evidence(differences, 0.0, largest_loss=1.0)


def not_worse_evidence(differences: Sequence[float], margin: float) -> float:
    """Log e-value against "the canary's Brier score is larger by at least `margin` on average" (0–1)."""
    return mean_above_evidence([-difference for difference in differences], -margin, largest_loss=1.0 - margin)


def rise_statistic(before: float, sprt: Sprt, failures: int, requests: int) -> float:
    """Page's CUSUM of a failure rate after some more requests: the log likelihood ratio since the moment that speaks most for a rise.

    At p₀ it needs at least eʰ requests on average to reach h, however long it has been quiet before.
    """
    return max(0.0, before + sprt.ratio(failures, requests))
