"""Reading a YAML file strictly: what PyYAML passes over in silence is refused here, with file and line.

Refused: a missing file, broken YAML, a key given twice, a top level that is not a mapping, a key that is not text (`on:` is a boolean).
A message never repeats a line of the file, because the line may hold a secret.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cryptoalpha.core.errors import ConfigError

Key = tuple[str, ...]

_SAFE_PROBLEMS = ("mapping values are not allowed", "could not find expected ':'", "expected <block end>", "did not find expected")
"""Parser complaints that are known to quote nothing from the file."""


@dataclass(frozen=True)
class ConfigFile:
    """A file's settings as nested mappings, and the line each key stands on (from 1)."""

    path: Path
    content: dict[str, Any]
    lines: dict[Key, int]

    def where(self, key: Key) -> str:
        """`file:line` of a key, or of the nearest parent that has one."""
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.path}:{self.lines[key]}" if key else str(self.path)


def read_config_file(path: Path) -> ConfigFile:
    """Read one YAML file.

    Raises:
        ConfigError: if it cannot be read, is not UTF-8 or YAML, repeats a key, or is not a mapping of text keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}", hint="`cryptoalpha init` writes one") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="--config names a YAML file you may read") from None
    lines: dict[Key, int] = {}
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        content = {} if node is None else _build(loader, node, path, (), lines)
    except yaml.YAMLError as error:
        raise _syntax_error(path, error) from None
    finally:
        loader.dispose()
    if not isinstance(content, dict):
        raise ConfigError(f"{path}:1: the top level is not a mapping of sections", hint="write `risk:` and its settings indented below it")
    return ConfigFile(path, content, lines)


def parse_value(text: str) -> Any:
    """The value of a flow-style text such as `[BTC/USDT, ETH/USDT]`, for settings that are lists or mappings.

    Raises:
        ConfigError: if it is not YAML; the text itself is not repeated.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError("the value is not a list or mapping", hint="write it like [BTC/USDT, ETH/USDT]") from None


def _build(loader: yaml.SafeLoader, node: yaml.Node, path: Path, key: Key, lines: dict[Key, int]) -> Any:
    """The Python value of a node; mappings are walked here so that a key given twice is seen."""
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    content: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name: Hashable = loader.construct_object(name_node, deep=True)
        line = name_node.start_mark.line + 1
        if not isinstance(name, str):
            raise ConfigError(
                f"{path}:{line}: a key here is a {type(name).__name__}, not text",
                hint="YAML reads on, off, yes, no and numbers as values: put the key in quotes",
            )
        here = (*key, name)
        if name in content:
            raise ConfigError(
                f"{path}:{line}: {'.'.join(here)} is given twice, first on line {lines[here]}",
                hint="remove one; YAML would silently keep the last",
            )
        lines[here] = line
        content[name] = _build(loader, value_node, path, here, lines)
    return content


def _syntax_error(path: Path, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or ""
    place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
    known = next((f" ({safe})" for safe in _SAFE_PROBLEMS if problem.startswith(safe)), "")
    return ConfigError(f"{place}: not valid YAML{known}", hint="check indentation (spaces, no tabs), quotes and the line above")
