"""How does the finance lexicon read labelled headlines? An evaluation: nothing is fitted to these sets.

    python benchmarks/lexicon_accuracy.py DIRECTORY

DIRECTORY holds `crypto_headlines_scored.parquet` (columns text, score in −1..1) and `financial_phrasebank.parquet` (text, label of
positive, neutral, negative). People labelled only the second: all scores of the first are VADER's compound, cut at ±0.5 and at exactly 0
(`cryptoalpha train sentiment` shows it), so that agreement there is likeness to VADER and no skill.

Prints JSON: correlation of tone and score, accuracy on three classes (tone beyond ±0.1 is not neutral) next to always saying the commonest
class, accuracy of the sign where both label and tone take a side, and texts per second on one core.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import duckdb
import numpy as np

from cryptoalpha.signals.text.lexicon import tone

NEUTRAL_BELOW = 0.1
SETS = {
    "crypto_headlines_scored": "select text, score from read_parquet(?)",
    "financial_phrasebank": "select text, case label when 'positive' then 1.0 when 'negative' then -1.0 else 0.0 end from read_parquet(?)",
}


def evaluate(path: Path, query: str) -> dict[str, float]:
    """Figures for one labelled set."""
    rows = duckdb.execute(query, [str(path)]).fetchall()
    texts, score = [text for text, _ in rows], np.array([value for _, value in rows], float)
    tone(texts[:100])
    begin = time.process_time()
    tones = tone(texts)
    seconds = time.process_time() - begin
    called = np.where(np.abs(tones) < NEUTRAL_BELOW, 0.0, np.sign(tones))
    sides = (called != 0.0) & (score != 0.0)
    return {
        "texts": len(texts),
        "correlation": round(float(np.corrcoef(tones, score)[0, 1]), 3),
        "accuracy": round(float(np.mean(called == np.sign(score))), 3),
        "accuracy_of_commonest_class": round(float(max(np.mean(np.sign(score) == side) for side in (-1, 0, 1))), 3),
        "sign_accuracy": round(float(np.mean(called[sides] == np.sign(score[sides]))), 3),
        "share_with_a_side": round(float(np.mean(called != 0.0)), 3),
        "texts_per_second": round(len(texts) / seconds),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} DIRECTORY")
    print(json.dumps({name: evaluate(Path(sys.argv[1]) / f"{name}.parquet", query) for name, query in SETS.items()}, indent=2))
