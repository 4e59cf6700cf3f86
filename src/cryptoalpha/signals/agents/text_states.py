"""What a text agent's networks see: the mean vector of an asset's recent texts, and what the source makes of them.

One row per bar and instrument at which the source has an opinion. The vector is Σ w v / Σ w over the texts of the window, w as the news
tone weighs them (½^(age / half-life) × relevance × the sieve's weight). Beside it stand the opinion's value, its confidence and
ln(1 + Σ w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.config import NewsConfig
from cryptoalpha.signals.forecast.arrays import encoded, mean_vectors
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.recent_texts import recent_texts
from cryptoalpha.signals.text.encoder import TextEncoder
from cryptoalpha.store.tables import Floats

READINGS = 3
"""Numbers beside the vector."""

Inputs = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TextStates:
    """`row`, `asset` `[n]`: place of each state in the frame, in that order; `inputs` `[n, D + 3]`."""

    row: Rows
    asset: Rows
    inputs: Inputs

    def __len__(self) -> int:
        return len(self.row)


def text_states(
    frame: Frame, value: Floats, confidence: Floats, encoder: TextEncoder, news: NewsConfig, *, rows: Sequence[int] | Rows | None = None
) -> TextStates:
    """States at the frame's rows (all of them by default) at which there is an opinion.

    Shapes: `value`, `confidence` `[T, A]`, NaN where there is none.
    """
    chosen = np.arange(len(frame.panel)) if rows is None else np.asarray(rows, np.int64)
    place, asset = np.nonzero(np.isfinite(value[chosen]) & np.isfinite(confidence[chosen]))
    width = encoder.width + READINGS
    if not place.size:
        return TextStates(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, width), np.float32))
    window, half_life = round(news.window_hours * HOUR), news.half_life_hours * HOUR
    repeat = round(news.repeat_days * DAY)
    texts = recent_texts(frame, window=window, repeat=repeat, market_weight=news.market_weight, begin=int(chosen[0]))
    mean, weight = mean_vectors(
        frame.panel.known_at[chosen], texts.known_at, texts.relevance, texts.market, encoded(texts, encoder), window, half_life
    )
    readings = np.stack([value[chosen], confidence[chosen], np.log1p(weight.astype(np.float64))], axis=2)
    inputs = np.concatenate((mean, readings.astype(np.float32)), axis=2)
    return TextStates(chosen[place], asset.astype(np.int64), np.ascontiguousarray(inputs[place, asset]))
