"""Costs by instrument, source and time add up to the last digit, however they are grouped."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import parse_time
from cryptoalpha.monitoring import measures as m

amounts = st.one_of(st.floats(-1e9, 1e9), st.decimals(-1000, 1000, places=8), st.sampled_from([0.1, 1e-300, 1e300, -0.0]))
NAMES = m.CostEntries.NAMES


def exactly(amount):
    return Fraction(amount) if isinstance(amount, Decimal) else Fraction(repr(float(amount)))


def test_costs_by_instrument_by_hand():
    entries = m.CostEntries(
        fees=[1.0, 0.1, 0.2], spread=[0.5, 0.0, 0.1], impact=[0.25, 0.0, 0.0], funding=[0.0, 2.0, -1.0], traded=[1000.0, 100.0, 200.0]
    )
    table = entries.by_label(["BTC", "ETH", "ETH"])
    btc, eth = table.lines
    assert (btc.label, btc.cost, btc.entries) == ("BTC", Decimal("1.75"), 1)
    assert (eth.fees, eth.spread, eth.funding, eth.traded) == (Decimal("0.3"), Decimal("0.1"), Decimal(1), Decimal(300))
    assert eth.cost == Decimal("-0.6")  # funding received paid for the fees
    assert table.total.cost == Decimal("1.15")
    assert btc.rate == 0.00175
    assert table.total.turnover(650.0) == 1.0
    assert math.isnan(table.total.turnover(0.0))


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(*[amounts] * 5, st.sampled_from("abc"), st.lists(st.floats(0, 1e6), min_size=3, max_size=3)), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_every_table_adds_up_to_the_same_total_exactly(rows, order):
    def entries():
        return m.CostEntries(**{name: [row[k] for row in rows] for k, name in enumerate(NAMES)})

    tables = [
        entries().by_label([row[5] for row in rows]),
        entries().by_share(["x", "y", "z"], np.array([row[6] for row in rows]).reshape(-1, 3)),
    ]
    order.shuffle(rows)
    tables.append(entries().by_label([row[5] for row in rows]))
    for table in tables:
        for k, name in enumerate(NAMES):
            expected = sum((exactly(row[k]) for row in rows), Fraction(0))
            assert Fraction(getattr(table.total, name)) == expected
            assert sum((Fraction(getattr(line, name)) for line in table.lines), Fraction(0)) == expected
        assert sum((Fraction(line.cost) for line in table.lines), Fraction(0)) == Fraction(table.total.cost)
    assert tables[0] == tables[2]  # and the order of the entries is no matter


def test_a_cost_is_split_by_the_weights_of_the_sources_and_nothing_is_lost():
    table = m.CostEntries(fees=[1.0, 3.0]).by_share(["news", "chain", "price"], [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    found = {line.label: line.fees for line in table.lines}
    assert found["unattributed"] == 3
    assert float(found["chain"]) == pytest.approx(1 / 3, rel=1e-15)
    assert sum(Fraction(fee) for fee in found.values()) == 4
    assert "price" in found


def test_costs_by_time():
    times = [parse_time("2023-12-31T23:59:59Z"), parse_time("2024-01-01"), parse_time("2024-02-03")]
    assert m.calendar_labels(times, by="year") == ["2023", "2024", "2024"]
    assert m.calendar_labels(times, by="month") == ["2023-12", "2024-01", "2024-02"]
    table = m.CostEntries(fees=[1, 2, 4]).by_label(m.calendar_labels(times, by="day"))
    assert [(line.label, line.fees) for line in table.lines] == [("2024-02-03", 4), ("2024-01-01", 2), ("2023-12-31", 1)]


def test_no_costs_are_a_table_without_lines():
    table = m.CostEntries().by_label([])
    assert table.lines == ()
    assert table.total.cost == 0
    assert math.isnan(table.total.rate)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: m.CostEntries(fees=[math.nan]), r"fees\[0\]"),
        (lambda: m.CostEntries(fees=[1.0], traded=[1.0, 2.0]), "differ in length"),
        (lambda: m.CostEntries(fees=[1.0]).by_label([]), "one each"),
        (lambda: m.CostEntries(fees=[1.0]).by_share(["a"], [[1.0, 2.0]]), "one per cost and source"),
        (lambda: m.CostEntries(fees=[1.0]).by_share(["a"], [[-1.0]]), "at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(DataError, match=words):
        make()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), from_cash=st.booleans())
def test_the_parts_of_the_assets_sum_to_the_turnover(seed, from_cash):
    rng = np.random.default_rng(seed)
    weights, returns = rng.normal(0, 0.2, (12, 4)), rng.normal(0, 0.02, (12, 4))
    parts = m.turnover_by_asset(weights, returns, periods_per_year=365, from_cash=from_cash)
    assert parts.shape == (5,)
    assert parts.sum() == pytest.approx(m.turnover(weights, returns, periods_per_year=365, from_cash=from_cash), rel=1e-12)


def test_the_part_of_an_asset_is_half_of_what_was_traded_in_it():
    parts = m.turnover_by_asset([[0.5, 0.0], [0.5, 0.25]], [[0.0, 0.0], [0.0, 0.0]], periods_per_year=2)
    assert parts.tolist() == [0.25, 0.125, 0.375]
    assert np.isnan(m.turnover_by_asset(np.empty((0, 2)), np.empty((0, 2)), periods_per_year=2)).all()
