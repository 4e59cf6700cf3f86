"""Features of the last frame, kept for the next one: live, each bar adds one row to hundreds that the filter looks at.

Kept rows are used only where the new frame shows the very bars they were made of, every byte of them from as far back as a feature can see.
So whoever asks gets what computing anew would give, to the last bit, and a corrected bar is noticed.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.regime.features import features_reach, newest_features
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats

_LOOKED_AT = ("open_time", "open", "high", "low", "close", "present")


class FeatureMemory:
    """The features of the last frame asked about."""

    def __init__(self) -> None:
        self._panel: Panel | None = None
        self._begin = 0
        self._features: Floats = np.empty((0, 0, 0))

    def features(self, frame: Frame, begin: int) -> Floats:
        """The features of the rows from `begin` on. `[T − begin, A, 20]`."""
        shift, end = self._known(frame.panel, begin)
        place = begin + shift - self._begin
        parts = [self._features[place : place + end - begin]] if end > begin else []
        if end < len(frame.panel):
            parts.append(newest_features(frame.beginning(end)))
        found = np.concatenate(parts)
        self._panel, self._begin, self._features = frame.panel, begin, found
        return found

    def _known(self, panel: Panel, begin: int) -> tuple[int, int]:
        """By how many rows the kept frame began earlier, and up to which row of the new one its features stand; (0, `begin`) = none."""
        old, nothing = self._panel, (0, begin)
        if old is None or old.interval != panel.interval or old.instruments != panel.instruments:
            return nothing
        shift = int(panel.open_time[0] - old.open_time[0]) // panel.interval
        end = min(len(panel), len(old) - shift)
        # Both frames must hold all that their rows can see, or begin with the same bar.
        whole = shift == 0 or begin >= features_reach(panel.interval)
        if shift < 0 or end <= begin or begin + shift < self._begin or not whole:
            return nothing
        same = (getattr(old, name)[shift : shift + end].tobytes() == getattr(panel, name)[:end].tobytes() for name in _LOOKED_AT)
        return (shift, end) if all(same) else nothing
