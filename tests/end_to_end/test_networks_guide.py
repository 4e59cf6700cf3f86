"""The example of docs/networks.md is run as it stands, and says what the guide says of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")


def test_bars_that_become_others_move_nothing_before_them(tmp_path: Path):
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "moved before: 0.0 after: True\n"
