"""The examples of docs/learning.md are run as they stand, and say what the guide says of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "learning.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def run(example: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_four_examples():
    assert len(EXAMPLES) == 4


def test_both_planners_buy_what_is_low_and_sell_what_is_high(tmp_path: Path):
    printed = run(EXAMPLES[0], tmp_path)
    assert re.search(r"^low exact \+1\.00 .* searched \+1\.00", printed, re.MULTILINE)
    assert re.search(r"^high exact -1\.00 .* searched -1\.00", printed, re.MULTILINE)


def test_the_game_is_won_and_the_tree_goes_on(tmp_path: Path):
    assert re.fullmatch(r"of 10 take 2; 400 simulations stand behind the reply, [1-9]\d* nodes were kept\n", run(EXAMPLES[1], tmp_path))


def test_evolution_finds_the_planted_edge_and_undoes_what_the_second_split_refuses(tmp_path: Path):
    (found,) = re.findall(r"(-?[\d.]+) → (-?[\d.]+); (\d+) of 60", run(EXAMPLES[2], tmp_path))
    before, after, undone = float(found[0]), float(found[1]), int(found[2])
    assert after > before + 0.05
    assert 0 < undone < 60


def test_each_fold_is_trained_and_a_second_run_has_nothing_left_to_do(tmp_path: Path):
    first = run(EXAMPLES[3], tmp_path)
    assert len(first.splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold0.ckpt", "fold1.ckpt", "fold2.ckpt"]
    assert run(EXAMPLES[3], tmp_path) == first
