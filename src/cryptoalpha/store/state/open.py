"""Which state store a configuration asks for. Passwords come from the environment alone: `REDIS_USER`, `REDIS_PASSWORD`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from cryptoalpha.core.clock import Clock
from cryptoalpha.store.state.redis_state import RedisState
from cryptoalpha.store.state.sqlite_state import SqliteState

USER_VARIABLE: Final = "REDIS_USER"
PASSWORD_VARIABLE: Final = "REDIS_PASSWORD"


def open_state(
    backend: Literal["embedded", "servers"],
    *,
    path: Path | None,
    address: str,
    prefix: str = "cryptoalpha:",
    environment: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    patience_seconds: float = 5.0,
) -> SqliteState | RedisState:
    """The state store of `backend`; nothing is opened before `async with`.

    Args:
        path: file of the embedded one; None keeps it in memory.
        address: host:port of the Redis server.
        prefix: of all keys in Redis.
        environment: names and values, `os.environ` by default.
        clock: what the embedded one judges expiries by.
        patience_seconds: how long a server that does not answer is asked again.

    Raises:
        ConfigError: if the address is none.
    """
    if backend == "embedded":
        return SqliteState(path, clock=clock)
    environment = os.environ if environment is None else environment
    return RedisState(
        address,
        prefix=prefix,
        user=environment.get(USER_VARIABLE, ""),
        password=environment.get(PASSWORD_VARIABLE, ""),
        patience_seconds=patience_seconds,
    )
