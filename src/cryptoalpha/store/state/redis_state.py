"""Shared state in Redis (or what speaks its protocol) for many processes and hosts. Needs the package redis (extra `streams`).

Every write is one Lua script, so it happens whole or not at all and between no other. It leaves a mark of its own, by which a repeat is
known: a write whose answer was lost is sent again without happening twice. After a broken connection a question is repeated for
`patience_seconds`; then a `StoreError` says that the server is gone, and for a write it is not known whether it happened.

All keys begin with a prefix: a server may be shared. How much survives a crash of the server is its own setting: with `appendonly yes`
what was answered survives its process, and `appendfsync always` a power cut.

Source: Redis documentation, "Scripting with Lua" (atomicity), "Key expiration".
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import ConfigError, DataError, StoreError
from cryptoalpha.core.seeds import stream
from cryptoalpha.store.state.rules import check_amount, check_expiry, check_names

T = TypeVar("T")

_FIRST_WAIT, _LONGEST_WAIT = 0.02, 0.5
_SCAN: Final = 1_000
_CONNECTIONS: Final = 8
"""At most, per store; whoever asks while all are in use waits."""
_GLOB: Final = str.maketrans({character: f"\\{character}" for character in "*?[]^\\-"})

# In all: KEYS[1] is the mark of this write, ARGV[1] how long it stays, ms. The mark holds the answer.
_PUT: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
for place = 2, #KEYS do
  if ARGV[2] == '' then redis.call('SET', KEYS[place], ARGV[place + 1])
  else redis.call('SET', KEYS[place], ARGV[place + 1], 'PX', ARGV[2]) end
end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
"""
_SWAP: Final = """
local before = redis.call('GET', KEYS[1])
if before then return tonumber(before) end
local found = redis.call('GET', KEYS[2])
local done = 0
if (ARGV[2] == '0' and not found) or (ARGV[2] == '1' and found == ARGV[3]) then
  if ARGV[4] == '1' then redis.call('SET', KEYS[2], ARGV[5]) else redis.call('DEL', KEYS[2]) end
  done = 1
end
redis.call('SET', KEYS[1], done, 'PX', ARGV[1])
return done
"""
_ADD: Final = """
local before = redis.call('GET', KEYS[1])
if before then return before end
local is_new = redis.call('EXISTS', KEYS[2]) == 0
local total = redis.pcall('INCRBYFLOAT', KEYS[2], ARGV[2])
if type(total) == 'table' then return redis.error_reply('NONUMBER') end
if is_new and ARGV[3] ~= '' then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
redis.call('SET', KEYS[1], total, 'PX', ARGV[1])
return total
"""


class RedisState:
    """A `StateStore` on a server; `async with RedisState("localhost:6379") as state`.

    Args:
        address: host:port, without user or password.
        prefix: of all keys.
        user, password: from the environment, see `open_state`; shown nowhere.
        patience_seconds: how long a server that does not answer is asked again.

    Raises (on entering):
        ConfigError: if the package is missing, or the server refuses the password.
        StoreError: if the server does not answer.
    """

    def __init__(
        self, address: str, *, prefix: str = "cryptoalpha:", user: str = "", password: str = "", patience_seconds: float = 5.0
    ) -> None:
        host, colon, port = address.rpartition(":")
        if not (colon and host and port.isdecimal()):
            raise ConfigError(f"{address!r} is no address of a Redis server", hint="write host:port")
        self.address, self._prefix, self._patience = address, prefix, patience_seconds
        self._client: Any = None
        self._arguments: dict[str, Any] = {
            "host": host.strip("[]"),
            "port": int(port),
            "username": user or None,
            "password": password or None,
        }
        self._mark_ms = round(2_000 * patience_seconds)
        self._random = stream(secrets.randbits(62), "redis state")  # clients that lost one server must not return together

    async def __aenter__(self) -> Self:
        try:
            import redis.asyncio as client
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise ConfigError("the package redis is not installed", hint='pip install "cryptoalpha[streams]"') from None
        # its own retries are off: it would repeat writes that may have happened
        pool = client.BlockingConnectionPool(
            **self._arguments,
            max_connections=_CONNECTIONS,
            timeout=self._patience,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=self._patience,
            socket_connect_timeout=self._patience,
            decode_responses=False,
        )
        self._client = client.Redis.from_pool(pool)
        self._put, self._swap, self._add = (self._client.register_script(text) for text in (_PUT, _SWAP, _ADD))
        try:
            await self._ask(lambda: self._client.ping())
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections. Called again, it does nothing."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """See `StateStore.get`."""
        check_names(names)
        if not names:
            return []
        return list(await self._ask(lambda: self._client.mget([self._key(name) for name in names])))

    async def put(self, values: Mapping[str, bytes], *, expires_seconds: float | None = None) -> None:
        """See `StateStore.put`."""
        check_names(values)
        check_expiry(expires_seconds)
        if not values:
            return
        keys, contents = [self._mark(), *map(self._key, values)], [bytes(value) for value in values.values()]
        await self._ask(lambda: self._put(keys=keys, args=[self._mark_ms, _ms(expires_seconds), *contents]))

    async def swap(self, name: str, expected: bytes | None, value: bytes | None) -> bool:
        """See `StateStore.swap`."""
        check_names([name])
        keys = [self._mark(), self._key(name)]
        arguments = [self._mark_ms, *_optional(expected), *_optional(value)]
        return bool(await self._ask(lambda: self._swap(keys=keys, args=arguments)))

    async def add(self, name: str, amount: float, *, expires_seconds: float | None = None) -> float:
        """See `StateStore.add`.

        Raises:
            DataError: if the name holds no number, or the amount is not finite.
        """
        check_names([name])
        check_amount(amount)
        check_expiry(expires_seconds)
        keys, arguments = [self._mark(), self._key(name)], [self._mark_ms, format(amount, ".17g"), _ms(expires_seconds)]
        total = await self._ask(lambda: self._add(keys=keys, args=arguments), what=name)
        return float(total)

    async def names(self, area: str) -> list[str]:
        """See `StateStore.names`. Names made or removed meanwhile may be among them or not."""
        check_names([f"{area}/x"])
        pattern = self._key(f"{area}/").translate(_GLOB) + "*"

        async def scan() -> set[bytes]:
            return {key async for key in self._client.scan_iter(match=pattern, count=_SCAN)}

        return sorted(key.decode().removeprefix(self._prefix) for key in await self._ask(scan))

    async def _ask(self, question: Callable[[], Awaitable[T]], *, what: str = "") -> T:
        """The answer, asked for again while the connection fails."""
        from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, RedisError, ResponseError, TimeoutError

        if self._client is None:
            raise StoreError(f"the state at {self.address} is not open", hint="use it within `async with`")
        loop = asyncio.get_running_loop()
        deadline, backoff = loop.time() + self._patience, Backoff(_FIRST_WAIT, _LONGEST_WAIT, random=self._random)
        while True:
            try:
                return await question()
            except (AuthenticationError, NoPermissionError) as error:
                raise ConfigError(
                    f"Redis at {self.address} refuses: {error}", hint="set REDIS_PASSWORD, and REDIS_USER where users are told apart"
                ) from None
            except (ConnectionError, TimeoutError, OSError) as error:  # a server that is loading its file says so here too
                wait = backoff.wait()
                if loop.time() + wait > deadline:
                    raise StoreError(
                        f"Redis at {self.address} does not answer: {error}",
                        hint="start it, or set data.streams.backend to embedded to keep state in a file",
                    ) from error
                await asyncio.sleep(wait)
            except ResponseError as error:
                if "NONUMBER" in str(error):
                    raise DataError(f"{what} holds no number", hint="a name is used either with add or with put, not with both") from None
                raise StoreError(f"Redis at {self.address} refuses: {error}", hint="look at its log and its memory") from error
            except RedisError as error:
                raise StoreError(f"Redis at {self.address} failed: {error}", hint="look at its log") from error

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _mark(self) -> str:
        """A key no state can have: its name begins with a slash."""
        return f"{self._prefix}/{secrets.token_hex(12)}"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else str(max(1, round(seconds * 1_000)))


def _optional(value: bytes | None) -> tuple[str, bytes]:
    return ("0", b"") if value is None else ("1", bytes(value))
