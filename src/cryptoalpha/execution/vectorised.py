"""The accounting of given positions in floats and whole arrays: the fast twin of the event path, for baselines, searches and oracles.

`simulate_units` trades every change of a position in one instrument and pays a fee: what the oracles are measured with.

`simulate_weights` follows target weights of a whole book through the fills and costs of `SimulatedBroker`: funding at the open, sells then
buys at the open, funding inside the bar, mark at the close, decide. Only rounding differs from the event path (no lots, no ticks, no
minimum order, no `Decimal`), and there are no caps, since weights are given. A test holds the two together on random weights.

Both run along time in order, so a row never depends on later ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from cryptoalpha.core.errors import AccountingError, ConfigError
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.execution.config import ExecutionConfig, FillRule
from cryptoalpha.execution.costs import decay_per_bar
from cryptoalpha.execution.kernels import Ledger, Market, Rates, run_weights
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats, Times


@dataclass(frozen=True, eq=False)
class UnitsRun:
    """What holding the given units did.

    Shapes: `equity` `[T]`, marked at each close; `index` `[N]` rows at which orders were decided, `quantity` (buys positive), `price` and
    `fee` of the fill `[N]`. An order decided on the last row has no next open and is not in it.
    """

    equity: Floats
    index: Times
    quantity: Floats
    price: Floats
    fee: Floats


@njit(cache=True)
def exponential_mean(values: Floats, span: int) -> Floats:
    """Exponential mean with weight 2/(span + 1), seeded with the first value. Shape `[T]` → `[T]`."""
    alpha = 2.0 / (span + 1.0)
    out = np.empty(len(values))
    level = values[0] if len(values) else 0.0
    for t in range(len(values)):
        level += alpha * (values[t] - level)
        out[t] = level
    return out


def simulate_units(open: Floats, close: Floats, units: Floats, *, fee: float, cash: float, fill: FillRule = "next_open") -> UnitsRun:
    """Hold `units[t]` from the moment row t is known.

    Args:
        open, close: prices without gaps.
        units: wanted position in base units, decided at the close of each row; the position before the first is 0.
        fee: fraction of notional.
        cash: cash at the start, quote units.
        fill: `next_open` trades at the open of row t + 1, `signal_close` at the close of row t (oracle A only).

    Shapes: `open`, `close`, `units` `[T]`.

    Raises:
        ConfigError: if the shapes differ or a price or position is not finite.
    """
    if not open.shape == close.shape == units.shape or close.ndim != 1:
        raise ConfigError(f"open {open.shape}, close {close.shape} and units {units.shape} must be of one length")
    if not np.isfinite(open.sum() + close.sum() + units.sum()):
        raise ConfigError("prices and units must be finite", hint="markets with gaps go through simulate_weights")
    change = np.array(units, dtype=np.float64)
    change[1:] -= units[:-1]
    index = np.flatnonzero(change)
    held = np.asarray(units, dtype=np.float64)
    row, price = index, close
    if fill == "next_open":
        index = index[index < len(units) - 1]
        row, price = index + 1, open
        held = np.empty(len(units))
        held[:1], held[1:] = 0.0, units[:-1]
    quantity, paid = change[index], price[row]
    fees = fee * np.abs(quantity) * paid
    flow = np.zeros(len(units))
    flow[row] = -quantity * paid - fees
    equity = np.cumsum(flow)
    equity += cash
    equity += held * close
    return UnitsRun(equity, index.astype(np.int64), quantity, paid, fees)


@dataclass(frozen=True, eq=False)
class WeightsRun:
    """What holding the given weights did. All money in quote units.

    Shapes: `equity` `[T]` marked at each close; `positions` `[T, A]` units held after the fills of the row; `ordered` `[T, A]` signed
    quantity of the order decided on the row; `filled` and `price` `[T, A]` what traded in it (0 and NaN where nothing did); `fees`,
    `spread`, `impact` (paid) and `funding` (received) `[T]`.
    """

    equity: Floats
    positions: Floats
    ordered: Floats
    filled: Floats
    price: Floats
    fees: Floats
    spread: Floats
    impact: Floats
    funding: Floats

    @property
    def order_count(self) -> int:
        """Orders decided."""
        return int(np.count_nonzero(self.ordered))

    @property
    def traded(self) -> Floats:
        """Notional traded in each row, both sides. Shape `[T]`."""
        return np.asarray(np.nansum(np.abs(self.filled) * self.price, axis=1))


def simulate_weights(
    panel: Panel, weights: Floats, config: ExecutionConfig, *, band: float = 0.0, funding: tuple[Floats, Floats] | None = None
) -> WeightsRun:
    """Hold `weights[t]` from the open after row t.

    Args:
        weights: signed fractions of equity decided when row t is known; NaN keeps what is held.
        config: costs, starting cash, funding; `fill` must be `next_open`.
        band: changes smaller than this fraction of equity are not traded, closing excepted (as `risk.no_trade_band`).
        funding: rates settled at the open and inside each bar (`broker.funding_by_bar`), NaN where none and for instruments that pay none.

    Shapes: `weights` and both funding arrays `[T, A]`.

    Raises:
        ConfigError: if shapes differ, a weight is infinite, or fills at the signal's close are asked for.
        AccountingError: if the account goes bankrupt.
    """
    arrays = (weights, *(funding or ()))
    if any(array.shape != panel.close.shape for array in arrays):
        raise ConfigError(f"weights and funding of shapes {[array.shape for array in arrays]} for a panel of {panel.close.shape}")
    if np.isinf(weights).any():
        raise ConfigError(f"weights hold {int(np.isinf(weights).sum())} infinities", hint="NaN is the word for no decision")
    if config.fill != "next_open":
        raise ConfigError("weights fill at the next open only", hint="execution.fill: next_open")
    costs = config.costs
    rates = Rates(
        taker_fee=costs.taker_fee,
        half_spread=costs.half_spread,
        impact=float(costs.impact),
        participation=math.inf if costs.max_participation is None else float(costs.max_participation),
        unknown_slippage=costs.unknown_volume_slippage,
        decay=decay_per_bar(config.liquidity_half_life_days, panel.interval),
        bars_per_day=DAY / panel.interval,
        stale=float(config.stale_after_intervals),
        interval=panel.interval,
        band=float(band),
        budget_margin=2e-8,
    )
    none = np.empty((0, weights.shape[1]))
    at_open, inside = funding if funding is not None and config.funding else (none, none)
    market = Market(
        panel.open_time, panel.known_at, panel.open, panel.close, panel.volume, panel.present,
        np.ascontiguousarray(at_open), np.ascontiguousarray(inside),
    )  # fmt: skip
    wide, long = weights.shape, len(panel)
    ledger = Ledger(
        equity=np.empty(long), positions=np.empty(wide), ordered=np.zeros(wide), filled=np.zeros(wide), price=np.full(wide, np.nan),
        fees=np.zeros(long), spread=np.zeros(long), impact=np.zeros(long), funding=np.zeros(long),
    )  # fmt: skip
    bankrupt = run_weights(np.ascontiguousarray(weights, dtype=np.float64), float(config.initial_cash), market, rates, ledger)
    if bankrupt >= 0:
        raise AccountingError(f"equity is {ledger.equity[bankrupt]:.2f} at {iso(int(panel.known_at[bankrupt]))}: the account is bankrupt")
    return WeightsRun(**ledger._asdict())
