"""The watch over drift in the loop: planted changes are told, nothing is told without one, and it looks once a day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pytest

from cryptoalpha.app.book import build_engine, tape_steps
from cryptoalpha.app.engine import Step
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.watchdog import DriftWatchdog, rank_correlation
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import DAY, HOUR, SECOND, parse_time
from cryptoalpha.core.values import Alarm, FusedSignal, MarketState, PortfolioState
from cryptoalpha.data.simulated import simulate
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.monitoring.accuracy import information_coefficient
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.store.journal import Journal

START = parse_time("2022-01-01")
NAMES = tuple(f"C{place}/USDT" for place in range(6))
CONFIG = DriftConfig(reference_days=120, cooldown_days=60, expected_sharpe=2.0, simulated_runs=50)
PATIENT = CONFIG.model_copy(update={"retrain_run_length_days": 3650.0, "champion_run_length_days": 3650.0})
"""So rarely wrong that what it tells within a year is true."""


@dataclass(frozen=True)
class Day:
    """One day of a made-up market: directions and moves by instrument, the book's return, one feature."""

    directions: np.ndarray
    moves: np.ndarray
    gain: float
    feature: float


def days(count: int, seed: int, *, skill: float = 0.0, mean: float = 0.0, gain: float = 0.004, feature: float = 0.0) -> list[Day]:
    """Days whose directions are drawn about `mean` and go with the moves to the degree of `skill`."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        directions = np.clip(generator.normal(mean, 0.3, len(NAMES)), -1.0, 1.0)
        moves = 0.03 * (skill * directions + generator.normal(size=len(NAMES)))
        made.append(Day(directions, moves, float(generator.normal(gain, 0.02)), float(generator.normal(feature))))
    return made


class World:
    """Shows a watchdog one day after the other, as the engine would."""

    def __init__(self, watchdog: DriftWatchdog) -> None:
        self.watchdog, self.at = watchdog, START
        self.prices, self.equity = np.full(len(NAMES), 100.0), 1000.0
        self.alarms: list[Alarm] = []
        self.weights: tuple[tuple[str, float], ...] = (("s", 1.0),)

    def show(self, market: list[Day], *, steps_a_day: int = 1) -> Counter[str]:
        told = len(self.alarms)
        for day in market:
            for step in range(steps_a_day):
                self.alarms += self._look(day, self.at + step * HOUR)
            self.prices = self.prices * (1.0 + day.moves)
            self.equity *= 1.0 + day.gain
            self.at += DAY
        return Counter(alarm.subject for alarm in self.alarms[told:])

    def _look(self, day: Day, at: int) -> list[Alarm]:
        price = self.prices.tolist()
        bar = BarStep(at, at - HOUR, HOUR, NAMES, price, price, price, price, [1.0] * len(NAMES), [True] * len(NAMES))
        states = [
            MarketState(happened_at=at, known_at=at, instrument=name, price=p, volatility=0.5, features=(day.feature,))
            for name, p in zip(NAMES, price, strict=True)
        ]
        fused = [
            FusedSignal(
                happened_at=at, known_at=at, instrument=name, sentiment=0.0, direction=float(direction), volatility=0.5, confidence=0.5,
                urgency=0.5, weights=self.weights,
            )
            for name, direction in zip(NAMES, day.directions, strict=True)
        ]  # fmt: skip
        money = Decimal(repr(self.equity))
        portfolio = PortfolioState(happened_at=at, known_at=at, cash=money, positions=(), equity=money, peak_equity=money)
        return list(self.watchdog.look(Step(bar, (), states, ()), portfolio, fused, ()))


def world(config: DriftConfig = CONFIG) -> World:
    return World(DriftWatchdog(config, seed=1))


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ({"mean": 0.5}, "prediction:book"),
        ({"skill": -2.0}, "directions"),
        ({"gain": -0.008}, "returns"),
        ({"skill": -2.0}, "information_coefficient"),
    ],
)
def test_what_changes_is_told_by_its_name(change, subject):
    shown = world(PATIENT)
    usual = {"skill": 1.0}
    before = shown.show(days(250, 13, **usual))
    after = shown.show(days(200, 4, **{**usual, **change}))
    assert sum(count for name, count in before.items() if subject in name) == 0
    assert sum(count for name, count in after.items() if subject in name) >= 1


def test_a_feature_that_moves_is_told_with_its_instrument():
    shown = world()
    names = {f"{name}:0" for name in NAMES}
    assert not names & shown.show(days(300, 3)).keys()
    assert names <= shown.show(days(100, 4, feature=3.0)).keys()
    assert shown.watchdog.monitor.features.observed.keys() == names | {f"volatility:{name}" for name in NAMES}


def test_unchanged_days_are_left_in_peace():
    shown = world()
    told = shown.show(days(700, 5, skill=1.0))
    assert sum(told.values()) <= 6  # five watches, a year or two between false alarms each, 580 days after the reference


def test_it_looks_once_a_day_whatever_the_bars():
    hourly, daily = world(), world()
    market = [*days(300, 3, skill=1.0), *days(150, 4, mean=0.5, gain=-0.01)]
    assert hourly.show(market, steps_a_day=24) == daily.show(market) != Counter()
    assert hourly.alarms == daily.alarms


def test_the_same_steps_give_the_same_alarms():
    market = [*days(200, 3), *days(150, 4, mean=0.5)]
    first, second = world(), world()
    first.show(market)
    second.show(market)
    assert first.alarms == second.alarms != []


def noted(shown: World, monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[tuple, dict]]:
    """The calls of one of the monitor's methods; they still go through."""
    calls: list[tuple[tuple, dict]] = []
    real: Callable[..., list[Alarm]] = getattr(shown.watchdog.monitor, name)

    def noting(*rest: object, **named: object) -> list[Alarm]:
        calls.append((rest, named))
        return real(*rest, **named)

    monkeypatch.setattr(shown.watchdog.monitor, name, noting)
    return calls


def test_a_label_that_spans_a_gap_is_left_out_and_a_return_counts_as_one_of_so_many_days(monkeypatch):
    shown = world()
    outcomes, returns = noted(shown, monkeypatch, "observe_outcome"), noted(shown, monkeypatch, "observe_return")
    shown.show(days(3, 1))
    shown.at += 2 * DAY
    before = shown.equity
    shown.show(days(2, 2))
    assert [(rest[0] - START) // DAY for rest, _ in outcomes] == [1, 2, 6]
    assert [((rest[0] - START) // DAY, named["days"]) for rest, named in returns] == [(1, 1), (2, 1), (5, 3), (6, 1)]
    assert returns[2][0][1] == pytest.approx(before / (before / (1.0 + days(3, 1)[2].gain)) - 1.0)


def test_a_first_bar_that_comes_late_loses_no_day():
    """Steps at 24 h, 48 h 5 min and 72 h: three returns and two labels."""
    shown = world()
    for market, late in zip(days(4, 1), (0, 0, 300 * SECOND, 0), strict=True):
        shown.at += late
        shown.show([market])
        shown.at -= late
    monitor = shown.watchdog.monitor
    assert monitor._returns.taken == 3
    assert monitor._outcomes["directions"].taken == 3


def still(directions: list[float], moves: list[float]) -> Day:
    return Day(np.array(directions), np.array(moves), 0.0, 0.0)


def test_hits_by_hand(monkeypatch):
    """Yesterday's directions weighed by themselves; nothing gained is neither, and what nobody said is not judged."""
    shown = world()
    outcomes = noted(shown, monkeypatch, "observe_outcome")
    up, flat, half = [0.5] * 3 + [-0.5] * 3, [0.0] * 6, [0.5] * 6
    shown.show([still(half, up), still(half, flat), still(flat, half)])  # opposite moves, no move, no direction: neither
    shown.show([still(half, [0.1] + [-0.01] * 5), still(half, [-0.1] + [0.01] * 5), still(half, flat)])
    assert [((rest[0] - START) // DAY, rest[3]) for rest, _ in outcomes] == [(4, True), (5, False)]
    silent = world()
    calls = noted(silent, monkeypatch, "observe_outcome")
    silent.weights = ()  # the fusion had nothing to weigh
    silent.show([still([0.5] * 6, [0.1] * 6)] * 3)
    assert calls == []


def test_a_real_backtest_watches_what_its_fusion_is_given():
    """No made-up state: signals and volatilities of a simulated market, through the loop."""
    settings = Settings.model_validate({"data": {"simulated": {"assets": 2, "bars": 24 * 60}}})
    dataset = simulate(settings.data.simulated, 3).dataset
    names = sorted(dataset.bars)
    clock = VirtualClock()
    tape = SignalBook(settings.signals).prepare(dataset, since=0, until=START * 2, instruments=names)
    with Journal(None, durable=False, header={}) as journal:
        engine = build_engine(settings, dataset, names, clock=clock, journal=journal, auto_trading=True, account="a")
        watchdog = engine.watchdog
        engine.run(tape_steps(tape, dataset, clock))
    assert isinstance(watchdog, DriftWatchdog)
    observed = watchdog.monitor.features.observed
    sources = {name for name in observed if ":" not in name}
    assert {f"volatility:{name}" for name in names} <= observed.keys()
    assert "momentum" in sources
    assert observed["momentum"] >= 25
    assert min(observed[f"volatility:{name}"] for name in names) >= 50


def test_ranks_of_one_moment_correlate_as_in_the_measures():
    generator = np.random.default_rng(2)
    for _ in range(300):
        pair = generator.integers(-2, 3, (2, generator.integers(5, 12))).astype(np.float64)  # with ties
        assert rank_correlation(pair) == pytest.approx(information_coefficient(pair[:1], pair[1:]).mean, nan_ok=True, abs=1e-12)


def test_a_run_has_one_unless_it_is_switched_off():
    settings = Settings.model_validate({"data": {"simulated": {"assets": 2, "bars": 300}}})
    dataset = simulate(settings.data.simulated, 3).dataset
    names = sorted(dataset.bars)
    off = settings.model_copy(update={"monitoring": settings.monitoring.model_copy(update={"drift": DriftConfig(enabled=False)})})

    def watchdog(chosen: Settings) -> object:
        with Journal(None, durable=False, header={}) as journal:
            return build_engine(chosen, dataset, names, clock=VirtualClock(), journal=journal, auto_trading=True, account="a").watchdog

    assert isinstance(watchdog(settings), DriftWatchdog)
    assert watchdog(off) is None
