"""One question to a venue through ccxt: what is spent on it, what came back, and what a failure means.

ccxt's exceptions say too little: the venue's own code, the HTTP status and Retry-After decide whether an order is refused or its fate
unknown. They are read from the very reply to the very request: ccxt calls `on_rest_response` in the context of whoever asked, so many
questions may be under way at once. Its messages are not passed on, for they hold the signed address of the request.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import localcontext
from typing import Any, TypeVar

from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.execution.live.budget import Budget, BudgetSpentError

Found = TypeVar("Found")
STUMBLES = (AttributeError, TypeError, ValueError, KeyError, IndexError, ArithmeticError)
"""What ccxt raises while it reads something that is not what it expects."""
_CODE_KEYS = ("code", "retCode", "ret_code", "error_code", "err_code")
_MESSAGE_KEYS = ("msg", "message", "retMsg", "ret_msg", "error_message")
_SHORT = 300
_PAUSES = {429: 1.0, 418: 30.0}
"""Seconds to keep quiet after a rate limit and after a ban where the venue names none. By choice."""


@dataclass
class Question:
    """A question under way, and the last reply to it."""

    urgent: bool = False
    patience_seconds: float = 10.0
    wanted: Callable[[], bool] | None = None
    """Asked directly before the request leaves."""
    status: int | None = None
    """Of HTTP; None while no whole reply has come."""
    body: Any = None
    """The reply's JSON; None where it is none."""
    headers: Mapping[str, str] | None = None

    def forget(self) -> None:
        """Another request begins: what an earlier one was answered says nothing of it."""
        self.status = self.body = self.headers = None

    @property
    def code(self) -> str:
        """The venue's own code, empty where it gave none."""
        found = next((self.body[key] for key in _CODE_KEYS if key in self.body), None) if isinstance(self.body, Mapping) else None
        return str(found) if isinstance(found, int | str) and not isinstance(found, bool) else ""

    @property
    def message(self) -> str:
        """The venue's own words, shortened."""
        found = next((self.body[key] for key in _MESSAGE_KEYS if key in self.body), None) if isinstance(self.body, Mapping) else None
        return found[:_SHORT] if isinstance(found, str) else ""

    @property
    def retry_after_seconds(self) -> float:
        """What the venue asked to be left alone for; 0 where it did not."""
        text = next((value for key, value in (self.headers or {}).items() if key.lower() == "retry-after"), "")
        try:
            seconds = float(text)
        except ValueError:
            return 0.0
        return seconds if 0.0 < seconds < 1e6 else 0.0


class UnwantedError(VenueError):
    """The request was not sent: nobody wants it any more. Nothing has happened at the venue."""


class RequestFailedError(VenueError):
    """A request got no answer that ccxt could read; `error` is what it raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"a request to the venue failed ({type(error).__name__})")
        self.error = error


_CURRENT: contextvars.ContextVar[Question | None] = contextvars.ContextVar("question to a venue", default=None)


def prepare(client: Any, budget: Budget) -> None:
    """Make a ccxt client spend from `budget`, tell what it heard, and never send anything twice.

    Raises:
        ConfigError: if the client was told to repeat requests that failed: an order would be sent twice.
    """
    if _repeats(client.options):
        raise ConfigError("the ccxt client has maxRetriesOnFailure set: it would send orders twice", hint="leave that option out")
    client.options["maxRetriesOnFailure"] = 0

    async def throttle(cost: float | None = None) -> None:
        asked = _CURRENT.get() or Question()
        asked.forget()
        await budget.acquire(float(cost or 1.0), urgent=asked.urgent, patience_seconds=asked.patience_seconds)
        if asked.wanted is not None and not asked.wanted():  # ccxt signs and sends next
            raise UnwantedError("it was called back before it was sent")

    def on_rest_response(status: Any, reason: Any, url: Any, method: Any, headers: Any, body: Any, *request: Any) -> Any:
        asked = _CURRENT.get()
        if asked is not None:
            asked.status, asked.headers, asked.body = int(status), headers, _json(body)
        if int(status) in _PAUSES:
            budget.close_for(Question(headers=headers).retry_after_seconds or _PAUSES[int(status)])
        return body.strip()

    client.enableRateLimit = True  # our throttle stands in for ccxt's, which knows neither reserve nor Retry-After
    client.throttle = throttle
    client.on_rest_response = on_rest_response


async def ask(call: Callable[[], Awaitable[Found]], asked: Question) -> Found:
    """Run `call` so that its reply is noted in `asked`.

    Raises:
        BudgetSpentError, UnwantedError: if nothing was sent.
        RequestFailedError: for whatever else goes wrong, foreseen or not: the request may have arrived.
    """
    token = _CURRENT.set(asked)
    try:
        with localcontext():
            return await call()
    except (BudgetSpentError, UnwantedError):
        raise
    except Exception as error:  # noqa: BLE001 (the broker call: whatever it is, the order may have arrived)
        raise RequestFailedError(error) from None  # the message of ccxt's holds the signed address
    finally:
        _CURRENT.reset(token)


def _json(body: Any) -> Any:
    try:
        return json.loads(body)
    except (TypeError, ValueError, RecursionError):
        return None


def _repeats(options: Any) -> bool:
    if not isinstance(options, Mapping):
        return False
    return bool(options.get("maxRetriesOnFailure")) or any(_repeats(value) for value in options.values() if isinstance(value, Mapping))
