"""What a feature is, how the lists are printed, and how many of them live for an asset and a period.

A feature is one number per bar and asset with a name, a formula, a unit and the inputs it needs. Where an input does not exist the feature
is NaN, which reads "masked": nothing is filled in here, and nothing is clipped (scalers do that, fitted on the training fold).

Source: the lists of 50 price and 30 on-chain features follow the design of the forecaster; the windows are design choices, untuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import from_datetime
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats

LIVE_SHARE = 0.5
"""A feature counts as live in a period if at least this share of the bars present has a value for it."""


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One feature: what it is called, how it is computed, in which unit it reads, and what it cannot do without.

    `needs` names inputs: `ohlc`, `volume`, `taker_buy_volume`, `book` (at least two assets), `time`, or metrics of the chain vocabulary;
    `a|b` means that either will do.
    """

    name: str
    group: str
    formula: str
    unit: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LiveCount:
    """How many features of one asset are live in the period [`since`, `until`) of bar opens; `masked` names the others."""

    instrument: str
    since: int
    until: int
    bars: int
    price: int
    chain: int
    masked: tuple[str, ...]


def markdown_table(specs: Sequence[FeatureSpec]) -> str:
    """The features as a Markdown table, one row each, in order."""
    lines = ["| # | name | group | formula | unit | needs |", "|---|---|---|---|---|---|"]
    for number, spec in enumerate(specs, 1):
        needs = ", ".join(need.replace("|", " or ") for need in spec.needs)
        formula = spec.formula.replace("|", "\\|")
        lines.append(f"| {number} | `{spec.name}` | {spec.group} | {formula} | {spec.unit} | {needs} |")
    return "\n".join(lines)


def live_share(values: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    """Share of present bars at which each feature has a value. Shapes: `[T, A, F]`, `[T, A]` → `[A, F]`; 0 where no bar is present."""
    bars = present.sum(axis=0)
    known = (np.isfinite(values) & present[:, :, None]).sum(axis=0)
    return np.asarray(known / np.maximum(bars, 1)[:, None], np.float64)


def calendar_years(panel: Panel) -> tuple[int, ...]:
    """Edges of the calendar years (UTC) that the panel touches, as nanoseconds: one more than there are years."""
    from datetime import UTC, datetime

    years = panel.open_time[[0, -1]].astype("datetime64[ns]").astype("datetime64[Y]").astype(np.int64) + 1970
    return tuple(from_datetime(datetime(year, 1, 1, tzinfo=UTC)) for year in range(int(years[0]), int(years[1]) + 2))


def live_count(panel: Panel, price: Floats, chain: Floats, names: Sequence[str], *, edges: Sequence[int] = ()) -> tuple[LiveCount, ...]:
    """How many of the features are live, per asset and period; a period in which an asset has no bar is left out.

    Args:
        panel: the bars the features were computed from.
        price: `[T, A, P]` of `price_features`.
        chain: `[T, A, C]` of `chain_features`.
        names: the P + C names, price features first.
        edges: ascending period edges in UTC ns, compared with bar opens; the calendar years of the panel where none are given.

    Raises:
        ConfigError: if the shapes and names do not fit together.
    """
    if price.shape[:2] != panel.present.shape or chain.shape[:2] != panel.present.shape or price.shape[2] + chain.shape[2] != len(names):
        raise ConfigError(
            f"live_count: price {price.shape}, chain {chain.shape} and {len(names)} names do not fit a panel of {panel.present.shape}",
            hint="pass the arrays computed from this very panel and the names of both lists",
        )
    edges = tuple(edges) or calendar_years(panel)
    counts = []
    for since, until in pairwise(edges):
        start, stop = np.searchsorted(panel.open_time, [since, until])
        present = panel.present[start:stop]
        live = np.concatenate([live_share(values[start:stop], present) for values in (price, chain)], axis=1) >= LIVE_SHARE
        for a, instrument in enumerate(panel.instruments):
            bars = int(present[:, a].sum())
            if not bars:
                continue
            masked = tuple(name for name, alive in zip(names, live[a], strict=True) if not alive)
            of_price, of_chain = int(live[a, : price.shape[2]].sum()), int(live[a, price.shape[2] :].sum())
            counts.append(LiveCount(instrument, since, until, bars, of_price, of_chain, masked))
    return tuple(counts)
