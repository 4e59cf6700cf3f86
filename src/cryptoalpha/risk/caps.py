"""Caps on position size. Each is one small function from the book to the largest |weight| it allows each proposal.

Caps are independent: each looks at what was asked for, not at what other caps left of it, and the smallest binds. So an added cap makes
no size larger. A cap never changes a sign, except that a forbidden short becomes nothing.

Two kinds. Caps on one position alone (`position_cap`, `risk_tolerance`, `kelly`, `liquidity` and half of `volatility_target`) may ask for
a reduction. Caps on the whole book (`gross_cap`, `cluster_cap`, `expected_shortfall`, `concentration`, `heat`, and the other half) are
functions of the position sizes that grow with each of them, without credit for hedges; each gives all entries one factor f, the largest
with `M(what stands + f · growth) ≤ limit`, and never asks for a reduction (`risk.book` says why that is safe in any order of fills).

To add one: write a function of this shape and put it into `CAPS` under the name that orders and refusals will carry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from cryptoalpha.core.time import DAYS_PER_YEAR
from cryptoalpha.risk.book import BLIND_VOLATILITY, Book, Proposal
from cryptoalpha.risk.clusters import clusters
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.order_limits import max_notional
from cryptoalpha.risk.shortfall import largest_growth

Cap = Callable[[Book, RiskConfig], list[float]]
DAY_ROOT = math.sqrt(DAYS_PER_YEAR)


def volatility_target(book: Book, config: RiskConfig) -> list[float]:
    """Each position alone, and all together, may be expected to have at most the target volatility.

    Alone: `|w| σ ≤ target`. Together: `(1−ρ) Σ (wσ)² + ρ (Σ |w|σ)² ≤ target²` with the assumed correlation ρ. Absolute weights: a hedge is
    not trusted to hold when it is needed.
    """
    target = config.volatility_target
    if target is None:
        return _free(book)
    factor = growth_within(*variance(book, config.assumed_correlation), target * target)
    alone = [target / p.volatility if p.volatility > 0.0 else p.kept if p.volatility < 0.0 else math.inf for p in book.proposals]
    return [min(one, together) for one, together in zip(alone, _grown(book, factor), strict=True)]


def variance(book: Book, rho: float) -> tuple[float, float, float]:
    """Constant, linear and square coefficient in f of the book's annual variance, all correlations being `rho`."""
    sums, squares = [0.0, 0.0], [0.0, 0.0, 0.0]
    for standing, growth, volatility in _sizes(book):
        s, g = standing * volatility, growth * volatility
        sums[0] += s
        sums[1] += g
        squares[0] += s * s
        squares[1] += 2.0 * s * g
        squares[2] += g * g
    rest = 1.0 - rho
    return (
        rest * squares[0] + rho * sums[0] * sums[0],
        rest * squares[1] + 2.0 * rho * sums[0] * sums[1],
        rest * squares[2] + rho * sums[1] * sums[1],
    )


def position_cap(book: Book, config: RiskConfig) -> list[float]:
    """No position is larger than `max_position`."""
    return [config.max_position] * len(book.proposals)


def risk_tolerance(book: Book, config: RiskConfig) -> list[float]:
    """One bad day in one position costs at most `risk_tolerance` of equity: `|w| σ / √365` is not larger. Unknown volatility allows
    nothing new."""
    if config.risk_tolerance is None:
        return _free(book)
    yearly = config.risk_tolerance * DAY_ROOT
    return [
        math.inf if p.is_reducing or p.volatility == 0.0 else yearly / p.volatility if p.volatility > 0.0 else p.kept
        for p in book.proposals
    ]


def kelly(book: Book, config: RiskConfig) -> list[float]:
    """Where the agent says what return it expects, a position is at most that share of the Kelly fraction: `|w| ≤ scale · |μ| / σ²`
    (Thorp, 2006). A return on the other side than the position allows nothing; nor does one that is no number."""
    return [math.inf if p.decision.expected_return is None else _kelly(p, p.decision.expected_return, config) for p in book.proposals]


def _kelly(p: Proposal, expected: float, config: RiskConfig) -> float:
    if p.wanted == 0.0:
        return math.inf
    if not expected * p.wanted > 0.0:
        return 0.0
    if p.volatility == 0.0:
        return math.inf
    return config.kelly_scale * abs(expected) / (p.volatility * p.volatility) if p.volatility > 0.0 else p.kept


def liquidity(book: Book, config: RiskConfig) -> list[float]:
    """No position takes longer to sell than `max_liquidation_days` at `participation` of what is traded. What is traded is known after a
    full day; before, nothing is capped."""
    days = config.orders.max_liquidation_days
    if days is None or not book.proposals:
        return _free(book)
    traded = book.memory.daily_value([p.decision.instrument for p in book.proposals]).tolist()
    return [days * config.orders.participation * value / book.equity if value == value else math.inf for value in traded]


def gross_cap(book: Book, config: RiskConfig) -> list[float]:
    """All positions together are not larger than `max_gross`: entries share what the others leave, in proportion to what they add."""
    kept, added = _total((standing, growth) for standing, growth, _ in _sizes(book))
    return _grown(book, growth_within(kept, added, 0.0, config.max_gross))


def cluster_cap(book: Book, config: RiskConfig) -> list[float]:
    """The positions of one cluster of correlated instruments are together not larger than `max_cluster`.

    Not looked at where `max_gross` is no larger: it holds then anyhow.
    """
    if config.max_cluster >= config.max_gross or not book.proposals:
        return _free(book)
    sizes, own = _by_name(book), cluster_of(book, config)
    factors = {}
    for label in {-1, *own.values()}:
        kept, added = _total(size for name, size in sizes.items() if own.get(name, label) == label)
        factors[label] = growth_within(kept, added, 0.0, config.max_cluster)
    least = min(factors.values())
    return [_allowed(p, factors[own[p.decision.instrument]] if p.decision.instrument in own else least) for p in book.proposals]


def cluster_of(book: Book, config: RiskConfig) -> dict[str, int]:
    """Cluster of each instrument of the gate's universe that the memory can tell from any other, whoever is held or asked for.

    The rest are in none and count in every one: what is not known to be apart is taken to move together. But they link nobody else, so
    that a coin listed yesterday does not make one bet of the whole market.
    """
    names = book.universe or tuple(_by_name(book))
    rho = book.memory.correlation(names)
    told = np.flatnonzero((rho != 1.0).any(axis=1))
    labels = clusters(rho[np.ix_(told, told)], config.cluster_correlation)
    return {names[i]: label for i, label in zip(told.tolist(), labels.tolist(), strict=True)}


def expected_shortfall(book: Book, config: RiskConfig) -> list[float]:
    """The mean loss of the worst days stays within `tail.max_expected_shortfall`, no gain paying for another's loss. Where the volatility
    of an instrument is unknown to all, nothing is entered."""
    limit = config.tail.max_expected_shortfall
    entries = [p for p in book.proposals if p.growth > 0.0]
    if limit is None or not entries:
        return _free(book)
    place, returns = book.scenarios()
    blind = {p.decision.instrument for p in entries if not _is_known(place.get(p.decision.instrument), returns)}
    kept = book.losses([(s.name, s.long, s.short) for s in book.stakes])
    grown = [(p.decision.instrument, p.growth, p.wanted > 0.0) for p in entries if p.decision.instrument not in blind]
    added = book.losses([(name, size, 0.0) if is_long else (name, 0.0, size) for name, size, is_long in grown])
    factor = largest_growth(kept, added, config.tail.level, limit)
    return [_allowed(p, 0.0 if p.decision.instrument in blind else factor) for p in book.proposals]


def _is_known(column: int | None, returns: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bool:
    return column is not None and len(returns) > 0 and math.isfinite(returns[0, column])


def concentration(book: Book, config: RiskConfig) -> list[float]:
    """The sum of squared position sizes is at most `max_concentration`."""
    if config.max_concentration is None:
        return _free(book)
    constant, linear, square = 0.0, 0.0, 0.0
    for standing, growth, _ in _sizes(book):
        constant, linear, square = constant + standing * standing, linear + 2.0 * standing * growth, square + growth * growth
    return _grown(book, growth_within(constant, linear, square, config.max_concentration))


def heat(book: Book, config: RiskConfig) -> list[float]:
    """What all positions lose together at their stops, `stop_volatilities` daily deviations away, is at most `max_heat`."""
    if config.max_heat is None:
        return _free(book)
    stop = config.stop_volatilities / DAY_ROOT
    kept, added = _total((standing * volatility * stop, growth * volatility * stop) for standing, growth, volatility in _sizes(book))
    return _grown(book, growth_within(kept, added, 0.0, config.max_heat))


def short_forbidden(book: Book, config: RiskConfig) -> list[float]:
    """Without leave to go short, a negative weight becomes zero; a short that is held is not enlarged."""
    if config.allow_short:
        return _free(book)
    return [p.kept if p.wanted < 0.0 and not p.is_reducing else math.inf for p in book.proposals]


def growth_within(constant: float, linear: float, square: float, limit: float) -> float:
    """The largest f in [0, 1] with `constant + linear f + square f² ≤ limit`, all coefficients ≥ 0; 0 where even f = 0 breaks it, and
    where a coefficient is no number or beyond all."""
    if constant + linear + square <= limit:
        return 1.0
    room = limit - constant
    if not 0.0 < room < math.inf:
        return 0.0
    # the positive root, written so that nothing cancels
    f = 2.0 * room / (linear + math.sqrt(linear * linear + 4.0 * square * room))
    return f if f < 1.0 else 1.0 if f < math.inf else 0.0


def _sizes(book: Book) -> list[tuple[float, float, float]]:
    """What stands, what would be added, annual volatility: one entry per instrument."""
    volatility = {s.name: s.known_volatility for s in book.stakes}
    for p in book.proposals:
        if 0.0 <= p.volatility < math.inf:
            volatility[p.decision.instrument] = p.volatility
    return [(standing, growth, volatility.get(name, BLIND_VOLATILITY)) for name, (standing, growth) in _by_name(book).items()]


def _by_name(book: Book) -> dict[str, tuple[float, float]]:
    """What stands and what would be added, by instrument."""
    sizes = {s.name: (s.size, 0.0) for s in book.stakes}
    for p in book.proposals:
        name = p.decision.instrument
        sizes[name] = (sizes[name][0] if name in sizes else 0.0, p.growth)
    return sizes


def _total(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    kept, added = 0.0, 0.0
    for standing, growth in pairs:
        kept, added = kept + standing, added + growth
    return kept, added


def _free(book: Book) -> list[float]:
    return [math.inf] * len(book.proposals)


def _grown(book: Book, factor: float) -> list[float]:
    return [_allowed(p, factor) for p in book.proposals]


def _allowed(p: Proposal, factor: float) -> float:
    """What a factor of the whole book leaves one proposal: never less than what stands."""
    return math.inf if p.growth == 0.0 or factor >= 1.0 else p.standing + factor * p.growth if factor > 0.0 else p.standing


CAPS: tuple[tuple[str, Cap], ...] = (
    ("short_forbidden", short_forbidden),
    ("position_cap", position_cap),
    ("volatility_target", volatility_target),
    ("risk_tolerance", risk_tolerance),
    ("kelly", kelly),
    ("liquidity", liquidity),
    ("gross_cap", gross_cap),
    ("cluster_cap", cluster_cap),
    ("expected_shortfall", expected_shortfall),
    ("concentration", concentration),
    ("heat", heat),
    ("max_notional", max_notional),
)
"""Every cap under its name; where several bind equally, the first is named."""
