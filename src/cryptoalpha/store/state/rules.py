"""What every state store agrees on: which names are names, which values are numbers, and how an expiry is given."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from cryptoalpha.core.errors import ConfigError, DataError

LONGEST_NAME: Final = 400


def check_names(names: Iterable[str]) -> None:
    """Nothing where all are `area/name`.

    Raises:
        ConfigError: for a name without an area, with control characters, or too long.
    """
    for name in names:
        area, slash, rest = name.partition("/")
        if not (area and slash and rest and len(name) <= LONGEST_NAME and name.isprintable()):
            raise ConfigError(f"{name!r} is no name of a state", hint=f"write area/name, printable, up to {LONGEST_NAME} characters")


def check_expiry(expires_seconds: float | None) -> None:
    """Nothing where it is None or a time to come.

    Raises:
        ConfigError: if it is not at least a millisecond.
    """
    if expires_seconds is not None and not 0.001 <= expires_seconds < math.inf:
        raise ConfigError(f"an expiry after {expires_seconds} s", hint="at least 0.001 s, or None to keep it")


def check_amount(amount: float) -> None:
    """Nothing where it can be added.

    Raises:
        DataError: if it is not finite: one NaN would make every sum after it one.
    """
    if not math.isfinite(amount):
        raise DataError(f"{amount} cannot be added to a number", hint="find out where it was computed")


def number_of(name: str, value: bytes) -> float:
    """The number a value holds.

    Raises:
        DataError: if it holds none.
    """
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{name} holds no number", hint="a name is used either with add or with put, not with both")
    return found
