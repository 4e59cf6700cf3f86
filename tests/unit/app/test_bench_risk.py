"""The benchmark of risk compares equals, and the gate it times does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.app.bench import risk, risk_gate
from cryptoalpha.app.bench.results import TARGETS
from cryptoalpha.app.bench.risk_gate import gate_work
from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.values import Order
from cryptoalpha.risk.config import TailConfig

TINY = risk.Sizes(returns=3_000, window=20, assets=100, rows=300, scenarios=1_000, book=8)


def test_it_measures_what_the_page_has_targets_for(monkeypatch):
    monkeypatch.setattr(risk, "find_spec", lambda name: name == "bottleneck" or None)  # the others take seconds to load
    steps = []
    figures, notes = risk.bench_risk(repeats=1, advance=steps.append, sizes=TINY)
    assert figures.keys() == TARGETS["risk"].keys()
    assert len(steps) == 4
    assert all(value is None or value >= 0.0 for value in figures.values())
    assert figures["risk_parity_1000_error"] <= 1e-10
    assert any("one review of 8 entries" in note for note in notes)


def test_every_review_that_is_timed_orders_in_all_instruments_at_the_cap():
    review = gate_work(assets=6, days=120)
    ids = set()
    for _ in range(2):
        orders = review().verdicts
        assert len(orders) == 6
        assert all(isinstance(order, Order) and order.binding_limit == "expected_shortfall" for order in orders)
        ids |= {order.client_id for order in orders}
    assert len(ids) == 12  # a new decision each time, nothing remembered


def test_a_book_that_the_cap_does_not_bind_is_not_timed(monkeypatch):
    monkeypatch.setattr(risk_gate, "CONFIG", risk_gate.CONFIG.model_copy(update={"tail": TailConfig()}))
    with pytest.raises(ConfigError, match="nothing is timed"):
        gate_work(assets=6, days=120)


def test_a_peer_with_other_answers_is_not_timed():
    with pytest.raises(ModelError, match=r"differ from other's by 1\.0e\+00: nothing is timed"):
        risk._against(lambda: np.zeros(3), {"other": lambda: np.ones(3)}, 1, 1e-9, "zeros")


def test_a_peer_that_is_not_installed_is_said_so(monkeypatch):
    monkeypatch.setattr(risk, "find_spec", lambda name: None)
    figures, notes = risk.bench_risk(repeats=1, advance=lambda _: None, sizes=TINY)
    assert figures["rolling_sharpe_ratio_pandas"] is None
    assert figures["var_es_ratio_skfolio"] is None
    assert any("bottleneck, pandas: not installed" in note for note in notes)
