"""The example of docs/environment.md runs as it stands, and says what it should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "environment.md").read_text(encoding="utf-8")


def test_the_example_trades_and_its_rewards_add_up(tmp_path: Path):
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"observed \(8, 6\); over 8 of 8; error \de-1[3-9]\n", done.stdout), done.stdout
