"""The 50 price features against a second way: plain Python, one row at a time, written from the formulas, on markets full of faults."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.signals.price_features import PRICE_FEATURES, ewma_volatility, price_features
from cryptoalpha.store.panel import Panel

NAMES = tuple(spec.name for spec in PRICE_FEATURES)
NAN = math.nan
At = Callable[[int], float]


def faulty_market(seed: int, rows: int = 1300, assets: int = 3) -> Panel:
    """Fat-tailed walks with scattered gaps, an outage, a late listing, zero volumes, a standstill and a bad print."""
    g = stream(seed, "features", "faulty_market")
    volatility = 0.01 * np.exp(0.5 * np.cumsum(g.normal(0, 0.05, (rows, assets)), axis=0))
    common = g.standard_t(4, (rows, 1))
    moves = volatility * (0.6 * common + 0.8 * g.standard_t(4, (rows, assets))) / 1.4
    moves[900:960, 0] = 0.0  # nothing moves
    close = 100.0 * np.exp(np.cumsum(moves, axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(g.normal(0, 0.001, (rows, assets)))
    open_[900:960, 0] = close[900:960, 0]
    high = np.maximum(open_, close) * np.exp(np.abs(volatility * g.normal(0, 1, (rows, assets))))
    low = np.minimum(open_, close) * np.exp(-np.abs(volatility * g.normal(0, 1, (rows, assets))))
    high[900:960, 0] = low[900:960, 0] = close[900:960, 0]
    low[1100, 1] = 1e-4  # a bad print
    high[30, 1] = 1e6  # another, before volatility is known
    volume = np.exp(g.normal(5, 1, (rows, assets)))
    volume[g.random((rows, assets)) < 0.02] = 0.0
    taker = volume * g.random((rows, assets))
    taker[:, 1] = np.nan
    taker[g.random((rows, assets)) < 0.01] = np.nan
    present = g.random((rows, assets)) > 0.03
    present[700:721] = False
    present[1000:1060, 2] = False  # longer than a return may reach
    present[:200, 2] = False
    columns = [np.where(present, column, np.nan) for column in (open_, high, low, close, volume, taker)]
    open_time = HOUR * (np.arange(rows, dtype=np.int64) + 400_000)
    return Panel(("A/USDT", "B/USDT", "C/USDT")[:assets], HOUR, open_time, open_time + HOUR, *columns, present, np.where(present, 0, -1))


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def over(above: float, below: float, flat: float = NAN) -> float:
    return above / below if below else (flat if not math.isnan(above + below) else NAN)


def log(x: float) -> float:
    return math.log(x) if x > 0 else NAN


def window(f: At, t: int, w: int) -> list[float]:
    """Values of the last w rows that have one; empty if this row has none or fewer than 80 % do."""
    values = [f(s) for s in range(max(0, t - w + 1), t + 1)]
    there = [v for v in values if not math.isnan(v)]
    return there if not math.isnan(f(t)) and 5 * len(there) >= 4 * w else []


def average(f: At, t: int, w: int) -> float:
    values = window(f, t, w)
    return mean(values) if values else NAN


def decaying(f: At, t: int, decay: float) -> float:
    """Exponential mean over eight half-lives, 80 % of the weight needed."""
    w = math.ceil(8 * math.log(2) / -math.log(decay))
    pairs = [(decay**age, f(t - age) if age <= t else NAN) for age in range(w)]
    known = [(weight, v) for weight, v in pairs if not math.isnan(v)]
    weight = math.fsum(p for p, _ in known)
    if math.isnan(f(t)) or weight < 0.8 * math.fsum(p for p, _ in pairs):
        return NAN
    return math.fsum(p * v for p, v in known) / weight


def line(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Least-squares slope, its standard error and the correlation of (x, y) points."""
    x, y = mean(p[0] for p in points), mean(p[1] for p in points)
    xx = math.fsum((p[0] - x) ** 2 for p in points)
    yy = math.fsum((p[1] - y) ** 2 for p in points)
    xy = math.fsum((p[0] - x) * (p[1] - y) for p in points)
    slope = over(xy, xx)
    rest = math.fsum((p[1] - y - slope * (p[0] - x)) ** 2 for p in points)
    return slope, math.sqrt(rest / (len(points) - 2) / xx) if xx else NAN, over(xy, math.sqrt(xx * yy))


def deviation(values: list[float]) -> float:
    return math.sqrt(math.fsum((v - mean(values)) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else NAN


class Slow:
    """One asset; every method is a column, asked row by row."""

    def __init__(self, panel: Panel, asset: int) -> None:
        self.panel, self.asset = panel, asset
        for name in ("r", "sigma", "high", "low", "true_range", "atr", "volatility", "directional", "macd"):
            setattr(self, name, cache(getattr(self, name)))

    def raw(self, column: str, t: int) -> float:
        return float(getattr(self.panel, column)[t, self.asset]) if t >= 0 else NAN

    def close(self, t: int) -> float:
        return self.raw("close", t)

    def back(self, f: At, t: int, lag: int) -> tuple[float, int]:
        return next(((f(t - age), age) for age in range(lag, min(lag + 48, t) + 1) if not math.isnan(f(t - age))), (NAN, 1))

    def step(self, t: int) -> float:
        return log(self.close(t) / self.back(self.close, t, 1)[0])

    def r(self, t: int) -> float:
        before, age = self.back(self.close, t, 1)
        return log(self.close(t) / before) / math.sqrt(age)

    def volatility(self, t: int, half_life: float) -> float:
        return math.sqrt(decaying(lambda s: self.r(s) ** 2, t, 0.5 ** (1 / half_life))) or NAN

    def sigma(self, t: int) -> float:
        return self.volatility(t, 32)

    def wick(self, t: int) -> float:
        before = self.back(self.sigma, t, 1)[0]
        return 1.0 if math.isnan(before) else 10 * before

    def high(self, t: int) -> float:
        top = max(self.raw("open", t), self.close(t))
        return min(max(self.raw("high", t), top), top * (1 + self.wick(t)))

    def low(self, t: int) -> float:
        bottom = min(self.raw("open", t), self.close(t))
        return max(min(self.raw("low", t), bottom), bottom / (1 + self.wick(t)))

    def typical(self, t: int) -> float:
        return (self.high(t) + self.low(t) + self.close(t)) / 3

    def true_range(self, t: int) -> float:
        before = self.back(self.close, t, 1)[0]
        ranges = [self.high(t) - self.low(t), abs(self.high(t) - before), abs(self.low(t) - before)]
        return max(v for v in ranges if not math.isnan(v)) if not math.isnan(self.close(t)) else NAN

    def atr(self, t: int) -> float:
        return decaying(self.true_range, t, 13 / 14) or NAN

    def ema(self, t: int, span: int) -> float:
        return decaying(lambda s: log(self.close(s)), t, 1 - 2 / (span + 1))

    def macd(self, t: int) -> float:
        return self.ema(t, 12) - self.ema(t, 26)

    def directional(self, t: int) -> float:
        def up(s: int) -> float:
            return self.high(s) - self.back(self.high, s, 1)[0]

        def down(s: int) -> float:
            return self.back(self.low, s, 1)[0] - self.low(s)

        def plus(s: int) -> float:
            return NAN if math.isnan(up(s)) else up(s) if up(s) > max(down(s), 0) else 0.0

        def minus(s: int) -> float:
            return NAN if math.isnan(up(s)) else down(s) if down(s) > max(up(s), 0) else 0.0

        atr = decaying(self.true_range, t, 13 / 14)
        rise, fall = over(100 * decaying(plus, t, 13 / 14), atr, 0.0), over(100 * decaying(minus, t, 13 / 14), atr, 0.0)
        return over(100 * abs(rise - fall), rise + fall, 0.0)


def trend_part(s: Slow, t: int) -> dict[str, float]:
    out = {}
    for k in (1, 2, 4, 8, 16, 32, 64, 128):
        before, age = s.back(s.close, t, k)
        out[f"return_{k}"] = log(s.close(t) / before) / math.sqrt(age) / s.sigma(t)
    for h in (8, 32, 128):
        out[f"log_volatility_{h}"] = log(s.volatility(t, h))
    out["log_parkinson_32"] = 0.5 * log(average(lambda i: log(s.high(i) / s.low(i)) ** 2, t, 32) / (4 * math.log(2)))
    garman_klass = average(
        lambda i: 0.5 * log(s.high(i) / s.low(i)) ** 2 - (2 * math.log(2) - 1) * log(s.close(i) / s.raw("open", i)) ** 2, t, 32
    )
    out["log_garman_klass_32"] = 0.5 * log(garman_klass)
    r = window(s.r, t, 64)
    out["downside_share_64"] = over(math.fsum(v * v for v in r if v < 0), math.fsum(v * v for v in r)) if r else NAN
    out["volatility_of_volatility_64"] = deviation(window(lambda i: log(s.volatility(i, 8)), t, 64))
    for k in (8, 32, 128):
        out[f"ema_distance_{k}"] = (log(s.close(t)) - s.ema(t, k)) / (s.sigma(t) * math.sqrt(k))
    out["macd_histogram"] = (s.macd(t) - decaying(s.macd, t, 1 - 2 / 10)) / s.sigma(t)
    out["adx_14"] = decaying(s.directional, t, 13 / 14)
    for k in (32, 128):
        ok = window(s.close, t, k)
        points = [(float(i), log(s.close(i))) for i in range(max(0, t - k + 1), t + 1) if not math.isnan(s.close(i))]
        slope, error, _ = line(points) if ok else (NAN, NAN, NAN)
        out[f"slope_t_{k}"] = 0.0 if ok and len(set(ok)) == 1 else over(slope, error)
    steps = window(s.step, t, 32)
    out["efficiency_32"] = over(abs(math.fsum(steps)), math.fsum(map(abs, steps)), 0.0) if steps else NAN
    return out


def oscillator_part(s: Slow, t: int) -> dict[str, float]:
    def change(i: int) -> float:
        return s.close(i) - s.back(s.close, i, 1)[0]

    out = {}
    rises, falls = (decaying(lambda i, sign=sign: 0.0 * change(i) + max(sign * change(i), 0.0), t, 13 / 14) for sign in (1, -1))
    out["rsi_14"] = over(100 * rises, rises + falls, 50.0)
    highs, lows = window(s.high, t, 14), window(s.low, t, 14)
    out["stochastic_k_14"] = over(100 * (s.close(t) - min(lows)), max(highs) - min(lows), 50.0) if highs else NAN
    typical = window(s.typical, t, 20)
    flat = len(set(typical)) == 1
    spread = mean(abs(v - mean(typical)) for v in typical) if typical else NAN
    out["cci_20"] = 0.0 if flat else (s.typical(t) - mean(typical)) / (0.015 * spread) if typical else NAN
    closes = window(s.close, t, 20)
    width = deviation(closes)
    lower = mean(closes) - 2 * width if closes else NAN
    out["percent_b_20"] = 0.5 if len(set(closes)) == 1 else over(s.close(t) - lower, 4 * width)

    def flow(i: int, sign: float) -> float:
        turn = s.typical(i) - s.back(s.typical, i, 1)[0]
        return NAN if math.isnan(turn) else s.typical(i) * s.raw("volume", i) if sign * turn > 0 else 0.0

    inward, outward = (average(lambda i, sign=sign: flow(i, sign), t, 14) for sign in (1.0, -1.0))
    out["money_flow_14"] = over(100 * inward, inward + outward, 50.0)

    o, c, h, low, atr = s.raw("open", t), s.close(t), s.high(t), s.low(t), s.atr(t)
    out["log_atr_14"], out["range_to_atr"] = log(atr / c), (h - low) / atr
    for name, part in (("body", c - o), ("upper_wick", h - max(o, c)), ("lower_wick", min(o, c) - low)):
        out[name] = over(part, h - low, 0.0)
    before, age = s.back(s.close, t, 1)
    out["gap"] = log(o / before) / (s.sigma(t) * math.sqrt(age))
    for w in (64, 512):
        highs, lows = window(s.high, t, w), window(s.low, t, w)
        out[f"high_distance_{w}"] = (max(highs) - c) / atr if highs else NAN
        out[f"low_distance_{w}"] = (c - min(lows)) / atr if lows else NAN
    return out


def volume_part(s: Slow, t: int) -> dict[str, float]:
    def volume(i: int) -> float:
        return s.raw("volume", i)

    out = {}
    for w in (64, 512):
        values = window(lambda i: log(volume(i)), t, w)
        out[f"log_volume_z_{w}"] = (log(volume(t)) - mean(values)) / deviation(values) if values else NAN

    signed = [((s.step(i) > 0) - (s.step(i) < 0)) * volume(i) + 0 * s.step(i) for i in range(t - 30, t + 1)]
    if not any(map(math.isnan, signed)) and window(volume, t, 32):
        balance, points = 0.0, [(0.0, 0.0)]
        for j, flow in enumerate(signed, 1):
            balance += flow
            points.append((float(j), balance))
        out["obv_slope_32"] = line(points)[0] / average(volume, t, 32)

    prices, volumes = window(lambda i: s.typical(i) * volume(i), t, 64), window(volume, t, 64)
    out["vwap_distance_64"] = (s.close(t) - math.fsum(prices) / math.fsum(volumes)) / s.atr(t) if prices else NAN
    excess = window(lambda i: 2 * s.raw("taker_buy_volume", i) - volume(i), t, 32)
    known = window(lambda i: 0 * s.raw("taker_buy_volume", i) + volume(i), t, 32)
    out["taker_imbalance_32"] = over(math.fsum(excess), math.fsum(known)) if excess else NAN

    def turnover(i: int) -> float:
        return s.close(i) * volume(i) or NAN

    out["log_amihud_64"] = log(average(lambda i: abs(s.r(i)) / turnover(i), t, 64) * average(turnover, t, 512))
    return out


def book_part(book: list[Slow], s: Slow, t: int) -> dict[str, float]:
    others = [o for o in book if o is not s]

    def market(i: int) -> float:
        values = [o.r(i) for o in others if not math.isnan(o.r(i))]
        return mean(values) if values else NAN

    def both(i: int) -> float:
        return s.r(i) + market(i)

    out = {}
    points = [(market(i), s.r(i)) for i in range(max(0, t - 127), t + 1) if not math.isnan(both(i))] if window(both, t, 128) else []
    beta, _, correlation = line(points) if points else (NAN, NAN, NAN)
    out["market_beta_128"], out["market_correlation_128"] = beta, correlation
    out["idiosyncratic_return_8"] = math.sqrt(8) * average(lambda i: s.r(i) - beta * market(i), t, 8) / s.sigma(t)
    moves = [log(o.close(t) / o.back(o.close, t, 32)[0]) for o in book]
    own, rest = moves[book.index(s)], [m for o, m in zip(book, moves, strict=True) if o is not s and not math.isnan(m)]
    ahead = sum(m < own for m in rest) - sum(m > own for m in rest)
    out["return_rank_32"] = NAN if math.isnan(own) or not rest else ahead / len(rest)
    angle = 2 * math.pi * ((s.panel.open_time[t] // HOUR - 96) % 168) / 168
    out["hour_of_week_sin"], out["hour_of_week_cos"] = math.sin(angle), math.cos(angle)
    return out


@pytest.mark.parametrize("seed", [1, 2])
def test_every_price_feature_agrees_with_its_formula_computed_row_by_row(seed: int) -> None:
    panel = faulty_market(seed)
    fast = price_features(panel)
    book = [Slow(panel, a) for a in range(3)]
    compared: dict[str, int] = dict.fromkeys(NAMES, 0)
    for t in (40, 90, 250, 420, 640, 699, 722, 735, 790, 899, 930, 959, 961, 999, 1061, 1090, 1100, 1101, 1150, 1299):
        for a, slow in enumerate(book):
            if not panel.present[t, a]:
                assert np.isnan(fast[t, a]).all()
                continue
            expected = trend_part(slow, t) | oscillator_part(slow, t) | volume_part(slow, t) | book_part(book, slow, t)
            for f, name in enumerate(NAMES):
                if name not in expected:  # the on-balance line is drawn only where its window has no gap
                    continue
                want = expected[name]
                assert fast[t, a, f] == pytest.approx(want, rel=1e-8, abs=1e-9, nan_ok=True), f"{name} of asset {a} at row {t}"
                compared[name] += not math.isnan(want)
    assert min(compared.values()) >= 4, compared


def test_the_exported_volatility_is_the_one_inside_the_features() -> None:
    panel = faulty_market(3)
    sigma = ewma_volatility(panel)
    logged = price_features(panel)[:, :, NAMES.index("log_volatility_32")]
    np.testing.assert_allclose(np.log(sigma), logged, rtol=1e-14)
