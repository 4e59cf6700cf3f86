"""A version: a folder of files that never change again, and `version.json`, which says what they are and where they come from.

    VERSION/version.json    format, line, data, commit, config, seed, metrics, parent; every file with its size and SHA-256; created_at
    VERSION/…               the files as they were registered

The id is the SHA-256 of all that `version.json` says except the moment of creation: the same content has the same id, on every machine.
That finds accidents and edits of any file, not an attacker who writes another version with another id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from cryptoalpha.core.errors import ConfigError, ModelError

FORMAT = 1
"""Raised when older code cannot read what newer code writes."""
DOCUMENT = "version.json"
SHOWN = 12
"""Characters of an id that people are shown."""


@dataclass(frozen=True)
class StoredFile:
    """One file: its place in the version (POSIX), its size in bytes, and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Version:
    """A registered version. `created_at` is UTC ns; `removed_at` is None as long as its files are kept.

    `data` names the data it learned from (a hash), `commit` the code, `config` the settings (JSON values), `parent` the id of the version
    it was to follow.
    """

    id: str
    line: str
    parent: str | None
    created_at: int
    data: str
    commit: str
    config: Mapping[str, Any]
    seed: int
    metrics: Mapping[str, float]
    files: tuple[StoredFile, ...]
    path: Path
    removed_at: int | None = None

    @property
    def short(self) -> str:
        """The id as people are shown it."""
        return self.id[:SHOWN]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def model(self, name: str) -> Path | None:
        """The model folder of that name (`forecaster`, `genome` …): the version itself, a folder of a `loop`, or None."""
        if self.line == name:
            return self.path
        return self.path / name if self.line == "loop" and any(file.name.startswith(f"{name}/") for file in self.files) else None

    def document(self) -> str:
        """What `version.json` holds."""
        return canonical({**self._content(), "created_at": self.created_at})

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {"id": self.id, **self._content(), "created_at": self.created_at, "path": str(self.path), "removed_at": self.removed_at}

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "line": self.line,
            "parent": self.parent,
            "data": self.data,
            "commit": self.commit,
            "config": dict(self.config),
            "seed": self.seed,
            "metrics": dict(self.metrics),
            "files": [asdict(file) for file in self.files],
        }

    @classmethod
    def made(
        cls,
        place: Path,
        *,
        line: str,
        parent: str | None,
        created_at: int,
        data: str,
        commit: str,
        config: Mapping[str, Any],
        seed: int,
        metrics: Mapping[str, float],
        files: tuple[StoredFile, ...],
    ) -> Self:
        """A version of this content; `place` is the folder in which versions lie.

        Raises:
            ConfigError: if a number in `config` or `metrics` is not finite, or something is no JSON value.
        """
        for name, value in metrics.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"the metric {name!r} of a version must be a number, got {value!r}", hint="leave it out")
        said = {name: float(value) for name, value in metrics.items()}
        plain = json.loads(canonical(dict(config)))
        one = cls("", line, parent, created_at, data, commit, plain, seed, said, tuple(sorted(files, key=lambda file: file.name)), place)
        identity = hashlib.sha256(canonical(one._content()).encode()).hexdigest()
        return cls(**{**one._fields(), "id": identity, "path": place / identity})

    @classmethod
    def read(cls, text: str, path: Path, *, removed_at: int | None = None) -> Self:
        """The version a document describes; its id is computed, not believed.

        Raises:
            ModelError: if it is malformed, or in another format.
        """
        hint = "restore it from a copy, or register the model again"
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ModelError(f"{path} is a version in format {content['format']}, this code reads {FORMAT}", hint="use newer code")
            files = tuple(StoredFile(str(one["name"]), int(one["size"]), str(one["sha256"])) for one in content["files"])
            told = {name: content[name] for name in ("line", "parent", "data", "commit", "config", "seed", "metrics", "created_at")}
            one = cls.made(path.parent, **told, files=files)
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError):
            raise ModelError(f"{path / DOCUMENT} is damaged: it does not describe a version", hint=hint) from None
        return cls(**{**one._fields(), "path": path, "removed_at": removed_at})

    def _fields(self) -> dict[str, Any]:
        return dict(self._pairs())

    def _pairs(self) -> Iterator[tuple[str, Any]]:
        for name in self.__dataclass_fields__:
            yield name, getattr(self, name)


def canonical(content: Any) -> str:
    """The one text of a JSON value.

    Raises:
        ConfigError: if it is no JSON value, or a number in it is not finite.
    """
    try:
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a version cannot say this in JSON: {error}", hint="give finite numbers, texts, lists and mappings") from None
