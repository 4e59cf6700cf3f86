"""The simple rules every strategy is measured against, as weights decided once a day at 00:00 UTC.

A row of weights that is NaN means "no decision: keep the units held". Rules see daily closes (the last bar known by midnight UTC) and
nothing later. Each instrument gets a 1/N share of the book, N being the instruments of the book. On bars longer than a day the rules decide
at each close, and their windows count bars.

Parameters are the customary ones and are not tuned here; they were known to work in hindsight, so these are bars to beat, not forecasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats, Times

TARGET_VOLATILITY = 0.30
VOLATILITY_DAYS = 30
TREND_DAYS = 50
MOMENTUM_DAYS = 28
TREND_SPANS = (8, 16, 32, 64)
WARMUP_DAYS = 200
"""History before a period that the slowest rule (a 64-day EMA) wants."""


def daily_rows(panel: Panel) -> Times:
    """The grid rows in which a UTC day ends: the moments at which the rules decide. Shape `[D]`.

    Whether a row is one of them is seen from its own times, never from whether more of its day is to come. An outage at midnight is no
    excuse: the rule then decides on the last closes there are.
    """
    return np.flatnonzero((panel.open_time + panel.interval) // DAY > panel.open_time // DAY).astype(np.int64)


def daily_closes(panel: Panel, rows: Times) -> Floats:
    """Last known close of each instrument at each of `rows`; NaN before its first bar. Shape `[D, A]`."""
    index = np.where(panel.present, np.arange(len(panel))[:, None], -1)
    newest = np.maximum.accumulate(index, axis=0)[rows]
    closes = np.take_along_axis(panel.close, np.maximum(newest, 0), axis=0)
    return np.asarray(np.where(newest >= 0, closes, np.nan))


def _rolling_mean(values: Floats, window: int) -> Floats:
    """Mean of the last `window` rows, NaN until there are that many. Shape `[D, A]` → `[D, A]`."""
    out = np.full(values.shape, np.nan)
    if len(values) >= window:
        out[window - 1 :] = sum(_lagged(values, window)) / window
    return out


def _lagged(values: Floats, window: int) -> list[Floats]:
    """The `window` values of every full window, oldest first: adding them up in this order does not depend on how many windows there are.
    Shape `[D, A]` → `window` arrays `[D − window + 1, A]`."""
    return [values[place : len(values) - window + 1 + place] for place in range(window)]


def daily_volatility(closes: Floats) -> Floats:
    """Annualised standard deviation (ddof 1, 365 days) of the last 30 daily log returns. Shape `[D, A]`."""
    returns = np.diff(np.log(closes), axis=0, prepend=np.full((1, closes.shape[1]), np.nan))
    out = np.full(closes.shape, np.nan)
    if len(returns) >= VOLATILITY_DAYS:
        mean = _rolling_mean(returns, VOLATILITY_DAYS)[VOLATILITY_DAYS - 1 :]
        variance = sum((lagged - mean) ** 2 for lagged in _lagged(returns, VOLATILITY_DAYS)) / (VOLATILITY_DAYS - 1)
        out[VOLATILITY_DAYS - 1 :] = np.sqrt(variance * DAYS_PER_YEAR)
    return out


def volatility_share(closes: Floats) -> Floats:
    """`min(1, 30 % / volatility)`; 0 while the volatility is unknown."""
    volatility = daily_volatility(closes)
    known = volatility > 0.0
    return np.asarray(np.where(known, np.minimum(1.0, TARGET_VOLATILITY / np.where(known, volatility, 1.0)), 0.0))


def equal_weight_hold(closes: Floats) -> Floats:
    """1/N in each instrument as soon as it has a price, never touched again."""
    weights = np.full(closes.shape, np.nan)
    listed = np.isfinite(closes)
    first = listed & ~np.vstack([np.zeros((1, closes.shape[1]), bool), listed[:-1]])
    weights[first] = 1.0 / closes.shape[1]
    return weights


def volatility_targeted_hold(closes: Floats) -> Floats:
    """Always long, scaled to 30 % volatility, never above 1/N."""
    return np.asarray(volatility_share(closes) / closes.shape[1])


def trend_50(closes: Floats) -> Floats:
    """Long while the close is above its 50-day mean, else flat."""
    return np.asarray(np.where(closes > _rolling_mean(closes, TREND_DAYS), 1.0, 0.0) / closes.shape[1])


def momentum_28(closes: Floats) -> Floats:
    """Long while the 28-day return is positive, scaled to 30 % volatility."""
    before = np.vstack([np.full((MOMENTUM_DAYS, closes.shape[1]), np.nan), closes])[: len(closes)]
    return np.asarray(np.where(closes > before, 1.0, 0.0) * volatility_share(closes) / closes.shape[1])


def multi_speed_trend(closes: Floats) -> Floats:
    """Mean over 8, 16, 32 and 64 days of tanh(distance to the EMA in volatility units), long or flat, scaled to 30 % volatility.

    The strongest simple rule known to us. The distance is `ln(close / EMA) / (σ_day √span)`.
    """
    volatility = daily_volatility(closes) / np.sqrt(DAYS_PER_YEAR)
    strength = np.zeros(closes.shape)
    for span in TREND_SPANS:
        scale = np.where(volatility > 0.0, volatility * np.sqrt(span), np.nan)
        strength += np.tanh(np.log(closes / _ema(closes, span)) / scale)
    strength /= len(TREND_SPANS)
    return np.asarray(np.where(strength > 0.0, strength, 0.0) * volatility_share(closes) / closes.shape[1])


def _ema(closes: Floats, span: int) -> Floats:
    """Exponential mean with alpha 2/(span + 1), seeded with the first close of each instrument."""
    alpha = 2.0 / (span + 1.0)
    out = np.empty(closes.shape)
    level = np.full(closes.shape[1], np.nan)
    for day, row in enumerate(closes):
        level = np.where(np.isfinite(level), np.where(np.isfinite(row), level + alpha * (row - level), level), row)
        out[day] = level
    return out


RULES: Mapping[str, Callable[[Floats], Floats]] = {
    "volatility-targeted hold": volatility_targeted_hold,
    "50-day trend": trend_50,
    "28-day momentum × volatility target": momentum_28,
    "multi-speed trend": multi_speed_trend,
}
"""The rules that decide daily, by the name reports print: daily closes `[D, A]` → weights `[D, A]`."""


def benchmark(instruments: Sequence[str]) -> int:
    """The instrument that `hold` holds: Bitcoin where the book has it, else the first. Returns its place."""
    return next((place for place, name in enumerate(instruments) if name.startswith("BTC/")), 0)


def hold(closes: Floats, place: int) -> Floats:
    """Everything in one instrument from the moment it has a price, never touched again. Shape `[T, A]`."""
    weights = np.full(closes.shape, np.nan)
    listed = np.flatnonzero(np.isfinite(closes[:, place]))
    weights[listed[:1], place] = 1.0
    return weights


def baseline_weights(history: Panel, first_row: int) -> dict[str, Floats]:
    """Weights of every baseline on the grid rows from `first_row` on, decided on all of `history`.

    The buy-and-hold rules start at `first_row`; the others enter it with what they had decided before.

    Shapes: each `[T − first_row, A]`, NaN on rows without a decision.
    """
    place = benchmark(history.instruments)
    own = daily_closes(history, np.arange(first_row, len(history)))
    own[np.cumsum(history.present[first_row:], axis=0) == 0] = np.nan  # nothing can be bought before its first bar in the period
    weights = {f"hold {history.instruments[place].split('/')[0]}": hold(own, place)}
    if len(history.instruments) > 1:
        weights["equal-weight hold"] = equal_weight_hold(own)
    rows = daily_rows(history)
    closes = daily_closes(history, rows)
    inside = rows >= first_row
    for name, rule in RULES.items():
        decided = rule(closes)
        out = np.full(own.shape, np.nan)
        out[rows[inside] - first_row] = decided[inside]
        earlier = decided[~inside]
        if len(earlier) and not np.isfinite(out[0]).any():
            out[0] = earlier[-1]
        weights[name] = out
    return weights


def shifted_copies(weights: Floats, count: int, rng: np.random.Generator) -> list[Floats]:
    """The same weights moved in time by random amounts (at least a tenth of the period), wrapping around.

    Exposure and turnover stay what they were; whatever timing skill there was is gone. This is the random signal a strategy has to beat.
    """
    length = len(weights)
    margin = max(1, length // 10)
    return [np.roll(weights, int(rng.integers(margin, max(margin + 1, length - margin))), axis=0) for _ in range(count)]
