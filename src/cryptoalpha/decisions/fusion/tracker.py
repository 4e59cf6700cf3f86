"""The performance tracker: every fused decision is scored when its day and its horizon have closed, never earlier.

Two verdicts per decision and instrument: over 24 hours, whatever it meant to foresee, and over its own horizon. Each waits in a
delayed-label queue (`learn.actor_critic.delayed`) until the price at its end is known; a decision that ends in a gap of prices gets none.

Scored are the direction (hit: did the move have its sign), the correlation of direction and outcome (IC), and the log score of the
expected move less that of expecting nothing, ½ (y² − (y − m)²) with the outcome y and the expected move m in units of the volatility over
the stretch, where the fusion named one. Means forget with a half-life, so that figures are of now.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.core.values import FusedSignal, MarketState
from cryptoalpha.decisions.fusion.outcomes import OUTCOME_CAP
from cryptoalpha.learn.actor_critic.delayed import DelayedRewards
from cryptoalpha.learn.replay.schema import Column
from cryptoalpha.store.tables import Floats

STRETCHES = ("day", "horizon")

SCHEMA = {"direction": Column((), "float64"), "move": Column((), "float64", finite=False)}


@dataclass(frozen=True)
class Figures:
    """What decisions of one stretch were worth, newest ones counting most; NaN where nothing has been judged."""

    judged: int
    """Verdicts given so far."""
    hit_rate: float
    """Share of directions with the sign of the move, those of 0 left out."""
    ic: float
    """Correlation of direction and outcome."""
    log_score: float
    """Mean log score of the expected move over expecting nothing."""


class _Running:
    """Means that forget."""

    def __init__(self, half_life: float) -> None:
        self._decay = math.pow(0.5, 1.0 / half_life)
        self._sums = np.zeros(9)  # Σ1 Σd Σy Σd² Σy² Σdy · hits, signed ones · log scores; the weight of the last below
        self._scored = 0.0
        self.judged = 0

    def add(self, directions: Floats, outcomes: Floats, moves: Floats) -> None:
        """One bar's verdicts, `[n]` each; a move of NaN was not named."""
        signed = (directions != 0.0) & (outcomes != 0.0)
        named = np.isfinite(moves)
        gain = 0.5 * (outcomes[named] ** 2 - (outcomes[named] - moves[named]) ** 2)
        new = [
            len(outcomes), directions.sum(), outcomes.sum(), (directions**2).sum(), (outcomes**2).sum(), (directions * outcomes).sum(),
            float((np.sign(directions[signed]) == np.sign(outcomes[signed])).sum()), float(signed.sum()), gain.sum(),
        ]  # fmt: skip
        self._sums = self._decay * self._sums + np.array(new, np.float64)
        self._scored = self._decay * self._scored + float(named.sum())
        self.judged += len(outcomes)

    def figures(self) -> Figures:
        """As they stand."""
        n, d, y, dd, yy, dy, hits, signed, gain = self._sums.tolist()
        spread = (dd - d * d / n) * (yy - y * y / n) if n else 0.0
        return Figures(
            judged=self.judged,
            hit_rate=hits / signed if signed else math.nan,
            ic=(dy - d * y / n) / math.sqrt(spread) if spread > 0.0 else math.nan,
            log_score=gain / self._scored if self._scored else math.nan,
        )


@dataclass(frozen=True, eq=False)
class _Open:
    """Decisions of one bar that close together. Shapes: all `[n]`."""

    due: int
    tickets: NDArray[np.int64]
    instruments: tuple[str, ...]
    prices: Floats
    scales: Floats


class Tracker:
    """Scores what a fusion said.

    Args:
        book_size: instruments at most.
        interval: length of a bar, ns.
        horizon_bars: longest horizon of a decision, bars.
        half_life_bars: age at which a verdict counts half; a month of hours.

    Raises:
        ConfigError: if the half-life is not positive.
    """

    def __init__(self, *, book_size: int, interval: int, horizon_bars: int, half_life_bars: float = 720.0) -> None:
        if not half_life_bars > 0.0:
            raise ConfigError(f"a half-life of {half_life_bars} bars forgets nothing sensible; expected above 0")
        capacity = book_size * (max(horizon_bars, DAY // interval) + 2)
        self._interval = interval
        self._waiting = {stretch: DelayedRewards(SCHEMA, capacity) for stretch in STRETCHES}
        self._running = {stretch: _Running(half_life_bars) for stretch in STRETCHES}
        self._open: dict[str, deque[_Open]] = {stretch: deque() for stretch in STRETCHES}

    def observe(self, at: int, states: Sequence[MarketState], fused: Sequence[FusedSignal]) -> None:
        """One bar: judge what has closed by `at` (UTC ns), then let this bar's decisions wait.

        Raises:
            ConfigError: if more decisions wait than book, interval and horizon said.
        """
        prices = {state.instrument: state.price for state in states}
        volatilities = {state.instrument: state.volatility for state in states}
        for stretch in STRETCHES:
            self._judge(stretch, at, prices)
            by_length: dict[int, list[FusedSignal]] = {}
            for one in fused:
                ahead = DAY if stretch == "day" else one.horizon
                if ahead > 0 and volatilities.get(one.instrument, math.nan) > 0.0:  # else it names no horizon, or none knows the scale
                    by_length.setdefault(ahead, []).append(one)
            for ahead, group in by_length.items():
                self._wait(stretch, at, ahead, group, prices, volatilities)

    def figures(self) -> Mapping[str, Figures]:
        """By stretch: `day` (24 hours) and `horizon` (each decision's own)."""
        return {stretch: running.figures() for stretch, running in self._running.items()}

    def _wait(
        self,
        stretch: str,
        at: int,
        ahead: int,
        group: Sequence[FusedSignal],
        prices: Mapping[str, float],
        volatilities: Mapping[str, float],
    ) -> None:
        # An expected move is in units of the volatility over its own horizon: over another stretch it is not asked for.
        moves = [one.expected_move if one.expected_move is not None and one.horizon == ahead else math.nan for one in group]
        rows = {"direction": np.array([one.direction for one in group]), "move": np.array(moves)}
        tickets = self._waiting[stretch].decide(rows, decided_at=at, due_at=at + ahead)
        names = tuple(one.instrument for one in group)
        scale = math.sqrt(ahead / (DAYS_PER_YEAR * DAY))
        opened = np.array([prices[name] for name in names]), scale * np.array([volatilities[name] for name in names])
        self._open[stretch].append(_Open(at + ahead, tickets, names, *opened))

    def _judge(self, stretch: str, at: int, prices: Mapping[str, float]) -> None:
        queue, waiting = self._waiting[stretch], self._open[stretch]
        kept: deque[_Open] = deque()
        closed = [one for one in waiting if one.due <= at]
        if not closed:
            return
        kept.extend(one for one in waiting if one.due > at)
        self._open[stretch] = kept
        for one in closed:
            now = np.array([prices.get(name, math.nan) for name in one.instruments])
            told = np.isfinite(now) & (at < one.due + self._interval)  # else the bar at which it closes is missing
            queue.drop(one.tickets[~told])
            queue.settle(one.tickets[told], np.log(now[told] / one.prices[told]) / one.scales[told], known_at=at)
        matured = queue.mature(at)
        if len(matured):
            outcomes = np.clip(matured.rewards, -OUTCOME_CAP, OUTCOME_CAP)
            self._running[stretch].add(matured.rows["direction"], outcomes, matured.rows["move"])
