"""What every streaming detector can do: take one value, say whether it is enough, be kept and taken up again.

A detector holds one statistic that grows as the evidence does, and alarms when it exceeds `threshold`. Until then its state does not depend
on the threshold, which is what lets `calibrate_threshold` read all thresholds off one simulated run. It does not restart by itself: whoever
asked decides (`restart`).
"""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import Floats

State = dict[str, Any]
"""Plain numbers, text and lists of them: it survives JSON, bit for bit."""


@runtime_checkable
class Detector(Protocol):
    """One stream, one statistic, one threshold."""

    threshold: float

    @property
    def statistic(self) -> float:
        """The evidence so far, in the unit of `threshold`."""
        ...

    def update(self, value: float) -> bool:
        """Take one value; whether the statistic now exceeds the threshold."""
        ...

    def statistics(self, values: Floats) -> Floats:
        """The statistic after each of the values `[n]`, from a fresh start and without stopping at alarms; the object does not change."""
        ...

    def restart(self) -> None:
        """Forget the evidence, keep the settings."""
        ...

    def state(self) -> State:
        """All of it, settings too."""
        ...

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The detector that gave this state."""
        ...


def checked_value(value: float, detector: str) -> float:
    """The value, refused where it is not finite.

    Raises:
        DataError: for NaN or infinity.
    """
    if not (value - value == 0.0):
        raise DataError(f"{detector} got {value}, expected a finite number", hint="leave out what was not observed")
    return float(value)


def checked_positive(value: float, name: str) -> float:
    """The setting, refused unless it is positive and finite.

    Raises:
        ConfigError: otherwise.
    """
    if not 0.0 < value < float("inf"):
        raise ConfigError(f"{name} is {value}, expected a positive number")
    return float(value)
