"""What the news tone of the last frame rests on, kept for the next one: live, each bar adds one row and a few texts to a month of both.

Rows and texts are kept only while frames show the same past (`signals.history`), so whoever asks gets what computing anew would give, to
the last bit: whether a text repeats one before it depends on texts known before it alone, and so does what a row has summed up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.recent_texts import RecentTexts, gathered, named_in, recent_texts, spelt
from cryptoalpha.store.tables import Floats, Times


@dataclass
class _Kept:
    """Texts that count, in the order in which they became known, and when each text was last seen."""

    known: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    named: list[tuple[float, ...]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    last_seen: dict[str, int] = field(default_factory=dict)
    crowded: int = 1024
    """Texts in `last_seen` beyond which those too old to matter are let go."""


class NewsMemory:
    """Sums of rows and texts of the last frame asked about.

    Args:
        window, repeat, market_weight: as `recent_texts` takes them.
    """

    def __init__(self, *, window: int, repeat: int, market_weight: float) -> None:
        self._window, self._repeat, self._market_weight = window, repeat, market_weight
        self._history: object | None = None
        self._through = self._opens = 0
        """Texts known up to the one are in `_kept`, those known after the other are whole."""
        self._kept = _Kept()
        self._open_time: Times = np.empty(0, np.int64)
        self._total: Floats = np.empty((0, 0))
        self._weight: Floats = np.empty((0, 0))

    def rows(self, frame: Frame) -> tuple[Floats, Floats]:
        """Sums of the frame's first rows, as many as are known and nobody asks about. `[K, A]` each."""
        opens = frame.panel.open_time
        known = self._open_time
        if frame.history is None or frame.history is not self._history or not known.size or known[0] > opens[0]:
            return self._total[:0], self._weight[:0]
        begin = int(opens[0] - known[0]) // frame.panel.interval
        count = min(len(known) - begin, frame.first)
        if count < 1 or int(frame.panel.known_at[count]) - self._window < self._opens:
            return self._total[:0], self._weight[:0]
        return self._total[begin : begin + count], self._weight[begin : begin + count]

    def texts(self, frame: Frame, begin: int) -> RecentTexts:
        """The texts that can count at rows from `begin` on; `begin` rows are known to `rows`."""
        if not begin:
            return self._all(frame)
        opens, ends = int(frame.panel.known_at[begin]) - self._window, int(frame.panel.known_at[-1])
        self._add(frame, ends)
        return self._recent(frame, opens)

    def keep(self, frame: Frame, total: Floats, weight: Floats) -> None:
        """Remember the sums of all rows of the frame whose texts were asked for last. `[T, A]` each."""
        self._history = frame.history
        self._open_time, self._total, self._weight = frame.panel.open_time, total, weight

    def _all(self, frame: Frame) -> RecentTexts:
        """Everything anew. What the next frame may need of it is kept where there will be one."""
        found = recent_texts(frame, window=self._window, repeat=self._repeat, market_weight=self._market_weight)
        self._kept = _Kept()
        if frame.history is not None:
            self._opens = int(frame.panel.known_at[min(frame.first, len(frame.panel) - 1)]) - self._window
            self._through = self._opens - self._repeat
            self._add(frame, int(frame.panel.known_at[-1]))
        return found

    def _add(self, frame: Frame, ends: int) -> None:
        """Take the texts that became known since."""
        kept = self._kept
        fresh = gathered(frame.dataset, self._through, ends)
        for i in np.argsort(np.array(fresh.known, np.int64), kind="stable").tolist():
            known, text = fresh.known[i], fresh.texts[i]
            said = spelt(text)
            repeated = said in kept.last_seen and known - kept.last_seen[said] < self._repeat
            kept.last_seen[said] = known
            if known > self._opens and said and not repeated:
                kept.known.append(known)
                kept.texts.append(text)
                kept.names.append(fresh.name(i))
                kept.named.append(named_in(text, frame.assets))
                kept.weights.append(fresh.weights[i])
        self._through = max(self._through, ends)

    def _recent(self, frame: Frame, opens: int) -> RecentTexts:
        """What is kept and known after `opens`; the rest is let go."""
        kept = self._kept
        gone = int(np.searchsorted(np.array(kept.known, np.int64), opens, side="right"))
        for column in (kept.known, kept.texts, kept.names, kept.named, kept.weights):
            del column[:gone]
        self._opens = max(self._opens, opens)
        if len(kept.last_seen) > kept.crowded:
            forgotten = self._through - self._repeat
            kept.last_seen = {said: known for said, known in kept.last_seen.items() if known > forgotten}
            kept.crowded = 2 * len(kept.last_seen) + 1024
        return RecentTexts.of(kept.known, kept.texts, kept.names, kept.named, kept.weights, frame.assets, self._market_weight)
