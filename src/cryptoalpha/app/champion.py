"""How runs come to the registry's models: the settings of a run with a version's models in them, or with the champions'.

    lifecycle.registry.follow: true     `backtest` and `trade` ask the champions, whatever folders the settings name

A run that follows asks a series (`lifecycle.registry.following`): each bar is answered by who was champion when it became known, so that a
promotion neither ends a run nor changes what it did.

The champion of `loop` wins over those of single lines: its models were trained to work together. What it does not hold, and every line
without a champion, stays as the settings have it. A model that is followed is switched on as `train all` switches it on.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from cryptoalpha import __version__
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.train_all import with_models
from cryptoalpha.lifecycle.registry.following import PLACE as SERIES
from cryptoalpha.lifecycle.registry.following import follow
from cryptoalpha.lifecycle.registry.lines import MODELS
from cryptoalpha.lifecycle.registry.registry import PLACE, ModelRegistry
from cryptoalpha.lifecycle.registry.version import Version


def open_registry(home: Path, *, now: Callable[[], int] = time.time_ns) -> ModelRegistry:
    """The registry of a home."""
    return ModelRegistry(home / PLACE, now=now)


def followed(home: Path) -> tuple[Version, ...]:
    """The champions that a run follows, verified: that of `loop`, else those of the single lines.

    Raises:
        ModelError: if the files of one are not what was registered; no run goes on with half a champion.
    """
    registry = open_registry(home)
    loop = registry.champion("loop")
    found = (loop,) if loop is not None else tuple(registry.champion(line) for line in MODELS)
    return tuple(version for version in found if version is not None)


def series_of_champions(home: Path, *, now: Callable[[], int] = time.time_ns) -> dict[str, Path]:
    """Bring the series that runs ask up to date with the champions; the folder of each part. Doing it again changes nothing.

    Raises:
        ModelError: if a champion is damaged, or a change for a later moment is written down: the clock was set back.
    """
    return {name: folder for version in followed(home) for name, folder in follow(home / SERIES, version, now=now).items()}


def with_version(settings: Settings, version: Version) -> Settings:
    """The settings that ask the models of this version."""
    return with_models(settings, {name: folder for name in MODELS if (folder := version.model(name)) is not None})


def with_champion(settings: Settings, home: Path, *, say: Callable[[str], None] | None = None) -> Settings:
    """The settings a run uses: with the champions' models if `lifecycle.registry.follow` is on, else as they are.

    Args:
        say: told which versions are followed, or that there is none.

    Raises:
        ModelError: if a champion's files are not what was registered.
    """
    if not settings.lifecycle.registry.follow:
        return settings
    champions = followed(home)
    settings = with_models(settings, series_of_champions(home))
    if say is not None:
        names = ", ".join(f"{version.line} {version.short}" for version in champions)
        say(
            f"follows the registry: {names}"
            if names
            else "follows the registry, which has no champion yet: models are those of the settings"
        )
    return settings


def code_commit() -> str:
    """What names the code that runs: the commit of the checkout it lies in, `+` where files differ from it; else the release."""
    here = Path(__file__).resolve().parents[3]
    if not (here / ".git").exists():
        return f"cryptoalpha {__version__}"
    try:
        commit = _git(here, "rev-parse", "HEAD").strip()
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", "src").strip()
    except (OSError, subprocess.SubprocessError):
        return f"cryptoalpha {__version__}"
    return f"{commit}+" if changed else commit


def _git(where: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(where), *words], capture_output=True, text=True, check=True, timeout=20).stdout
