"""Caps on position size. Each is one small function from the book to the largest |weight| it allows each proposal.

Caps are independent: each looks at what was asked for, not at what other caps left of it, and the smallest binds. So an added cap never
makes any position larger. A cap never changes a sign, except that a forbidden short becomes nothing.

To add one: write a function of this shape and put it into `CAPS` under the name that orders and refusals will carry.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cryptoalpha.core.time import DAYS_PER_YEAR
from cryptoalpha.risk.book import Book
from cryptoalpha.risk.config import RiskConfig

Cap = Callable[[Book, RiskConfig], list[float]]


def volatility_target(book: Book, config: RiskConfig) -> list[float]:
    """Each position alone, and all together, may be expected to have at most the target volatility.

    Alone: `|w| σ ≤ target`. Together: entries are scaled by one factor so that `(1−ρ) Σ (wσ)² + ρ (Σ |w|σ)² ≤ target²`, positions that
    nobody enlarges counting as they are. Absolute weights: a hedge is not trusted to hold when it is needed.
    """
    target = config.volatility_target
    if target is None:
        return [math.inf] * len(book.proposals)
    fixed_sum, fixed_squares, entry_sum, entry_squares = 0.0, 0.0, 0.0, 0.0
    for weight, volatility in book.held_elsewhere:
        if volatility == volatility:
            risk = abs(weight) * volatility
            fixed_sum, fixed_squares = fixed_sum + risk, fixed_squares + risk * risk
    for p in book.proposals:
        risk = abs(p.wanted) * p.volatility
        if p.is_reducing:
            if risk == risk:
                fixed_sum, fixed_squares = fixed_sum + risk, fixed_squares + risk * risk
        else:
            entry_sum, entry_squares = entry_sum + risk, entry_squares + risk * risk
    rho = config.assumed_correlation
    # variance(f) = constant + linear · f + square · f², increasing in f ≥ 0; the largest f with variance(f) ≤ target²
    constant = (1.0 - rho) * fixed_squares + rho * fixed_sum**2 - target**2
    linear = 2.0 * rho * fixed_sum * entry_sum
    square = (1.0 - rho) * entry_squares + rho * entry_sum**2
    factor = _largest_factor(constant, linear, square)
    limits = []
    for p in book.proposals:
        if p.is_reducing:
            limits.append(math.inf if not p.volatility > 0.0 else target / p.volatility)
        else:
            limits.append(min(target / p.volatility if p.volatility > 0.0 else math.inf, factor * abs(p.wanted)))
    return limits


def _largest_factor(constant: float, linear: float, square: float) -> float:
    """The largest f in [0, 1] with `constant + linear f + square f² ≤ 0`; 0 where even f = 0 breaks it."""
    if constant + linear + square <= 0.0:
        return 1.0
    if constant >= 0.0:
        return 0.0
    # the positive root, written so that nothing cancels
    return min(1.0, -2.0 * constant / (linear + math.sqrt(linear * linear - 4.0 * square * constant)))


def position_cap(book: Book, config: RiskConfig) -> list[float]:
    """No position is larger than `max_position`."""
    return [config.max_position] * len(book.proposals)


def risk_tolerance(book: Book, config: RiskConfig) -> list[float]:
    """One bad day in one position costs at most `risk_tolerance` of equity: `|w| σ / √365` is not larger. Unknown volatility allows
    nothing new."""
    if config.risk_tolerance is None:
        return [math.inf] * len(book.proposals)
    yearly = config.risk_tolerance * math.sqrt(DAYS_PER_YEAR)
    return [
        math.inf if p.is_reducing or p.volatility == 0.0 else yearly / p.volatility if p.volatility > 0.0 else 0.0 for p in book.proposals
    ]


def gross_cap(book: Book, config: RiskConfig) -> list[float]:
    """All positions together are not larger than `max_gross`: entries share what the others leave, in proportion to what they want."""
    kept, wanted = 0.0, 0.0
    for weight, _ in book.held_elsewhere:
        kept += abs(weight)
    for p in book.proposals:
        if p.is_reducing:
            kept += abs(p.wanted)
        else:
            wanted += abs(p.wanted)
    room = max(0.0, config.max_gross - kept)
    if wanted <= room:
        return [math.inf] * len(book.proposals)
    return [math.inf if p.is_reducing else room / wanted * abs(p.wanted) for p in book.proposals]


def short_forbidden(book: Book, config: RiskConfig) -> list[float]:
    """Without leave to go short, a negative weight becomes zero."""
    if config.allow_short:
        return [math.inf] * len(book.proposals)
    return [0.0 if p.wanted < 0.0 and not p.is_reducing else math.inf for p in book.proposals]


CAPS: tuple[tuple[str, Cap], ...] = (
    ("short_forbidden", short_forbidden),
    ("position_cap", position_cap),
    ("volatility_target", volatility_target),
    ("risk_tolerance", risk_tolerance),
    ("gross_cap", gross_cap),
)
"""Every cap under its name; where several bind equally, the first is named."""
