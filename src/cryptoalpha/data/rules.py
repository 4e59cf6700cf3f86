"""What a spot venue allows: lot, tick and smallest order of an instrument.

Sources without a venue to ask (files, sample, simulated) use Binance-like steps: a table for well-known assets, and for others steps that
follow from the price of the FIRST bar alone, so that later prices never change how early orders were rounded.
"""

from __future__ import annotations

import math
from decimal import Decimal

from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.store.tables import BarTable

_STEPS = {  # asset: lot, tick; Binance spot against USDT, the finest tick each had while these assets were listed
    "BTC": ("0.00001", "0.01"),
    "ETH": ("0.0001", "0.01"),
    "LTC": ("0.001", "0.01"),
    "SOL": ("0.001", "0.0001"),
    "LINK": ("0.01", "0.0001"),
    "ADA": ("0.1", "0.00001"),
    "XRP": ("0.1", "0.00001"),
    "DOGE": ("1", "0.0000001"),
}
_DOLLARS = ("USDT", "USDC", "BUSD", "USD")
_LOT_VALUE = 0.5
_TICK_SHARE = 1e-5


def split_instrument(instrument: str) -> tuple[str, str]:
    """Base and quote of `BTC/USDT`; a settlement suffix (`BTC/USDT:USDT`) is not part of the quote."""
    base, _, quote = instrument.partition("/")
    return base, quote.partition(":")[0]


def _step_below(value: float) -> Decimal:
    """The largest power of ten that is not above `value`."""
    return Decimal(1).scaleb(math.floor(math.log10(value)))


def rules_for(table: BarTable, *, venue: str, perpetual: bool = False) -> InstrumentRules:
    """Lot, tick and smallest notional of the instrument of `table`, known from the start of time.

    Where the table above does not know the asset: a lot worth at most half a quote unit and a tick of at most 1/100,000 of the first open.
    """
    base, quote = split_instrument(table.instrument)
    if quote in _DOLLARS and base in _STEPS:
        lot, tick = (Decimal(step) for step in _STEPS[base])
    else:
        first = float(table.open[0]) if len(table) else 1.0
        lot, tick = _step_below(_LOT_VALUE / first), _step_below(first * _TICK_SHARE)
    return InstrumentRules(
        happened_at=0,
        known_at=0,
        instrument=table.instrument,
        venue=venue,
        base=base,
        quote=quote,
        lot=lot,
        tick=tick,
        min_notional=Decimal(5) if quote in _DOLLARS else Decimal("0.0001"),
        perpetual=perpetual,
    )
