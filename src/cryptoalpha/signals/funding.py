"""Funding: when one side of the perpetual market pays dearly to stay in, it is crowded, and crowds are squeezed.

Value = −tanh(z / 2), z = the mean funding rate of the last days among such means of the last months. Known per asset: an asset without
funding has no opinion. Confidence = share of the history that is known × strength.

Source: contrarian funding is market practice; Schmeling, Schrimpf & Todorov (2023), "Crypto carry", find that high carry foretells crashes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.frame import Frame, squash_all
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.readings import trailing_mean, trailing_standing
from cryptoalpha.store.as_of import as_of_value
from cryptoalpha.store.tables import Floats, ReadingTable


class Funding:
    """Against the crowd, by the funding rate.

    Args:
        mean_days: days over which settlements are averaged.
        history_days: days of such averages that say what is usual.
        horizon_days: days the opinion looks ahead.
        stale_after_days: age at which the newest settlement no longer counts.
        typical_ic: believed correlation with the return ahead, for the expected move.
    """

    source = "funding"
    type = "funding"

    def __init__(self, *, mean_days: float, history_days: float, horizon_days: float, stale_after_days: float, typical_ic: float) -> None:
        self.horizon = round(horizon_days * DAY)
        self._mean, self._history = round(mean_days * DAY), round(history_days * DAY)
        self._stale = round(stale_after_days * DAY)
        self._ic = typical_ic

    def reach(self, interval: int) -> int:
        return 0  # windows lie on the readings, not on the bars

    def compute(self, frame: Frame) -> Opinions:
        z, share = np.full(frame.shape, np.nan), np.full(frame.shape, np.nan)
        for a, asset in enumerate(frame.assets):
            table = frame.dataset.readings.get((asset, "funding_rate"))
            if table is not None and len(table):
                for column, values in zip((z, share), _standing(table, self._mean, self._history), strict=True):
                    column[:, a] = as_of_value(table.known_at, values, frame.panel.known_at, max_age=self._stale)
        value = -squash_all(0.5 * z)
        return opinions(frame, value, share * np.abs(value), self._ic * value)


@lru_cache(maxsize=128)
def _standing(table: ReadingTable, mean: int, history: int) -> tuple[Floats, Floats]:
    """`trailing_standing` of the mean of a table, which never changes: settlements come a few times a day, bars each hour."""
    return trailing_standing(table.known_at, trailing_mean(table.known_at, table.value, mean), history)
