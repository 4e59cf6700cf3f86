"""Writes a configuration file in full: every setting with its value and, above it, what it means, from the sections' own docstrings."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from cryptoalpha.app.leaves import section_of
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.store.whole_file import write_whole

HEADER = """\
cryptoalpha configuration: every setting, its value, its unit, range and reason.
Stronger than this file: --set section.key=value, then CRYPTOALPHA_SECTION__KEY, then .env, then secret files.
Delete what you do not change; its default then applies. Secrets do not belong here: set CRYPTOALPHA_CREDENTIALS__API_KEY
(or …_FILE), or write a reference such as keyring:cryptoalpha/api_key."""

_WIDTH = 118


def render(settings: Settings, header: str = HEADER) -> str:
    """The YAML text of `settings`. Reading it back gives `settings` again; secrets are left empty."""
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    _section(settings, lines, 0)
    return "\n".join(lines) + "\n"


def header_of(path: Path) -> str:
    """The comment an existing file begins with, up to its first empty line; the usual one if there is none."""
    lines = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return HEADER
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines) or HEADER


def write_new(path: Path, text: str, *, force: bool) -> None:
    """Write a file whole or not at all (temporary name, then rename).

    Raises:
        ConfigError: if it exists and `force` is false, or cannot be written.
    """
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already", hint="--force overwrites it; nothing was changed")
    try:
        write_whole(path, text)
    except StoreError as error:
        raise ConfigError(str(error), hint="name a place you may write to") from None


def _section(section: BaseModel, lines: list[str], depth: int) -> None:
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        lines.append("")
        if section_of(field) is not None:
            lines.extend(_comment(_title(type(value)), indent))
            lines.append(f"{indent}{name}:")
            _section(value, lines, depth + 1)
        else:
            lines.extend(_comment(field.description or "", indent))
            lines.append(f"{indent}{name}: {_scalar(section.model_dump(mode='json')[name], field.annotation)}")


def _title(section: type[BaseModel]) -> str:
    """A section's docstring without the name in brackets, which the key below repeats."""
    text = " ".join((section.__doc__ or "").split())
    return text.partition("] ")[2] if text.startswith("[") else text


def _comment(text: str, indent: str) -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)


def _scalar(value: Any, annotation: Any) -> str:
    """A value on one line of YAML. Secrets are dumped by pydantic as a mask, which is no reference: they become null."""
    if "SecretStr" in str(annotation):
        return "null"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(item, None) for item in value) + "]"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return yaml.safe_dump(value, allow_unicode=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _number(value: float) -> str:
    """A float as YAML reads it back: `1e-05` would be text, `1.0e-05` is a number."""
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}" if e else text
