"""Fear and greed: extreme greed is sold, extreme fear is bought.

Value = −tanh(excess), excess = the part of z beyond the extreme, z = the index among its own past year. Between the extremes the value is
0: the index knows nothing there. Market-wide: the same opinion for every asset. Confidence = share of the history that is known ×
strength.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.frame import Frame, squash_all
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.readings import trailing_standing
from cryptoalpha.store.as_of import as_of_value

MARKET = "*"
"""The asset of market-wide readings."""


class FearGreed:
    """Against the mood, at its extremes.

    Args:
        history_days: days of the index that say what is usual.
        extreme: standard deviations at which the opinion begins.
        horizon_days: days the opinion looks ahead.
        stale_after_days: age at which the newest reading no longer counts.
        typical_ic: believed correlation with the return ahead, for the expected move.
    """

    source = "fear_greed"
    type = "mood"

    def __init__(self, *, history_days: float, extreme: float, horizon_days: float, stale_after_days: float, typical_ic: float) -> None:
        self.horizon = round(horizon_days * DAY)
        self._history, self._stale = round(history_days * DAY), round(stale_after_days * DAY)
        self._extreme = extreme
        self._ic = typical_ic

    def reach(self, interval: int) -> int:
        return 0  # windows lie on the readings, not on the bars

    def compute(self, frame: Frame) -> Opinions:
        z, share = np.full(frame.shape, np.nan), np.full(frame.shape, np.nan)
        table = frame.dataset.readings.get((MARKET, "fear_greed"))
        if table is not None and len(table):
            standing = trailing_standing(table.known_at, table.value, self._history)
            for column, values in zip((z, share), standing, strict=True):
                column[:] = as_of_value(table.known_at, values, frame.panel.known_at, max_age=self._stale)[:, None]
        excess = np.sign(z) * np.maximum(np.abs(z) - self._extreme, 0.0)
        value = -squash_all(excess)
        return opinions(frame, value, share * np.abs(value), self._ic * value)
