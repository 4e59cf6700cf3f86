"""Steps between two bars: a kill is obeyed at once, the journal holds it, and a replay takes it at the same place."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.app.live.interim import Interims, interim_step, stored_moment
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import HOUR, MINUTE, SECOND
from cryptoalpha.core.values import (
    Decision,
    Fill,
    FusedSignal,
    InstrumentRules,
    MarketState,
    Order,
    PortfolioState,
    Refusal,
    Signal,
    Travelling,
)
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.controls import control_state, request_control
from cryptoalpha.store.journal import Journal

NAME = "BTC/USDT"
RULES = {
    NAME: InstrumentRules(
        happened_at=0, known_at=0, instrument=NAME, venue="test", base="BTC", quote="USDT", lot=Decimal("0.001"), tick=Decimal("0.01"),
        min_notional=Decimal(5),
    )
}  # fmt: skip


class Half:
    """An agent that always wants half of equity."""

    name = "half"

    def decide(
        self,
        at: int,
        fused: Sequence[FusedSignal],
        *,
        fused_events: Sequence[int],
        portfolio: PortfolioState,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
    ) -> list[Decision]:
        return [
            Decision(
                happened_at=at, known_at=at, instrument=one.instrument, agent=self.name, target_weight=0.5, confidence=1.0, reason="test",
                fused=event,
            )
            for one, event in zip(fused, fused_events, strict=True)
        ]  # fmt: skip


class Wall:
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time


class Run:
    """An engine on a journal file, with bars and moments between them."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self.wall, self.bars, self.news = path, VirtualClock(), Wall(), 0, False
        self.journal = Journal(path, durable=True, header={})
        config = RiskConfig.model_validate({"volatility_target": None, "max_position": 0.9, "tail": {"max_expected_shortfall": None}})
        self.engine = Engine(
            clock=self.clock, fusion=EqualWeights(), agent=Half(), gate=RiskGate(config, RULES),
            broker=SimulatedBroker(ExecutionConfig(), RULES), portfolio=Portfolio(100_000.0, [NAME]), journal=self.journal,
        )  # fmt: skip
        self.interims = Interims(self.engine, self.clock, self.wall, (NAME,), HOUR, has_news=lambda: self.news)

    @property
    def next_known_at(self) -> int:
        return (self.bars + 1) * HOUR

    def bar(self) -> Step:
        """The next bar; in the second one too little is traded to fill an order wholly."""
        at, t = self.next_known_at, self.bars
        volume = 1000.0 if t == 1 else 1e6
        bar = BarStep(at, t * HOUR, HOUR, (NAME,), [100.0], [100.0], [100.0], [100.0], [volume], [True])
        state = MarketState(happened_at=t * HOUR, known_at=at, instrument=NAME, price=100.0, volatility=0.3)
        opinion = Signal(
            happened_at=t * HOUR, known_at=at, source="test", type="price", instrument=NAME, value=1.0, confidence=1.0,
            predicted_impact=0.0, proposed_action="buy", horizon=HOUR,
        )  # fmt: skip
        self.bars += 1
        self.clock.advance_to(at)
        return Step(bar, (), (state,), (opinion,))

    def take(self, step: Step) -> Sequence[Travelling]:
        return self.engine.step(step).values

    def kill(self, *, flatten: bool) -> None:
        request_control(self.path, "kill", by="ann", reason="odd", at=1, flatten=flatten)

    def trade(self) -> None:
        """Two bars, of which the second fills a part of the first one's order; the wall stands five minutes later."""
        self.take(self.bar())
        self.take(self.bar())
        self.wall.time = 2 * HOUR + 5 * MINUTE


def of(kind: type, values: Sequence[Travelling]) -> list:
    return [value for value in values if isinstance(value, kind)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_nothing_is_taken_between_bars_while_nobody_asks_for_anything(path):
    run = Run(path)
    run.trade()
    run.news = True  # the venue told something, but nobody killed the run: it waits for the next bar
    assert run.interims.due(run.next_known_at) is None


def test_a_kill_between_bars_cancels_and_closes_at_once(path):
    run = Run(path)
    run.trade()
    held = run.engine.portfolio.positions
    assert held
    assert run.engine.broker.pending()
    run.kill(flatten=True)
    step = run.interims.due(run.next_known_at)
    assert step is not None
    assert step.is_interim
    values = run.take(step)
    (closing,) = of(Order, values)
    assert (closing.side, closing.quantity, closing.reduce_only) == ("sell", dict(held)[NAME], True)
    assert closing.known_at == 2 * HOUR + 5 * MINUTE, "at the moment of the kill, not at the next bar"
    assert any(refusal.rule == "kill_switch" for refusal in of(Refusal, values))
    assert of(Decision, values) == []
    assert of(FusedSignal, values) == []
    assert run.engine.broker.pending() == {NAME: -closing.quantity}, "the entry is gone, the closing is on its way"
    assert run.journal.read(3) == (2 * HOUR + 5 * MINUTE, list(values))
    assert of(Fill, run.take(run.bar())) == [], "that bar had opened before"
    (fill,) = of(Fill, run.take(run.bar()))
    assert fill.client_id == closing.client_id
    assert run.engine.portfolio.positions == ()


def test_while_a_kill_is_carried_out_news_of_the_venue_are_taken_at_once_and_it_settles(path):
    run = Run(path)
    run.trade()
    run.kill(flatten=False)
    step = run.interims.due(run.next_known_at)
    assert step is not None
    run.take(step)
    assert control_state(path).mode == "tripped", "the only entry was cancelled with it"
    run.news = True
    assert run.interims.due(run.next_known_at) is None, "it is carried out: the rest waits for the bar"


def test_a_moment_lies_between_the_bars_whatever_the_wall_says(path):
    run = Run(path)
    run.trade()
    run.kill(flatten=True)
    run.wall.time = 9 * HOUR  # the feed is seven bars behind
    step = run.interims.due(run.next_known_at)
    assert step is not None
    assert 2 * HOUR < step.bar.at < 2 * HOUR + 4 * SECOND, "the bar is late: there must be room for more steps before it"
    run.take(step)
    moments = [step.bar.at]
    for _ in range(200):  # whatever the venue tells is taken, although the feed may never speak again
        run.kill(flatten=True)
        step = run.interims.due(run.next_known_at)
        assert step is not None
        moments.append(step.bar.at)
        run.take(step)
    assert moments == sorted(set(moments))
    assert moments[-1] < 3 * HOUR
    run.take(run.bar())
    assert control_state(path).taken_row is not None

    run.wall.time = 0  # a clock that was set back
    request_control(path, "kill", by="bob", reason="odder", at=2, flatten=False)
    later = run.interims.due(run.next_known_at)
    assert later is not None
    assert later.bar.at == 3 * HOUR + 1


def test_a_replay_takes_interim_steps_where_the_journal_holds_them(path):
    run = Run(path)
    run.trade()
    run.kill(flatten=True)
    for moment in (5 * MINUTE, 6 * MINUTE):
        run.wall.time = 2 * HOUR + moment
        step = run.interims.due(run.next_known_at)
        assert step is not None
        run.take(step)
        request_control(path, "kill", by="bob", reason=f"again {moment}", at=2)
    run.take(run.bar())
    digest, rows = run.journal.digest(), len(run.journal)
    run.journal.close()

    again = Run(path)
    taken = []
    for _ in range(3):
        for step in again.interims.stored(again.next_known_at):
            taken.append(step.bar.at)
            again.take(step)
        assert again.interims.due(again.next_known_at) is None, "while replaying nothing new is begun"
        again.take(again.bar())
    assert taken == [2 * HOUR + 5 * MINUTE, 2 * HOUR + 6 * MINUTE]
    assert not again.journal.is_replaying
    assert (again.journal.digest(), len(again.journal)) == (digest, rows)
    again.journal.close()


def test_interim_steps_after_the_last_bar_are_replayed_to_the_end_of_the_journal(path):
    run = Run(path)
    run.trade()
    run.kill(flatten=True)
    step = run.interims.due(run.next_known_at)
    assert step is not None
    run.take(step)
    run.journal.close()

    again = Run(path)
    assert stored_moment(again.journal) == HOUR
    for _ in range(2):
        again.take(again.bar())
    moments = [again.take(step) and step.bar.at for step in itertools.islice(again.interims.stored(None), 5)]
    assert moments == [2 * HOUR + 5 * MINUTE]
    assert stored_moment(again.journal) is None
    again.journal.close()


def test_an_interim_step_shows_the_market_nothing(path):
    """The gate, the fusion and the watch over drift see bars only: the bar after it is the second one of the run, not the third."""
    with_interim, without = Run(path), Run(path.with_name("other.sqlite"))
    for run in (with_interim, without):
        run.take(run.bar())
    with_interim.clock.advance_to(HOUR + SECOND)
    with_interim.take(interim_step(HOUR + SECOND, (NAME,), HOUR))
    orders = [of(Decision, run.take(run.bar())) for run in (with_interim, without)]
    assert [each.target_weight for each in orders[0]] == [each.target_weight for each in orders[1]]
    assert with_interim.engine.gate.memory.last_price(NAME) == without.engine.gate.memory.last_price(NAME) == 100.0
    assert with_interim.engine.portfolio.positions == without.engine.portfolio.positions
