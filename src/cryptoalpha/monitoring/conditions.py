"""What an alert is about: a comparison of a metric, or of a quantile of a histogram, with a number. Each is judged here and said in PromQL.

The meaning is Prometheus' own: every combination of labels is judged by itself, and what is missing or NaN fulfils nothing. A quantile is
that of the observations of a window, interpolated as `histogram_quantile` does it; of a window that holds one look only there is none.
Where a number is an edge of the histogram (`metrics.BUCKETS`), the comparison is exact; elsewhere it is as coarse as the buckets.

Where looks do not fall on the window's ends Prometheus extrapolates, each bucket by itself, and so does `Windows`. Histograms only grow
here: a process that begins anew has a board that begins anew.

Source: `extrapolatedRate` and `bucketQuantile` of Prometheus 2.42.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import SECOND
from cryptoalpha.monitoring.metrics import BUCKETS, METRICS, Labels, Metrics

Comparison = Literal[">", ">=", "<", "<=", "=="]
_COMPARE: dict[Comparison, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}
Where = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Condition:
    """`metric{where} comparison number [· times]`.

    Args:
        times: a metric that the number is multiplied by, with the labels of `metric` or with none.
        where: labels that must have these values.

    Raises:
        ConfigError: if there is no such metric or label.
    """

    metric: str
    comparison: Comparison
    number: float
    times: str | None = None
    where: Where = ()

    def __post_init__(self) -> None:
        known = METRICS.get(self.metric)
        other = METRICS.get(self.times) if self.times else None
        if known is None or known.kind == "histogram" or not {name for name, _ in self.where} <= set(known.labels):
            raise ConfigError(f"an alert on {self.metric} where {dict(self.where)}: no such gauge or counter, or no such label")
        if self.times and (other is None or other.kind == "histogram" or other.labels not in ((), known.labels)):
            raise ConfigError(f"an alert on {self.metric} cannot be measured by {self.times}: their labels do not fit")

    def holding(self, metrics: Metrics, windows: Windows | None = None) -> Iterator[tuple[Labels, float]]:
        """Labels and value of everything that fulfils it now."""
        compare = _COMPARE[self.comparison]
        for labels, value in metrics.labelled(self.metric):
            if _is_meant(self.metric, labels, self.where):
                bound = self._bound(metrics, labels)
                if bound is not None and compare(value, bound):
                    yield labels, value

    def expression(self) -> str:
        """The same in PromQL."""
        where = _selector(self.where)
        if self.times is None:
            return f"{self.metric}{where} {self.comparison} {self.number!r}"
        labels = METRICS[self.metric].labels
        if METRICS[self.times].labels == labels:
            return f"{self.metric}{where} {self.comparison} {self.number!r} * {self.times}{where}"
        return f"{self.metric}{where} {self.comparison} ignoring ({', '.join(labels)}) group_left () ({self.number!r} * {self.times})"

    def _bound(self, metrics: Metrics, labels: Labels) -> float | None:
        if self.times is None:
            return self.number
        factor = metrics.value(self.times, *(labels if METRICS[self.times].labels else ()))
        return None if factor is None else self.number * factor


@dataclass(frozen=True)
class QuantileCondition:
    """`histogram_quantile(quantile, increase(metric{where}[window])) comparison number`.

    Args:
        quantile: inside 0–1.
        window_seconds: of what time the observations are; at least two looks must lie in it.
        where: labels that must have these values.

    Raises:
        ConfigError: if there is no such histogram or label, or no such quantile or window.
    """

    metric: str
    quantile: float
    comparison: Comparison
    number: float
    window_seconds: float = 60.0
    where: Where = ()

    def __post_init__(self) -> None:
        known = METRICS.get(self.metric)
        if known is None or known.kind != "histogram" or not {name for name, _ in self.where} <= set(known.labels):
            raise ConfigError(f"an alert on a quantile of {self.metric} where {dict(self.where)}: no such histogram, or no such label")
        if not (0.0 < self.quantile < 1.0 and self.window_seconds >= 1.0):
            raise ConfigError(f"quantile {self.quantile} of {self.window_seconds} s: expected one inside 0–1, of a second or more")

    def holding(self, metrics: Metrics, windows: Windows | None = None) -> Iterator[tuple[Labels, float]]:
        """Labels and value of everything that fulfils it now; nothing without `windows`, which remember what was before."""
        if windows is None:
            return
        for labels, counts in windows.increases(self.metric, self.window_seconds):
            if _is_meant(self.metric, labels, self.where):
                value = quantile_of(counts, self.quantile)
                if value is not None and _COMPARE[self.comparison](value, self.number):
                    yield labels, value

    def expression(self) -> str:
        """The same in PromQL."""
        window = round(self.window_seconds * 1000)
        span = f"{window // 1000}s" if window % 1000 == 0 else f"{window}ms"
        inner = f"increase({self.metric}_bucket{_selector(self.where)}[{span}])"
        return f"histogram_quantile({self.quantile!r}, {inner}) {self.comparison} {self.number!r}"


class Windows:
    """Remembers the histograms that conditions ask about, as long as they ask back.

    `take` every look, then ask. Times are ns and never run back.
    """

    def __init__(self, conditions: Iterable[Condition | QuantileCondition]) -> None:
        self._longest: dict[str, float] = {}
        for each in conditions:
            if isinstance(each, QuantileCondition):
                self._longest[each.metric] = max(each.window_seconds, self._longest.get(each.metric, 0.0))
        self._seen: dict[tuple[str, Labels], deque[tuple[int, tuple[int, ...]]]] = {}
        self._at = 0

    def take(self, at: int, metrics: Metrics) -> None:
        """Look at the histograms as they are now."""
        self._at = at
        for name, seconds in self._longest.items():
            for labels, histogram in metrics.histograms(name):
                seen = self._seen.setdefault((name, labels), deque())
                if seen and seen[-1][0] == at:
                    seen.pop()
                seen.append((at, histogram.counts))
                while seen[0][0] < at - round(seconds * SECOND):
                    seen.popleft()

    def increases(self, metric: str, window_seconds: float) -> Iterator[tuple[Labels, tuple[float, ...]]]:
        """Observations of the window that ends at the last look, by labels, each bucket with those below it; nothing of one look only."""
        since = self._at - round(window_seconds * SECOND)
        for (name, labels), seen in sorted(self._seen.items()):
            inside = [(at, counts) for at, counts in seen if at >= since] if name == metric else []
            if len(inside) > 1:
                (begin, first), (end, last) = inside[0], inside[-1]
                span = (end - begin) / SECOND
                ends = ((begin - since) / SECOND, (self._at - end) / SECOND)
                grown = zip(accumulate(first), accumulate(last), strict=True)
                yield labels, tuple(accumulate((_extrapolated(a, b, span, ends, len(inside)) for a, b in grown), max))


def _extrapolated(first: int, last: int, span: float, ends: tuple[float, float], looks: int) -> float:
    """By how much a counter grew over a window: what it did from the first look to the last, continued to the window's ends where they lie
    near, by half a step where they do not, and never to before it was 0. All times in seconds."""
    grown = last - first
    step = span / (looks - 1)
    to_start = min(ends[0], span * (first / grown)) if grown > 0 else ends[0]
    reached = span
    for rest in (to_start, ends[1]):
        reached += rest if rest < 1.1 * step else step / 2.0
    return grown * (reached / span)


def quantile_of(cumulative: tuple[float, ...], quantile: float) -> float | None:
    """Quantile of observations by bucket, each with those below it, within its bucket by a straight line; None of no observations.

    Above the last edge it is the last edge, as in Prometheus.
    """
    if not cumulative[-1] > 0.0:
        return None
    rank = quantile * cumulative[-1]
    place = bisect_left(cumulative[:-1], rank)
    if place == len(BUCKETS):
        return BUCKETS[-1]
    start, below = (BUCKETS[place - 1], cumulative[place - 1]) if place else (0.0, 0.0)
    return start + (BUCKETS[place] - start) * ((rank - below) / (cumulative[place] - below))


def _is_meant(metric: str, labels: Labels, where: Where) -> bool:
    names = METRICS[metric].labels
    return all(labels[names.index(name)] == value for name, value in where)


def _selector(where: Where) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in where) + "}" if where else ""
