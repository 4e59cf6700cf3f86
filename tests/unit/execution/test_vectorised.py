"""The compiled accounting, by hand and against its own prefixes. What it shares with the event path is tested in properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import AccountingError, ConfigError
from cryptoalpha.core.time import HOUR
from cryptoalpha.execution import kernels
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.execution.vectorised import exponential_mean, simulate_units, simulate_weights
from cryptoalpha.store.panel import Panel

NAN = float("nan")
FREE = CostConfig(taker_fee=0.0, half_spread=0.0, impact=0.0, max_participation=None)


def panel(open_, close, *, volume=1e9, present=None) -> Panel:
    open_, close = (np.atleast_2d(np.asarray(x, float).T).T for x in (open_, close))
    present = np.ones(open_.shape, bool) if present is None else np.asarray(present)
    columns = [np.where(present, x, np.nan) for x in (open_, np.maximum(open_, close), np.minimum(open_, close), close)]
    times = HOUR * np.arange(len(open_), dtype=np.int64)
    row = np.where(present, np.arange(len(open_))[:, None], -1)
    names = tuple(f"X{i}/USDT" for i in range(open_.shape[1]))
    volumes = np.where(present, volume, np.nan)
    return Panel(names, HOUR, times, times + HOUR, *columns, volumes, np.full(open_.shape, np.nan), present, row)


def weights(values) -> np.ndarray:
    return np.atleast_2d(np.asarray(values, float).T).T


def test_exponential_mean_of_a_step():
    # span 3 → weight one half
    assert_array_equal(exponential_mean(np.array([1.0, 1.0, 3.0, 3.0]), 3), [1.0, 1.0, 2.0, 2.5])
    assert len(exponential_mean(np.empty(0), 3)) == 0


def test_units_by_hand():
    open_, close = np.array([10.0, 11.0, 12.0, 13.0]), np.array([10.5, 11.5, 12.5, 13.5])
    run = simulate_units(open_, close, np.array([2.0, 2.0, -1.0, 5.0]), fee=0.01, cash=100.0)
    assert_array_equal(run.index, [0, 2])  # the order of the last row never fills
    assert_array_equal(run.quantity, [2.0, -3.0])
    assert_array_equal(run.price, [11.0, 13.0])
    assert_allclose(run.fee, [0.22, 0.39])
    # 100; 100 − 22 − .22 + 2·11.5; … + 2·12.5; 77.78 + 39 − .39 − 13.5
    assert_allclose(run.equity, [100.0, 100.78, 102.78, 102.89])


def test_units_at_the_signal_close_by_hand():
    open_, close = np.array([10.0, 11.0]), np.array([10.5, 11.5])
    run = simulate_units(open_, close, np.array([2.0, 0.0]), fee=0.0, cash=100.0, fill="signal_close")
    assert_array_equal(run.price, [10.5, 11.5])
    assert_allclose(run.equity, [100.0, 102.0])


def test_units_refuse_gaps_and_ragged_arrays():
    with pytest.raises(ConfigError, match="of one length"):
        simulate_units(np.ones(3), np.ones(3), np.ones(2), fee=0.0, cash=1.0)
    with pytest.raises(ConfigError, match="must be finite"):
        simulate_units(np.ones(2), np.array([1.0, NAN]), np.ones(2), fee=0.0, cash=1.0)


def test_a_weight_is_bought_at_the_next_open_and_costs_what_the_model_says():
    rows = panel([100.0, 110.0, 120.0], [100.0, 115.0, 130.0])
    config = ExecutionConfig(initial_cash=1000.0, costs=CostConfig(taker_fee=0.001, half_spread=0.002, impact=0.0))
    run = simulate_weights(rows, weights([0.5, NAN, NAN]), config)
    price = 110.0 * 1.002
    assert_allclose(run.positions[:, 0], [0.0, 5.0, 5.0])
    assert_allclose(run.price[1, 0], price)
    assert_allclose(run.fees, [0.0, 5 * price * 0.001, 0.0])
    assert_allclose(run.spread, [0.0, 5 * 110 * 0.002, 0.0])
    assert_allclose(run.traded, [0.0, 5 * price, 0.0])
    cash = 1000.0 - 5 * price * 1.001
    assert_allclose(run.equity, [1000.0, cash + 5 * 115, cash + 5 * 130])
    assert run.order_count == 1


def test_a_constant_weight_within_the_band_is_not_chased():
    rows = panel([100.0] * 4, [100.0, 101.0, 102.0, 140.0])
    config = ExecutionConfig(initial_cash=1000.0, costs=FREE)
    assert simulate_weights(rows, weights([0.5] * 4), config, band=0.05).order_count == 2  # 140 moves the weight by 0.08
    assert simulate_weights(rows, weights([0.5] * 4), config).order_count == 4


def test_cash_that_is_not_there_is_not_spent():
    rows = panel([100.0, 200.0], [100.0, 200.0])
    run = simulate_weights(rows, weights([1.0, NAN]), ExecutionConfig(initial_cash=1000.0, costs=FREE))
    assert run.positions[1, 0] == pytest.approx(5.0)
    assert run.equity[1] == pytest.approx(1000.0)


def test_participation_leaves_a_rest_that_waits():
    rows = panel([100.0] * 4, [100.0] * 4, volume=20.0)
    costs = CostConfig(taker_fee=0.0, half_spread=0.0, impact=0.0, max_participation=0.1)
    run = simulate_weights(rows, weights([0.5, NAN, NAN, NAN]), ExecutionConfig(initial_cash=1000.0, costs=costs))
    assert_allclose(run.filled[:, 0], [0.0, 2.0, 2.0, 1.0])
    assert run.order_count == 1


def test_an_absent_bar_is_waited_for_and_no_decision_is_taken_on_it():
    there = np.array([[True], [False], [True], [True]])
    rows = panel([100.0, 1.0, 105.0, 106.0], [100.0, 1.0, 105.0, 106.0], present=there)
    run = simulate_weights(rows, weights([0.5, 0.1, NAN, NAN]), ExecutionConfig(initial_cash=1000.0, costs=FREE))
    assert_allclose(run.price[:, 0], [NAN, NAN, 105.0, NAN])
    assert run.order_count == 1


def test_funding_inside_and_at_the_open_by_hand():
    rows = panel([100.0] * 3, [100.0, 110.0, 110.0])
    at_open, inside = weights([NAN, 0.01, 0.01]), weights([NAN, 0.02, NAN])
    config = ExecutionConfig(initial_cash=1000.0, costs=FREE)
    run = simulate_weights(rows, weights([-0.5, NAN, NAN]), config, funding=(at_open, inside))
    # the short opens at row 1, after its open settled: it receives 5·110·.02, then 5·100·.01
    assert_allclose(run.funding, [0.0, 11.0, 5.0])
    off = simulate_weights(rows, weights([-0.5, NAN, NAN]), config.model_copy(update={"funding": False}), funding=(at_open, inside))
    assert_array_equal(off.funding, [0.0, 0.0, 0.0])


def test_ruin_stops_the_run():
    rows = panel([100.0, 100.0, 100.0], [100.0, 100.0, 250.0])
    with pytest.raises(AccountingError, match="bankrupt"):
        simulate_weights(rows, weights([-0.9, NAN, NAN]), ExecutionConfig(initial_cash=1000.0, costs=FREE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": np.ones((2, 1))}, "for a panel of"),
        ({"weights": np.full((3, 1), math.inf)}, "3 infinities"),
        ({"weights": np.ones((3, 1)), "config": ExecutionConfig(fill="signal_close")}, "next open only"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        simulate_weights(panel([1.0] * 3, [1.0] * 3), **{"config": ExecutionConfig(), **arguments})


def test_rows_do_not_depend_on_later_ones():
    g = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(g.normal(0, 0.01, (300, 3)), axis=0))
    rows = panel(np.vstack([close[:1], close[:-1]]) * 1.0005, close, volume=g.gamma(2, 50, (300, 3)))
    wanted = g.uniform(0, 0.3, (300, 3))
    whole = simulate_weights(rows, wanted, ExecutionConfig())
    for cut in (1, 40, 299):
        part = simulate_weights(rows.rows(0, cut), wanted[:cut], ExecutionConfig())
        assert_array_equal(part.equity, whole.equity[:cut])
        assert_array_equal(part.ordered, whole.ordered[:cut])


def test_compiled_kernels_equal_plain_python(monkeypatch):
    """The kernels run uncompiled give the same bits, so that nothing depends on the compiler."""
    g = np.random.default_rng(4)
    close = 100 * np.exp(np.cumsum(g.normal(0, 0.01, (120, 2)), axis=0))
    there = g.random((120, 2)) > 0.05
    rows = panel(np.vstack([close[:1], close[:-1]]) * 1.0005, close, volume=g.gamma(2, 50, (120, 2)), present=there)
    wanted = np.where(g.random((120, 2)) < 0.3, 0.0, g.uniform(-0.4, 0.4, (120, 2)))
    rates = np.where(g.random((120, 2)) < 0.2, 1e-4, np.nan)
    compiled = simulate_weights(rows, wanted, ExecutionConfig(), band=0.01, funding=(rates, rates))
    for name in ("_settle_funding", "_price", "_affordable", "_trade", "_learn", "_decide", "_impact_fraction"):
        monkeypatch.setattr(kernels, name, getattr(kernels, name).py_func)
    monkeypatch.setattr("cryptoalpha.execution.vectorised.run_weights", kernels.run_weights.py_func)
    with np.errstate(invalid="ignore", divide="ignore"):
        plain = simulate_weights(rows, wanted, ExecutionConfig(), band=0.01, funding=(rates, rates))
    assert_allclose(compiled.equity, plain.equity, rtol=1e-13)
    assert_array_equal(np.sign(compiled.ordered), np.sign(plain.ordered))
