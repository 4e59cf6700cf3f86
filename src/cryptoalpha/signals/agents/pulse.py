"""How texts sound right now, between two bars: for people, alarms and whoever must not wait for the bar.

    value = Σ w tone / (Σ w + shrinkage)        w = ½^(age / half-life) × relevance × the sieve's weight

the level that the news tone compares with its past month, not compared with anything. The book's signals come from the book alone, at the
bar. Sums are kept in steps of a ninety-sixth of the window, so a text costs the same whatever was said before; a step leaves as a whole,
when a text in it weighs a sixteenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Signal
from cryptoalpha.signals.agents.intake import Counted
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.signals.news import HALF_CONFIDENCE
from cryptoalpha.signals.tape import proposed_actions

SOURCE = "text_pulse"
STEPS = 96


class Pulse:
    """Sums over the texts of the last window, for every instrument.

    Args:
        instruments, assets: of the book, in the same order.
        config: half-life, window, market weight and shrinkage of the news tone; when an action is proposed.
    """

    def __init__(self, instruments: Sequence[str], assets: Sequence[str], config: SignalsConfig) -> None:
        news = config.news
        self._instruments, self._assets, self._config = tuple(instruments), tuple(assets), config
        self._half_life, self._step = news.half_life_hours * HOUR, max(1, round(news.window_hours * HOUR / STEPS))
        self._numbers = np.full(STEPS, -1, np.int64)
        self._total, self._weight = np.zeros((STEPS, len(assets))), np.zeros((STEPS, len(assets)))

    def add(self, texts: Sequence[Counted]) -> list[Signal]:
        """Texts that count, in the order in which they became known; returns one signal for each instrument that one of them concerns."""
        newest = {place: i for i, text in enumerate(texts) for place in self._concerned(text)}
        said: dict[int, Signal] = {}
        for i, text in enumerate(texts):
            if not self._take(text):
                continue
            for place in self._concerned(text):
                if newest[place] == i:  # now: what comes later may end the steps this is made of
                    said[place] = self._signal(place, text)
        return [signal for _, signal in sorted(said.items())]

    def level(self, place: int, now: int) -> tuple[float, float]:
        """Σ w tone and Σ w of one instrument at a moment."""
        newest = now // self._step
        there = (self._numbers > newest - STEPS) & (self._numbers <= newest)
        fresh = np.exp2((self._numbers[there] * self._step - now) / self._half_life)
        return float(fresh @ self._total[there, place]), float(fresh @ self._weight[there, place])

    def _concerned(self, text: Counted) -> list[int]:
        """Places of the instruments a text says something about."""
        if text.named:
            return [place for place, asset in enumerate(self._assets) if asset in text.named]
        return list(range(len(self._assets))) if self._config.news.market_weight else []

    def _take(self, text: Counted) -> bool:
        """Add one text; whether it came in time."""
        known_at = text.post.known_at
        relevance = text.weight * (1.0 if text.named else self._config.news.market_weight)
        number = known_at // self._step
        row = int(number % STEPS)
        if self._numbers[row] > number:
            return False  # it came a whole window late
        if self._numbers[row] < number:
            self._numbers[row], self._total[row], self._weight[row] = number, 0.0, 0.0
        weight = relevance * math.exp2((known_at - int(number) * self._step) / self._half_life)
        for place in self._concerned(text):
            self._total[row, place] += weight * text.tone
            self._weight[row, place] += weight
        return True

    def _signal(self, place: int, text: Counted) -> Signal:
        config, known_at = self._config, text.post.known_at
        total, weight = self.level(place, known_at)
        value = min(1.0, max(-1.0, total / (weight + config.news.shrinkage)))
        (action,) = proposed_actions(np.array([value]), config.act_at, config.act_strongly_at)
        return Signal(
            happened_at=text.post.happened_at,
            known_at=known_at,
            source=SOURCE,
            type="news",
            instrument=self._instruments[place],
            value=value,
            confidence=min(1.0, 1.0 - 0.5 ** (weight / HALF_CONFIDENCE)),
            predicted_impact=config.typical_ic * value,
            proposed_action=action,
            horizon=round(config.news.horizon_days * DAY),
            reference=f"{text.post.source}:{text.post.post_id}",
        )
