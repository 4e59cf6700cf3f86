"""The examples of docs/risk.md are run as they stand, and say what is written here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "risk.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
SAID = (
    "True 0.0211\n",  # p of 7 exceedances in 255 days at 99 %: .021126 (Kupiec's own example)
    "[0.6 0.4] [0.5 0.5]\n",  # risk parity of [[.04, .03], [.03, .09]]
    "2.351659633 2.351659633\n",  # Sharpe ratio of ten returns, worked out by hand
    "17.34 197 False\n",  # threshold and delay for an annual Sharpe ratio that falls from 2 to 0, one false alarm in two years
)


def test_there_is_an_answer_to_every_example():
    assert len(EXAMPLES) == len(SAID)


@pytest.mark.parametrize(("example", "said"), list(zip(EXAMPLES, SAID, strict=False)), ids=("tail", "parity", "measures", "drift"))
def test_an_example_says_what_the_guide_promises(example: str, said: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == said
