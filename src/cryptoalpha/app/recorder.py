"""Watches the loop and remembers what reports need. It changes nothing and is never asked by the loop."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from cryptoalpha.app.book_forecasts import BookForecasts, JudgedDay
from cryptoalpha.app.decision_record import DecisionRecord
from cryptoalpha.app.engine import Step, StepOutcome
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import (
    ROW_SHIFT,
    Alarm,
    Fill,
    FundingPayment,
    Order,
    PortfolioState,
    Refusal,
    RiskEvent,
    RiskState,
    Sizing,
    event_id,
)
from cryptoalpha.store.tables import Floats, Times


class Recorder:
    """What a run did, step by step. Pass `watch` to `Engine.run`.

    Memory: one float per step for equity, and a shared reference for positions, which change only with fills.
    """

    def __init__(self, instruments: Sequence[str]) -> None:
        self.instruments = tuple(instruments)
        self.times: list[int] = []
        self.equity: list[float] = []
        self.fills: list[Fill] = []
        self.fill_events: list[int] = []
        self.funding: list[FundingPayment] = []
        self.orders = 0
        self.binding: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.refusal_examples: dict[str, str] = {}
        self.refusal_events: dict[str, int] = {}
        """Event id of the last refusal of each rule, the one whose message is the example."""
        self.cuts: Counter[str] = Counter()
        self.cut_sizes: defaultdict[str, float] = defaultdict(float)
        self.cut_to: defaultdict[str, float] = defaultdict(float)
        """Largest size that each limit left when it decided, fraction of equity."""
        self.risk_events: list[tuple[int, RiskEvent]] = []
        self.risk_states: list[RiskState] = []
        self.alarms: list[tuple[int, Alarm]] = []
        self.judged: list[JudgedDay] = []
        self.source_weights: list[tuple[int, dict[str, float]]] = []
        self.regimes: list[tuple[int, tuple[float, ...]]] = []
        self.deciders = DecisionRecord(len(self.instruments))
        self.last: PortfolioState | None = None
        self._directions: list[list[float]] = []
        self._positions: list[tuple[tuple[str, Decimal], ...]] = []
        self._closes: list[Sequence[float]] = []
        self._day = -1
        self._forecasts = BookForecasts()

    def watch(self, step: Step, outcome: StepOutcome) -> None:
        """Note one step."""
        at = step.bar.at
        self.times.append(at)
        self.equity.append(float(outcome.portfolio.equity))
        self._positions.append(outcome.portfolio.positions)
        self._closes.append(step.bar.close)
        said = {fused.instrument: fused.direction for fused in outcome.fused}
        self._directions.append([said.get(name, 0.0) for name in self.instruments])
        self.last = outcome.portfolio
        self.deciders.take(at, outcome.decisions, outcome.search)
        if outcome.search is not None:
            self.deciders.track(step.bar.interval, step.states, outcome.fused)
        if (judged := self._forecasts.take(at, outcome.values)) is not None:
            self.judged.append(judged)
        if outcome.happened:
            self._note_events(outcome, len(step.references))
        review = outcome.review
        for sizing in review.sizings:
            self._note_cut(sizing)
        if review.events or _ends_with_alarm(outcome):
            self._note_changes(outcome)
        if review.state is not None:
            self.risk_states.append(review.state)
        first = len(outcome.values) - len(review.verdicts)
        for place, verdict in enumerate(review.verdicts, first):
            if type(verdict) is Order:
                self.orders += 1
                if verdict.binding_limit:
                    self.binding[verdict.binding_limit] += 1
            elif type(verdict) is Refusal:
                self._note_refusal(verdict, event_id(outcome.row, place))
        if at // DAY != self._day and outcome.fused:
            self._day = at // DAY
            self.source_weights.append((at, _mean_weights(outcome)))
            if beliefs := [state.regime for state in step.states if state.regime]:
                self.regimes.append((at, tuple(sum(column) / len(beliefs) for column in zip(*beliefs, strict=True))))

    def _note_events(self, outcome: StepOutcome, offset: int) -> None:
        base = (outcome.row << ROW_SHIFT) + offset
        for place, event in enumerate(outcome.happened):
            if type(event) is Fill:
                self.fills.append(event)
                self.fill_events.append(base + place)
            elif type(event) is FundingPayment:
                self.funding.append(event)
            elif type(event) is Refusal:
                self._note_refusal(event, base + place)

    def _note_cut(self, sizing: Sizing) -> None:
        """How often a limit decided, and how much of what was wanted it took: fractions of equity, summed."""
        if sizing.binding:
            self.cuts[sizing.binding] += 1
            self.cut_sizes[sizing.binding] += abs(sizing.requested) - abs(sizing.allowed)
            self.cut_to[sizing.binding] = max(self.cut_to[sizing.binding], abs(sizing.allowed))

    def _note_changes(self, outcome: StepOutcome) -> None:
        """Changes of state and alarms, each with its event id."""
        for place, value in enumerate(outcome.values):
            if type(value) is RiskEvent:
                self.risk_events.append((event_id(outcome.row, place), value))
            elif type(value) is Alarm:
                self.alarms.append((event_id(outcome.row, place), value))

    def _note_refusal(self, refusal: Refusal, event: int) -> None:
        self.refusals[refusal.rule] += 1
        self.refusal_examples[refusal.rule] = refusal.message
        self.refusal_events[refusal.rule] = event

    def position_weights(self) -> Floats:
        """Marked-to-market position weights at every step. Shape `[T, A]`; an absent bar keeps the last known price."""
        place = {name: a for a, name in enumerate(self.instruments)}
        units = np.zeros((len(self.times), len(place)))
        known: dict[int, Floats] = {}
        for t, positions in enumerate(self._positions):
            row = known.get(id(positions))
            if row is None:
                row = np.zeros(len(place))
                for name, quantity in positions:
                    row[place[name]] = float(quantity)
                known[id(positions)] = row  # the tuple is kept alive by the list, so its id stays its own
            units[t] = row
        closes = np.array(self._closes, dtype=np.float64).reshape(units.shape)
        return np.asarray(units * carried_forward(closes) / np.array(self.equity)[:, None])

    def final_closes(self) -> Floats:
        """Last known close of each instrument, 0 where none ever was. Shape `[A]`."""
        closes = np.array(self._closes, dtype=np.float64).reshape(len(self.times), len(self.instruments))
        return carried_forward(closes)[-1] if len(closes) else np.zeros(len(self.instruments))

    def directions(self) -> Floats:
        """Fused direction at every step, 0 where there was none. Shape `[T, A]`."""
        return np.array(self._directions, dtype=np.float64).reshape(len(self.times), len(self.instruments))

    def time_array(self) -> Times:
        return np.array(self.times, dtype=np.int64)

    def equity_array(self) -> Floats:
        return np.array(self.equity, dtype=np.float64)


def carried_forward(values: Floats) -> Floats:
    """Each column with gaps (NaN) filled by the last value before them, 0 before the first. Shape `[T, A]`."""
    index = np.where(np.isfinite(values), np.arange(len(values))[:, None], -1)
    newest = np.maximum.accumulate(index, axis=0)
    return np.asarray(np.where(newest >= 0, np.take_along_axis(values, np.maximum(newest, 0), axis=0), 0.0))


def _mean_weights(outcome: StepOutcome) -> dict[str, float]:
    """Weight of each source, averaged over all instruments: 0 where it said nothing, so that absolute values sum to 1 at most."""
    total: dict[str, float] = {}
    for fused in outcome.fused:
        for source, weight in fused.weights:
            total[source] = total.get(source, 0.0) + weight
    return {source: value / len(outcome.fused) for source, value in total.items()}


def _ends_with_alarm(outcome: StepOutcome) -> bool:
    """Whether the watchdog said something: alarms stand in the row right before the verdicts."""
    before = len(outcome.values) - len(outcome.review.verdicts) - 1
    return before >= 0 and type(outcome.values[before]) is Alarm
