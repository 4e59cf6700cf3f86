"""The chart rendered for a run: its settings and its alert rules put in, nothing of a secret.

`helm` does the rendering; this finds it and the chart. What `helm` is given besides the profile is two values: `settings`, and the alert
rules that follow from them, so that what is told agrees with what is configured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import ConfigError

CHART_VARIABLE, HELM_VARIABLE = "CRYPTOALPHA_CHART", "HELM"
_TIMEOUT_SECONDS = 120.0


def helm_program() -> str:
    """Where `helm` lies: what `HELM` names, else the one on the path.

    Raises:
        ConfigError: if there is none.
    """
    found = os.environ.get(HELM_VARIABLE) or shutil.which("helm")
    if not found or not Path(found).is_file():
        raise ConfigError("helm is not installed, which renders the chart", hint="install helm 3.14 or newer, or name it in HELM")
    return found


def chart_folder() -> Path:
    """The chart, in the package or in the repository that the package lies in.

    Raises:
        ConfigError: if it is in neither.
    """
    here = Path(__file__).resolve()
    places = (here.parent / "chart", *(parent / "deploy" / "helm" / "cryptoalpha" for parent in here.parents[:6]))
    for place in places:
        if (place / "Chart.yaml").is_file():
            return place
    raise ConfigError("the chart is not there", hint="name its folder with --chart; it is deploy/helm/cryptoalpha in the repository")


def profile_file(chart: Path, name: str) -> Path:
    """The values of a profile.

    Raises:
        ConfigError: if there is no such profile.
    """
    found = chart / "profiles" / f"{name}.yaml"
    if not found.is_file():
        names = ", ".join(sorted(path.stem for path in (chart / "profiles").glob("*.yaml")))
        raise ConfigError(f"there is no profile {name!r}", hint=f"one of {names}, or none and --values FILE")
    return found


def rendered(chart: Path, *, name: str, namespace: str, files: Sequence[Path], values: Mapping[str, Any], sets: Sequence[str] = ()) -> str:
    """All objects as YAML documents.

    Args:
        files: values, the last one wins.
        values: go before all files.
        sets: `key=value` as `helm --set`; go before everything.

    Raises:
        ConfigError: in helm's words, if the values are refused.
    """
    import yaml

    with tempfile.TemporaryDirectory(prefix="cryptoalpha-render-") as folder:
        own = Path(folder) / "own.yaml"
        own.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
        given = [part for path in (*files, own) for part in ("--values", str(path))]
        chosen = [part for one in sets for part in ("--set", one)]
        command = [helm_program(), "template", name, str(chart), "--namespace", namespace, *given, *chosen]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise ConfigError(f"helm gave no answer within {_TIMEOUT_SECONDS:.0f} s", hint="is the machine very busy?") from None
    if done.returncode != 0:
        raise ConfigError(f"helm refuses the values: {_said(done.stderr)}", hint=f"{chart / 'values.yaml'} says what each value is for")
    return done.stdout


def _said(stderr: str) -> str:
    """Helm's complaint in one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "--debug" not in line and not line.startswith("level=")]
    return "; ".join(lines).removeprefix("Error: ") or "it does not say why"
