"""What the settings of every live source have in common, and the types of their addresses and of the names of their keys.

Keys never stand here: a setting names the environment variable that holds one (`…_env`), because settings are printed and kept with every
run. Addresses are settings, so that tests, mirrors and proxies need no code.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from cryptoalpha.core.config import Count, NonNegative, Positive, Section


def _address(*schemes: str) -> AfterValidator:
    def checked(address: str) -> str:
        if not address.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"an address begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        if "@" in address.split("://", 1)[1].split("/", 1)[0]:
            raise ValueError("an address holds no user or password: settings are printed and kept with every run")
        return address.rstrip("/")

    return AfterValidator(checked)


HttpAddress = Annotated[str, _address("http", "https")]
SocketAddress = Annotated[str, _address("ws", "wss")]
EnvName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
"""Name of an environment variable that holds a secret."""


class SourceSection(Section):
    """What every source has."""

    enabled: bool = True
    """Whether it runs. One whose key, package or address is missing is listed as unavailable, with what to do, and the others run."""

    retry_seconds: Positive = 1.0
    """First wait after a failure; doubles with each, half of it spread by chance."""

    retry_limit_seconds: Positive = 60.0
    """Longest wait of its own making; a Retry-After that asks for more is obeyed."""

    requests_per_minute: Positive = 60.0
    """How often it may ask in the long run."""

    burst: Count = 5
    """How many requests may follow each other at once."""

    daily_units: Positive | None = None
    """What it may read in a UTC day, in its own units (posts, requests). At 100 % it pauses until the next day, also after a restart."""

    daily_money: Positive | None = None
    """What it may cost in a UTC day, dollars; pauses likewise."""

    unit_price: NonNegative = 0.0
    """Dollars per unit."""
