"""The report of a training: one HTML file with nothing to fetch, the loss curves drawn as SVG, the tables and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from cryptoalpha.lifecycle.recipes.trained import Trained

WIDTH, HEIGHT, EDGE = 640, 240, 48

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-size:13px}
td,th{padding:.2rem .7rem;border-bottom:1px solid #d8dee4;text-align:left}
svg{max-width:100%;height:auto}.verdict{border-left:4px solid #8a6d00;padding:.4rem .8rem;background:#fff8e1}
.train{fill:none;stroke:#8aa4c8;stroke-width:1.2}.check{fill:none;stroke:#b3261e;stroke-width:2}text{font-size:11px;fill:#57606a}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}.verdict{background:#2b2410}td,th{border-color:#30363d}}
"""


def page(trained: Trained) -> str:
    """The whole file."""
    lineage = trained.lineage
    data = lineage["identity"]["data"]
    instruments = ", ".join(lineage["identity"]["instruments"])
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(lineage['model'])}</title><style>{STYLE}</style><h1>{escape(lineage['model'])}</h1>",
        f"<p>{escape(data['origin'])}{' · made-up market' if data['simulated'] else ''}; {escape(instruments)}</p>",
        *(f"<p class=verdict>{escape(line)}</p>" for line in trained.verdict_lines()),
        "<p>In brackets: 95 % intervals by block bootstrap. Each bar was judged by a model that had seen no later label.</p>",
    ]
    for title, columns, rows in trained.tables():
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table>")
    parts.append("<h2>training</h2><ul>" + "".join(f"<li>{escape(line)}</li>" for line in trained.training_lines()) + "</ul>")
    for one in lineage["training"]:
        if "losses" not in one:
            continue
        parts.append(f"<h3>loss of fold {one['fold']['number']}: training (blue), validation (red)</h3>")
        parts.append(curves(one["losses"], one["validations"]))
    return "".join(parts)


def curves(losses: Sequence[float], validations: Sequence[float]) -> str:
    """Loss of each step, smoothed over a fiftieth of them, and the looks at validation, evenly spaced, as SVG."""
    width = max(1, len(losses) // 50)
    smooth = np.convolve(np.asarray(losses, np.float64), np.full(width, 1.0 / width), mode="valid")
    checks = np.asarray(validations, np.float64)
    both = np.concatenate((smooth, checks))
    low, high = float(both.min()), float(both.max())
    span = max(high - low, 1e-9)

    def line(x: np.ndarray, y: np.ndarray, name: str) -> str:
        across = EDGE + x * (WIDTH - EDGE - 8)
        up = 10 + (high - y) / span * (HEIGHT - 34)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True))
        return f"<polyline class={name} points='{points}'/>"

    drawn = [line((np.arange(len(smooth)) + width) / max(len(losses), 1), smooth, "train")]
    drawn.append(line((np.arange(len(checks)) + 1) / max(len(checks), 1), checks, "check"))
    labels = f"<text x=2 y=14>{high:.3f}</text><text x=2 y={HEIGHT - 20}>{low:.3f}</text><text x={EDGE} y={HEIGHT - 4}>step 0</text>"
    labels += f"<text x={WIDTH - 70} y={HEIGHT - 4}>step {len(losses):,}</text>"
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width={WIDTH} role=img aria-label='loss curves'>{''.join(drawn)}{labels}</svg>"
