"""What a campaign is made of: steps that are handed in, and what each says of itself.

A step is a function of `Work`. It answers that it is done, that it must be asked again later, or that it refuses the candidate: then the
campaign is over. What it raises (`CryptoAlphaError`) counts as a failure and is tried again. It may be killed at any moment and is then
done again from its beginning, so it stands being done twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Kind = Literal["retrain", "tune"]
Verdict = Literal["done", "wait", "refused"]
Result = Mapping[str, Any]
"""JSON values."""


@dataclass(frozen=True)
class Work:
    """What a step is told: its campaign, where its files go, what was planned, and what the steps before it came to."""

    campaign: int
    kind: str
    cause: str
    begun_at: int
    folder: Path
    plan: Result
    results: Mapping[str, Result]
    flight: int | None = None
    """Descriptor of the campaign's lock, for a process that the step starts."""


@dataclass(frozen=True)
class Outcome:
    """What came of a step. `again_at` (UTC ns) goes with `wait`: there is nothing to see before."""

    verdict: Verdict = "done"
    words: str = ""
    result: Result = field(default_factory=dict)
    again_at: int | None = None
    asks: bool = True
    """Of a refusal: whether other settings might have passed."""


class Step(Protocol):
    """One step. Its name is its place in the book: it does not change between versions."""

    @property
    def name(self) -> str: ...

    def __call__(self, work: Work) -> Outcome:
        """Do it.

        Raises:
            CryptoAlphaError: if it failed and may be tried again.
        """
        ...
