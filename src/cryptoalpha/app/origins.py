"""Where settings come from: each source read into leaves, so that every value can name its origin and every wrong name its place.

Strongest first: `--set` > environment > `.env` > secret files (`…_FILE`, a secrets directory) > YAML > defaults. Nothing is passed over in
silence: a name with our prefix that is no setting is a fault. Faults are collected, not raised one by one, and never repeat a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptoalpha.app.config_files import ConfigFile, parse_value
from cryptoalpha.app.leaves import Key, Leaf, nearest
from cryptoalpha.core.errors import ConfigError

PREFIX = "CRYPTOALPHA_"
NESTING = "__"
FILE_SUFFIX = "_file"
NOT_SETTINGS = frozenset({"HOME", "CONFIG", "LIVE", "SECRETS_DIR", "TEST_DATA"})
"""Names with our prefix that steer the program but are no settings."""
REFERENCES = ("keyring:", "env:", "file:")
"""How a configuration file or a command line may name a secret without holding it."""


@dataclass(frozen=True)
class Given:
    """A value as a source gave it, and what that source is called."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a source."""

    message: str
    hint: str = ""


@dataclass
class Sources:
    """What all sources say: leaves with origins, faults, and every text that may be a secret."""

    leaves: Mapping[Key, Leaf]
    given: dict[Key, Given] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)

    def add_file(self, file: ConfigFile) -> None:
        """A YAML file. Sections without content are fine, so that a file of comments is valid."""
        self._walk(file, file.content, ())

    def add_directory(self, directory: Path) -> None:
        """A directory with one secret per file, as Docker and Kubernetes mount them; foreign files are left alone."""
        if not directory.is_dir():
            self.faults.append(Fault(f"CRYPTOALPHA_SECRETS_DIR: {directory} is not a directory", "mount the secrets or unset the name"))
            return
        for path in sorted(directory.iterdir()):
            if path.name.upper().startswith(PREFIX) and path.is_file():
                self._add_named(path.name.upper(), path, f"file {path}")

    def add_names(self, names: Mapping[str, str | None], label: str) -> None:
        """Environment variables or the lines of a `.env`; a name without our prefix belongs to another program."""
        ours = {name: value or "" for name, value in sorted(names.items()) if name.startswith(PREFIX)}
        for name, value in ours.items():
            if name.removeprefix(PREFIX) in NOT_SETTINGS:
                continue
            key = _key_of(name)
            target = (*key[:-1], key[-1].removesuffix(FILE_SUFFIX))
            if key not in self.leaves and key[-1].endswith(FILE_SUFFIX) and target in self.leaves:
                continue  # read by `add_named_files`, which is weaker
            self._add_named(name, value, f"{label}{name}")

    def add_named_files(self, names: Mapping[str, str | None]) -> None:
        """`CRYPTOALPHA_SECTION__KEY_FILE`: the value lies in the file named."""
        for name, value in sorted(names.items()):
            if not name.startswith(PREFIX) or not name.lower().endswith(FILE_SUFFIX) or _key_of(name) in self.leaves:
                continue
            if _key_of(name[: -len(FILE_SUFFIX)]) in self.leaves:
                self._add_named(name[: -len(FILE_SUFFIX)], Path(value or ""), f"file {value} (env {name})")

    def add_overrides(self, overrides: Sequence[str]) -> None:
        """`section.key=value` texts of `--set`, later ones stronger."""
        for place, text in enumerate(overrides, start=1):
            name, equals, value = text.partition("=")
            if not equals:
                self.faults.append(Fault(f"--set number {place} has no `=`", "write --set risk.max_drawdown=0.2"))
                continue
            key = tuple(name.strip().split("."))
            if self._knows(key, f"--set {name.strip()}"):
                self._put_text(key, value, f"--set {name.strip()}", may_hold_secret=False)

    def _walk(self, file: ConfigFile, content: Mapping[str, Any], prefix: Key) -> None:
        for name, value in content.items():
            key = (*prefix, name)
            where = file.where(key)
            if key in self.leaves:
                self._put(key, value, where, may_hold_secret=False)
            elif not self._is_section(key):
                self._collect(value)
                self._knows(key, where)
            elif isinstance(value, Mapping):
                self._walk(file, value, key)
            elif value is not None:
                self._collect(value)
                self.faults.append(Fault(f"{where}: {'.'.join(key)} is a section, not a value", "put its settings below it, indented"))

    def _add_named(self, name: str, source: str | Path, origin: str) -> None:
        """A setting named as in the environment, its value given as text or lying in a file."""
        key = _key_of(name)
        if not self._knows(key, origin, spelled=_name_of):
            return
        if isinstance(source, Path):
            try:
                source = source.expanduser().read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8 text"
                self.faults.append(Fault(f"{origin}: cannot be read: {reason}", "name a readable text file that holds only the value"))
                return
        self._put_text(key, source, origin, may_hold_secret=True)

    def _put_text(self, key: Key, text: str, origin: str, *, may_hold_secret: bool) -> None:
        leaf = self.leaves[key]
        value: Any = text
        if leaf.optional and text.strip().lower() in ("", "null", "none", "~"):
            value = None
        elif leaf.structured:
            try:
                value = parse_value(text)
            except ConfigError as error:
                self.faults.append(Fault(f"{origin}: {leaf.name}: {error}", error.hint))
                return
        self._put(key, value, origin, may_hold_secret=may_hold_secret)

    def _put(self, key: Key, value: Any, origin: str, *, may_hold_secret: bool) -> None:
        leaf = self.leaves[key]
        if leaf.secret:
            self._collect(value)
            if not may_hold_secret and isinstance(value, str) and value and not value.startswith(REFERENCES):
                hint = f"set {_name_of(key)} or {_name_of(key)}_FILE, or write a reference such as keyring:cryptoalpha/{key[-1]}"
                self.faults.append(Fault(f"{origin}: {leaf.name} is a secret, and files and command lines are read by others", hint))
                return
        elif isinstance(value, bool) and not leaf.takes_bool:
            hint = "YAML reads on, off, yes and no as true and false: put the word in quotes"
            self.faults.append(Fault(f"{origin}: {leaf.name} cannot be true or false", hint))
            return
        self.given[key] = Given(value, origin)

    def _knows(self, key: Key, where: str, spelled: Any = ".".join) -> bool:
        """Whether `key` is a leaf; if not, the fault that says so."""
        if key in self.leaves:
            return True
        name = ".".join(key)
        if self._is_section(key):
            example = next(leaf.key for leaf in self.leaves.values() if leaf.key[: len(key)] == key)
            self.faults.append(
                Fault(f"{where}: {name} is a section, not a setting", f"name one of its settings, such as {spelled(example)}")
            )
        elif not self._is_section(key[:1]):
            sections = sorted({leaf[0] for leaf in self.leaves})
            self.faults.append(Fault(f"{where}: there is no section {key[0]!r}", nearest(key[0], sections)))
        else:
            hint = nearest(name, [leaf.name for leaf in self.leaves.values()])
            self.faults.append(Fault(f"{where}: {name} is not a setting", hint))
        return False

    def _is_section(self, key: Key) -> bool:
        return any(len(leaf) > len(key) and leaf[: len(key)] == key for leaf in self.leaves)

    def _collect(self, value: Any) -> None:
        self.secrets.update(_texts(value))


def _key_of(name: str) -> Key:
    return tuple(name.removeprefix(PREFIX).lower().split(NESTING))


def _name_of(key: Key) -> str:
    return PREFIX + NESTING.join(key).upper()


def _texts(value: Any) -> Iterator[str]:
    """Every text inside a value that may be or hold a secret; references are not secret."""
    if isinstance(value, str):
        if value and not value.startswith(REFERENCES):
            yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
