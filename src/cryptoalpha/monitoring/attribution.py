"""Who caused the costs: fees, spread, impact, funding and turnover by instrument, by source or by time.

Amounts are money, so they are added as decimals and nothing is rounded: the lines of a table add up to its total to the last digit,
however the entries are grouped, split or ordered. A float stands for the shortest decimal that reads back as it (0.1 is a tenth).

Pure functions; no clock, no I/O. Costs are positive, funding received is positive and lowers the cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import SECOND
from cryptoalpha.monitoring.ratios import NAN

Amounts = Sequence[Decimal] | Sequence[float] | ArrayLike

UNATTRIBUTED = "unattributed"
"""Line of what no source had a share in."""

_FORMATS = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d"}
_EXACT = Context(prec=1200, Emin=-999999, Emax=999999)
"""Digits that hold any sum of floats: they reach from 1e-324 to 1e308."""
_SHARE = Context(prec=60)
"""Digits of a split amount; the largest share takes what is left, so that the parts are the whole."""


@dataclass(frozen=True)
class CostLine:
    """What one label cost, in quote currency."""

    label: str
    fees: Decimal
    spread: Decimal
    impact: Decimal
    funding: Decimal
    """Received; negative where it was paid."""
    traded: Decimal
    """Sum of |quantity| · price."""
    entries: int
    """Entries with a part in this line."""

    @property
    def cost(self) -> Decimal:
        """Fees, spread and impact less funding received."""
        with localcontext(_EXACT):
            return self.fees + self.spread + self.impact - self.funding

    @property
    def rate(self) -> float:
        """Cost per unit traded, a fraction; NaN where nothing was traded."""
        return float(self.cost) / float(self.traded) if self.traded else NAN

    def turnover(self, equity: float) -> float:
        """Traded on both sides, halved, in multiples of mean equity; NaN without equity."""
        return float(self.traded) / 2.0 / equity if equity > 0.0 else NAN


@dataclass(frozen=True)
class CostTable:
    """Costs by label, dearest first (equal ones by name), and their total."""

    lines: tuple[CostLine, ...]
    total: CostLine


class CostEntries:
    """Costs one by one: fills, funding payments.

    Args:
        fees, spread, impact, funding, traded: `[n]` each, decimals or floats, in quote currency; what is left out is zero.

    Raises:
        DataError: for series that differ in length, or an amount that is NaN or infinite.
    """

    NAMES = ("fees", "spread", "impact", "funding", "traded")

    def __init__(
        self, *, fees: Amounts = (), spread: Amounts = (), impact: Amounts = (), funding: Amounts = (), traded: Amounts = ()
    ) -> None:
        given = dict(zip(self.NAMES, (fees, spread, impact, funding, traded), strict=True))
        columns = {name: _decimals(values, name) for name, values in given.items()}
        sizes = {name: len(column) for name, column in columns.items() if column}
        if len(set(sizes.values())) > 1:
            raise DataError(
                f"series of costs differ in length: {sizes}", hint="one amount per entry; leave a kind of cost out if there is none"
            )
        self.size = next(iter(sizes.values()), 0)
        self.columns = {name: column or [Decimal(0)] * self.size for name, column in columns.items()}

    def by_label(self, labels: Sequence[str]) -> CostTable:
        """Costs by one label per entry `[n]`: its instrument, its source, its period (`calendar_labels`)."""
        if len(labels) != self.size:
            raise DataError(f"{len(labels)} labels for {self.size} costs, expected one each")
        return self._table((str(label), {name: column[i] for name, column in self.columns.items()}) for i, label in enumerate(labels))

    def by_share(self, names: Sequence[str], shares: ArrayLike) -> CostTable:
        """Costs split over several sources.

        Args:
            names: `[K]` sources.
            shares: `[n, K]`, at least 0, of any scale per row: the weights with which the sources spoke. A row of zeros belongs to
                nobody and is told as `unattributed`.

        Raises:
            DataError: for shapes that differ or shares that are negative or not finite.
        """
        weights = np.asarray(shares, dtype=np.float64)
        if weights.shape != (self.size, len(names)):
            raise DataError(f"shares {weights.shape}, expected {(self.size, len(names))}: one per cost and source")
        if not bool(np.all((weights >= 0.0) & np.isfinite(weights))):
            raise DataError(
                "shares must be at least 0 and finite", hint="a source that spoke against the trade still has a positive weight"
            )
        return self._table(part for i in range(self.size) for part in self._parts(i, names, weights[i].tolist()))

    def _parts(self, i: int, names: Sequence[str], weights: list[float]) -> Iterable[tuple[str, dict[str, Decimal]]]:
        amounts = {name: column[i] for name, column in self.columns.items()}
        exact = [Decimal(repr(weight)) for weight in weights]
        if not any(exact):
            yield UNATTRIBUTED, amounts
            return
        largest, whole = max(range(len(exact)), key=lambda k: exact[k]), _sum(exact)
        rest = dict(amounts)
        for k, weight in enumerate(exact):
            if k == largest or not weight:
                continue
            share = _SHARE.divide(weight, whole)
            part = {name: _SHARE.multiply(amount, share) for name, amount in amounts.items()}
            rest = {name: _EXACT.subtract(left, part[name]) for name, left in rest.items()}
            yield names[k], part
        yield names[largest], rest

    def _table(self, parts: Iterable[tuple[str, dict[str, Decimal]]]) -> CostTable:
        sums: dict[str, dict[str, Decimal]] = {}
        counts: dict[str, int] = {}
        for label, amounts in parts:
            line = sums.setdefault(label, dict.fromkeys(self.NAMES, Decimal(0)))
            for name, amount in amounts.items():
                line[name] = _EXACT.add(line[name], amount)
            counts[label] = counts.get(label, 0) + 1
        lines = [CostLine(label, **amounts, entries=counts[label]) for label, amounts in sums.items()]
        total = CostLine("total", **{name: _sum(column) for name, column in self.columns.items()}, entries=self.size)
        return CostTable(tuple(sorted(lines, key=lambda line: (-line.cost, line.label))), total)


def calendar_labels(times_ns: ArrayLike, *, by: Literal["year", "month", "day"]) -> list[str]:
    """The UTC year, month or day of each time (ns), as it sorts: `2024`, `2024-03`, `2024-03-01`."""
    times = np.asarray(times_ns, dtype=np.int64).ravel()
    return [datetime.fromtimestamp(time // SECOND, UTC).strftime(_FORMATS[by]) for time in times.tolist()]


def _sum(values: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for value in values:
        total = _EXACT.add(total, value)
    return total


def _decimals(values: Amounts, name: str) -> list[Decimal]:
    column = list(values) if isinstance(values, list | tuple) else np.asarray(values).ravel().tolist()
    amounts = [value if isinstance(value, Decimal) else Decimal(repr(float(value))) for value in column]
    for i, amount in enumerate(amounts):
        if not amount.is_finite():
            raise DataError(f"{name}[{i}] is {amount}, expected an amount of money")
    return amounts
