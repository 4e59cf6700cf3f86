"""Two hundred random lives of a run: orders, partial fills, kills, resumes, restarts and crashes in the middle of a step.

The real engine, gate, broker and journal file. A restart is new objects on the same file. People ask between steps, after the step has
looked for what was asked and before its bar, or while it decides, sometimes by a file. The market is thin, so that orders stay pending over
several bars and kills meet them.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.engine import Engine, Step
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, RiskHaltError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Decision, Fill, FusedSignal, InstrumentRules, MarketState, Order, PortfolioState, RiskEvent, Signal
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.controls import Control, control_state, request_control
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader

SEQUENCES = 200
BARS, CALM = 10, 3
"""Steps with a will of their own, then steps in which the agent wants nothing and the market is deep."""
NAMES = ("A/USDT", "B/USDT")
RULES = {
    name: InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="test", base=name[0], quote="USDT", lot=Decimal("0.001"),
        tick=Decimal("0.01"), min_notional=Decimal(1),
    )
    for name in NAMES
}  # fmt: skip


class CrashError(BaseException):
    """The process is gone."""


class Scripted:
    """Wants the weights of its script; calls `during` while it decides."""

    name = "scripted"

    def __init__(self, weights: np.ndarray, during: Callable[[int], None]) -> None:
        self._weights, self._during = weights, during

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
        t = at // HOUR - 1
        self._during(t)
        return [
            Decision(
                happened_at=at, known_at=at, instrument=one.instrument, agent=self.name, confidence=1.0, reason="script", fused=event,
                target_weight=float(self._weights[t, NAMES.index(one.instrument)]),
            )
            for one, event in zip(fused, fused_events, strict=True)
        ]  # fmt: skip


class Market:
    """Bars and wishes of one sequence."""

    def __init__(self, number: int) -> None:
        random = stream(number, "kill sequence")
        self.prices = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.02, (BARS + CALM, 2)), axis=0))
        self.volume = np.where(np.arange(BARS + CALM)[:, None] < BARS, random.choice([20.0, 200.0, 1e6], (BARS + CALM, 2)), 1e9)
        wishes = np.round(random.uniform(-0.4, 0.4, (BARS + CALM, 2)), 2)
        wishes[random.random((BARS + CALM, 2)) < 0.2] = 0.0
        keep = random.random((BARS + CALM, 2)) < 0.5  # the same wish as before: what is pending goes on working
        for t in range(1, BARS):
            wishes[t] = np.where(keep[t], wishes[t - 1], wishes[t])
        wishes[BARS:] = 0.0
        self.wishes = wishes
        self.max_drawdown = float(random.choice([0.01, 0.9]))  # in some the run's own limit trips it as well
        self.random = random

    def step(self, t: int) -> Step:
        price, at = self.prices[t].tolist(), (t + 1) * HOUR
        bar = BarStep(at, t * HOUR, HOUR, NAMES, price, price, price, price, self.volume[t].tolist(), [True, True])
        common = {"happened_at": t * HOUR, "known_at": at}
        states = [MarketState(**common, instrument=n, price=p, volatility=0.3) for n, p in zip(NAMES, price, strict=True)]
        signals = [
            Signal(
                **common, source="test", type="price", instrument=n, value=1.0, confidence=1.0, predicted_impact=0.0,
                proposed_action="buy", horizon=HOUR,
            )
            for n in NAMES
        ]  # fmt: skip
        return Step(bar, (), states, signals)


class Life:
    """One process working on the run: fresh objects, the same file."""

    def __init__(self, market: Market, path: Path, *, during: Callable[[int], None] = lambda t: None) -> None:
        self.market, self.clock = market, VirtualClock()
        self.journal = Journal(path, durable=True, header={"auto_trading": "True"})
        self.broker = SimulatedBroker(ExecutionConfig(), RULES)
        limits = RiskConfig.model_validate(
            {"volatility_target": None, "max_position": 0.9, "allow_short": True, "max_drawdown": market.max_drawdown, "tail": {
                "max_expected_shortfall": None}, "no_trade_band": 0.0}
        )  # fmt: skip
        self.gate = RiskGate(limits, RULES)
        self.engine = Engine(
            clock=self.clock, fusion=EqualWeights(), agent=Scripted(market.wishes, during), gate=self.gate, broker=self.broker,
            portfolio=Portfolio(100_000.0, NAMES), journal=self.journal,
        )  # fmt: skip

    def step(self, t: int) -> None:
        self.clock.advance_to((t + 1) * HOUR)
        self.engine.step(self.market.step(t))

    def snapshot(self) -> tuple[object, ...]:
        book, switch = self.engine.portfolio, self.gate.kill_switch
        held = (book.cash, book.positions, book.fees_paid, book.peak_equity)
        return (*held, self.broker.pending(), switch.state, switch.flatten, switch.evidence, switch.tripped_at, switch.resumed_at)


class World:
    """Lives one sequence, and remembers what people asked."""

    def __init__(self, number: int, path: Path, seen: Counter[str]) -> None:
        self.market, self.path, self.seen = Market(number), path, seen
        self.random = self.market.random
        self.crash_at: tuple[int, str] | None = None
        self.done: set[tuple[int, str]] = set()

    def ask(self, t: int, place: str) -> None:
        """Perhaps kill, perhaps resume; each moment comes once, whatever is replayed."""
        if (t, place) in self.done:
            return
        self.done.add((t, place))
        draw = self.random.random()
        if draw < 0.06:
            self.seen[f"kill {place}"] += 1
            request_control(self.path, "kill", by="ann", reason=f"{place} {t}", at=t, flatten=bool(self.random.random() < 0.4))
        elif draw < 0.07:
            self.seen["kill by file"] += 1
            self.path.with_name(self.path.name + ".kill").touch()
        elif draw < 0.30:
            with suppress(ConfigError, RiskHaltError):
                request_control(self.path, "resume", by="bob", reason=f"{place} {t}", at=t)
                self.seen["resume"] += 1

    def during(self, t: int) -> None:
        self.ask(t, "during")
        self.perhaps_crash(t, "deciding")

    def perhaps_crash(self, t: int, place: str) -> None:
        if self.crash_at == (t, place):
            self.crash_at = None
            self.seen[f"crash {place}"] += 1
            raise CrashError

    def born(self) -> Life:
        """A process, with the places it may die at."""
        life = Life(self.market, self.path, during=self.during)
        submit, review, on_bar = life.broker.submit, life.gate.review, life.broker.on_bar
        t = lambda: life.clock.now() // HOUR - 1  # noqa: E731

        def submitting(order: Order, event: int) -> None:
            self.perhaps_crash(t(), "submitting")
            submit(order, event)

        def reviewing(*arguments: object, **named: object) -> object:
            found = review(*arguments, **named)
            self.perhaps_crash(t(), "reviewing")
            return found

        def trading(bar: BarStep) -> object:
            self.perhaps_crash(t(), "trading")
            self.ask(t(), "trading")  # the step has taken what was asked before: what is pending may be filled by this bar, by no other
            return on_bar(bar)

        life.broker.submit, life.gate.review, life.broker.on_bar = submitting, reviewing, trading
        return life

    def run(self) -> str:
        """Live to the end; returns the journal's digest."""
        life, t = self.born(), 0
        while t < BARS + CALM:
            if t < BARS:
                self.ask(t, "between")
                if self.random.random() < 0.08:
                    self.crash_at = (t, str(self.random.choice(["trading", "deciding", "reviewing", "submitting"])))
                elif self.random.random() < 0.08 and t:
                    before = life.snapshot()
                    life.journal.close()
                    life = self.again(t)
                    self.seen["restart"] += 1
                    assert life.snapshot() == before
            try:
                life.step(t)
                t += 1
            except CrashError:
                life.journal._connection.close()  # what was not committed is lost, as with the process
                with JournalReader(self.path) as journal:
                    t = len(journal)
                life = self.again(t)
        digest = life.journal.digest()
        assert life.engine.portfolio.positions == ()  # whatever stood, the way out was open
        life.journal.close()
        return digest

    def again(self, t: int) -> Life:
        life = self.born()
        for one in range(t):
            life.step(one)
        return life


def taken(path: Path) -> list[tuple[int, bool, Control]]:
    """Row and place at which each control was taken, without the run's own."""
    with JournalReader(path) as journal:
        return [
            (row, bool(early), Control(*rest[:5], bool(rest[5])))
            for row, early, *rest in journal._connection.execute(
                "SELECT taken_row, early, id, at, kind, author, reason, flatten FROM control WHERE early IS NOT NULL ORDER BY id"
            )
        ]


def uninterrupted(number: int, path: Path, controls: list[tuple[int, bool, Control]]) -> str:
    """The digest of a run that nobody disturbed, told the same things at the same places."""

    def tell(row: int, early: bool) -> None:
        for at_row, is_early, one in controls:
            if (at_row, is_early) == (row, early):
                request_control(path, one.kind, by=one.by, reason=one.reason, at=one.at, flatten=one.flatten)

    life = Life(Market(number), path, during=lambda t: tell(t + 1, early=False))
    for t in range(BARS + CALM):
        tell(t + 1, early=True)
        life.step(t)
    digest = life.journal.digest()
    life.journal.close()
    return digest


def judge(path: Path, controls: list[tuple[int, bool, Control]], seen: Counter[str]) -> None:
    """No entry while a kill stands, told from the control table and from fills, not from what gate or engine say of themselves."""
    with JournalReader(path) as journal:
        own = journal._connection.execute("SELECT taken_row FROM control WHERE early IS NULL").fetchall()
        rows = {row: values for row, _, values in journal.rows()}
    changes = sorted([(row, one.id, early, one.kind) for row, early, one in controls] + [(row, 1 << 30, False, "kill") for (row,) in own])
    held: Counter[str] = Counter()
    killed = False
    for row, values in rows.items():
        mine = [(early, kind) for at, _, early, kind in changes if at == row]
        for early, kind in mine:
            if early:
                killed = kind == "kill"
        for fill in (value for value in values if isinstance(value, Fill)):
            after = held[fill.instrument] + (fill.quantity if fill.side == "buy" else -fill.quantity)
            if killed:
                assert abs(after) < abs(held[fill.instrument]), f"row {row}: a position grew"
                assert after * held[fill.instrument] >= 0, f"row {row}: a position turned round"
                seen["fill while killed"] += 1
            held[fill.instrument] = after
        for early, kind in mine:
            if not early:
                killed = kind == "kill"
        orders = [value for value in values if isinstance(value, Order)]
        if killed:
            assert all(order.reduce_only for order in orders), f"row {row}: an entry"
            seen["exit ordered while killed"] += len(orders)
        seen["entry"] += sum(not order.reduce_only for order in orders)
        seen["own trip"] += sum(isinstance(v, RiskEvent) and "by risk" in v.message for v in values)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: processes die here, not machines, and waiting for the disk would take most of the time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as found:
        yield Path(found)


@pytest.mark.parametrize("block", range(0, SEQUENCES, 50))
def test_no_life_of_a_run_enters_after_a_kill_and_all_end_as_if_nothing_had_disturbed_them(folder, block):
    seen: Counter[str] = Counter()
    for number in range(block, block + 50):
        path = folder / str(number) / "journal.sqlite"
        world = World(number, path, seen)
        digest = world.run()
        controls = taken(path)
        judge(path, controls, seen)
        state = control_state(path)
        assert state.mode in ("armed", "tripped")  # nothing is left half done in a calm, deep market
        assert uninterrupted(number, folder / f"{number} calm" / "journal.sqlite", controls) == digest
    met = ["kill between", "kill trading", "kill during", "kill by file", "resume", "restart", "own trip", "entry", "fill while killed"]
    met += ["exit ordered while killed", *(f"crash {place}" for place in ("trading", "deciding", "reviewing", "submitting"))]
    assert {name: seen[name] for name in met if not seen[name]} == {}  # or it would prove nothing about them
