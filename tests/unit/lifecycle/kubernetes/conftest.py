"""The chart rendered by helm, once per profile, and the tools it is checked with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[4]
TOOLS = Path(os.environ.get("CLUSTER_TOOLS", REPOSITORY / ".venv" / "cluster"))
CHART = REPOSITORY / "deploy" / "helm" / "cryptoalpha"


def _tool(name: str) -> str:
    """Where a tool lies; skips without it, unless TESTS_SKIP_NOTHING=1."""
    named = os.environ.get("HELM", "") if name == "helm" else ""
    found = named or next((str(place) for place in (TOOLS / "bin" / name,) if place.is_file()), None) or shutil.which(name)
    if not found:
        assert not os.environ.get("TESTS_SKIP_NOTHING"), f"{name} is not installed: .ci/cluster-tools installs it"
        pytest.skip(f"{name} is not installed: .ci/cluster-tools installs it, or name its folder in CLUSTER_TOOLS")
    return found


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    return _tool


@pytest.fixture(scope="session")
def validators() -> Path:
    """Node modules that check custom resources."""
    folder = TOOLS / "node_modules"
    if not (folder / "typescript").is_dir() or shutil.which("node") is None:
        assert not os.environ.get("TESTS_SKIP_NOTHING"), "the validators of custom resources are not installed: .ci/cluster-tools"
        pytest.skip("the validators of custom resources are not installed: .ci/cluster-tools installs them")
    return folder


@pytest.fixture(scope="session")
def chart() -> Callable[..., list[dict[str, Any]]]:
    """Objects of a profile, with further `--set` values; `refused(...)` gives helm's complaint instead."""

    @cache
    def run(profile: str, sets: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        files = ["--values", str(CHART / "profiles" / f"{profile}.yaml")] if profile else []
        chosen = [part for one in sets for part in ("--set", one)]
        command = [_tool("helm"), "template", "cryptoalpha", str(CHART), "--namespace", "trading", *files, *chosen]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def objects(profile: str = "", *sets: str) -> list[dict[str, Any]]:
        done = run(profile, sets)
        assert done.returncode == 0, done.stderr
        return [each for each in yaml.safe_load_all(done.stdout) if each]

    def refused(profile: str = "", *sets: str) -> str:
        done = run(profile, sets)
        assert done.returncode != 0, "helm took it"
        return done.stderr

    objects.refused = refused  # type: ignore[attr-defined]
    return objects
