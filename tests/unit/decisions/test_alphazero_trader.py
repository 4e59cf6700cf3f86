"""The planning agent: what it decides, what it may know, and that a run is a function of what it was handed."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR, HOUR
from cryptoalpha.core.values import FusedSignal, MarketState, PortfolioState, Signal
from cryptoalpha.decisions.alphazero.config import AlphaZeroConfig
from cryptoalpha.decisions.alphazero.market import Dynamics
from cryptoalpha.decisions.alphazero.memory import MarketMemory
from cryptoalpha.decisions.alphazero.scenarios import make_pool
from cryptoalpha.decisions.alphazero.state import DRIFT, WIDTH
from cryptoalpha.decisions.alphazero.trader import Fitted, Trader, grid
from cryptoalpha.decisions.alphazero.trained import KIND, TrainedFolds, described, finish, open_trader, write_agent_fold
from cryptoalpha.decisions.alphazero.value import FEATURES, ValueFunction, features
from cryptoalpha.decisions.config import AgentConfig
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.risk.tail.garch import GarchFit
from cryptoalpha.store.model_folder import ModelFolder

NAMES = ("A", "B", "C")
LAWS = ("bootstrap", "quantiles", "garch")
CONFIG = AlphaZeroConfig(branching=(5, 4), positions=9)
BELIEF = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1)
CHEAP = CostConfig(taker_fee=0.0001, half_spread=0.0)


def agent(name="bootstrap", *, config=CONFIG, costs=CHEAP, long_only=False, book=3, **more) -> Trader:
    return Trader(name, AgentConfig(long_only=long_only), config, costs, book_size=book, seed=4, **more)


def moment(t: int, names=NAMES, *, move: float | None = 0.3, direction: float = 0.5, price=None, volatility: float = 0.6):
    since, at = t * HOUR, (t + 1) * HOUR
    rng = np.random.default_rng(t)
    prices = price or {name: 100.0 * math.exp(0.006 * rng.standard_normal()) for name in NAMES}
    fused = [
        FusedSignal(
            happened_at=since, known_at=at, instrument=name, sentiment=0.0, direction=direction, volatility=volatility, confidence=0.5,
            urgency=0.1, weights=(), expected_move=move, horizon=24 * HOUR if move is not None else 0,
        )
        for name in names
    ]  # fmt: skip
    states = [
        MarketState(
            happened_at=since,
            known_at=at,
            instrument=name,
            price=prices[name],
            volatility=volatility,
            regime=BELIEF,
        )
        for name in names
    ]
    signals = [
        Signal(
            happened_at=since, known_at=at, source="f", type="model", instrument=name, value=0.0, confidence=0.0, predicted_impact=0.0,
            proposed_action="hold", horizon=HOUR, quantiles=(-2.0, -1.2, -0.5, 0.1, 0.6, 1.1, 1.6),
        )
        for name in names
    ]  # fmt: skip
    return at, fused, states, signals


def book(at: int, weights=None, *, states=(), equity: float = 10_000.0) -> PortfolioState:
    prices = {state.instrument: state.price for state in states}
    held = tuple((name, Decimal(repr(weight * equity / prices[name]))) for name, weight in (weights or {}).items())
    money = Decimal(repr(equity))
    return PortfolioState(happened_at=at, known_at=at, cash=money, positions=held, equity=money, peak_equity=money)


def decide(trader: Trader, told, weights=None):
    at, fused, states, signals = told
    portfolio = book(at, weights, states=states)
    return trader.decide(at, fused, fused_events=range(len(fused)), portfolio=portfolio, states=states, signals=signals)


@pytest.mark.parametrize("name", LAWS)
def test_an_opinion_is_followed_and_its_opposite_too(name):
    up, down = decide(agent(name), moment(0)), decide(agent(name), moment(0, move=-0.3))
    assert all(one.target_weight > 0.0 for one in up)
    assert all(one.target_weight < 0.0 for one in down)
    assert all(one.target_weight == 0.0 for one in decide(agent(name, long_only=True), moment(0, move=-0.3)))
    for place, one in enumerate(up):
        assert (one.agent, one.instrument, one.fused) == (name, NAMES[place], place)
        ((voter, wanted, share, claimed),) = one.votes
        assert (voter, wanted, share) == (name, one.target_weight, 1.0)
        assert claimed > 0.0
        assert len(one.line) == 2  # as deep as the plan
        # 0.3 volatilities of a day, 365 times a year: 0.3 · 0.6 · √365
        assert one.expected_return == pytest.approx(0.3 * 0.6 * math.sqrt(DAYS_PER_YEAR))


@pytest.mark.parametrize("name", LAWS)
def test_without_an_opinion_nothing_is_bought(name):
    for one in decide(agent(name), moment(0, move=0.0)):
        assert one.target_weight == 0.0
        assert one.votes[0][3] <= 1e-9


def test_a_direction_stands_for_a_typical_move():
    told = agent().rows(*_without_signals(moment(0, move=None, direction=1.0)))
    named = agent().rows(*_without_signals(moment(0, move=CONFIG.typical_ic)))
    assert told[0] is not None
    assert named[0] is not None
    assert told[0][0][DRIFT] == named[0][0][DRIFT] > 0.0


def _without_signals(told):
    return told[0], told[1], told[2], []


def test_what_is_held_is_not_touched_where_trading_costs_more_than_it_earns():
    dear = CostConfig(taker_fee=0.02)
    for one in decide(agent(costs=dear), moment(0, move=0.01), {"A": 0.07, "B": 0.081, "C": 0.0}):
        expected = {"A": 0.07, "B": 0.081, "C": 0.0}[one.instrument]
        assert one.target_weight == pytest.approx(expected, rel=1e-9)
        assert one.reason == "plan holds"


def test_a_position_beyond_the_unit_is_brought_back():
    (one, *_) = decide(agent(), moment(0), {"A": 2.0})
    unit = 0.30 / math.sqrt(3 * (1 + 2 * 0.6)) / 0.6
    assert one.target_weight <= unit * (1.0 + 1e-6)


def test_unknown_volatility_wants_nothing_and_the_rest_is_planned():
    at, fused, states, signals = moment(0)
    blind = msgspec.structs.replace(fused[0], volatility=math.nan)
    first, second, _ = decide(agent(), (at, [blind, *fused[1:]], states, signals))
    assert (first.target_weight, first.reason) == (0.0, "volatility unknown")
    assert math.isnan(first.votes[0][3])
    assert second.target_weight > 0.0


@pytest.mark.parametrize("name", LAWS)
def test_no_decision_depends_on_later_bars(name):
    """The same first 40 bars and two different futures: the decisions up to then are the same to the last bit."""
    config = CONFIG.model_copy(update={"refresh_bars": 5})
    one, other = agent(name, config=config), agent(name, config=config)
    for t in range(60):
        told = moment(t, move=0.2 * math.sin(t / 5))
        poisoned = told if t < 40 else moment(t, move=-3.0, price=dict.fromkeys(NAMES, 1e-3), volatility=9.0)
        mine, its = decide(one, told), decide(other, poisoned)
        assert (mine == its) == (t < 40)


def test_a_run_repeats_and_learning_is_deciding_without_a_decision():
    first, second, shown = agent(), agent(), agent()
    for t in range(30):
        told = moment(t, move=0.2 * math.cos(t))
        assert decide(first, told) == decide(second, told)
        if t < 29:
            shown.learn(*told)
    assert decide(shown, moment(29, move=0.2 * math.cos(29))) == decide(agent_after(29), moment(29, move=0.2 * math.cos(29)))


def agent_after(bars: int) -> Trader:
    trader = agent()
    for t in range(bars):
        decide(trader, moment(t, move=0.2 * math.cos(t)))
    return trader


def test_an_instrument_is_planned_to_the_last_bit_as_it_is_alone():
    """With a value function at the leaves, too; the memory is shared, so it is given."""
    pool = make_pool(np.random.default_rng(0).standard_normal(500), np.zeros(500), np.zeros((500, 6)), bins=64, prior=50.0, degrees=4.0)
    fitted = Fitted(Dynamics(0.95, 0.0, 0.99), (0.05, 0.9), 4.0, pool, value_function())
    together = decide(agent(fitted_at=lambda at: fitted), moment(0))
    for place, name in enumerate(NAMES):
        (alone,) = decide(agent(fitted_at=lambda at: fitted), moment(0, names=(name,)))
        assert replaced(alone, place) == together[place]


def replaced(decision, event):
    return msgspec.structs.replace(decision, fused=event)


def value_function(seed: int = 0, positions: int = 9) -> ValueFunction:
    rng = np.random.default_rng(seed)
    widths = (FEATURES, 8, 8, positions)
    layers = tuple((rng.standard_normal((a, b)).astype(np.float32), rng.standard_normal(b).astype(np.float32)) for a, b in pairwise(widths))
    return ValueFunction(layers, np.full(positions, 1e-5), np.full(positions, 1e-6), 20)


def test_a_value_function_says_what_torch_says():
    torch = pytest.importorskip("torch")
    from cryptoalpha.decisions.alphazero.learning import ScaledPerceptron

    net = ScaledPerceptron(9, np.full(9, 2e-4))
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    function = ValueFunction(net.weights(), np.full(9, 1e-3), np.full(9, 2e-4), 7)
    rows = np.random.default_rng(2).standard_normal((23, WIDTH)).astype(np.float32)
    with torch.no_grad():
        expected = 1e-3 + net(torch.from_numpy(features(rows))).numpy()
    np.testing.assert_allclose(function(rows), expected, rtol=1e-4, atol=1e-7)


def test_the_memory_fits_what_made_the_history():
    """Opinions that keep 0.9 of themselves, volatility that keeps 0.8 of its distance, residuals that are what they were."""
    config = AlphaZeroConfig(refresh_bars=50, persistence_half_life_bars=5.0)
    memory, rng = MarketMemory(config, book_size=1), np.random.default_rng(3)
    move, away, price, z = 0.0, 0.0, 100.0, []
    for t in range(6_000):
        memory.observe("A", t, 1, price, -5.0 + away, np.eye(6)[t // 100 % 6])
        drift = 0.01 * move
        memory.believed("A", t, 1, price, move, drift, -5.0 + away, np.eye(6)[t // 100 % 6])
        memory.end_bar()
        z.append(rng.standard_normal())
        price *= 1.0 + math.exp(-5.0 + away) * (drift + z[-1])
        move, away = 0.9 * move + rng.standard_normal(), 0.8 * away + 0.1 * rng.standard_normal()
    found = memory.dynamics()
    assert found.persistence == pytest.approx(0.9, abs=0.02)
    assert found.reversion == pytest.approx(0.8, abs=0.03)
    assert abs(found.response) < 2e-4
    np.testing.assert_allclose(np.diag(found.transition), 0.99, atol=0.02)
    np.testing.assert_allclose(memory._z[:5_999], z[:-1], rtol=1e-6, atol=1e-9)
    normal = np.interp([0.05, 0.25, 0.5, 0.75, 0.95], memory.pool().ladder[-1], memory.pool().z)
    np.testing.assert_allclose(normal, [-1.645, -0.674, 0.0, 0.674, 1.645], atol=0.12)


def test_an_opinion_that_answers_to_returns_is_found_and_noise_is_not():
    for truth in (-0.05, 0.0):
        memory, rng = MarketMemory(AlphaZeroConfig(refresh_bars=100), book_size=1), np.random.default_rng(8)
        drift, price = 0.0, 100.0
        for t in range(4_000):
            memory.observe("A", t, 1, price, -5.0, np.zeros(6))
            memory.believed("A", t, 1, price, drift, drift, -5.0, np.zeros(6))
            memory.end_bar()
            shock = rng.standard_normal()
            price *= 1.0 + math.exp(-5.0) * (drift + shock)
            drift = 0.9 * drift + truth * shock + 0.02 * rng.standard_normal()
        assert memory.dynamics().response == pytest.approx(truth, abs=0.004)


def test_the_garch_filter_is_that_of_the_risk_room():
    config = AlphaZeroConfig(garch_alpha=0.1, garch_beta=0.8)
    memory, rng = MarketMemory(config, book_size=1), np.random.default_rng(4)
    returns, price = 0.01 * rng.standard_normal(200), 100.0
    log_volatility = math.log(0.01)
    for t in range(201):
        memory.observe("A", t, 1, price, log_volatility, np.zeros(6))
        memory.believed("A", t, 1, price, 0.0, 0.0, log_volatility, np.zeros(6))
        price *= 1.0 + returns[t] if t < 200 else 1.0
    home = 0.01**2
    fit = GarchFit(0.0, 0.1 * home, 0.1, 0.8, math.inf, 0.0, home, 0.0)
    assert math.exp(2.0 * memory.garch_log_volatility("A")) == pytest.approx(fit.variances(returns)[-1], rel=1e-9)


def test_grids_hold_zero():
    for count in (7, 8, 21):
        assert 0.0 in grid(count, long_only=False)
        assert 0.0 in grid(count, long_only=True)


def test_a_folder_of_folds_takes_over_when_it_may(tmp_path):
    pool = make_pool(np.random.default_rng(0).standard_normal(500), np.zeros(500), np.zeros((500, 6)), bins=64, prior=50.0, degrees=4.0)
    base = Fitted(Dynamics(0.8, -0.01, 0.9), (0.07, 0.9), 5.0, pool)
    files = []
    for number, leaf in enumerate((None, value_function(1))):
        fitted = {"bootstrap": replace(base, leaf=leaf), "garch": base}
        files.append(write_agent_fold(tmp_path, number, (number + 1) * DAY, fitted))
    settings = AgentConfig()
    finish(tmp_path, described(settings, CONFIG, book_size=3, interval=HOUR), files, {})
    folds = TrainedFolds(ModelFolder.open(tmp_path, KIND), "bootstrap", block=20)
    assert folds(DAY - 1) is None
    first, second = folds(DAY), folds(2 * DAY)
    assert first is not None
    assert second is not None
    assert first.leaf is None
    assert second.dynamics.persistence == 0.8
    rows = np.random.default_rng(2).standard_normal((5, WIDTH)).astype(np.float32)
    np.testing.assert_array_equal(second.leaf(rows), value_function(1)(rows))
    np.testing.assert_array_equal(second.pool.ladder, pool.ladder)
    named = CONFIG.model_copy(update={"model": str(tmp_path)})
    trader = open_trader("bootstrap", settings, named, CHEAP, book_size=3, seed=4, interval=HOUR)
    decide(trader, moment(0))
    assert trader.fitted is None
    decide(trader, moment(30))
    assert trader.fitted is not None
    assert trader.memory.dynamics().persistence == 0.8
    with pytest.raises(ModelError, match="number of instruments, here 5"):
        open_trader("bootstrap", settings, named, CHEAP, book_size=5, seed=4, interval=HOUR)
    with pytest.raises(ModelError, match="trained on bars of 1h, these have 4h"):
        open_trader("bootstrap", settings, named, CHEAP, book_size=3, seed=4, interval=4 * HOUR)
