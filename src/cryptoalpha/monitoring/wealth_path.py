"""Where wealth stands against its peak, updated return by return, and joined from consecutive stretches.

A stretch of returns is summarised by its growth, its highest and lowest wealth and its deepest fall, all relative to its start: two
neighbours join into exactly the summary of both. The longest time under water does not: how long the second stretch takes to regain the
first one's peak depends on how high that peak was. A path that will be joined to an earlier one therefore keeps its record highs
(`joinable=True`; about √n of them on a fair walk, every place of a series that only rises).
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

from cryptoalpha.core.errors import ConfigError, DataError

State = dict[str, int | float | bool | list[int] | list[float] | None]
"""Plain numbers and lists: what JSON and msgspec carry without loss."""


class WealthPath:
    """Running wealth of 1, its peak, and how far and how long it lay below.

    Args:
        joinable: keep the record highs, so that this path can follow another one in `join`.
    """

    __slots__ = ("count", "depth", "highs", "longest", "peak", "places", "ruined", "trough", "underwater", "wealth")

    def __init__(self, *, joinable: bool = False) -> None:
        self.count = 0
        self.wealth = 1.0
        self.peak = 1.0
        self.trough = 1.0
        self.depth = 0.0
        """Deepest fall below a peak so far, a positive fraction."""
        self.underwater = 0
        """Periods in a row below the peak, up to now."""
        self.longest = 0
        self.ruined = False
        """A return below −1 came: wealth below zero has no drawdown in percent."""
        self.places: list[int] | None = [] if joinable else None
        self.highs: list[float] = []

    @property
    def drawdown(self) -> float:
        """Loss from the peak now, a positive fraction."""
        return 1.0 - self.wealth / self.peak

    def update(self, value: float) -> None:
        """Take one return."""
        self.count += 1
        self.ruined = self.ruined or value < -1.0
        self.wealth *= 1.0 + value
        self.trough = min(self.trough, self.wealth)
        if self.wealth >= self.peak:
            self.peak = self.wealth
            self.underwater = 0
            if self.places is not None:
                self.places.append(self.count)
                self.highs.append(self.wealth)
            return
        self.depth = max(self.depth, 1.0 - self.wealth / self.peak)
        self.underwater += 1
        self.longest = max(self.longest, self.underwater)

    def join(self, later: WealthPath) -> None:
        """Append a stretch that followed this one.

        Raises:
            ConfigError: if the later path kept no record highs.
        """
        if later.places is None:
            raise ConfigError("the later path kept no record highs", hint="make what is to be merged with joinable=True")
        growth, before = self.wealth, self.count
        self.depth = max(self.depth, later.depth, 1.0 - growth * later.trough / self.peak)
        self._join_time(later, growth)
        self.trough = min(self.trough, growth * later.trough)
        self.peak = max(self.peak, growth * later.peak)
        self.wealth = growth * later.wealth
        self.ruined = self.ruined or later.ruined
        self.count = before + later.count

    def _join_time(self, later: WealthPath, growth: float) -> None:
        """Time under water, and the record highs of both."""
        assert later.places is not None
        first = bisect_left(later.highs, self.peak, key=lambda level: growth * level)
        until = later.places[first] if first < len(later.places) else later.count + 1  # the peak is regained at this place
        self.longest = max(self.longest, self.underwater + until - 1)
        if until > later.count:
            self.underwater += later.count
        else:
            kept = [until, *later.places[first:], later.count + 1]
            self.longest = max(self.longest, *(b - a - 1 for a, b in pairwise(kept)))
            self.underwater = later.underwater
        if self.places is not None:
            self.places += [self.count + place for place in later.places[first:]]
            self.highs += [growth * level for level in later.highs[first:]]

    def state(self) -> State:
        """Everything it knows; `from_state` continues from it bit for bit."""
        return {
            "count": self.count,
            "wealth": self.wealth,
            "peak": self.peak,
            "trough": self.trough,
            "depth": self.depth,
            "underwater": self.underwater,
            "longest": self.longest,
            "ruined": self.ruined,
            "places": None if self.places is None else list(self.places),
            "highs": list(self.highs),
        }

    @classmethod
    def from_state(cls, state: State) -> WealthPath:
        """The path that gave this state.

        Raises:
            DataError: if a field is missing or unknown.
        """
        path = cls()
        if set(state) != set(cls.__slots__):
            raise DataError(f"state of a wealth path has fields {sorted(state)}, expected {sorted(cls.__slots__)}")
        for name, value in state.items():
            setattr(path, name, list(value) if isinstance(value, list) else value)
        return path
