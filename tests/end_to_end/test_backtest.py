"""Whole backtests: the same twice, the account recomputed by a slower way, an edge found, noise left alone, a trade explained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.audit import audit, default_path
from cryptoalpha.app.backtest import RANDOM_SIGNAL, BacktestResult, decisive_settings, learn_before, run_backtest, run_identity
from cryptoalpha.app.book import build_engine
from cryptoalpha.app.demo import for_simulation
from cryptoalpha.app.explain import explain
from cryptoalpha.app.kept_runs import KeptRun, run_and_keep, stored_content
from cryptoalpha.app.period import Period, period_of
from cryptoalpha.app.report.storage import FORMAT, dump_content, load_content
from cryptoalpha.app.runs import CONFIG, CONTENT, JOURNAL, METRICS, list_runs
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import DataError, DataMissingError, StoreError
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.core.values import (
    Decision,
    Fill,
    FundingPayment,
    FusedSignal,
    MarketState,
    ObservationRef,
    Order,
    Signal,
    Sizing,
    Travelling,
    parse_event_id,
)
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.files import load_directory
from cryptoalpha.data.simulated import simulate
from cryptoalpha.risk.config import RiskConfig, TailConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.bar_gate import BarGate, BarGateConfig
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.tables import Dataset

BARS, WINDOW = 6000, 2400
"""Bars of the small market, and how many of them at its end are traded: a hundred days."""


def market_of(seed: int, *, noise: bool = False, bars: int = BARS, assets: int = 3) -> Dataset:
    return simulate(SimulatedConfig(assets=assets, bars=bars, pure_noise=noise), seed).dataset


def last_bars(dataset: Dataset, count: int = WINDOW) -> Period:
    return Period(0, 2**62).last_bars(dataset, count)


def backtest(dataset: Dataset, settings: Settings | None = None, count: int = WINDOW) -> BacktestResult:
    return run_backtest(settings or Settings(), dataset, last_bars(dataset, count), run="test", journal_path=None)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return market_of(0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def kept(market: Dataset, home: Path) -> KeptRun:
    return run_and_keep(
        Settings(), market, last_bars(market), home, instruments=None, name=None, elsewhere=2, command="cryptoalpha backtest"
    )


@pytest.fixture(scope="module")
def journal(kept: KeptRun) -> Iterator[JournalReader]:
    with JournalReader(kept.place / JOURNAL) as reader:
        yield reader


def values_of(journal: JournalReader) -> list[Travelling]:
    return [value for _, _, values in journal.rows() for value in values]


# ── the same twice ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_run_twice_is_the_same_to_the_byte(market: Dataset, kept: KeptRun) -> None:
    again = backtest(market)  # under another name
    assert again.digest == kept.result.digest
    assert np.array_equal(again.recorder.equity, kept.result.recorder.equity)
    assert repr(again.comparison.baselines) == repr(kept.result.comparison.baselines)
    assert again.comparison.strategy.sharpe == kept.result.comparison.strategy.sharpe


def test_another_seed_of_the_market_is_another_run(kept: KeptRun) -> None:
    assert backtest(market_of(1), count=600).digest != kept.result.digest


def test_the_identity_names_what_decides_a_run(market: Dataset) -> None:
    names, period = sorted(market.bars), last_bars(market)
    usual = run_identity(Settings(), market, period, names)
    assert usual["interval"] == "1h"
    changed = [
        Settings(fusion={"method": "equal"}),
        Settings(data={"files": {"text_embargo_hours": 2.0}}),
        Settings(store={"bar_gate": {"future": "refuse"}}),
    ]
    for settings in changed:
        assert run_identity(settings, market, period, names)["config"] != usual["config"]
    assert run_identity(Settings(data={"simulated": {"bars": 999}}), market, period, names) == usual  # it is in the data's fingerprint
    assert run_identity(Settings(agent={"league": {"players": 4}}), market, period, names) == usual  # `train agent --league` alone reads it
    assert run_identity(Settings(agent={"dead_band": 0.3}), market, period, names) != usual


def test_another_model_in_the_same_folder_makes_another_run(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    settings = Settings(signals={"sources": ["momentum", "forecast"], "forecast": {"model": str(folder)}})
    named = Settings(signals={"sources": ["momentum"], "forecast": {"model": str(folder)}})
    (folder / "model.json").write_text("{}")
    before, silent = decisive_settings(settings), decisive_settings(named)
    (folder / "model.json").write_text("{ }")
    assert decisive_settings(settings) != before
    assert decisive_settings(named) == silent  # nobody asks it


# ── the account ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_equity_is_cash_and_positions_recomputed_from_the_journal(kept: KeptRun, journal: JournalReader) -> None:
    """Invariant I3, step by step in `Decimal`, from nothing but fills, funding and closes."""
    result = kept.result
    place = {name: a for a, name in enumerate(result.instruments)}
    cash = Decimal(repr(result.settings.execution.initial_cash))
    held, marks = [Decimal(0)] * len(place), [Decimal(0)] * len(place)
    trades = payments = 0
    for t, (_, at, values) in enumerate(journal.rows()):
        for value in values:
            if isinstance(value, Fill):
                signed = value.quantity if value.side == "buy" else -value.quantity
                held[place[value.instrument]] += signed
                cash -= signed * value.price + value.fee
                trades += 1
            elif isinstance(value, FundingPayment):
                assert value.position == held[place[value.instrument]]
                cash += value.amount
                payments += 1
        for a, close in enumerate(result.panel.close[t].tolist()):
            marks[a] = Decimal(repr(close)) if close == close else marks[a]
        equity = cash + sum((quantity * mark for quantity, mark in zip(held, marks, strict=True)), Decimal(0))
        assert at == result.recorder.times[t]
        assert float(equity) == result.recorder.equity[t]
        assert np.allclose(result.weights[t], [float(q * m / equity) for q, m in zip(held, marks, strict=True)], rtol=1e-12, atol=0)
    last = result.recorder.last
    assert last is not None
    assert (last.cash, last.equity) == (cash, equity)
    assert trades == len(result.recorder.fills) > 20
    assert payments == len(result.recorder.funding) > 20


def test_the_recorder_knows_where_each_fill_stands(kept: KeptRun, journal: JournalReader) -> None:
    recorder = kept.result.recorder
    assert [journal.get(event) for event in recorder.fill_events] == recorder.fills
    values = values_of(journal)
    assert recorder.fills == [value for value in values if isinstance(value, Fill)]
    assert recorder.funding == [value for value in values if isinstance(value, FundingPayment)]
    assert recorder.orders == sum(isinstance(value, Order) for value in values)
    days = [at // DAY for at, _ in recorder.source_weights]
    assert days == sorted(set(days))
    assert all(sum(abs(weight) for weight in weights.values()) <= 1.0 + 1e-9 for _, weights in recorder.source_weights)


def test_costs_and_turnover_second_way(kept: KeptRun) -> None:
    result = kept.result
    fills = result.recorder.fills
    paid = sum(fill.fee + fill.spread_cost + fill.impact_cost for fill in fills) - sum(p.amount for p in result.recorder.funding)
    assert result.strategy.costs == pytest.approx(float(paid) / 100_000.0)
    traded = float(sum(fill.quantity * fill.price for fill in fills))
    assert result.turnover == pytest.approx(traded / 2 / np.mean(result.recorder.equity) * 365 / 100)  # a hundred days


# ── the baselines ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hold_earns_the_price_ratio_less_its_costs() -> None:
    """Without costs, limits and funding: bought at the open of the second bar, worth the last close."""
    free = {"taker_fee": 0.0, "half_spread": 0.0, "impact": 0.0, "max_participation": None, "unknown_volume_slippage": 0.0}
    market = market_of(5, bars=42 * 24)
    settings = Settings(
        execution={"costs": free, "funding": False}, signals=SignalsConfig(sources=("momentum_short",), keep_features=False)
    )
    result = backtest(market, settings, 480)
    table = market.bars["SIM1/USDT"]
    units = 100_000.0 / max(table.close[-480], table.open[-479])  # ordered at one price, covered at the other
    assert result.baselines["hold SIM1"].daily.equity[-1] == pytest.approx(
        100_000.0 + units * (table.close[-1] - table.open[-479]), rel=1e-9
    )
    dear = backtest(market, settings.model_copy(update={"execution": Settings().execution.model_copy(update={"funding": False})}), 480)
    hold = dear.baselines["hold SIM1"]
    lost = 1.0 - hold.daily.equity[-1] / result.baselines["hold SIM1"].daily.equity[-1]
    assert 0.0011 * 0.9 < lost < 0.01  # a fee of 10 bp, a half spread of 1 bp and some impact, paid once
    assert hold.costs == pytest.approx(lost, rel=0.5)


def test_a_random_signal_trades_as_much_as_the_strategy(kept: KeptRun) -> None:
    assert kept.result.baselines[RANDOM_SIGNAL].turnover == pytest.approx(kept.result.turnover, rel=0.15)


def test_a_book_of_one_asset_whose_history_begins_with_the_period() -> None:
    market = market_of(2, bars=800, assets=1)
    result = backtest(market, count=800)
    assert set(result.baselines) == {
        "hold SIM1", "volatility-targeted hold", "50-day trend", "28-day momentum × volatility target", "multi-speed trend", RANDOM_SIGNAL
    }  # fmt: skip
    assert len(result.recorder.times) == 800


# ── awkward data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

PLAIN = Settings(signals=SignalsConfig(sources=("momentum_short",), keep_features=False), fusion={"method": "hedge", "warmup_days": 20.0})


def test_a_bar_that_came_hours_late_delays_the_bars_after_it_and_nothing_breaks() -> None:
    market = market_of(4, bars=800)
    table = market.bars["SIM1/USDT"]
    known = table.known_at.copy()
    known[500] += 3 * HOUR
    late = replace(market, bars={**market.bars, "SIM1/USDT": replace(table, known_at=known)})
    result = backtest(late, PLAIN, 480)
    assert np.sum(np.diff(result.recorder.times) == 0) == 3
    assert len(result.recorder.times) == 480
    assert len(result.strategy.daily) == 20


def test_a_hole_before_the_period_leaves_nothing_to_learn_from() -> None:
    market = market_of(4, bars=1500)
    period = last_bars(market, 480)

    def holed(table: object) -> np.ndarray:
        times = table.open_time  # type: ignore[attr-defined]
        return (times >= period.since) | (times < period.since - 30 * DAY)

    gap = replace(market, bars={name: table.take(holed(table)) for name, table in market.bars.items()})
    result = run_backtest(PLAIN, gap, period, run="test", journal_path=None)
    assert len(result.recorder.times) == 480


def test_a_fusion_learns_from_the_sources_it_will_be_asked_about() -> None:
    market, asked = market_of(4, bars=1000), []

    class Book(SignalBook):
        def prepare(self, dataset: Dataset, *, since: int, until: int, **options: object):  # type: ignore[no-untyped-def, override]
            asked.append((since, until))
            return super().prepare(dataset, since=since, until=until, **options)  # type: ignore[arg-type]

    period = last_bars(market, 300)
    names = sorted(market.bars)
    with Journal(None, durable=False, header={"run": "test"}) as journal:
        engine = build_engine(PLAIN, market, names, clock=VirtualClock(), journal=journal, auto_trading=True, account="test")
        learn_before(PLAIN, market, period, names, engine, book=Book(PLAIN.signals))
    assert asked == [(period.since - 20 * DAY, period.since)]


def test_the_gate_has_seen_the_market_before_the_run_as_it_would_have_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is shown before a run, and after, is what it would be shown by a run that began earlier: no bar twice, none left out."""
    market, seen = market_of(4, bars=1500), []

    def note(gate: RiskGate, at: int, interval: int, names: Sequence[str], close: Sequence[float], volume: Sequence[float]) -> None:
        seen.append((at, interval, tuple(names), tuple(close), tuple(volume)))

    monkeypatch.setattr(RiskGate, "observe", note)
    backtest(market, PLAIN, 300)
    split = seen.copy()
    seen.clear()
    backtest(market, PLAIN, 1500)
    assert len(split) == 1500
    assert split == seen
    short = PLAIN.model_copy(update={"risk": RiskConfig(tail=TailConfig(history_days=10, least_days=10))})
    seen.clear()
    backtest(market, short, 300)
    day = seen[0][0] // DAY * DAY
    assert seen == split[-len(seen) :]
    assert (split[-300][0] // DAY * DAY - day) == 11 * DAY  # ten returns need eleven closes


def test_a_bar_that_comes_after_the_start_was_not_known_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    market, seen = market_of(4, bars=900), []
    table, first = market.bars["SIM1/USDT"], 600
    known = table.known_at.copy()
    known[first - 3] += 5 * HOUR
    late = replace(market, bars={**market.bars, "SIM1/USDT": replace(table, known_at=known)})
    monkeypatch.setattr(RiskGate, "observe", lambda gate, at, *rest: seen.append(at))
    backtest(late, PLAIN, 300)
    start = int(table.open_time[first])
    assert len([at for at in seen if at <= start]) == first - 1  # it alone is left out, not those after it
    assert seen == sorted(seen)


def test_less_than_a_day_and_a_period_without_bars_are_refused() -> None:
    market = market_of(4, bars=800)
    with pytest.raises(DataError, match="has no full day to measure"):
        backtest(market, PLAIN, 5)
    with pytest.raises(DataMissingError, match="no bars between"):
        run_backtest(PLAIN, market, Period(0, DAY), run="test", journal_path=None)


# ── an edge, and noise ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_planted_edge_is_found() -> None:
    """Market and settings of the demo's first act, on a seed that no setting was chosen by: a year to learn on, two to be judged by."""
    settings = for_simulation(Settings(), pure_noise=False)
    market = simulate(settings.data.simulated, seed=7).dataset
    whole = period_of(market, None, None)
    result = run_backtest(settings, market, Period(whole.since + 365 * DAY, whole.until), run="test", journal_path=None)
    sharpe = result.comparison.strategy.sharpe
    assert sharpe.low > 0.0
    assert sharpe.estimate > result.comparison.baselines[-1].sharpe.estimate  # the random signal of equal turnover
    assert result.weights.max() > 0.05


def test_pure_noise_is_left_alone() -> None:
    """Of three markets without an edge at most one looks like one; none is traded hard."""
    found = [backtest(market_of(seed, noise=True, bars=8000), count=4000) for seed in (11, 12, 13)]
    assert sum(result.comparison.strategy.sharpe.low > 0.0 for result in found) <= 1
    assert all(abs(result.comparison.strategy.cagr.estimate) < 0.30 for result in found)
    assert all(result.turnover < 30.0 for result in found)


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_kept_with_its_numbers(kept: KeptRun, home: Path, market: Dataset) -> None:
    assert list_runs(home) == [kept.place.name]
    metrics = json.loads((kept.place / METRICS).read_text())
    assert metrics["journal_hash"] == kept.result.digest
    assert metrics["trials"] == 3  # this one, and two made elsewhere
    assert metrics["fills"] == len(kept.result.recorder.fills)
    costs = metrics["costs"]
    assert costs["gross"] - costs["fees"] - costs["spread"] - costs["impact"] + costs["funding_received"] == pytest.approx(costs["net"])
    assert "credentials" not in json.loads((kept.place / CONFIG).read_text())
    with JournalReader(kept.place / JOURNAL) as journal:
        assert journal.digest() == kept.result.digest
        assert journal.header == run_identity(Settings(), market, last_bars(market), kept.result.instruments)


def test_a_report_is_stored_and_read_back_whole(kept: KeptRun, home: Path) -> None:
    content = stored_content(home, None)
    assert dump_content(content) == (kept.place / CONTENT).read_bytes()
    assert repr(content.comparison) == repr(kept.result.comparison)  # a NaN says the same, but equals nothing
    assert np.array_equal(content.strategy.daily.equity, kept.result.strategy.daily.equity)
    assert content.card.journal_digest == kept.result.digest


def test_the_newest_backtest_is_reported_where_a_paper_run_is_newer(kept: KeptRun, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "paper").mkdir()
    (tmp_path / "runs" / "paper" / JOURNAL).write_bytes(b"newer")
    assert list_runs(tmp_path) == [kept.place.name, "paper"]
    assert stored_content(tmp_path, None).card.run_id == kept.place.name
    with pytest.raises(DataMissingError, match="run paper keeps no report content"):
        stored_content(tmp_path, "paper")


def test_a_damaged_report_is_refused(kept: KeptRun) -> None:
    data = (kept.place / CONTENT).read_bytes()
    for place in (len(FORMAT), len(FORMAT) + 40, len(data) // 2, len(data) - 1):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises(StoreError, match="damaged"):
            load_content(bytes(flipped))
    with pytest.raises(StoreError, match="damaged"):
        load_content(data[:-1])
    for other in (b"", b"{}", data[1:]):
        with pytest.raises(StoreError, match="another version"):
            load_content(other)


def test_a_run_that_cannot_be_made_leaves_nothing_but_its_trial(market: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataMissingError):
        run_and_keep(Settings(), market, Period(0, DAY), tmp_path, instruments=None, name="a", elsewhere=0, command="")
    assert list((tmp_path / "runs").iterdir()) == []
    assert (tmp_path / "trials.sqlite").exists()


# ── why this trade? ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fill_is_explained_back_to_every_signal_and_bar(kept: KeptRun, journal: JournalReader) -> None:
    event, fill = kept.result.recorder.fill_events[7], kept.result.recorder.fills[7]
    links = explain(journal, fill.trade_id).links
    assert [journal.get(parse_event_id(link.event)) for link in links] == [link.value for link in links]
    assert isinstance(links[2].value, Sizing)
    assert any("rounded to the lot" in line for line in links[2].details)
    links = (*links[:2], *links[3:])
    found, order, decision, fused, *rest = (link.value for link in links)
    assert found == fill
    assert isinstance(order, Order)
    assert isinstance(decision, Decision)
    assert isinstance(fused, FusedSignal)
    assert order.client_id == fill.client_id
    ids = [parse_event_id(link.event) for link in links]
    assert ids[:4] == [event, fill.order, order.decision, decision.fused]
    assert ids[4:-1] == [*fused.signals, fused.market_state]
    assert [type(value) for value in rest] == [Signal] * len(fused.signals) + [MarketState, ObservationRef]
    assert len(fused.signals) >= 4
    assert {value.instrument for value in rest[:-1]} == {fill.instrument}  # type: ignore[union-attr]
    assert all(value.known_at <= order.known_at <= fill.happened_at for value in rest)
    reference = rest[-1]
    assert isinstance(reference, ObservationRef)
    assert reference.subject == fill.instrument
    assert kept.result.dataset.bars[fill.instrument].known_at[reference.row] == order.known_at
    assert f"{fill.side} {fill.quantity} {fill.instrument} at {fill.price}" in links[0].words


def test_an_order_and_an_event_are_explained_alike(kept: KeptRun, journal: JournalReader) -> None:
    fill, event = kept.result.recorder.fills[3], kept.result.recorder.fill_events[3]
    whole = explain(journal, fill.trade_id)
    assert explain(journal, f"{event >> 16}.{event & 0xFFFF}") == whole
    assert explain(journal, fill.client_id).links == whole.links[1:]
    assert json.dumps([{"event": link["event"], "kind": link["kind"]} for link in whole.as_dict()["chain"]]).startswith("[{")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody", "no fill, order or refusal 'nobody'"),
        ("999999.0", "no fill, order or refusal '999999.0'"),
        ("0.0", "no fill, order or refusal '0.0'"),
        ("1.60000", "no fill, order or refusal '1.60000'"),
        ("1.0", "event 1.0 is not a fill, an order, a refusal, a change of state or an alarm, it is of type ObservationRef"),
        ("", "no fill, order or refusal ''"),
    ],
)
def test_what_is_no_trade_is_refused(journal: JournalReader, name: str, words: str) -> None:
    with pytest.raises(DataMissingError, match=words):
        explain(journal, name)


# ── real data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_real_data_are_traded_the_same_twice_and_pass_the_audit(market_data: Path) -> None:
    names = ["BTC/USDT", "ETH/USDT"]
    dataset = load_directory(market_data, gate=BarGate(BarGateConfig()), instruments=names)
    period = Period(parse_time("2022-04-01"), parse_time("2022-07-01"))
    first, second = (run_backtest(Settings(), dataset, period, run="real", journal_path=None) for _ in range(2))
    assert first.digest == second.digest
    assert len(first.panel) == 91 * 24
    assert first.comparison.strategy.days == 91
    assert set(first.baselines) >= {"hold BTC", "equal-weight hold", RANDOM_SIGNAL}
    report = audit(dataset, default_path(Settings(), period.last_bars(dataset, 500)), cuts=2)
    assert report.is_clean, [str(leak) for leak in report.leaks]
    assert report.compared["price"] > 10_000
