"""A file goes on under the settings that it was written under, or is refused with what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptoalpha.core.errors import ConfigError


def refuse_other_settings(source: str, before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> None:
    """Compare what is kept in `source` with today's settings; lists and tuples of equal entries are equal (JSON knows only lists).

    Raises:
        ConfigError: naming everything that differs, with both values.
    """
    differing = [
        f"{prefix}{name} was {before.get(name, 'not recorded')!r}, is {now.get(name, 'not given')!r}"
        for name in sorted({*before, *now})
        if name not in before or name not in now or _plain(before[name]) != _plain(now[name])
    ]
    if differing:
        raise ConfigError(
            f"{source} was kept under other settings: {'; '.join(differing)}", hint="undo the change to go on from it, or begin anew"
        )


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
