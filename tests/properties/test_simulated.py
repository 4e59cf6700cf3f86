"""The simulated market keeps its promises for any seed: same seed same bytes, possible bars, honest times, and the edge it states."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.metrics import ASSET_METRICS, MARKET_METRICS
from cryptoalpha.data.simulated import SimulatedMarket, drift_strength, simulate
from cryptoalpha.data.simulated_posts import NEGATIVE, POSITIVE
from cryptoalpha.store.as_of import as_of_value
from cryptoalpha.store.bar_gate import BarGate, bars_sha256
from cryptoalpha.store.tables import Floats, Times

SMALL = SimulatedConfig(assets=3, bars=600)
SEEDS = st.integers(0, 10_000)


def content(market: SimulatedMarket) -> list[object]:
    """Everything observable, in comparable form."""
    data = market.dataset
    return [
        {name: bars_sha256(table) for name, table in data.bars.items()},
        {key: (table.known_at.tobytes(), table.value.tobytes()) for key, table in data.readings.items()},
        [(post.text.tolist(), post.known_at.tobytes()) for post in data.posts.values()],
        market.expected_return.tobytes(),
        data.fingerprint,
    ]


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(seed: int) -> None:
    assert content(simulate(SMALL, seed)) == content(simulate(SMALL, seed))
    assert all(a != b for a, b in zip(content(simulate(SMALL, seed)), content(simulate(SMALL, seed + 1)), strict=True))


@given(seed=SEEDS, assets=st.integers(1, 4), interval=st.sampled_from(["15m", "1h", "8h"]))
@settings(max_examples=15, deadline=None)
def test_bars_are_possible_and_nothing_is_known_before_it_happened(seed: int, assets: int, interval: str) -> None:
    data = simulate(SimulatedConfig(assets=assets, bars=400, interval=interval), seed).dataset
    for table in data.bars.values():
        assert bool(np.all((table.low <= np.minimum(table.open, table.close)) & (table.low > 0)))
        assert bool(np.all((table.high >= np.maximum(table.open, table.close)) & (table.volume > 0)))
        assert bool(np.all((table.taker_buy_volume > 0) & (table.taker_buy_volume < table.volume)))
    for reading in data.readings.values():
        assert bool(np.all(reading.known_at >= reading.happened_at) and np.all(np.isfinite(reading.value)))
    assert bool(np.all(data.posts["news"].known_at >= data.posts["news"].happened_at + HOUR))


def test_the_gate_finds_nothing_to_object_to() -> None:
    for table in simulate(SimulatedConfig(bars=5000), 3).dataset.bars.values():
        passed, report = BarGate().check(table, now=int(table.known_at[-1]))
        assert report.is_clean, report.lines()
        assert len(passed) == len(table)


def test_every_metric_of_the_vocabulary_is_observed_for_every_asset() -> None:
    data = simulate(SMALL, 0).dataset
    expected = {(f"SIM{a}", metric) for a in (1, 2, 3) for metric in ASSET_METRICS} | {("*", metric) for metric in MARKET_METRICS}
    assert set(data.readings) == expected
    assert data.readings["SIM1", "mvrv"].happened_at[0] == parse_time("2022-01-01")
    assert data.readings["SIM1", "mvrv"].known_at[0] == parse_time("2022-01-02T01:00")


def test_it_is_labelled_simulated() -> None:
    data = simulate(SMALL, 0).dataset
    assert data.simulated
    assert data.origin.startswith("SIMULATED")
    assert simulate(SimulatedConfig(assets=3, bars=600, pure_noise=True)).dataset.origin.startswith("SIMULATED market, pure noise")


def test_the_planted_edge_is_realised() -> None:
    realised = np.array([simulate(SimulatedConfig(), seed).realised_ic() for seed in range(8)])
    # one market's standard error is 1/√(T (A + 1) / 2h) = 0.020; a mean of eight must lie within 3 · 0.020 / √8
    assert abs(realised.mean() - 0.15) < 3 * 0.020 / math.sqrt(8)
    assert realised.std(ddof=1) < 0.04


def test_pure_noise_has_no_edge_and_the_same_observations() -> None:
    edge, noise = simulate(SimulatedConfig(), 5), simulate(SimulatedConfig(pure_noise=True), 5)
    assert all(ic == 0 for ic in noise.planted.values())
    assert not noise.expected_return.any()
    assert noise.dataset.posts["news"].text.tolist() == edge.dataset.posts["news"].text.tolist()
    assert noise.dataset.readings["SIM2", "funding_rate"].value.tolist() == edge.dataset.readings["SIM2", "funding_rate"].value.tolist()
    realised = [simulate(SimulatedConfig(pure_noise=True), seed).realised_ic() for seed in range(8)]
    assert abs(float(np.mean(realised))) < 3 * 0.020 / math.sqrt(8)


def test_noise_is_a_fair_game() -> None:
    """Without drift the mean simple return is zero: holding earns nothing on average."""
    returns = []
    for seed in range(6):
        bars = simulate(SimulatedConfig(pure_noise=True), seed).dataset.bars.values()
        returns += [float(np.mean(table.close[1:] / table.close[:-1] - 1.0)) for table in bars]
    assert abs(np.mean(returns)) < 3 * 0.0074 / math.sqrt(17_520 * 6 * 6 / 3.5)  # hourly deviation; assets correlate


@pytest.mark.parametrize(("metric", "sign"), [("funding_rate", -1.0), ("exchange_net", -1.0), ("fear_greed", 0.0), ("sopr", 0.0)])
def test_the_edge_is_where_it_is_said_to_be_and_nowhere_else(metric: str, sign: float) -> None:
    correlations = []
    for seed in range(4):
        market = simulate(SimulatedConfig(), seed)
        readings = market.dataset.readings
        columns = []
        for name in market.instruments:
            asset = name.partition("/")[0]
            if metric == "exchange_net":
                into, out = readings[asset, "exchange_inflow_usd"], readings[asset, "exchange_outflow_usd"]
                known, value = into.known_at, (into.value - out.value) / (into.value + out.value)
            else:
                table = readings["*" if metric == "fear_greed" else asset, metric]
                known, value = table.known_at, table.value
            columns.append(as_of_value(known, value, market.known_at))
        observed = np.nan_to_num(np.stack(columns, axis=1) - np.nanmean(columns))
        correlations.append(market.realised_ic(observed))
    mean, error = float(np.mean(correlations)), 0.020 / 2
    if sign:
        assert sign * mean > 4 * error  # the latent IC is 0.082; noise and age take about a third of it
    else:
        assert abs(mean) < 4 * error


def test_tone_of_posts_leads_returns() -> None:
    market = simulate(SimulatedConfig(), 2)
    news = market.dataset.posts["news"]
    tone = np.array(
        [sum(w in POSITIVE for w in t.replace(":", "").split()) - sum(w in NEGATIVE for w in t.replace(":", "").split()) for t in news.text]
    )
    asset = np.array([text.split()[0] for text in news.text])
    columns = []
    for name in market.instruments:
        mine = asset == name.partition("/")[0]
        total = np.concatenate([[0.0], np.cumsum(tone[mine])])
        upto, before = (np.searchsorted(news.known_at[mine], market.known_at - age, side="right") for age in (0, DAY))
        columns.append(total[upto] - total[before])
    assert market.realised_ic(np.stack(columns, axis=1)) > 0.04


def test_what_is_hidden_when_a_bar_is_known_moves_the_next_bar_and_no_other() -> None:
    """Second way: the same draws without the edge differ by the drift alone, so the drift can be read off the prices."""
    edge, noise = simulate(SMALL, 4), simulate(SMALL.model_copy(update={"pure_noise": True}), 4)
    log_ratio = np.stack([np.log(edge.dataset.bars[n].close / noise.dataset.bars[n].close) for n in edge.instruments], axis=1)
    strength = drift_strength(SMALL.edge, SMALL.horizon_bars, SMALL.half_life_bars)
    np.testing.assert_allclose(log_ratio[0], 0.0, atol=1e-15)
    np.testing.assert_allclose(np.diff(log_ratio, axis=0), edge.expected_return[:-1], atol=1e-12)
    np.testing.assert_allclose(edge.expected_return, strength * edge.volatility * edge.oracle_direction, rtol=1e-12)


@pytest.mark.parametrize("source", ["news", "funding", "flow"])
def test_nothing_observed_knows_what_its_hidden_state_has_yet_to_become(source: str) -> None:
    """An observation correlates with the state of its moment, and not with what a day adds to it (φ²⁴ of the state taken off)."""
    market = simulate(SimulatedConfig(bars=12_000), 6)
    keep = 0.5 ** (24 / market.config.half_life_bars)
    now, added, seen = [], [], []
    for a, name in enumerate(market.instruments):
        moment, value = observed(market, name.partition("/")[0], source)
        row = np.searchsorted(market.known_at, moment, side="right") - 1
        used = (row >= 0) & (row + 24 < len(market.known_at))
        state = market.states[source][:, a]
        now.append(state[row[used]])
        added.append(state[row[used] + 24] - keep * state[row[used]])
        seen.append(value[used])
    told = np.concatenate(seen)
    assert abs(np.corrcoef(told, np.concatenate(now))[0, 1]) > 0.5
    assert abs(np.corrcoef(told, np.concatenate(added))[0, 1]) < 0.06


def observed(market: SimulatedMarket, asset: str, source: str) -> tuple[Times, Floats]:
    """When a source's observations of an asset were made, and what they said."""
    readings, news = market.dataset.readings, market.dataset.posts["news"]
    if source == "news":
        mine = np.array([text.startswith(f"{asset} ") for text in news.text])
        words = [text.replace(":", "").split() for text in news.text[mine]]
        return news.happened_at[mine], np.array([float(sum(w in POSITIVE for w in ws) - sum(w in NEGATIVE for w in ws)) for ws in words])
    if source == "funding":
        return readings[asset, "funding_rate"].happened_at, readings[asset, "funding_rate"].value
    into, out = readings[asset, "exchange_inflow_usd"], readings[asset, "exchange_outflow_usd"]
    return into.happened_at + DAY, (into.value - out.value) / (into.value + out.value)


def test_the_drift_solves_the_stated_formula() -> None:
    # horizon 1: d is correlated with s·d + e by s/√(1 + s²); for IC 0.6 that is s = 0.75
    assert drift_strength(0.6, 1, 10.0) == pytest.approx(0.75)
    # horizon 2, φ = ½ (half-life 1): G = 1.5, V = 2 + 2·½ = 3; IC 0.3 → s = 0.3 √(2 / (2.25 − 0.27))
    assert drift_strength(0.3, 2, 1.0) == pytest.approx(0.3 * math.sqrt(2 / 1.98))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"edge": 0.99, "half_life_bars": 1.0}, "cannot be planted"),
        ({"news_share": 0.9}, "sum to 1.5"),
        ({"interval": "3h"}, "do not divide eight hours"),
        ({"start": "2022-01-01T05:00"}, "not a date"),
        ({"bars": 10}, "too few"),
    ],
)
def test_contradicting_settings_are_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        simulate(SimulatedConfig.model_validate(change))
