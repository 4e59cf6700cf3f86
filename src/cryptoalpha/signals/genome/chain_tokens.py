"""Token 12, and the halves of 13 and 14 that come from chains and derivatives.

A reading counts in the bar in whose time it became known, (open, close], and in no other: a day's number is news once. Its source counts as
present for as long as the newest reading stands (`chain_series.MAX_AGE`). Scores are those of the readings' own clock over 90 days, the
newest included (`Series.z`), so they depend neither on the bars' length nor on where a frame begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.chain_series import EMPTY, WINDOW_DAYS, Series, combine, series
from cryptoalpha.signals.genome.before import robust_z
from cryptoalpha.signals.genome.price_tokens import PriceEvidence, holds
from cryptoalpha.signals.readings import trailing_standing
from cryptoalpha.store.as_of import as_of_value
from cryptoalpha.store.tables import Dataset, Floats, ReadingTable, Times

UNUSUAL = 2.0
"""Standard deviations from which a reading is an event."""

FUNDING_MAX_AGE = DAY
"""Age at which the newest settlement no longer says what leverage costs: three missed settlements."""


@dataclass(frozen=True, eq=False)
class ChainEvidence:
    """Scores of one asset on their own clocks."""

    counted: Series
    """How unusually many large transfers there were."""
    sent: Series
    """How unusually much was sent to, or from, exchanges: what stands in for large transfers where nobody counts them."""
    hoarding: Series
    """How unusually much left exchanges."""
    funding: Series
    """How unusually dear long leverage was."""


def chain_evidence(dataset: Dataset, asset: str) -> ChainEvidence:
    """The readings of an asset as scores; empty where it has none."""
    return _evidence(tuple((key[1], dataset.readings[key]) for key in sorted(dataset.readings) if key[0] == asset))


@lru_cache(maxsize=64)
def _evidence(tables: tuple[tuple[str, ReadingTable], ...]) -> ChainEvidence:
    """`chain_evidence` of these very tables, which never change: readings come a few times a day, bars each hour."""
    readings = dict(tables)

    def metric(name: str) -> Series:
        return series(readings[name]) if name in readings else EMPTY

    inflow, outflow = metric("exchange_inflow_usd"), metric("exchange_outflow_usd")
    sent = combine(np.fmax, inflow.log().z(), outflow.log().z())
    net = combine(lambda i, o, cap: (o - i) / cap, inflow, outflow, metric("market_cap_usd"))
    rate = metric("funding_rate")
    standing = trailing_standing(rate.known_at, rate.value, WINDOW_DAYS * DAY)[0]
    counted = metric("whale_transfers").log_of_count().z()
    return ChainEvidence(counted=counted, sent=sent, hoarding=net.z(), funding=rate.with_value(standing))


def whale_token(evidence: ChainEvidence, begins: Times, ends: Times) -> Floats:
    """Token 12, `[n]`: by the count of large transfers while that is current, else by what exchanges received or sent."""
    counted = event(evidence.counted, begins, ends)
    return np.where(np.isnan(counted), event(evidence.sent, begins, ends), counted)


def event(score: Series, begins: Times, ends: Times) -> Floats:
    """Whether a reading of more than `UNUSUAL` became known in (begin, end] of each bar. `[n]`; NaN where no reading is current."""
    unusual = score.known_at[score.value > UNUSUAL]
    first, stop = np.searchsorted(unusual, begins, side="right"), np.searchsorted(unusual, ends, side="right")
    return holds(stop > first, score.at(ends))


def dear_leverage(evidence: ChainEvidence, ends: Times) -> Floats:
    """Whether the newest funding rate is unusually high. `[n]`; NaN where none is current."""
    funding = evidence.funding
    z = as_of_value(funding.known_at, funding.value, ends, max_age=FUNDING_MAX_AGE)
    return holds(z > UNUSUAL, z)


def heavy_buying(prices: PriceEvidence) -> Floats:
    """Whether takers bought far more than they sold, in a heavy bar. `[n]`; NaN where taker volume is not known."""
    bars = prices.bars
    bought = 2.0 * bars.taker_buy_volume - bars.volume
    net = robust_z(bought, bought, 96, 0.0, prices.first)
    return holds((net > UNUSUAL) & (prices.volume_z > 1.0), net, prices.volume_z)


def any_of(*claims: Floats) -> Floats:
    """1 where any claim is known and true, NaN where none is known, else 0. `[n]` each → `[n]`."""
    known = np.logical_or.reduce([~np.isnan(claim) for claim in claims])
    return np.where(known, np.logical_or.reduce([claim == 1.0 for claim in claims]).astype(np.float64), np.nan)
