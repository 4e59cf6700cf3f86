"""Watches who decides: which fusion was in charge when, how it weighed families of evidence, what each member of the council counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cryptoalpha.app.regime_words import named_beliefs
from cryptoalpha.app.report.decision_content import Charge, ChargeChange, Deciders, FusionScore, Member, RegimeShare, StageRow
from cryptoalpha.app.report.weight_history import WeightHistory
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Decision, FusedSignal, FusionSearch, MarketState

if TYPE_CHECKING:
    from cryptoalpha.decisions.fusion.tracker import Tracker

Daily = list[tuple[int, dict[str, float]]]


class DecisionRecord:
    """Notes of one run. Memory: one entry a day, and one per change of who was in charge."""

    def __init__(self, book_size: int) -> None:
        self._book_size = book_size
        self.tracker: Tracker | None = None
        """Scores of what a searched fusion said; None where none did."""
        self.bars = 0
        """Steps in which something was decided."""
        self.charge: Counter[str] = Counter()
        self.changes: list[tuple[int, str, str]] = []
        """(moment, fusion, reason) of every step at which another fusion came into charge, the first one included."""
        self.type_weights: Daily = []
        self.in_charge: Daily = []
        self.shares: Daily = []
        self._day_charge: Counter[str] = Counter()
        self.sums: dict[str, float] = {}
        self.heard = 0
        self.last: dict[str, float] = {}
        self.claims: dict[str, tuple[int, float]] = {}
        self._day = self._share_day = -1

    def take(self, at: int, decisions: Sequence[Decision], search: FusionSearch | None) -> None:
        """Note one step."""
        self.bars += 1 if decisions else 0
        if search is not None:
            self._note_charge(at, search)
        if decisions and len(decisions[0].votes) > 1:
            self._note_council(at, decisions)

    def track(self, interval: int, states: Sequence[MarketState], fused: Sequence[FusedSignal]) -> None:
        """Have what a searched fusion said scored when a day and when its horizon have passed."""
        if self.tracker is None:
            from cryptoalpha.decisions.fusion.tracker import Tracker

            bars = max((one.horizon for one in fused), default=0) // interval
            self.tracker = Tracker(book_size=self._book_size, interval=interval, horizon_bars=max(bars, DAY // interval, 1))
        self.tracker.observe(fused[0].known_at, states, fused)

    def _note_charge(self, at: int, search: FusionSearch) -> None:
        name = search.in_charge
        self.charge[name] += 1
        if not self.changes or self.changes[-1][1] != name:
            self.changes.append((at, name, search.reason))
        if at // DAY != self._day:
            self._day = at // DAY
            self.type_weights.append((at, dict(zip(search.types, search.weights_after, strict=True))))
            if total := sum(self._day_charge.values()):
                self.in_charge.append((at, {one: count / total for one, count in self._day_charge.items()}))
            self._day_charge.clear()
        self._day_charge[name] += 1

    def _note_council(self, at: int, decisions: Sequence[Decision]) -> None:
        """Shares are one for the whole book; claims differ by instrument, those that are none are left out."""
        shares = {agent: share for agent, _, share, _ in decisions[0].votes}
        self.heard += 1
        for agent, share in shares.items():
            self.sums[agent] = self.sums.get(agent, 0.0) + share
        for decision in decisions:
            for agent, _, _, claimed in decision.votes:
                if claimed == claimed:
                    count, total = self.claims.get(agent, (0, 0.0))
                    self.claims[agent] = (count + 1, total + claimed)
        self.last = shares
        if at // DAY != self._share_day:
            self._share_day = at // DAY
            self.shares.append((at, shares))


def deciders(
    record: DecisionRecord, beliefs: Sequence[tuple[int, tuple[float, ...]]], stages: Sequence[StageRow] = (), missing: Sequence[str] = ()
) -> Deciders:
    """What was noted, as a report shows it.

    Args:
        beliefs: moment and belief over `REGIMES`, once a day.
        stages: the ablation, where it was made.
        missing: stages that were not configured, in words.
    """
    searched = sum(record.charge.values())
    named = [(at, named_beliefs(belief)) for at, belief in beliefs]
    regimes = _history([one for one in named if one[1]])
    means = {} if regimes is None else dict(zip(regimes.names, regimes.values.mean(axis=0).tolist(), strict=True))
    return Deciders(
        charge=tuple(Charge(name, bars, bars / searched) for name, bars in record.charge.most_common()),
        changes=tuple(ChargeChange(*change) for change in record.changes),
        in_charge=_history(record.in_charge),
        scores=_scores(record.tracker),
        type_weights=_history(record.type_weights),
        members=tuple(
            Member(name, total / record.heard, record.last[name], _mean(record.claims.get(name)))
            for name, total in sorted(record.sums.items())
        ),
        shares=_history(record.shares),
        regimes=tuple(RegimeShare(name.replace("_", " "), share) for name, share in means.items()),
        regime_beliefs=regimes,
        stages=tuple(stages),
        missing_stages=tuple(missing),
    )


def _scores(tracker: Tracker | None) -> tuple[FusionScore, ...]:
    if tracker is None:
        return ()
    return tuple(FusionScore(name, one.judged, one.hit_rate, one.ic, one.log_score) for name, one in tracker.figures().items())


def _mean(claims: tuple[int, float] | None) -> float:
    return claims[1] / claims[0] if claims else float("nan")


def _history(daily: Daily) -> WeightHistory | None:
    """Daily weights as one table; a name that a day lacks weighs 0 then."""
    if not daily:
        return None
    names = tuple(dict.fromkeys(name for _, weights in daily for name in weights))
    values = np.array([[weights.get(name, 0.0) for name in names] for _, weights in daily], dtype=np.float64)
    return WeightHistory(names, np.array([at for at, _ in daily], dtype=np.int64), values.reshape(len(daily), len(names)))
