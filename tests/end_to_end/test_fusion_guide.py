"""The example of docs/fusion.md runs as it stands, and says what the guide says of it; so do its numbers of actions and settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from cryptoalpha.core.values import Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.guided import EVOLVED
from cryptoalpha.decisions.fusion.search.actions import ACTIONS, FAMILIES

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "fusion.md").read_text(encoding="utf-8")


def test_the_right_family_is_found_twice_and_the_ridge_stays_in_charge(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert first == "bar 449: right is family 0, most weight has family 0"
    assert second == "bar 899: right is family 1, most weight has family 1"
    assert re.fullmatch(r"\S.* after 16 simulations; ridge acts: evidence of the search against \w+ is [\d.e+-]+, it needs 20", last)


def test_the_guide_counts_actions_simulations_and_evolved_settings_as_the_code_does() -> None:
    config, text = FusionConfig(), " ".join(GUIDE.split())
    assert f"{ACTIONS} actions: hold" in text
    assert f"of {('ten' if FAMILIES == 10 else FAMILIES)} families" in text
    assert f"{config.search.simulations} simulations in a replay, {config.search.live_simulations} live" in text
    assert f"The pool holds {config.search.pool} scenarios" in text
    assert (config.method, config.online.enabled, config.search.alpha, len(EVOLVED)) == ("ridge", False, 0.05, 5)
    named = re.search(r"\(`Signal.type`: ([\w, ]+), and three places", text)
    assert named is not None
    assert tuple(named[1].split(", ")) == config.search.families
    assert "type" in Signal.__struct_fields__
