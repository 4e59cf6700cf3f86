"""What the fusion's search sees of a bar: opinions by family and instrument, and the numbers that a network is shown.

`Reader` turns the values of a bar into arrays; families and instruments get their places when they first appear. `features` is a pure
function of the bar's summary and of the states of the search (weights, opinions, positions), so root and inner nodes look alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.values import REGIMES, MarketState, Signal
from cryptoalpha.decisions.fusion.experience import STATE_WIDTH
from cryptoalpha.decisions.fusion.outcomes import bar_length
from cryptoalpha.decisions.fusion.search.actions import FAMILIES
from cryptoalpha.decisions.fusion.search.statistics import Belief
from cryptoalpha.store.tables import Floats

UNIFORM = np.full(len(REGIMES), 1.0 / len(REGIMES))
BLOCKS = ("value", "confidence", "staleness", "count", "ic", "ic_error", "weight", "prior")
"""What stands in columns 0–79 of the features, ten places each; then come the book's numbers, then zeros."""

BOOK_AT = len(BLOCKS) * FAMILIES
BOOK = (*(f"regime_{trend}_{calm}" for trend, calm in REGIMES), "regime_age", "regime_change", "cost", "gross", "held", "net",
        "expected_move", "volatility", "instruments")  # fmt: skip
STALEST = 4.0
"""Age of an opinion, in its own horizons, beyond which it is as stale as can be."""


@dataclass(frozen=True)
class Reading:
    """A bar as arrays. I instruments (all ever seen, in order of appearance), K families."""

    at: int
    bar: int
    """Length of a bar, ns, which one that came late does not change."""
    values: Floats
    """`[I, K]`: mean opinion of the family's sources; 0 where silent."""
    heard: Floats
    """`[I, K]`: 1 where the family has an opinion."""
    prices: Floats
    """`[I]`; NaN where the instrument is absent."""
    volatilities: Floats
    """`[I]`, annualised; NaN where unknown."""
    confidence: Floats
    """`[K]`: mean over its opinions."""
    staleness: Floats
    """`[K]`: mean age of its opinions in their own horizons."""
    count: Floats
    """`[K]`: opinions per instrument."""
    regime: Floats
    """`[C]`: belief of the book as a whole; uniform without a regime model."""
    regime_known: bool
    age: float
    change: float
    cost: float
    """Paid per unit traded, fraction of notional."""

    @property
    def speaking(self) -> NDArray[np.bool_]:
        """Families with an opinion about any instrument, `[K]`."""
        return np.asarray(self.heard.any(axis=0))


class Reader:
    """Gives families and instruments their places and reads bars."""

    def __init__(self, families: Sequence[str], trade_cost: float) -> None:
        self.families: list[str] = list(families)
        self.instruments: dict[str, int] = {}
        self._places = {name: k for k, name in enumerate(families)}
        self._cost = trade_cost
        self._bar = 0

    def place(self, family: str) -> int:
        """Where a family stands; the last place is shared by those that find none of their own."""
        place = self._places.get(family)
        if place is None:
            place = min(len(self.families), FAMILIES - 1)
            if place == len(self.families):
                self.families.append(family)
            self._places[family] = place
        return place

    def read(self, at: int, states: Sequence[MarketState], signals: Sequence[Signal]) -> Reading:
        """The bar as arrays; `states` must not be empty."""
        for state in states:
            self.instruments.setdefault(state.instrument, len(self.instruments))
        self._bar = bar_length(self._bar, at, states)
        n = len(self.instruments)
        total, number = [[0.0] * FAMILIES for _ in range(n)], [[0.0] * FAMILIES for _ in range(n)]
        confidence, stale = [0.0] * FAMILIES, [0.0] * FAMILIES
        for signal in signals:
            i, k = self.instruments[signal.instrument], self.place(signal.type)
            total[i][k] += signal.value
            number[i][k] += 1.0
            confidence[k] += signal.confidence
            stale[k] += min(STALEST, max(0, at - signal.known_at) / signal.horizon)
        counts = np.array(number)
        said = counts.sum(axis=0)
        safe = np.maximum(said, 1.0)
        prices, volatilities = np.full(n, np.nan), np.full(n, np.nan)
        for state in states:
            prices[self.instruments[state.instrument]] = state.price
            volatilities[self.instruments[state.instrument]] = state.volatility
        regimes = [state.regime for state in states if state.regime]
        costs = [state.recent_cost for state in states if state.recent_cost is not None]
        ages = [state.regime_age for state in states if state.regime_age is not None]
        changes = [state.regime_change for state in states if state.regime_change is not None]
        return Reading(
            at, self._bar, np.array(total) / np.maximum(counts, 1.0), (counts > 0.0).astype(np.float64), prices,
            volatilities, np.array(confidence) / safe, np.array(stale) / safe, said / len(states),
            np.mean(regimes, axis=0) if regimes else UNIFORM, bool(regimes), float(np.mean(ages)) if ages else 0.0,
            float(np.mean(changes)) if changes else 0.0, float(np.mean(costs)) if costs else self._cost,
        )  # fmt: skip


def summary(reading: Reading, belief: Belief, prior: Floats) -> NDArray[np.float32]:
    """What of the features is the same in every state of a bar's search, `[100]`; the rest is 0 until `features` fills it in."""
    row = np.zeros(STATE_WIDTH)
    known = np.isfinite(belief.error)
    blocks = (
        (1, reading.confidence), (2, reading.staleness), (3, np.log1p(reading.count)), (4, 10.0 * belief.ic),
        (5, np.where(known, np.minimum(10.0 * belief.error, 3.0), 3.0)), (7, prior),
    )  # fmt: skip
    for block, numbers in blocks:
        row[block * FAMILIES : (block + 1) * FAMILIES] = numbers
    sigma = reading.volatilities[np.isfinite(reading.volatilities)]
    book = [
        *(reading.regime if reading.regime_known else np.zeros(len(REGIMES))), math.log1p(max(0.0, reading.age)) / 5.0, reading.change,
        1e3 * reading.cost, 0.0, 0.0, 0.0, 0.0, float(np.log(np.maximum(sigma, 1e-6)).mean()) if len(sigma) else 0.0,
        math.log(len(reading.prices)) / 3.0,
    ]  # fmt: skip
    row[BOOK_AT : BOOK_AT + len(BOOK)] = book
    return row.astype(np.float32)


GROSS_AT, HELD_AT, NET_AT, MOVE_AT = (BOOK_AT + BOOK.index(name) for name in ("gross", "held", "net", "expected_move"))
WEIGHT_AT = BLOCKS.index("weight") * FAMILIES


def features(base: NDArray[np.float32], values: Floats, weights: Floats, positions: Floats, slopes: Floats) -> NDArray[np.float32]:
    """What a network is shown of n states of a bar's search.

    Shapes: base `[100]` (`summary`), values `[n, I, K]`, weights `[n, K]`, positions `[n, I]`, slopes `[K]` → float32 `[n, 100]`.
    """
    rows = np.repeat(base[None, :], len(weights), axis=0)
    rows[:, :FAMILIES] = values.mean(axis=1)
    rows[:, WEIGHT_AT : WEIGHT_AT + FAMILIES] = weights
    rows[:, GROSS_AT] = weights.sum(axis=1)
    rows[:, HELD_AT] = np.abs(positions).mean(axis=1)
    rows[:, NET_AT] = positions.mean(axis=1)
    rows[:, MOVE_AT] = 10.0 * np.sqrt(((values * slopes).sum(axis=2) ** 2).mean(axis=1))
    return rows
