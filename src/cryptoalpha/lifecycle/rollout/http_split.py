"""The traffic split of a running `serve`, over its own HTTP interface: `/v1/split`, `/v1/split/ensure`, `/v1/split/finish`, `/v1/counts`.

Reading needs no token, changing does. One connection per question: a controller asks a few times a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.lifecycle.rollout.split import (
    ArmCounts,
    Counts,
    Split,
    SplitConflictError,
    SplitRefusedError,
    SplitUnreachableError,
    checked_weights,
)

T = TypeVar("T")


class HttpSplit:
    """A `TrafficSplit` that speaks to one `serve`.

    Args:
        url: where it listens, such as http://127.0.0.1:8100.
        token: bearer token of those who may change what is served; empty can only read.
        timeout_seconds: how long an answer is waited for; loading a version takes its time.

    Raises (every method):
        SplitUnreachableError: if nobody answers, or the server is in trouble (5xx).
        SplitConflictError: if the split changed meanwhile (409).
        DataMissingError: if a version is not there (404).
        SplitRefusedError: if the token is refused (401, 403).
        ConfigError: if the request is refused (other 4xx).
    """

    def __init__(self, url: str, *, token: str = "", timeout_seconds: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no address of a server", hint="such as http://127.0.0.1:8100")
        self._url, self._timeout = url.rstrip("/"), timeout_seconds
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def ensure(self, stable: str, canary: str) -> Split:
        """As `TrafficSplit.ensure`."""
        return self._decoded(Split, await self._ask("POST", "/v1/split/ensure", {"stable": stable, "canary": canary}))

    async def read(self) -> Split:
        """As `TrafficSplit.read`."""
        return self._decoded(Split, await self._ask("GET", "/v1/split"))

    async def write(self, weights: Mapping[str, float], *, expected_version: str, shadow: bool = False) -> Split:
        """As `TrafficSplit.write`."""
        body = {"weights": checked_weights(weights, shadow=shadow), "expected_version": expected_version, "shadow": shadow}
        return self._decoded(Split, await self._ask("PUT", "/v1/split", body))

    async def counts(self, since: int) -> Counts:
        """As `TrafficSplit.counts`."""
        return self._decoded(dict[str, ArmCounts], await self._ask("GET", f"/v1/counts?since={since}"))

    async def finish(self, winner: str) -> None:
        """As `TrafficSplit.finish`."""
        await self._ask("POST", "/v1/split/finish", {"winner": winner})

    def _decoded(self, kind: type[T], content: bytes) -> T:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.MsgspecError as error:
            raise SplitUnreachableError(
                f"{self._url} answered what is no {kind}: {error}", hint="is a cryptoalpha server there?"
            ) from error

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=self._timeout)
        data = None if body is None else msgspec.json.encode(body)
        headers = {**self._headers, "Content-Type": "application/json"}
        try:
            async with (
                aiohttp.ClientSession(timeout=limit, headers=headers) as session,
                session.request(method, self._url + path, data=data, allow_redirects=False) as answer,
            ):
                content = await answer.read()
                status = answer.status
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise SplitUnreachableError(
                f"{self._url} does not answer: {error or type(error).__name__}", hint="is `cryptoalpha serve` running there?"
            ) from error
        if status < 300:
            return content
        words = f"{method} {path} at {self._url} was refused ({status}): {content[:300].decode(errors='replace')}"
        if status == 409:
            raise SplitConflictError(words, hint="read the split again; another hand wrote it")
        if status == 404:
            raise DataMissingError(words, hint="is the version registered, and is it a cryptoalpha server?")
        if status in (408, 429) or status >= 500:
            raise SplitUnreachableError(words, hint="the next look tries again")
        if status in (401, 403):
            raise SplitRefusedError(words, hint="credentials.serving_token must be the same here and where `serve` runs")
        raise ConfigError(words, hint="the request does not fit this server's version")
