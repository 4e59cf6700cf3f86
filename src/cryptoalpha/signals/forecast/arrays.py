"""What the forecaster looks at, bar by bar: features of every asset and pair, and the texts of the last day.

Row t holds what was known at `panel.known_at[t]` and nothing else, and is the same to the last bit from whatever row the frame begins (as
long as `WARMUP_BARS` rows or the longest window lie before it). Values are float32, as the network reads them, and not yet scaled: scalers
belong to a training fold.

Texts stay vectors per text, with the moment each became known; the mean of a bar is formed when the bar is asked for. Means per bar and
asset would fill gigabytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.config import ForecastConfig, NewsConfig
from cryptoalpha.signals.forecast.pairs import Floats32, pair_feature_names, pair_features
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.recent_texts import RecentTexts, recent_texts
from cryptoalpha.store.tables import Floats, Times


class Encoder(Protocol):
    """What turns texts into vectors (`signals.text.open_encoder`)."""

    @property
    def width(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Floats32:
        """`n` texts → `[n, width]`; a text's vector must not depend on the texts it is encoded with."""
        ...


@dataclass(frozen=True, eq=False)
class TextRows:
    """The texts of every row, averaged when asked for.

    Shapes: `at` `[R]` the rows' moments; `known_at` `[n]` ascending, `relevance` `[n, N]`, `market` `[n]`, `vectors` `[n, D]` of the texts.
    """

    at: Times
    known_at: Times
    relevance: Floats
    market: npt.NDArray[np.bool_]
    vectors: Floats32
    window: int
    half_life: float

    @property
    def width(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    def rows(self, chosen: npt.NDArray[np.int64]) -> tuple[Floats32, Floats32]:
        """Mean vector and weight of every asset at these rows (−1 = no row). `[m]` → `[m, N, D]`, `[m, N]`; 0 where there is no text."""
        at = np.where(chosen >= 0, self.at[np.maximum(chosen, 0)], -1)
        return mean_vectors(at, self.known_at, self.relevance, self.market, self.vectors, self.window, self.half_life)


@njit(cache=True)
def mean_vectors(
    at: Times, known_at: Times, relevance: Floats, market: npt.NDArray[np.bool_], vectors: Floats32, window: int, half_life: float
) -> tuple[Floats32, Floats32]:
    """Σ w v / Σ w and Σ w over the texts known in (at − window, at], w = ½^(age / half-life) × relevance; nothing at negative moments.

    `[m]`, `[n]`, `[n, N]`, `[n]`, `[n, D]` → `[m, N, D]`, `[m, N]`. Texts about the market are summed once for all assets.
    """
    moments, assets, width = at.size, relevance.shape[1], vectors.shape[1]
    mean, weight = np.zeros((moments, assets, width), np.float32), np.zeros((moments, assets), np.float32)
    for m in range(moments):
        if at[m] < 0:
            continue
        first = np.searchsorted(known_at, at[m] - window, side="right")
        stop = np.searchsorted(known_at, at[m], side="right")
        if first == stop:
            continue
        of_market, of_assets = np.zeros(width), np.zeros((assets, width))
        market_weight, weights = 0.0, np.zeros(assets)
        for i in range(first, stop):
            fresh = math.pow(0.5, (at[m] - known_at[i]) / half_life)
            if market[i]:
                w = fresh * relevance[i, 0]
                market_weight += w
                for d in range(width):
                    of_market[d] += w * vectors[i, d]
                continue
            for a in range(assets):
                w = fresh * relevance[i, a]
                if w > 0.0:
                    weights[a] += w
                    for d in range(width):
                        of_assets[a, d] += w * vectors[i, d]
        for a in range(assets):
            total = market_weight + weights[a]
            if total > 0.0:
                weight[m, a] = total
                for d in range(width):
                    mean[m, a, d] = (of_market[d] + of_assets[a, d]) / total
    return mean, weight


@dataclass(frozen=True, eq=False)
class ForecastArrays:
    """Rows of a frame from row `begin` on. Axes: `R` rows, `N` assets, `F` pair features.

    Shapes: `price` `[R, N, 50]`, `chain` `[R, N, 30]`, `pair` `[R, N, N, F]` float32, NaN where missing; `present` `[R, N]`; `sigma`
    `[R, N]` volatility per bar; `known_at` `[R]`. `first_bar` is the number of row 0's bar since 1970: blocks are counted in it.
    """

    begin: int
    first_bar: int
    interval: int
    known_at: Times
    price: Floats32
    chain: Floats32
    pair: Floats32
    text: TextRows
    present: npt.NDArray[np.bool_]
    sigma: Floats
    pair_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.known_at)

    @property
    def assets(self) -> int:
        """N."""
        return int(self.present.shape[1])

    def fingerprint(self) -> str:
        """Hash of everything in it, for lineage and resuming."""
        digest = hashlib.blake2b(f"{self.first_bar} {self.interval} {self.pair_names}".encode(), digest_size=16)
        text = (self.text.known_at, self.text.relevance, self.text.vectors)
        for array in (self.known_at, self.price, self.chain, self.pair, self.present, self.sigma, *text):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def first_needed(frame: Frame, config: ForecastConfig, first: int) -> int:
    """The row of the frame at which the context of the block of row `first` begins, 0 at least."""
    first_bar = int(frame.panel.open_time[0]) // frame.panel.interval
    block = (first_bar + first) // config.block_bars
    return max(0, block * config.block_bars - config.context_bars - first_bar)


def forecast_arrays(
    frame: Frame, config: ForecastConfig, encoder: Encoder, *, news: NewsConfig | None = None, first: int | None = None
) -> ForecastArrays:
    """The inputs of every row that the answers from row `first` (by default `frame.first`) on look at.

    Args:
        encoder: of the texts; it is not asked where there is none.
        news: how texts count (`market_weight`, `repeat_days`): the rule of the source `news_tone`.

    Raises:
        ModelError: if the encoder answers with another shape or numbers that are not finite.
    """
    news = news or NewsConfig()
    begin, panel = first_needed(frame, config, frame.first if first is None else first), frame.panel
    returns = np.stack([bars.unit_return for bars in frame.bars], axis=1)
    window = round(config.text_window_hours * HOUR)
    repeat = round(news.repeat_days * DAY)
    texts = recent_texts(frame, window=window, repeat=repeat, market_weight=news.market_weight, begin=begin)
    return ForecastArrays(
        begin=begin,
        first_bar=int(panel.open_time[begin]) // panel.interval,
        interval=panel.interval,
        known_at=panel.known_at[begin:],
        price=as_float32(frame.price_from(begin)),
        chain=as_float32(frame.chain_from(begin)),
        pair=pair_features(returns, config.correlation_bars, begin),
        text=TextRows(
            at=panel.known_at[begin:],
            known_at=texts.known_at,
            relevance=texts.relevance,
            market=texts.market,
            vectors=encoded(texts, encoder),
            window=window,
            half_life=config.text_half_life_hours * HOUR,
        ),
        present=frame.usable[begin:],
        sigma=frame.sigma_from(begin),
        pair_names=pair_feature_names(config.correlation_bars),
    )


def as_float32(values: Floats) -> Floats32:
    """Rounded to float32; what overflows there is NaN: missing, as what overflows float64 is. Any shape."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    rounded[~np.isfinite(rounded)] = np.nan
    return rounded


def encoded(texts: RecentTexts, encoder: Encoder) -> Floats32:
    """A vector per text; the encoder reads each wording once. `[n, D]`."""
    place = {text: number for number, text in enumerate(dict.fromkeys(texts.texts))}
    if not place:
        return np.zeros((0, encoder.width), np.float32)
    vectors = np.ascontiguousarray(encoder.encode(list(place)), dtype=np.float32)
    if vectors.shape != (len(place), encoder.width) or not np.isfinite(vectors).all():
        raise ModelError(
            f"the text encoder answered {vectors.shape} for {len(place)} texts, or with numbers that are not finite; expected "
            f"({len(place)}, {encoder.width})",
            hint="check [signals.text] encoder",
        )
    return vectors[[place[text] for text in texts.texts]]
