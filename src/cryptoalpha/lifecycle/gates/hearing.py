"""One candidate's hearing: evidence is brought when a gate first asks for it, and kept for the next one that does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np

from cryptoalpha.core.errors import CryptoAlphaError, DataError
from cryptoalpha.core.time import iso
from cryptoalpha.lifecycle.gates.config import GateConfig
from cryptoalpha.lifecycle.gates.evidence import Checks, Floats, Footprint, ShadowRecord, TrackRecord, TrialRecord
from cryptoalpha.lifecycle.gates.values import Contender, Relation
from cryptoalpha.monitoring.daily import checked_returns

Brought = TypeVar("Brought")


@dataclass(frozen=True)
class Finding:
    """What one gate found: `statistic relation bound` is what it asks; `passed` whether it holds."""

    passed: bool
    statistic: float
    relation: Relation
    bound: float
    words: str


def compared(statistic: float, relation: Relation, bound: float, words: str) -> Finding:
    """The finding that `statistic relation bound`; NaN never holds."""
    holds = {">": statistic > bound, "≥": statistic >= bound, "≤": statistic <= bound, "=": statistic == bound}[relation]
    return Finding(bool(holds), float(statistic), relation, float(bound), words)


@dataclass
class Hearing:
    """Who is judged, and the evidence so far."""

    candidate: Contender
    champion: Contender | None
    checks: Checks
    config: GateConfig
    seed: int = 0
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> TrackRecord:
        """The candidate's track record.

        Raises:
            DataError: if its series do not fit each other.
        """
        return self._once("record", lambda: checked_record(self.checks.evaluate(self.candidate), self.candidate.id))

    @property
    def champions_record(self) -> TrackRecord | None:
        """The champion's, over the very same days; None without a champion.

        Raises:
            DataError: if it covers other days or data.
        """
        champion = self.champion
        return None if champion is None else self._once("champion", lambda: self._over_the_same_days(champion))

    @property
    def trials(self) -> TrialRecord:
        """Every look at these data, those of this hearing among them: both records are brought first, whichever gate asks first."""
        with suppress(CryptoAlphaError):  # whoever asks for a record is told
            _ = self.record, self.champions_record
        return self._once("trials", lambda: self.checks.trials(self.candidate))

    @property
    def shadow(self) -> ShadowRecord:
        """The run side by side."""
        return self._once("shadow", lambda: self.checks.shadow(self.candidate, self.champion))

    @property
    def data(self) -> str:
        """What was judged on, if anything was."""
        found = self._kept.get("record")
        return found.data if isinstance(found, TrackRecord) else ""

    @property
    def footprint(self) -> Footprint:
        """Latency and memory, measured once."""
        return self._once("footprint", lambda: self.checks.latency(self.candidate))

    def _over_the_same_days(self, champion: Contender) -> TrackRecord:
        theirs = checked_record(self.checks.evaluate(champion), champion.id)
        if theirs.data != self.record.data or not np.array_equal(theirs.days, self.record.days):
            raise DataError(
                f"champion {champion.id[:12]} was judged on {_span(theirs)}, candidate {self.candidate.id[:12]} on {_span(self.record)}",
                hint="judge both over days on which both had folds",
            )
        return theirs

    def _once(self, name: str, bring: Callable[[], Brought]) -> Brought:
        """What `bring` brings, or the error it raised, the second time from memory."""
        if name not in self._kept:
            try:
                self._kept[name] = bring()
            except CryptoAlphaError as error:
                self._kept[name] = error
        if isinstance(found := self._kept[name], CryptoAlphaError):
            raise found
        return cast(Brought, found)


def checked_record(record: TrackRecord, who: str) -> TrackRecord:
    """The same record, if its series fit.

    Raises:
        DataError: for series of other lengths than the days, days that do not rise, or values that are not finite.
    """
    series: dict[str, Floats] = {"returns": record.returns, **record.baselines}
    if record.days.ndim != 1 or bool(np.any(np.diff(record.days) <= 0)):
        raise DataError(f"the days of {who[:12]} do not rise", hint="one return per day, oldest first")
    for name, values in series.items():
        if checked_returns(values, name=name).size != record.days.size:
            raise DataError(f"{who[:12]}: {name} has {values.size} returns for {record.days.size} days")
    return record


def _span(record: TrackRecord) -> str:
    ends = f"{iso(int(record.days[0]))[:10]} to {iso(int(record.days[-1]))[:10]}" if record.days.size else "no day"
    return f"{ends} ({record.days.size} days of {record.data})"
