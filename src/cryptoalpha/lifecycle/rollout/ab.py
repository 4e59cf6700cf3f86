"""A/B comparison of two versions: who is better at what, by how much, and how sure that is at any moment one looks.

Keys are assigned by the router's hash (`router.assigned`), so a key stays with its arm. For each measure the report gives two intervals of
the difference treatment − control: the usual one, which is right once, at a sample size chosen beforehand, and one that is right at all
looks together (a confidence sequence), so one may stop whenever it leaves zero.

    binary     per arm a Beta(½, ½) mixture of likelihoods (Robbins 1970), at α/2 each; depends on counts alone. Exact
    bounded    per arm the predictable plug-in empirical Bernstein sequence (Waudby-Smith & Ramdas 2023, theorem 2), at α/2 each. Exact
               for values in a known range whose mean, given the earlier ones, stays the same
    unbounded  normal mixture for the difference (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, theorem 2.2): asymptotic, so it
               is given only from `LEAST_FOR_ASYMPTOTIC` values per arm on

Coverage under continuous looks is measured: docs/rollout.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean, variance
from typing import Any, Literal

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, Counts

Interval = tuple[float, float]
Kind = Literal["binary", "bounded", "unbounded"]
LEAST_FOR_ASYMPTOTIC = 100
_HALVINGS = 60
_TUNED_AT = 1_000
"""Number of values at which the asymptotic sequence is tightest."""


@dataclass(frozen=True)
class Compared:
    """One measure of both arms. Intervals are of `difference` = treatment − control."""

    measure: str
    kind: Kind
    control: float
    treatment: float
    control_size: int
    treatment_size: int
    difference: float
    fixed: Interval
    """Right once, at a size chosen before the first look."""
    always_valid: Interval
    """Right at every look at once."""
    larger_is_better: bool

    @property
    def verdict(self) -> Literal["better", "worse", "open"]:
        """What the always-valid interval says of the treatment."""
        low, high = self.always_valid
        if low <= 0.0 <= high:
            return "open"
        return "better" if (low > 0.0) == self.larger_is_better else "worse"


@dataclass(frozen=True)
class ABReport:
    """What an A/B test says by now."""

    control: str
    treatment: str
    alpha: float
    measures: tuple[Compared, ...]

    def as_dict(self) -> dict[str, Any]:
        """For programs; an end of an interval that is not bounded yet is None."""

        def ends(interval: Interval) -> list[float | None]:
            return [end if math.isfinite(end) else None for end in interval]

        measures = [
            {**asdict(one), "fixed": ends(one.fixed), "always_valid": ends(one.always_valid), "verdict": one.verdict}
            for one in self.measures
        ]
        return {"control": self.control, "treatment": self.treatment, "alpha": self.alpha, "measures": measures}


def binary_sequence(hits: int, size: int, alpha: float) -> Interval:
    """Confidence sequence of a probability: where the Beta(½, ½) mixture is less than 1/α times as likely."""
    if not 0 <= hits <= size or not 0.0 < alpha < 1.0:
        raise ConfigError(f"{hits} of {size} at alpha {alpha}", hint="0 ≤ hits ≤ size, alpha between 0 and 1")
    mixed = math.lgamma(hits + 0.5) + math.lgamma(size - hits + 0.5) - math.lgamma(size + 1.0) - math.log(math.pi)
    bar = math.log(1.0 / alpha)

    def excluded(p: float) -> bool:
        likely = (hits * math.log(p) if hits else 0.0) + ((size - hits) * math.log1p(-p) if size > hits else 0.0)
        return mixed - likely >= bar

    peak = min(max(hits / size if size else 0.5, 1e-12), 1.0 - 1e-12)
    low = 0.0 if hits == 0 or not size else _border(excluded, 0.0, peak)
    high = 1.0 if hits == size else _border(excluded, 1.0, peak)
    return low, high


def _border(excluded: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where `excluded` turns; the side that is excluded is given back, so the interval is never too short."""
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2.0
        outside, inside = (middle, inside) if excluded(middle) else (outside, middle)
    return outside


def bounded_sequence(values: Sequence[float], alpha: float, *, lowest: float = 0.0, highest: float = 1.0) -> Interval:
    """Confidence sequence of the mean of values in a known range, in the order in which they came.

    Raises:
        ConfigError: for a value outside the range.
    """
    width = highest - lowest
    bar, mean, spread = math.log(2.0 / alpha), 0.5, 0.25
    stakes = weighted = paid = total = squares = 0.0
    for number, value in enumerate(values, start=1):
        x = (value - lowest) / width
        if not 0.0 <= x <= 1.0:
            raise ConfigError(f"{value} lies outside {lowest} to {highest}", hint="give the range, or compare as unbounded")
        stake = min(math.sqrt(2.0 * bar / (spread * number * math.log(number + 1.0))), 0.5)
        stakes, weighted = stakes + stake, weighted + stake * x
        paid += (x - mean) ** 2 * (-math.log1p(-stake) - stake)
        total += x
        mean = (0.5 + total) / (number + 1)
        squares += (x - mean) ** 2
        spread = (0.25 + squares) / (number + 1)
    if not stakes:
        return lowest, highest
    centre, radius = weighted / stakes, (bar + paid) / stakes
    return lowest + width * max(0.0, centre - radius), lowest + width * min(1.0, centre + radius)


def asymptotic_sequence(difference: float, variance_of_it: float, size: int, alpha: float) -> Interval:
    """Confidence sequence of a difference of means whose variance is estimated from `size` values of both arms together."""
    spread = math.sqrt(variance_of_it * size)
    rho = math.sqrt((-2.0 * math.log(alpha) + math.log(-2.0 * math.log(alpha) + 1.0)) / _TUNED_AT)
    scale = size * rho**2 + 1.0
    radius = spread * math.sqrt(2.0 * scale / (size**2 * rho**2) * math.log(math.sqrt(scale) / alpha))
    return difference - radius, difference + radius


def compare_binary(measure: str, control: tuple[int, int], treatment: tuple[int, int], *, alpha: float, larger_is_better: bool) -> Compared:
    """Two probabilities, each as (hits, size)."""
    (hits, size), (our_hits, our_size) = control, treatment
    ours, theirs = binary_sequence(our_hits, our_size, alpha / 2), binary_sequence(hits, size, alpha / 2)
    p, q = hits / size if size else 0.5, our_hits / our_size if our_size else 0.5
    noise = (p * (1 - p) / size + q * (1 - q) / our_size) if size and our_size else math.inf
    return _compared(measure, "binary", (p, size), (q, our_size), noise, _apart(theirs, ours), alpha, larger_is_better)


def compare_values(
    measure: str, control: Sequence[float], treatment: Sequence[float], *, alpha: float, larger_is_better: bool,
    bounds: Interval | None = None,
) -> Compared:  # fmt: skip
    """Two means of values in the order they came.

    Args:
        bounds: the range in which every value lies for certain; without it the always-valid interval is asymptotic.
    """
    if not all(math.isfinite(value) for value in (*control, *treatment)):
        raise ConfigError(f"{measure} holds a value that is not finite", hint="leave out what was not measured, and say so")
    sizes = len(control), len(treatment)
    p, q = fmean(control) if control else 0.0, fmean(treatment) if treatment else 0.0
    noise = variance(control) / sizes[0] + variance(treatment) / sizes[1] if min(sizes) > 1 else math.inf
    if bounds is not None:
        low, high = bounds
        ours = bounded_sequence(treatment, alpha / 2, lowest=low, highest=high)
        always = _apart(bounded_sequence(control, alpha / 2, lowest=low, highest=high), ours)
    elif min(sizes) >= LEAST_FOR_ASYMPTOTIC:
        always = asymptotic_sequence(q - p, noise, sum(sizes), alpha)
    else:
        always = -math.inf, math.inf
    kind: Kind = "unbounded" if bounds is None else "bounded"
    return _compared(measure, kind, (p, sizes[0]), (q, sizes[1]), noise, always, alpha, larger_is_better)


def compare_counts(counts: Counts, *, alpha: float) -> tuple[Compared, ...]:
    """What a split counted: failures and lateness of both arms, stable as control."""
    stable, canary = counts[STABLE], counts[CANARY]
    failed = compare_binary(
        "failed requests", (stable.failed, stable.requests), (canary.failed, canary.requests), alpha=alpha, larger_is_better=False
    )
    late = compare_binary(
        "late answers", (stable.late, stable.requests - stable.failed), (canary.late, canary.requests - canary.failed),
        alpha=alpha, larger_is_better=False,
    )  # fmt: skip
    return failed, late


def assigned_values(rows: Sequence[tuple[str, float]], arm_of: Callable[[str], str]) -> Mapping[str, list[float]]:
    """Values by the arm of their key, in order."""
    found: dict[str, list[float]] = {STABLE: [], CANARY: []}
    for key, value in rows:
        found[arm_of(key)].append(value)
    return found


def _apart(control: Interval, treatment: Interval) -> Interval:
    return treatment[0] - control[1], treatment[1] - control[0]


def _compared(
    measure: str, kind: Kind, control: tuple[float, int], treatment: tuple[float, int], noise: float, always: Interval, alpha: float,
    larger_is_better: bool,
) -> Compared:  # fmt: skip
    difference = treatment[0] - control[0]
    half = NormalDist().inv_cdf(1.0 - alpha / 2) * math.sqrt(noise)
    return Compared(
        measure, kind, control[0], treatment[0], control[1], treatment[1], difference, (difference - half, difference + half), always,
        larger_is_better,
    )  # fmt: skip
