"""On-chain features: known when they were known, against values by hand and a plain second way."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.signals.chain_features import CHAIN_FEATURES, base_of, chain_features
from cryptoalpha.signals.chain_series import series
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import BarTable, Dataset, ReadingTable

Floats = npt.NDArray[np.float64]
NAMES = tuple(spec.name for spec in CHAIN_FEATURES)
START = 19_000 * DAY
LAG = DAY + 2 * HOUR
"""A reading of day D is known two hours after the day has ended."""
NAN = math.nan

COUNTS = ("active_addresses", "new_addresses", "transactions", "transfer_value_usd", "mean_transfer_usd", "fees_usd", "whale_transfers")
LEVELS = ("exchange_inflow_usd", "exchange_outflow_usd", "market_cap_usd", "realised_cap_usd", "mvrv", "nvt", "sopr", "hash_rate", "supply")
SHARES = ("top100_share", "dormant_1y_share", "exchange_reserve")
SIGNED = ("whale_to_exchange_usd",)


def readings(asset: str, metric: str, value: Floats, *, start: int = START, lag: int = LAG, step: int = DAY) -> ReadingTable:
    happened = start + step * np.arange(len(value), dtype=np.int64)
    return ReadingTable(asset, metric, "test", happened, happened + lag, np.asarray(value, float))


def dataset_of(tables: list[ReadingTable], days: int, instruments: tuple[str, ...] = ("BTC/USDT",)) -> Dataset:
    time = START + 6 * HOUR * np.arange(4 * days, dtype=np.int64)
    price = np.full(len(time), 10.0)
    bars = {name: BarTable(name, 6 * HOUR, time, price, price, price, price, price) for name in instruments}
    return Dataset("test", bars, {(table.asset, table.metric): table for table in tables})


def full_dataset(seed: int = 3, days: int = 150) -> Dataset:
    g = stream(seed, "features", "chain")
    tables = [readings("BTC", metric, np.exp(5 + np.cumsum(g.normal(0, 0.1, days)))) for metric in (*COUNTS, *LEVELS)]
    tables += [readings("BTC", metric, 0.2 + 0.1 * g.random(days)) for metric in SHARES]
    tables += [readings("BTC", metric, g.normal(0, 5, days)) for metric in SIGNED]
    tables.append(readings("*", "stablecoin_supply_usd", 1e9 * np.exp(np.cumsum(g.normal(0, 0.01, days)))))
    tables.append(readings("*", "stablecoin_exchange_flow_usd", g.normal(0, 1e6, days), lag=DAY + 5 * HOUR))
    return dataset_of(tables, days + 3)


def panel_of(dataset: Dataset) -> Panel:
    return build_panel(dataset, since=0, until=2**62)


def column(name: str, dataset: Dataset, asset: int = 0) -> Floats:
    return np.asarray(chain_features(panel_of(dataset), dataset)[:, asset, NAMES.index(name)])


def one(metric: str, value: Floats, name: str, asset: str = "BTC") -> Floats:
    """One feature of one metric, at the bar at which each day's reading is first known."""
    dataset = dataset_of([readings(asset, metric, value)], len(value) + 3)
    panel = panel_of(dataset)
    first_bar = np.searchsorted(panel.known_at, START + LAG + DAY * np.arange(len(value)))
    return column(name, dataset)[first_bar]


def bits(values: Floats) -> bytes:
    return np.ascontiguousarray(values).tobytes()


# ── when ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_reading_of_a_day_is_invisible_until_it_is_known() -> None:
    share = np.arange(10.0) / 100
    dataset = dataset_of([readings("BTC", "dormant_1y_share", share)], 10)
    panel, seen = panel_of(dataset), column("dormant_1y_share", dataset)
    for t in range(len(panel)):
        known = [day for day in range(10) if START + day * DAY + LAG <= panel.known_at[t]]
        assert seen[t] == pytest.approx(share[known[-1]] if known else NAN, nan_ok=True)
    assert np.isnan(seen[panel.known_at < START + LAG]).all()


def test_a_reading_stands_for_three_days_and_no_longer() -> None:
    dataset = dataset_of([readings("BTC", "sopr", np.array([1.5]))], 8)
    age = panel_of(dataset).known_at - (START + LAG)
    live = np.isfinite(column("sopr_minus_1", dataset))
    np.testing.assert_array_equal(live, (age >= 0) & (age <= 3 * DAY))


def test_a_late_revision_of_an_older_day_does_not_replace_the_newest_day() -> None:
    happened = START + DAY * np.array([0, 1, 0, 2, 2])
    known = START + DAY * np.array([1, 2, 3, 4, 5])
    table = ReadingTable("BTC", "sopr", "test", happened, known, np.array([1.0, 2.0, 9.0, 3.0, 3.5]))
    clean = series(table)
    np.testing.assert_array_equal(clean.value, [1.0, 2.0, 3.0, 3.5])
    np.testing.assert_array_equal(clean.known_at, known[[0, 1, 3, 4]])


def test_of_readings_known_at_one_moment_the_last_one_counts() -> None:
    happened, known = START + DAY * np.arange(3), START + DAY * np.array([3, 3, 4])
    clean = series(ReadingTable("BTC", "sopr", "test", happened, known, np.array([1.0, np.inf, 3.0])))
    np.testing.assert_array_equal(clean.value, [NAN, 3.0])


# ── values by hand ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("metric", ["active_addresses", "transactions", "fees_usd", "transfer_value_usd", "mean_transfer_usd"])
def test_growth_of_one_percent_a_day_is_seven_percent_a_week(metric: str) -> None:
    change = one(metric, np.exp(0.01 * np.arange(20)), f"{metric}_change_7d")
    assert np.isnan(change[:7]).all()
    np.testing.assert_allclose(change[7:], 0.07)


def test_score_of_a_steady_climb_over_ninety_days() -> None:
    # ln x = 0 … 89: the last lies 44.5 above the mean, deviation √(90 · 91 / 12)
    score = one("new_addresses", np.exp(np.arange(120.0) / 10), "new_addresses_z")
    assert score[-1] == pytest.approx(44.5 / math.sqrt(90 * 91 / 12))
    assert np.isnan(score[:71]).all()  # 72 of 90 days must be there
    assert np.isfinite(score[71:]).all()


def test_scores_of_what_does_not_vary_are_masked() -> None:
    assert np.isnan(one("mvrv", np.full(120, 1.7), "mvrv_z")).all()


def test_zero_transfers_of_whales_are_a_count_and_not_a_gap() -> None:
    counts = np.concatenate([np.zeros(89), [math.e - 1]])
    score = one("whale_transfers", counts, "whale_transfers_z")
    assert score[-1] == pytest.approx((1 - 1 / 90) / math.sqrt((1 - 1 / 90) / 89))


def test_flows_are_shares_of_the_market_cap() -> None:
    days = 12
    tables = [
        readings("BTC", "exchange_inflow_usd", np.full(days, 50.0)),
        readings("BTC", "exchange_outflow_usd", np.full(days, 30.0)),
        readings("BTC", "market_cap_usd", np.full(days, 1000.0)),
        readings("BTC", "whale_to_exchange_usd", np.full(days, -5.0)),
        readings("BTC", "exchange_reserve", np.full(days, 3.0)),
        readings("BTC", "supply", np.full(days, 20.0)),
    ]
    dataset = dataset_of(tables, days)
    last = {name: column(name, dataset)[-1] for name in NAMES}
    assert last["exchange_net_flow_1d"] == pytest.approx(0.02)
    assert last["exchange_net_flow_7d"] == pytest.approx(0.14)
    assert last["whale_net_flow"] == pytest.approx(-0.005)
    assert last["exchange_reserve_share"] == pytest.approx(0.15)


def test_changes_over_thirty_days() -> None:
    share = 0.1 + 0.001 * np.arange(50)
    assert one("top100_share", share, "top100_share_change_30d")[-1] == pytest.approx(0.03)
    assert one("dormant_1y_share", share, "dormant_1y_change_30d")[-1] == pytest.approx(0.03)
    growth = np.exp(0.002 * np.arange(50))
    assert one("realised_cap_usd", growth, "realised_cap_change_30d")[-1] == pytest.approx(0.06)
    assert one("hash_rate", growth, "security_change_30d")[-1] == pytest.approx(0.06)
    assert one("staked_share", growth / 10, "security_change_30d")[-1] == pytest.approx(0.06)


def test_a_hash_rate_published_later_does_not_change_what_staking_said_before() -> None:
    staked = readings("BTC", "staked_share", np.exp(0.001 * np.arange(80)))
    hashed = readings("BTC", "hash_rate", np.exp(0.01 * np.arange(35)), start=START + 45 * DAY)
    both, alone = dataset_of([staked, hashed], 80), dataset_of([staked], 80)
    with_hash, without = column("security_change_30d", both), column("security_change_30d", alone)
    early = panel_of(both).known_at < START + 75 * DAY + LAG  # thirty days after its first reading
    assert bits(with_hash[early]) == bits(without[early])
    assert with_hash[-1] == pytest.approx(0.3)


def test_stablecoins_belong_to_every_asset_of_the_book() -> None:
    table = readings("*", "stablecoin_supply_usd", np.exp(0.01 * np.arange(20)))
    dataset = dataset_of([table], 20, ("BTC/USDT", "ETH/USDT"))
    for asset in (0, 1):
        assert column("stablecoin_supply_change_7d", dataset, asset)[-1] == pytest.approx(0.07)


def test_each_instrument_reads_the_chain_of_its_base() -> None:
    table = readings("BTC", "sopr", np.full(5, 1.25))
    dataset = dataset_of([table], 5, ("BTC/USDT", "ETH/USDT", "XBTUSD"))
    rules = InstrumentRules(
        happened_at=0,
        known_at=0,
        instrument="XBTUSD",
        venue="test",
        base="BTC",
        quote="USD",
        lot=Decimal(1),
        tick=Decimal(1),
        min_notional=Decimal(1),
    )
    dataset = replace(dataset, rules={"XBTUSD": rules})
    values = chain_features(panel_of(dataset), dataset)[-1, :, NAMES.index("sopr_minus_1")]
    assert dict(zip(panel_of(dataset).instruments, values, strict=True)) == pytest.approx(
        {"BTC/USDT": 0.25, "ETH/USDT": NAN, "XBTUSD": 0.25}, nan_ok=True
    )
    assert base_of(dataset, "XBTUSD") == "BTC"


def test_without_readings_all_are_masked() -> None:
    dataset = dataset_of([], 4)
    assert np.isnan(chain_features(panel_of(dataset), dataset)).all()


# ── a second way ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class SlowChain:
    """What each feature was at one moment, from the rows known then, in plain Python."""

    def __init__(self, dataset: Dataset, moment: int) -> None:
        known = dataset.known_until(moment)
        self.rows = {key: list(zip(t.known_at.tolist(), t.value.tolist(), strict=True)) for key, t in known.readings.items()}
        self.moment = moment

    def get(self, metric: str, at: int | None = None, asset: str = "BTC") -> float:
        at = self.moment if at is None else at
        rows = [row for row in self.rows.get((asset, metric), []) if row[0] <= at]
        return rows[-1][1] if rows and at - rows[-1][0] <= 3 * DAY else NAN

    def newest(self, metric: str, asset: str = "BTC") -> int:
        return int(self.rows[asset, metric][-1][0])

    def z(self, metric: str, f: Callable[[float], float] = math.log, asset: str = "BTC") -> float:
        end = self.newest(metric, asset)
        values = [f(v) for k, v in self.rows[asset, metric] if k > end - 90 * DAY]
        return (values[-1] - statistics.fmean(values)) / statistics.stdev(values) if len(values) >= 72 else NAN

    def change(self, metric: str, days: int, f: Callable[[float], float] = math.log, asset: str = "BTC") -> float:
        end = self.newest(metric, asset)
        return f(self.get(metric, end, asset)) - f(self.get(metric, end - days * DAY, asset))

    def share(self, at: int) -> float:
        return self.get("exchange_reserve", at) / self.get("supply", at)

    def net(self, at: int) -> float:
        return (self.get("exchange_inflow_usd", at) - self.get("exchange_outflow_usd", at)) / self.get("market_cap_usd", at)

    def all(self) -> list[float]:
        activity = [v for m in COUNTS[:6] for v in (self.z(m), self.change(m, 7))]
        flow_clock = [k for k, _ in self.rows["BTC", "exchange_inflow_usd"] if k > self.newest("exchange_inflow_usd") - 7 * DAY]
        reserve_at = self.newest("exchange_reserve")
        exchange = [
            self.net(flow_clock[-1]),
            7 * statistics.fmean(self.net(k) for k in flow_clock),
            self.z("exchange_inflow_usd"),
            self.z("exchange_outflow_usd"),
            self.share(reserve_at),
            self.share(reserve_at) - self.share(reserve_at - 30 * DAY),
        ]
        same = float
        holders = [
            self.z("whale_transfers", math.log1p),
            self.get("whale_to_exchange_usd") / self.get("market_cap_usd"),
            self.change("top100_share", 30, same),
            self.get("dormant_1y_share"),
            self.change("dormant_1y_share", 30, same),
        ]
        valuation = [self.z("mvrv"), self.z("nvt"), self.get("sopr") - 1, self.change("realised_cap_usd", 30)]
        supply = [
            self.change("stablecoin_supply_usd", 7, asset="*"),
            self.z("stablecoin_exchange_flow_usd", same, "*"),
            self.change("hash_rate", 30),
        ]
        return [*activity, *exchange, *holders, *valuation, *supply]


def test_every_chain_feature_agrees_with_its_formula_computed_moment_by_moment() -> None:
    dataset = full_dataset()
    panel = panel_of(dataset)
    fast = chain_features(panel, dataset)
    for t in (4 * 80, 4 * 95 + 1, 4 * 120 + 2, 4 * 149 + 3):
        want = SlowChain(dataset, int(panel.known_at[t])).all()
        for f, name in enumerate(NAMES):
            assert fast[t, 0, f] == pytest.approx(want[f], rel=1e-9, abs=1e-10, nan_ok=True), f"{name} at row {t}"
    assert np.isfinite(fast[4 * 120, 0]).all()


FULL = full_dataset(days=120)
FULL_PANEL = panel_of(FULL)
FULL_FEATURES = chain_features(FULL_PANEL, FULL)


@given(cut=st.integers(1, len(FULL_PANEL) - 1))
@settings(max_examples=20, deadline=None)
def test_removing_later_readings_changes_no_bit(cut: int) -> None:
    past = FULL.known_until(int(FULL_PANEL.known_at[cut - 1]))
    assert bits(chain_features(FULL_PANEL.rows(0, cut), past)) == bits(FULL_FEATURES[:cut])


@given(cut=st.integers(1, len(FULL_PANEL) - 1), poison=st.sampled_from([NAN, math.inf, -1.0, 0.0, 1e6, 1e308]))
@settings(max_examples=30, deadline=None)
def test_poisoning_later_readings_changes_no_bit_and_makes_nothing_infinite(cut: int, poison: float) -> None:
    moment = int(FULL_PANEL.known_at[cut - 1])
    sick = {key: replace(t, value=np.where(t.known_at > moment, poison, t.value)) for key, t in FULL.readings.items()}
    values = chain_features(FULL_PANEL, replace(FULL, readings=sick))
    assert bits(values[:cut]) == bits(FULL_FEATURES[:cut])
    assert not np.isinf(values).any()


def test_features_do_not_depend_on_where_the_bars_begin() -> None:
    assert bits(chain_features(FULL_PANEL.rows(300, 400), FULL)) == bits(FULL_FEATURES[300:400])
