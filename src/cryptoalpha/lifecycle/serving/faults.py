"""Why a request gets no answer: each with the status it is told with, so that callers can act on it.

NoAnswerError
├── MalformedWindowError   400  no model could answer this request
├── UnfitWindowError       422  this model cannot: other bars, too few of them, from before it was trained
├── BusyError              503  too many wait; come back after `retry_seconds`
├── UnavailableError       503  the model is being loaded or replaced
└── DeadlineError          504  there was no answer in time
"""

from __future__ import annotations

from cryptoalpha.core.errors import DataError


class NoAnswerError(DataError):
    """A request was not computed, and it is not a model's failure to answer it wrongly."""

    status = 503
    reason = "unavailable"
    """What it counts under in `cryptoalpha_serving_refused_total`."""


class MalformedWindowError(NoAnswerError):
    """A request that no model could answer: not what its content type says, or bars that cannot be."""

    status, reason = 400, "malformed"


class UnfitWindowError(NoAnswerError):
    """A sound window that this model cannot answer: other bars, too few of them, or from before it was trained."""

    status, reason = 422, "unfit"


class BusyError(NoAnswerError):
    """Too many requests wait already."""

    status, reason = 503, "busy"

    def __init__(self, message: str, *, retry_seconds: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_seconds = retry_seconds


class UnavailableError(NoAnswerError):
    """The model's process is not there: starting, replaced or gone."""

    status, reason = 503, "unavailable"


class DeadlineError(NoAnswerError):
    """Nobody answered in time."""

    status, reason = 504, "deadline"
