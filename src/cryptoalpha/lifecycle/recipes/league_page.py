"""The report of a league: one HTML file with nothing to fetch, the fall of the exploitability as SVG, the tables and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol

from cryptoalpha.lifecycle.recipes.page import EDGE, HEIGHT, STYLE, WIDTH


class Shown(Protocol):
    """What the page shows."""

    @property
    def lineage(self) -> Mapping[str, Any]: ...

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]: ...

    def lines(self) -> list[str]: ...


def page(trained: Shown) -> str:
    """The whole file."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>league</title><style>{STYLE}</style><h1>league</h1>",
        *(f"<p class=verdict>{escape(line)}</p>" for line in trained.lines()),
        "<p>A simulated market that all players move; ± are 95 % intervals, episodes being independent.</p>",
        "<h2>exploitability over training</h2>",
        fall([(one["round"], one["gain"]["mean"], one["gain"]["error"]) for one in trained.lineage["exploitability"]]),
    ]
    for title, columns, rows in trained.tables():
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table>")
    return "".join(parts)


def fall(points: Sequence[tuple[int, float, float]]) -> str:
    """Mean and 95 % interval (bars) by round, from 0 up, as SVG."""
    highest = max(max(mean + 1.96 * error for _, mean, error in points), 1e-9)
    last = max(points[-1][0], 1)

    def across(number: float) -> float:
        return EDGE + number / last * (WIDTH - EDGE - 16)

    def up(value: float) -> float:
        return 10 + (1.0 - max(value, 0.0) / highest) * (HEIGHT - 34)

    line = " ".join(f"{across(number):.1f},{up(mean):.1f}" for number, mean, _ in points)

    def bar(number: float, mean: float, error: float) -> str:
        x, reach = across(number), 1.96 * error
        return f"<polyline class=check points='{x:.1f},{up(mean - reach):.1f} {x:.1f},{up(mean + reach):.1f}'/>"

    bars = "".join(bar(*point) for point in points)
    labels = f"<text x=2 y=14>{highest:,.0f}</text><text x=2 y={HEIGHT - 20}>0</text><text x={EDGE} y={HEIGHT - 4}>round 0</text>"
    labels += f"<text x={WIDTH - 70} y={HEIGHT - 4}>round {last}</text>"
    drawn = f"<polyline class=check points='{line}'/>{bars}{labels}"
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width={WIDTH} role=img aria-label='exploitability by round'>{drawn}</svg>"
