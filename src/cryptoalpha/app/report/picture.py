"""A static picture (SVG) of a chart: what is seen without JavaScript and on paper. The style sheet gives colours and dashes by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryptoalpha.app.report.charts import Chart, Floats, say, thin
from cryptoalpha.core.time import SECOND, day_of

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 8, 26


@dataclass(frozen=True)
class Path:
    """One drawn series: its place in the palette, SVG path data, and how it looks: `line`, `thin`, `dots` or `area`."""

    place: int
    data: str
    look: str

    @property
    def is_area(self) -> bool:
        return self.look == "area"


@dataclass(frozen=True)
class Picture:
    """Paths and axis labels of a chart, in a box of `WIDTH` × `HEIGHT`."""

    paths: tuple[Path, ...]
    levels: tuple[tuple[float, str], ...]
    """Height and text of each horizontal grid line."""
    first: str
    last: str


def draw(chart: Chart, points_per_line: int) -> Picture | None:
    """The picture of a chart with so many points per line, or None where there are fewer than two points."""
    looks = [line.look for line in chart.lines]
    lines = [(np.array(line.times, dtype=np.float64), np.array(line.values)) for line in chart.lines]
    if not lines or min(times.size for (times, _), look in zip(lines, looks, strict=True) if look != "dots") < 2:
        return None
    if chart.kind == "stack":
        total = np.cumsum([values for _, values in lines], axis=0)
        lines = [(lines[0][0], row) for row in total]
    drawn = [one for one in lines if one[0].size]
    start, end = min(float(t[0]) for t, _ in drawn), max(float(t[-1]) for t, _ in drawn)
    low, high = min(float(v.min()) for _, v in drawn), max(float(v.max()) for _, v in drawn)
    if chart.kind != "lines" or chart.unit == "share":
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5

    def across(times: Floats) -> Floats:
        return np.asarray(LEFT + (times - start) / max(end - start, 1.0) * (WIDTH - LEFT - RIGHT), dtype=np.float64)

    def up(values: Floats) -> Floats:
        return np.asarray(TOP + (high - values) / (high - low) * (HEIGHT - TOP - BOTTOM), dtype=np.float64)

    floor = float(up(np.zeros(1))[0])
    paths = []
    for place, (times, values) in enumerate(lines):
        if looks[place] == "dots":
            dots = "".join(f"M{x:.0f} {y:.1f}h0" for x, y in zip(across(times), up(values), strict=True))
            paths.append(Path(place, dots, "dots"))
            continue
        rows = thin(values, points_per_line)
        points = " L".join(f"{x:.0f} {y:.1f}" for x, y in zip(across(times[rows]), up(values[rows]), strict=True))
        is_area = chart.kind == "stack" or (chart.kind == "area" and place == 0)
        closing = f" L{across(times[-1:])[0]:.1f} {floor:.1f} L{across(times[:1])[0]:.1f} {floor:.1f} Z" if is_area else ""
        paths.append(Path(place, f"M{points}{closing}", "area" if is_area else looks[place]))
    if chart.kind == "stack":
        paths.reverse()  # the tallest sum lies at the back
    marks = ticks(low, high)
    levels = tuple((round(float(y), 1), say(float(value), chart.unit)) for y, value in zip(up(marks), marks, strict=True))
    return Picture(tuple(paths), levels, day_of(int(start) * SECOND), day_of(int(end) * SECOND))


def ticks(low: float, high: float) -> Floats:
    """Round values between `low` and `high`, about five of them: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5.0
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(factor for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1.0 - 1e-9))
    return np.asarray(np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step + 0.0, dtype=np.float64)
