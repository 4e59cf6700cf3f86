"""The token rules a second time, in plain Python straight from their words; the kernels must agree on random markets and on real bars."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from statistics import median

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.files import load_directory
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.text_tokens import REGULATION
from cryptoalpha.signals.genome.tokens import genome_tokens
from cryptoalpha.signals.genome.vocabulary import NAMES
from cryptoalpha.signals.text.lexicon import mentions, tone_of
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

Series = list[float]
ALWAYS = 2**62


def there(x: float) -> bool:
    return not math.isnan(x)


def before(x: Series, i: int, window: int, share: float = 0.8) -> Series | None:
    """The values of the rows before i; None if too few are there."""
    found = [v for v in x[max(0, i - window) : i] if math.isfinite(v)]
    return found if len(found) >= share * window - 1e-9 else None


def newest(x: Series, i: int, lag: int) -> tuple[float, int]:
    """The newest value at least `lag` and at most `lag + 48` rows old, and its age."""
    for age in range(lag, lag + 49):
        if i - age >= 0 and there(x[i - age]):
            return x[i - age], age
    return math.nan, 0


def z(here: float, x: Series, i: int, window: int = 96, least: float = 0.0) -> float:
    past = before(x, i, window)
    if past is None or math.isnan(here):
        return math.nan
    centre = median(past)
    scale = max(1.4826 * median([abs(v - centre) for v in past]), least)
    if scale == 0.0:
        return 0.0 if here == centre else math.copysign(math.inf, here - centre)
    return (here - centre) / scale


def percentile(x: Series, i: int, percent: int, window: int) -> float:
    past = before(x, i, window)
    if past is None:
        return math.nan
    ordered = sorted(past)
    return next(v for k, v in enumerate(ordered, 1) if 100 * k >= percent * len(ordered))


def span(x: Series, i: int, window: int) -> Series | None:
    """The values of the rows that end at i; None if too few are there, or not the last."""
    found = [v for v in x[max(0, i - window + 1) : i + 1] if there(v)]
    return found if there(x[i]) and len(found) >= 0.8 * window - 1e-9 else None


def told(claim: bool, *inputs: float) -> bool | None:
    return None if any(math.isnan(x) for x in inputs) else claim


def log(x: float) -> float:
    return math.log(x) if x > 0.0 else math.nan


def spelt_out(pattern: str) -> set[str]:
    """licen[cs](e|ing) → license, licence, licensing, licencing; a question mark keeps the stem itself."""
    stem, endings, optional = re.fullmatch(r"([a-z\[\]]+)(?:\(([a-z|]+)\)(\??))?", pattern).groups()
    letters = re.search(r"\[([a-z]+)\]", stem)
    stems = [stem.replace(letters[0], letter) for letter in letters[1]] if letters else [stem]
    return {one + ending for one in stems for ending in [*(endings or "").split("|"), *([""] if optional else [])]}


WORDS = set().union(*map(spelt_out, REGULATION[1].split()))
NAMES_OF_AUTHORITIES = set(REGULATION[0].split())


def of_regulation(text: str) -> bool:
    words = re.split(r"[^A-Za-z0-9]+", text[:4_000])
    return any(word in NAMES_OF_AUTHORITIES or word.lower() in WORDS for word in words)


class Reference:
    """One asset's tokens, row by row: True, False, or None where an input is missing."""

    def __init__(self, frame: Frame, asset: int) -> None:
        bars, dataset = frame.bars[asset], frame.dataset
        self.bars, self.interval = bars, frame.panel.interval
        self.history, slow = (128, 32.0) if self.interval >= DAY else (512, 128.0)
        self.opens = frame.panel.open_time.tolist()
        for name in ("unit_return", "sigma", "atr", "high", "low", "close", "volume", "taker_buy_volume"):
            setattr(self, name, getattr(bars, name).tolist())
        self.fast, self.slow = bars.volatility(8.0).tolist(), bars.volatility(slow).tolist()
        n = len(self.close)
        self.log_volume = [log(v) for v in self.volume]
        self.net = [2.0 * b - v for b, v in zip(self.taker_buy_volume, self.volume, strict=True)]
        self.width, self.pressure = [self._width(i) for i in range(n)], [self._pressure(i) for i in range(n)]
        self.base = frame.assets[asset]
        self.readings = {metric: table for (of, metric), table in dataset.readings.items() if of == self.base}
        self.posts = self._posts(dataset, frame.assets)
        self.known = np.array([known for known, _ in self.posts], np.int64)
        self.scores = {what: self._score(what) for what in ("whale_transfers", "sent", "net")}
        self.heard = np.array(sorted(t for table in dataset.posts.values() for t in table.known_at.tolist()), np.int64)
        self.texts = [self._texts(t, t + self.interval) for t in self.opens]
        self.counts = [math.nan if found is None else float(len(found)) for found in self.texts]

    def _width(self, i: int) -> float:
        top, bottom, sigma = span(self.high, i, 24), span(self.low, i, 24), newest(self.sigma, i, 1)[0]
        return math.nan if top is None or bottom is None else (log(max(top)) - log(min(bottom))) / (sigma * math.sqrt(24.0))

    def _pressure(self, i: int) -> float:
        if span(self.close, i, 24) is None:
            return math.nan
        above = below = 0.0
        for j in range(max(0, i - 23), i + 1):
            if there(self.close[j]):
                reach = self.high[j] - self.low[j]
                location = (2.0 * self.close[j] - self.high[j] - self.low[j]) / reach if reach > 0.0 else 0.0
                above, below = above + location * self.volume[j], below + self.volume[j]
        return above / below if below > 0.0 else math.nan

    def _posts(self, dataset: Dataset, assets: tuple[str, ...]) -> list[tuple[int, str]]:
        rows = sorted((k, s, i) for s, table in dataset.posts.items() for i, k in enumerate(table.known_at.tolist()))
        seen: dict[str, int] = {}
        kept = []
        for known, source, row in rows:
            text = dataset.posts[source].text[row]
            key = text.strip().lower()
            fresh = key and known - seen.get(key, -ALWAYS) >= 7 * DAY
            seen[key] = known
            named = mentions(text, assets)
            if fresh and (not named or self.base in named):
                kept.append((known, text))
        return kept

    def _texts(self, begin: int, end: int) -> list[str] | None:
        place = np.searchsorted(self.heard, [end - 7 * DAY, end], side="right")
        if place[0] == place[1]:
            return None
        return [text for known, text in self.posts[np.searchsorted(self.known, begin) :][:200] if begin < known <= end]

    def at(self, i: int) -> list[bool | None]:
        r, (sigma, _), (atr, _), (slow, _) = self.unit_return[i], *(newest(x, i, 1) for x in (self.sigma, self.atr, self.slow))
        volume = z(-math.inf if self.volume[i] == 0.0 else self.log_volume[i], self.log_volume, i)
        narrow, bought, sold = (
            percentile(x, i, percent, self.history) for x, percent in ((self.width, 20), (self.pressure, 90), (self.pressure, 10))
        )
        highs, lows = before(self.high, i, 64), before(self.low, i, 64)
        ceiling = math.nan if highs is None else max(highs) + 0.25 * atr
        floor = math.nan if lows is None else min(lows) - 0.25 * atr
        past, age = newest(self.close, i, 24)
        move = log(self.close[i]) - log(past)
        usual = sigma * math.sqrt(age)
        flat, pressure, close = abs(move) < usual, self.pressure[i], self.close[i]
        return [
            told(r > 0.5 * sigma, r, sigma),
            told(r < -0.5 * sigma, r, sigma),
            told(volume > 1.0, volume),
            told(volume < -1.0, volume),
            told(self.fast[i] > 2.0 * slow, self.fast[i], slow),
            told(self.width[i] < narrow, self.width[i], narrow),
            told(close > ceiling, close, ceiling),
            told(close < floor, close, floor),
            told(pressure > bought and flat, pressure, bought, move, usual),
            told(pressure < sold and flat, pressure, sold, move, usual),
            *self._of_the_rest(i, move, usual, volume),
        ]

    def _of_the_rest(self, i: int, move: float, usual: float, volume: float) -> list[bool | None]:
        texts, end = self.texts[i], self.opens[i] + self.interval
        tone = math.fsum(map(tone_of, texts)) / len(texts) if texts else 0.0
        talk = z(self.counts[i], self.counts, i, least=1.0)
        crowd = self._any(told(talk > 2.0 and tone > 0.3, talk), self._dear(end))
        net = z(self.net[i], self.net, i)
        coins = self._event(self.scores["net"], i)
        whales = self._event(self.scores["whale_transfers"], i)
        return [
            None if texts is None else tone > 0.3,
            None if texts is None else tone < -0.3,
            self._event(self.scores["sent"], i) if whales is None else whales,
            None if crowd is None else told(move > usual and crowd, move, usual),
            self._any(told(net > 2.0 and volume > 1.0, net, volume), coins),
            None if texts is None else any(map(of_regulation, texts)),
        ]

    @staticmethod
    def _any(*claims: bool | None) -> bool | None:
        known = [claim for claim in claims if claim is not None]
        return any(known) if known else None

    def _score(self, what: str) -> list[tuple[int, float]]:
        """(known_at, z90d) of one kind of reading."""
        tables = self.readings
        if what == "whale_transfers":
            values = [(k, log(1.0 + v)) for k, v in self._rows("whale_transfers")] if what in tables else []
            return [(k, self._z90(values, k)) for k, _ in values]
        if not {"exchange_inflow_usd", "exchange_outflow_usd"} <= tables.keys():
            return []
        inflow, outflow = self._rows("exchange_inflow_usd"), self._rows("exchange_outflow_usd")
        if what == "sent":
            logs = [[(k, log(v)) for k, v in rows] for rows in (inflow, outflow)]
            return [(k, max(self._z90(logs[0], k), self._z90(logs[1], k))) for k, _ in inflow]
        caps = dict(self._rows("market_cap_usd"))
        flows = [(k, (o - v) / caps[k]) for (k, v), (_, o) in zip(inflow, outflow, strict=True)]
        return [(k, self._z90(flows, k)) for k, _ in flows]

    def _rows(self, metric: str) -> list[tuple[int, float]]:
        table = self.readings[metric]
        return list(zip(table.known_at.tolist(), table.value.tolist(), strict=True))

    @staticmethod
    def _z90(values: list[tuple[int, float]], at: int) -> float:
        window = [v for k, v in values if at - 90 * DAY < k <= at]
        if len(window) < 72:
            return math.nan
        return (window[-1] - float(np.mean(window))) / float(np.std(window, ddof=1))

    def _event(self, score: list[tuple[int, float]], i: int) -> bool | None:
        begin, end = self.opens[i], self.opens[i] + self.interval
        known = [(k, v) for k, v in score if k <= end]
        if not known or end - known[-1][0] > 3 * DAY or math.isnan(known[-1][1]):
            return None
        return any(k > begin and v > 2.0 for k, v in known)

    def _dear(self, end: int) -> bool | None:
        rows = [(k, v) for k, v in self._rows("funding_rate") if k <= end] if "funding_rate" in self.readings else []
        if not rows or end - rows[-1][0] > DAY:
            return None
        oldest = min(k for k, _ in rows if rows[-1][0] - 90 * DAY < k)
        window = [v for k, v in rows if k >= oldest]
        if len(window) < 30 or rows[-1][0] - oldest < 45 * DAY:
            return None
        return (window[-1] - float(np.mean(window))) / float(np.std(window, ddof=1)) > 2.0


def assert_agrees(frame: Frame, asset: int, rows: range) -> None:
    sets, reference = genome_tokens(frame), Reference(frame, asset)
    for i in rows:
        if not frame.usable[i, asset]:
            assert not sets.missing[i, asset].any()
            continue
        expected = reference.at(i)
        for k, name in enumerate(NAMES):
            found = None if sets.missing[i, asset, k] else bool(sets.tokens[i, asset, k])
            assert found == expected[k], (name, i)


@pytest.mark.parametrize("seed", [0, 1])
def test_random_markets_with_outages_and_silent_bars(seed):
    dataset = simulate(
        SimulatedConfig(assets=2, bars=1_500, interval="4h", start="2021-01-01", edge=0.05, horizon_bars=6), seed=seed
    ).dataset
    draw = np.random.default_rng(seed)
    bars = {}
    for name, table in dataset.bars.items():
        kept = table.take(np.sort(draw.choice(1_500, 1_460, replace=False)))
        taker = np.where(draw.random(len(kept)) < 0.05, np.nan, draw.uniform(0.2, 0.8, len(kept)) * kept.volume)
        silent = draw.random(len(kept)) < 0.02
        bars[name] = replace(kept, volume=np.where(silent, 0.0, kept.volume), taker_buy_volume=np.where(silent, 0.0, taker))
    dataset = replace(dataset, bars=bars)
    frame = Frame(build_panel(dataset, since=-ALWAYS, until=ALWAYS), dataset)
    assert_agrees(frame, seed, range(600, 720))


@pytest.mark.slow
def test_real_hours_of_a_wild_month(market_data):
    dataset = load_directory(market_data, gate=BarGate())
    end = parse_time("2022-05-20")  # the fall of LUNA is in it
    panel = build_panel(dataset, since=end - 1_500 * HOUR, until=end, instruments=["BTC/USDT"])
    assert_agrees(Frame(panel, dataset), 0, range(1_200, 1_500))
