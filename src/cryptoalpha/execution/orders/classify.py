"""What a failed request for an order means: a definite refusal, or that nobody knows.

Pure: the names of the exception's classes, the venue's own code and words, the HTTP status. ccxt is not imported, and its choice of class
is believed only where the venue gave a code: the same reset is a `NetworkError` here and a plain `ExchangeError` there, and a revoked
key looks like a rate limit after an earlier success.

A refusal ends an order. So it takes all of these: the request was answered (4xx, no 429 or 418), the venue's code was read from the
answer, the class is one of those that a venue gives before it takes an order, and the code is none that a venue gives when it does not
know itself. `InvalidOrder` and `OperationRejected` are given for orders that live as well: they become refusals when a question
for the order confirms it (`Ambiguous.refusal`). So does a disputed stamp (-1021): it was this very request that the venue turned away.

Source: measured with ccxt 4.5.90's Binance class; codes: Binance's error tables for spot and USD-M futures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptoalpha.execution.venue import Ambiguous, Rejected

DEFINITE: Final = frozenset({"InsufficientFunds", "BadSymbol", "BadRequest", "PermissionDenied", "AuthenticationError"})
"""Classes that refuse an order for good, where the venue gave a code."""
TO_CONFIRM: Final = frozenset({"InvalidOrder", "OperationRejected"})
"""Classes that refuse an order if a question for it says so too."""
LOCAL: Final = frozenset({"ArgumentsRequired", "NotSupported"})
"""Raised by ccxt before it sends anything."""

UNDECIDED_CODES: Final = frozenset(
    {
        "-1000",  # unknown error while processing
        "-1001",  # disconnected, internal
        "-1003",  # too many requests
        "-1004",  # server busy
        "-1006",  # unexpected response: execution status unknown
        "-1007",  # timeout waiting for the backend: status unknown
        "-1008",  # server overloaded
        "-1010",  # error message received
        "-1015",  # too many orders
        "-1016",  # service shutting down
        "-1021",  # outside of the time window
    }
)
"""Codes with which the venue does not say what became of the order, whatever class ccxt makes of them."""
CLOCK_CODES: Final = frozenset({"-1021"})
KEY_CODES: Final = frozenset({"-1002", "-1022", "-2008", "-2014", "-2015"})
"""Not authorised, bad signature, bad or refused key: definite for the order, and a person is needed."""
DUPLICATE_CODES: Final = frozenset({"-4116"})
"""Futures: the client id is taken. Spot says so in words, under -2010."""
DUPLICATE_WORDS: Final = ("duplicate order", "clientorderid is duplicated", "duplicated client order id")
CLASS_OF_CODE: Final[Mapping[str, str]] = {
    "-2018": "InsufficientFunds",
    "-2019": "InsufficientFunds",
    "-2020": "InvalidOrder",
    "-2021": "InvalidOrder",
    "-2022": "InvalidOrder",
    "-2025": "OperationRejected",
    "-2026": "InvalidOrder",
    "-2027": "OperationRejected",
    "-2028": "OperationRejected",
    "-4164": "InvalidOrder",
    "-5022": "InvalidOrder",
}
"""Futures codes that ccxt knows only under the futures' own address; elsewhere it raises a bare `ExchangeError`."""


def classify(
    error: BaseException, *, code: str = "", message: str = "", status: int | None = None, retry_after_seconds: float = 0.0
) -> Rejected | Ambiguous:
    """What a failed request to place an order means.

    Args:
        error: what was raised; only the names of its classes are looked at.
        code: the venue's own code as it stands in the answer, empty where none could be read.
        message: the venue's own words, empty where there were none.
        status: of HTTP; None where no whole answer came.
        retry_after_seconds: wait the venue asked for, 0 where it did not.
    """
    return judge(
        tuple(kind.__name__ for kind in type(error).__mro__),
        code=code,
        message=message,
        status=status,
        retry_after_seconds=retry_after_seconds,
    )


def judge(
    classes: tuple[str, ...], *, code: str = "", message: str = "", status: int | None = None, retry_after_seconds: float = 0.0
) -> Rejected | Ambiguous:
    """`classify` by the names of the exception's class and its bases, the most special first."""
    name = classes[0] if classes else "no exception"
    is_key = code in KEY_CODES or ("AuthenticationError" in classes and "PermissionDenied" not in classes)
    refusal = Rejected(code=code, message=message or name, is_key=is_key)
    family = {CLASS_OF_CODE[code]} if name == "ExchangeError" and code in CLASS_OF_CODE else set(classes)
    if code in KEY_CODES:
        family = {"AuthenticationError"}  # whatever ccxt made of it
    if is_answer(code, status) and code not in UNDECIDED_CODES:
        if is_duplicate(code, message):
            return Ambiguous(reason=f"{code}: {message}", exists=True)
        if family & DEFINITE:
            return refusal
        if family & TO_CONFIRM:
            return Ambiguous(reason=f"{code}: {message}", refusal=refusal)
    if not code and status is None and name in LOCAL:
        return Rejected(code=name, message=message or "the venue's client cannot send this order")
    clock = code in CLOCK_CODES
    said = ": ".join(part for part in (name, f"HTTP {status}" if status is not None else "", code, message) if part)
    return Ambiguous(
        reason=said,
        retry_after_seconds=retry_after_seconds,
        is_clock=clock,
        is_key=is_key or status == 401,
        refusal=refusal if clock and is_answer(code, status) else None,
    )


def is_answer(code: str, status: int | None) -> bool:
    """Whether the venue itself has answered with a code, and not a gateway, a rate limit or a failing machine.

    A `status` of None with a code is an answer over a WebSocket.
    """
    return bool(code) and (status is None or (400 <= status < 500 and status not in (408, 418, 429)))


def is_duplicate(code: str, message: str) -> bool:
    """Whether the venue says that it has an order of this id already."""
    words = message.lower()
    return code in DUPLICATE_CODES or any(said in words for said in DUPLICATE_WORDS)
