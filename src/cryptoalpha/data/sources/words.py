"""What a failure of the network is called by people: one phrase, whichever library met it, and no key that may stand in an address."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator

_LATE = re.compile(r"Timeout(Error)?$")


def in_words(error: BaseException) -> str:
    """Such as `stream.binance.com:9443: Name or service not known`, `Connection refused`, `no answer in time`.

    The libraries' own texts are not passed on: some hold the address that was asked, with all that stands in it, others nothing at all.
    """
    host, port = getattr(error, "host", None), getattr(error, "port", None)
    return (f"{host}:{port}: " if host and port else "") + _why(error)


def _why(error: BaseException) -> str:
    known = list(_causes(error))
    for one in known:
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({one.verify_message})"
    for one in known:
        if isinstance(one, OSError) and one.errno is not None and one.errno > 0:
            return os.strerror(one.errno)
        if isinstance(one, OSError) and one.errno is not None and one.strerror:  # a name that nobody knows: numbers of their own
            return str(one.strerror)
    for one in known:
        if isinstance(one, TimeoutError) or _LATE.search(type(one).__name__):
            return "no answer in time"
    if isinstance(status := getattr(error, "status", None), int):  # a WebSocket that was refused
        return f"HTTP {status}"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).removesuffix(" Error").lower()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those it came of, outermost first."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [getattr(one, "os_error", None), getattr(one, "original_exception", None), one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
