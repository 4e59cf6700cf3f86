"""The report of a search: one HTML file with nothing to fetch: trials as dots, the best so far as a line, tables and words."""

from __future__ import annotations

from html import escape

from cryptoalpha.core.time import iso
from cryptoalpha.lifecycle.recipes.page import EDGE, HEIGHT, STYLE, WIDTH
from cryptoalpha.lifecycle.tune.result import StudyResult, TrialRow

DOTS = (
    ".judged{fill:#1f6feb}.pruned{fill:none;stroke:#8a8f98}.failed{fill:#b3261e}.best{fill:none;stroke:#1a7f37;stroke-width:2}circle{r:3px}"
)
CLASSES = {"judged": "judged", "given up": "pruned"}


def page(found: StudyResult) -> str:
    """The whole file."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>search of {escape(found.name)}</title><style>{STYLE}{DOTS}</style><h1>search of {escape(found.name)}</h1>",
        f"<p>Judged on {iso(found.since)[:10]} to {iso(found.until)[:10]}, fold by fold; "
        f"{'less' if found.direction == 'minimize' else 'more'} is better. Blue: judged by all folds; hollow: given up early; red: failed; "
        "green: the best so far.</p>",
        *(f"<p class=verdict>{escape(line)}</p>" for line in found.lines()),
        history(found),
    ]
    title, columns, rows = found.table(most=len(found.trials))
    parts.append(f"<h2>{escape(title)}</h2>{_table(columns, rows)}")
    others = [
        [str(row.number), row.state, "–" if row.value is None else f"{row.value:.4f}", str(row.folds), _said(row), f"{row.seconds:.0f}"]
        for row in found.trials if row.state != "judged"
    ]  # fmt: skip
    if others:
        parts.append("<h2>all others</h2>" + _table(["trial", "state", "value so far", "folds", "point", "seconds"], others))
    parts.append(f"<p>Journal: <code>{escape(str(found.journal))}</code>; <code>optuna-dashboard</code> opens it.</p>")
    return "".join(parts)


def history(found: StudyResult) -> str:
    """Values of the trials in the order they began, as SVG. What lies far outside the values of judged trials is drawn at the edge."""
    judged = [row.value for row in found.trials if row.state == "judged" and row.value is not None]
    if not judged:
        return ""
    low, high = min(judged), max(judged)
    span, last = max(high - low, 1e-9), max(found.trials[-1].number, 1)

    def at(number: int, value: float) -> tuple[float, float]:
        up = min(max((high - value) / span, 0.0), 1.0)
        return EDGE + number / last * (WIDTH - EDGE - 8), 10 + up * (HEIGHT - 34)

    dots, line, best = [], [], None
    for row in found.trials:
        if row.value is None:
            if row.state == "failed":
                dots.append(_dot(*at(row.number, low), "failed", row))
            continue
        dots.append(_dot(*at(row.number, row.value), CLASSES.get(row.state, "failed"), row))
        if row.state == "judged":
            better = best is None or (row.value < best if found.direction == "minimize" else row.value > best)
            best = row.value if better or best is None else best
        if best is not None:
            line.append("{:.1f},{:.1f}".format(*at(row.number, best)))
    labels = f"<text x=2 y=14>{high:.4g}</text><text x=2 y={HEIGHT - 20}>{low:.4g}</text><text x={EDGE} y={HEIGHT - 4}>trial 0</text>"
    labels += f"<text x={WIDTH - 60} y={HEIGHT - 4}>trial {last}</text>"
    drawn = f"<polyline class=best points='{' '.join(line)}'/>{''.join(dots)}{labels}"
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width={WIDTH} role=img aria-label='values of the trials'>{drawn}</svg>"


def _dot(x: float, y: float, name: str, row: TrialRow) -> str:
    value = "none" if row.value is None else f"{row.value:.4f}"
    return f"<circle class={name} cx='{x:.1f}' cy='{y:.1f}' r=3><title>trial {row.number}: {value}, {escape(_said(row))}</title></circle>"


def _said(row: TrialRow) -> str:
    point = ", ".join(f"{name} {value:.4g}" for name, value in row.params.items())
    return f"{point}: {row.error}" if row.error else point


def _table(columns: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
