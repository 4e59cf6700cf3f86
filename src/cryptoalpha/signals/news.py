"""News tone: what was published about an asset, and about the market, weighed by age.

At each bar the texts known in the last day count: weight ½^(age / half-life), times 1 if the text names the asset, times the market
weight if it names no asset of the book, times 0 if it names others only. Tone = Σ weight × tone / (Σ weight + shrinkage). It is compared
with its own mean and deviation over the past month, because headlines lean to one side for months: value = tanh(z / 2).

No text in the last day, no opinion. A text seen before within a week does not count again. Confidence = 1 − ½^(Σ weight / 2).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.frame import Frame, slow_reach, squash_all
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.news_memory import NewsMemory
from cryptoalpha.signals.rolling import mean_and_deviation, ratio
from cryptoalpha.signals.text.tone import Tone, lexicon_tone
from cryptoalpha.store.tables import Floats, Times

HALF_CONFIDENCE = 2.0
"""Weight of texts at which confidence is one half: two fresh ones."""


@njit(cache=True)
def _weigh(
    at: Times, known_at: Times, tone: Floats, relevance: Floats, half_life: float, window: int
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Weighted tone, weight and newest text at each moment. `[T]`, `[n]`, `[n]`, `[n, A]` → `[T, A]` each."""
    rows, assets = at.size, relevance.shape[1]
    total, weight = np.zeros((rows, assets)), np.zeros((rows, assets))
    newest = np.full((rows, assets), -1, np.int64)
    first = stop = 0
    for t in range(rows):
        while stop < known_at.size and known_at[stop] <= at[t]:
            stop += 1
        while first < stop and known_at[first] <= at[t] - window:
            first += 1
        for i in range(first, stop):
            fresh = math.pow(0.5, (at[t] - known_at[i]) / half_life)
            for a in range(assets):
                if relevance[i, a] > 0.0:
                    total[t, a] += fresh * relevance[i, a] * tone[i]
                    weight[t, a] += fresh * relevance[i, a]
                    newest[t, a] = i
    return total, weight, newest


class NewsTone:
    """The tone of the last day's texts against its usual level.

    Args:
        half_life_hours: age at which a text weighs half.
        window_hours: age at which it no longer counts.
        market_weight: weight of a text that names no asset of the book.
        shrinkage: weight of imagined neutral texts.
        history_days: days of past tone that say what is usual.
        repeat_days: days within which a repeated text does not count.
        horizon_days: days the opinion looks ahead.
        typical_ic: believed correlation with the return ahead, for the expected move.
        tones: reads the tones of texts; by default the lexicon's.
    """

    source = "news_tone"
    type = "news"

    def __init__(
        self,
        *,
        half_life_hours: float,
        window_hours: float,
        market_weight: float,
        shrinkage: float,
        history_days: float,
        repeat_days: float,
        horizon_days: float,
        typical_ic: float,
        tones: Tone = lexicon_tone,
    ) -> None:
        self.horizon = round(horizon_days * DAY)
        self._tones = tones
        self._half_life, self._window = half_life_hours * HOUR, round(window_hours * HOUR)
        self._shrinkage, self._history_days = shrinkage, history_days
        self._memory = NewsMemory(window=self._window, repeat=round(repeat_days * DAY), market_weight=market_weight)
        self._ic = typical_ic

    def reach(self, interval: int) -> int:
        return slow_reach(self._history_days, interval)

    def compute(self, frame: Frame) -> Opinions:
        at = frame.panel.known_at
        known_total, known_weight = self._memory.rows(frame)
        begin = len(known_total)
        posts = self._memory.texts(frame, begin)
        tones = self._tones(posts.texts)
        total, weight, newest = _weigh(at[begin:], posts.known_at, tones, posts.relevance, self._half_life, self._window)
        if begin:
            total, weight = np.concatenate((known_total, total)), np.concatenate((known_weight, weight))
            newest = np.concatenate((np.full((begin, newest.shape[1]), -1, np.int64), newest))
        self._memory.keep(frame, total, weight)
        starts = [int(table.known_at[0]) for table in frame.dataset.posts.values() if len(table)]
        if not starts:
            nothing = np.full(frame.shape, np.nan)
            return opinions(frame, nothing, nothing, nothing)
        silent = weight == 0.0
        level = np.where(silent, 0.0, total / np.where(silent, 1.0, weight + self._shrinkage))
        level[at < min(starts)] = np.nan  # no text has ever been published: that is not a neutral day
        value = squash_all(0.5 * self._standing(frame, level))
        value[silent] = np.nan
        confidence = 1.0 - _halvings(np.ascontiguousarray(weight / HALF_CONFIDENCE).ravel()).reshape(weight.shape)
        return opinions(frame, value, confidence, self._ic * value, reference=newest, references=posts.names)

    def _standing(self, frame: Frame, level: Floats) -> Floats:
        """z of the level among the past month's levels, one per row of the slow grid. `[T, A]` → `[T, A]`."""
        window = max(2, round(self._history_days * DAY / frame.slow_interval))
        sampled = np.ascontiguousarray(level[frame.slow_rows].T)
        mean, deviation = np.full(sampled.shape, np.nan), np.full(sampled.shape, np.nan)
        begin = max(0, frame.slow_first - window)
        for a, column in enumerate(sampled):
            mean[a, begin:], deviation[a, begin:] = mean_and_deviation(column[begin:], window)
        mean, deviation = frame.from_slow(tuple(mean)), frame.from_slow(tuple(deviation))
        return ratio(level - mean, np.where(deviation > 0.0, deviation, np.nan))


@njit(cache=True)
def _halvings(x: Floats) -> Floats:
    """½^x, one element at a time. `[n]` → `[n]`."""
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = math.pow(0.5, x[i])
    return out
