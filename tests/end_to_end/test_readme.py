"""The README's Python example is run as it stands; its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_and_prints_a_verdict_and_a_fill(tmp_path: Path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) == 12
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    verdict, fill, last = done.stdout.splitlines()
    assert verdict.startswith("ridge fusion: Sharpe")
    assert re.fullmatch(r"(buy|sell) [\d.]+ SIM\d/USDT at [\d.]+ fee [\d.]+", fill)
    assert re.fullmatch(r"\d+ fills; journal [0-9a-f]{16}", last)


def test_every_link_to_a_file_leads_to_one():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
