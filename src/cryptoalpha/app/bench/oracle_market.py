"""The oracle market: 525,600 one-minute bars whose EMA-cross orders and equity are known from five independent engines.

Market A opens every bar at the close before, so it cannot tell fills at the signal's close from fills at the next open; market B has
gaps and can. The rule: hold one unit while the 60-bar EMA lies above the 240-bar EMA (from index 240 on), 10 basis points a trade,
1,000,000 cash.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from cryptoalpha.core.errors import ValidationFailedError
from cryptoalpha.core.time import MINUTE, parse_time
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import BarTable, Dataset, Floats

BARS = 525_600
CASH = 1_000_000.0
FEE = 0.001
FAST, SLOW = 60, 240
INSTRUMENT = "ORACLE/USDT"
DIGEST = {
    "A": "2b3878b64ff8df480072bdb575a36bae01ed8986dbbc78ad610af835e3086db1",
    "B": "305590abd45f94ce424da6a2e9eaf4af5d9688dbd853be9b12cad6241fa20b7c",
}
"""sha256 of the C-order float64 array (open, high, low, close, volume); NumPy may change its generators, so it is checked first."""

EQUITY = {"A": 903_475.27, "B": 903_405.66}
ORDERS = 2_670


def oracle_bars(market: Literal["A", "B"]) -> Floats:
    """Open, high, low, close, volume of the market. Shape `[525600, 5]`.

    Raises:
        ValidationFailedError: if this NumPy draws other numbers than the golden results were computed on.
    """
    g = np.random.default_rng(7)
    r = g.standard_t(4, BARS) * 0.0006
    h1, l1 = g.normal(0, 2e-4, BARS), g.normal(0, 2e-4, BARS)
    v = g.gamma(2, 5, BARS)
    c = 30000 * np.exp(np.cumsum(r))
    o = np.concatenate([[30000.0], c[:-1]])
    h, low = np.maximum(o, c) * (1 + np.abs(h1)), np.minimum(o, c) * (1 - np.abs(l1))
    o, h, low, c, v = (np.round(column, 2) for column in (o, h, low, c, v))
    h, low = np.maximum.reduce([o, h, low, c]), np.minimum.reduce([o, h, low, c])
    if market == "B":
        o = np.round(o * (1 + np.random.default_rng(11).normal(0, 5e-4, BARS)), 2)
        h, low = np.maximum(h, o), np.minimum(low, o)
    bars = np.ascontiguousarray(np.column_stack([o, h, low, c, v]))
    found = hashlib.sha256(bars.tobytes()).hexdigest()
    if found != DIGEST[market]:
        raise ValidationFailedError(
            f"oracle market {market} has sha256 {found[:16]}…, expected {DIGEST[market][:16]}…",
            hint=f"NumPy {np.__version__} draws other numbers; the golden results hold for NumPy 2.4",
        )
    return bars


def oracle_panel(bars: Floats) -> Panel:
    """The market as a panel of one instrument, from 2024-01-01 00:00 UTC."""
    start = parse_time("2024-01-01")
    o, h, low, c, v = (np.ascontiguousarray(column) for column in bars.T)
    table = BarTable(INSTRUMENT, MINUTE, start + MINUTE * np.arange(len(bars), dtype=np.int64), o, h, low, c, v)
    return build_panel(Dataset("oracle", {INSTRUMENT: table}), since=start, until=start + MINUTE * len(bars))
