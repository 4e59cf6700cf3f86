"""How often each token occurs: a token that is never or nearly always there teaches nothing, and says that a threshold does not fit.

Rates are printed per token and period (a fold, a year); those outside .1 % to 40 % are warned of. They are for people: no threshold is ever
chosen by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cryptoalpha.core.time import iso
from cryptoalpha.signals.features import calendar_years
from cryptoalpha.signals.genome.tokens import TokenSets
from cryptoalpha.signals.genome.vocabulary import NAMES
from cryptoalpha.store.panel import Panel

RARE, FREQUENT = 0.001, 0.4
"""Rates outside of which a token is warned of."""


@dataclass(frozen=True, slots=True)
class BaseRate:
    """How often a token was on in the period [`since`, `until`) of bar opens: `on` of `told` bars whose sources were there."""

    token: str
    since: int
    until: int
    on: int
    told: int
    bars: int

    @property
    def rate(self) -> float:
        """Share of the bars at which it could be told, 0 to 1; NaN if there was none."""
        return self.on / self.told if self.told else float("nan")

    @property
    def warning(self) -> str:
        """What is wrong with the rate, empty if nothing."""
        if not self.told:
            return "no source"
        if self.rate < RARE:
            return f"rarer than {RARE:.1%}"
        return f"more frequent than {FREQUENT:.0%}" if self.rate > FREQUENT else ""


def base_rates(panel: Panel, sets: TokenSets, *, edges: Sequence[int] = ()) -> tuple[BaseRate, ...]:
    """Rates of all tokens over all instruments, period by period; a period without bars is left out.

    Args:
        panel: the bars the tokens belong to.
        sets: `[T, A, 16]` each, as `genome_tokens` gives them.
        edges: ascending period edges in UTC ns, compared with bar opens; calendar years where none are given.
    """
    rates = []
    for since, until in pairwise(tuple(edges) or calendar_years(panel)):
        rows = slice(*np.searchsorted(panel.open_time, [since, until]))
        bars = int(np.isfinite(panel.close[rows]).sum())
        if bars:
            on = sets.tokens[rows].sum(axis=(0, 1))
            told = bars - sets.missing[rows].sum(axis=(0, 1))
            rates += [BaseRate(name, since, until, int(on[k]), int(told[k]), bars) for k, name in enumerate(NAMES)]
    return tuple(rates)


def rates_table(rates: Sequence[BaseRate]) -> str:
    """The rates as a Markdown table: one row per token, one column per period; warnings below."""
    periods = sorted({(rate.since, rate.until) for rate in rates})
    by_place = {(rate.token, rate.since): rate for rate in rates}
    lines = ["| token | " + " | ".join(iso(since)[:10] for since, _ in periods) + " |", "|---|" + "---|" * len(periods)]
    for name in NAMES:
        cells = [by_place[name, since] for since, _ in periods]
        lines.append(f"| {name} | " + " | ".join(f"{cell.rate:.2%}" if cell.told else "–" for cell in cells) + " |")
    warnings = [f"{rate.token} from {iso(rate.since)[:10]}: {rate.warning}" for rate in rates if rate.warning]
    return "\n".join([*lines, *([""] if warnings else []), *(f"warning: {warning}" for warning in warnings)])
