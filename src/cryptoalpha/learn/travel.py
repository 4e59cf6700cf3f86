"""What travels between processes that work for us: values, functions and errors as plain pickles.

Functions go by name, so they must be defined at the top of an importable module; what cannot be sent is refused here, before anything runs
over there. An answer is a value or an error; an error is raised again here with its own type, its notes and the other process's traceback,
and where it cannot be sent itself, its words are. Only for processes that trust each other: opening a pickle runs what it says.
"""

from __future__ import annotations

import pickle
import traceback
from types import TracebackType
from typing import Any, Self

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError


def pickled(value: object, what: str) -> bytes:
    """The bytes of a value.

    Raises:
        ConfigError: if it cannot be sent to another process.
    """
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{what} cannot be sent to another process: {error}",
            hint="define functions at the top of a module, not inside another function",
        ) from error


class Answer:
    """What goes back to who asked: the value given inside the block, or the error that left it, which is raised again over there.

    A task that ends its own process (`sys.exit`) does so: who asked reports that the worker died.
    """

    payload = b""

    def give(self, value: object) -> None:
        self.payload = pickle.dumps((True, value), pickle.HIGHEST_PROTOCOL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        written = "".join(traceback.format_exception(error))
        try:
            self.payload = pickle.dumps((False, (error, written)), pickle.HIGHEST_PROTOCOL)
            pickle.loads(self.payload)
        except (pickle.PickleError, TypeError, AttributeError, ImportError, ValueError):  # it cannot travel: its words do
            self.payload = pickle.dumps((False, (CryptoAlphaError(f"{type(error).__name__}: {error}"), written)))
        return True


def opened(answer: bytes) -> tuple[bool, Any]:
    """(True, value) or (False, error), the error with the other process's traceback as its cause."""
    fine, value = pickle.loads(answer)
    if fine:
        return True, value
    error, trace = value
    error.__cause__ = _WorkerTraceback(trace)
    return False, error


class _WorkerTraceback(Exception):  # noqa: N818 - never raised: it is the cause that an error shows
    """What a worker's traceback looked like; printed as the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"\n\nin a worker process:\n{self.args[0]}"


def short(value: object) -> str:
    """What a value looks like, for a message."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "…"
