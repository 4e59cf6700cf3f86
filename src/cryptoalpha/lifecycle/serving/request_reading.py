"""Reads what every request carries: its body within limits, its id, its key, its deadline. Nothing here knows models."""

from __future__ import annotations

import asyncio
import hmac
import re
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from cryptoalpha.core.errors import ConfigError

REQUEST_ID, STICKY_KEY, DEADLINE = "x-request-id", "x-sticky-key", "x-deadline-ms"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MILLISECONDS = re.compile(r"[1-9][0-9]{0,6}")


@dataclass
class RefusedRequestError(ConfigError):
    """A request that is turned away before anybody computes. `status`: HTTP's."""

    status: int
    message: str
    reason: str
    hint: str = ""

    def __post_init__(self) -> None:
        super().__init__(self.message, hint=self.hint)


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """The body, whatever its length says.

    Raises:
        RefusedRequestError: 413 if it is too long, 408 if it does not come in time, 400 if the client leaves.
    """
    claimed = request.headers.get("content-length", "")
    too_long = RefusedRequestError(413, f"the body is longer than {limit:,} bytes", "too_long", "send fewer bars, or the binary form")
    if claimed.isdecimal() and int(claimed) > limit:
        raise too_long
    parts, length = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                length += len(part)
                if length > limit:
                    raise too_long
                parts.append(part)
    except TimeoutError:
        raise RefusedRequestError(408, f"the body did not come within {seconds:g} s", "slow") from None
    except ClientDisconnect:
        raise RefusedRequestError(400, "the client left before its body was here", "left") from None
    return b"".join(parts)


def request_id(request: Request) -> str | None:
    """The id the client gave, None if it gave none that can be used."""
    given = request.headers.get(REQUEST_ID, "")
    return given if _ID.fullmatch(given) else None


def sticky_key(request: Request) -> str | None:
    """The key by which a client stays with one arm, None if it gave none.

    Raises:
        RefusedRequestError: 400 if it is no key.
    """
    given = request.headers.get(STICKY_KEY)
    if given is not None and not _ID.fullmatch(given):
        raise RefusedRequestError(400, f"{STICKY_KEY} must be 1 to 128 of A–Z a–z 0–9 . _ : -", "malformed")
    return given


def deadline_seconds(request: Request, longest: float) -> float:
    """How long the client waits, at most `longest`.

    Raises:
        RefusedRequestError: 400 if it is no number of milliseconds.
    """
    given = request.headers.get(DEADLINE)
    if given is None:
        return longest
    if not _MILLISECONDS.fullmatch(given):
        raise RefusedRequestError(400, f"{DEADLINE} must be whole milliseconds, 1 to 9999999", "malformed")
    return min(longest, int(given) / 1e3)


def require_token(request: Request, token: str) -> None:
    """Let nobody through without the bearer token.

    Raises:
        RefusedRequestError: 401 without the right one, 403 where the server has none and so nobody may.
    """
    if not token:
        raise RefusedRequestError(
            403, "this server was started without a token, so nobody may change it", "forbidden", "set credentials.serving_token"
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), token.encode()):
        raise RefusedRequestError(401, "this needs the bearer token of the server", "unauthorised", "Authorization: Bearer …")
