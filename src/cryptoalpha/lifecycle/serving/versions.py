"""Where served versions come from: a registry of models, and folders that nobody registered.

A version is named by its id (or a prefix of it, or `champion`) in the registry, or by the path of a folder of `train forecaster`. A
folder's id is `folder-` and twelve digits of the SHA-256 of its `model.json`, which holds the SHA-256 of every fold: the same content has
the same id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.registry.copying import demand_sound
from cryptoalpha.lifecycle.registry.registry import ModelRegistry
from cryptoalpha.lifecycle.registry.version import DOCUMENT, Version
from cryptoalpha.store.model_folder import ModelFolder

CHAMPION = "champion"
_PARTS = ("", "forecaster")
"""Where in a version the forecaster lies: alone, or as one of the models of a loop."""


@dataclass(frozen=True)
class FoundVersion:
    """A version's id and the folder of its forecaster."""

    id: str
    folder: Path


Find = Callable[[str], FoundVersion]
"""The version of a name.

Raises:
    ConfigError: if there is none.
    ModelError: if it is damaged.
"""


def find_folder(name: str) -> FoundVersion:
    """A folder of `train forecaster` as a version.

    Raises:
        ConfigError: if there is none.
        ModelError: if it cannot be read.
    """
    path = Path(name).expanduser().resolve()
    if (path / DOCUMENT).is_file():
        return _copy_of_registered(path)
    folder = forecaster_in(path)
    ModelFolder.open(folder, "forecaster")
    digest = hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    return FoundVersion(f"folder-{digest[:12]}", folder)


def _copy_of_registered(path: Path) -> FoundVersion:
    """A registered version that was copied out of its registry, as pods are given it: its own id, and every file verified.

    Raises:
        ModelError: if a file is missing, changed, or more than was registered.
    """
    version = Version.read((path / DOCUMENT).read_text(encoding="utf-8"), path)
    demand_sound(version)
    return FoundVersion(version.id, forecaster_in(path))


def forecaster_in(path: Path) -> Path:
    """The forecaster's folder in a version's.

    Raises:
        ConfigError: if there is none.
    """
    for part in _PARTS:
        if (path / part / "model.json").is_file():
            return path / part
    raise ConfigError(f"{path} holds no forecaster", hint="name a folder of `cryptoalpha train forecaster` or of `train all`")


def in_registry(registry: ModelRegistry) -> Find:
    """Finds ids, prefixes and `champion`: that of the line `loop` if there is one, else of `forecaster`."""

    def find(name: str) -> FoundVersion:
        if name == CHAMPION:
            version = registry.champion("loop") or registry.champion("forecaster")
            if version is None:
                hint = "promote one with `cryptoalpha models promote`, or name a version or a folder"
                raise ConfigError("the registry has no champion that forecasts", hint=hint)
        else:
            version = registry.get(name)
        folder = version.model("forecaster")
        if folder is None:
            raise ConfigError(f"version {version.short} of line {version.line!r} holds no forecaster", hint="serve one that does")
        return FoundVersion(version.id, folder)

    return find


class Known:
    """Names to versions, and every version that was found once by its id: a folder's id leads back to the folder.

    Args:
        registered: finds ids, prefixes and `champion` in the registry.
    """

    def __init__(self, registered: Find) -> None:
        self._registered = registered
        self._found: dict[str, FoundVersion] = {}

    def __call__(self, name: str) -> FoundVersion:
        """The version of a name; see `Find`."""
        if name in self._found:
            return self._found[name]
        is_path = "/" in name or name.startswith((".", "~"))
        try:
            found = find_folder(name) if is_path else self._registered(name)
        except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL in it, the home of nobody
            raise ConfigError(f"{name!r} is no name of a version ({error})", hint="an id, `champion`, or a folder with a slash") from None
        self._found[found.id] = found
        return found
