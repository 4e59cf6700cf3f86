"""Times are UTC nanoseconds since the epoch, as `int`; this file reads and prints them.

One place for conversions, so that no room parses dates its own way. Naive datetimes are refused: a time without a zone is a guess.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cryptoalpha.core.errors import ConfigError

SECOND = 1_000_000_000
MILLISECOND = SECOND // 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
DAYS_PER_YEAR = 365
"""Crypto trades every day of the year: never 252."""

_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}


def parse_interval(text: str) -> int:
    """Nanoseconds of a bar length such as `1m`, `4h` or `1d`.

    Raises:
        ConfigError: if `text` is not a positive count and one of the units s, m, h, d, w.
    """
    match = re.fullmatch(r"([1-9]\d*)([smhdw])", text)
    if match is None:
        raise ConfigError(f"interval {text!r} is not a bar length", hint="write a count and a unit, such as 1m, 1h or 1d")
    return int(match[1]) * _UNITS[match[2]]


def interval_name(nanoseconds: int) -> str:
    """The shortest exact name of a bar length: 3_600_000_000_000 → `1h`."""
    for unit in ("d", "h", "m", "s"):
        if nanoseconds >= _UNITS[unit] and nanoseconds % _UNITS[unit] == 0:
            return f"{nanoseconds // _UNITS[unit]}{unit}"
    raise ConfigError(f"{nanoseconds} ns is not a whole number of seconds")


def grid_anchor(nanoseconds: int) -> int:
    """A moment at which bars of this length open; all others are whole lengths away. The epoch, but for weeks, which open on Mondays."""
    return 4 * DAY if nanoseconds % (7 * DAY) == 0 else 0  # the epoch was a Thursday


def parse_time(text: str) -> int:
    """UTC nanoseconds of an ISO date or datetime; a bare date is its 00:00 UTC, an offset is honoured.

    Raises:
        ConfigError: if `text` is not ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a date", hint="write YYYY-MM-DD or YYYY-MM-DDTHH:MM, UTC unless it has an offset") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return from_datetime(moment)


def from_datetime(moment: datetime) -> int:
    """UTC nanoseconds of an aware datetime.

    Raises:
        ConfigError: if `moment` carries no time zone.
    """
    if moment.tzinfo is None:
        raise ConfigError(f"{moment.isoformat()} has no time zone", hint="attach one; UTC if the source says so")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds * 1_000


def iso(nanoseconds: int) -> str:
    """`2021-11-05T04:00:00Z`; fractions of a second only where they are not zero."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{text}Z"


def iso_second(nanoseconds: int) -> str:
    """The same without fractions, for people; the second that has begun."""
    return iso(nanoseconds // SECOND * SECOND)


def day_of(nanoseconds: int) -> str:
    """The UTC date of a time, `2021-11-05`."""
    return iso(nanoseconds)[:10]
