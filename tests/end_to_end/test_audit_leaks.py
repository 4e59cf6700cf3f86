"""Every kind of leak is planted, and the audit has to find it and say what it is; its honest twin has to pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pytest

from cryptoalpha.app.audit import AuditReport, Path, audit, default_path
from cryptoalpha.app.book import build_engine
from cryptoalpha.app.engine import Engine
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Fill, FusedSignal, MarketState, Signal
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.broker import BarStep, Outcome
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.price_features import PRICE_FEATURES
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.tables import Dataset, Floats

WINDOW = 480
"""Bars audited: the last twenty days of the market."""
SMALL = Settings(
    signals=SignalsConfig(sources=("momentum_short",), keep_features=False),
    fusion=FusionConfig(method="equal"),
)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=3, bars=1500, posts_per_day=24.0), seed=3).dataset


def last_bars(dataset: Dataset, count: int = WINDOW) -> Period:
    table = next(iter(dataset.bars.values()))
    end = int(table.open_time[-1]) + table.interval
    return Period(end - count * table.interval, end)


# ── signals that leak, each with its honest twin ──────────────────────────────────────────────────────────────────────────────────

Formula = Callable[[Frame], Floats | tuple[Floats, Floats]]
"""From a frame to values `[T, A]`, with fitted weights `[T]` where something is fitted."""


@dataclass
class Planted:
    """A signal model made of one formula."""

    formula: Formula
    source: str = "planted"
    type: str = "price"
    horizon: int = DAY

    def reach(self, interval: int) -> int:
        return 900

    def compute(self, frame: Frame) -> Opinions:
        found = self.formula(frame)
        raw, traces = (found[0], {"weights/planted": found[1]}) if isinstance(found, tuple) else (found, {})
        value = np.tanh(raw)
        return opinions(frame, value, np.where(np.isfinite(value), 1.0, np.nan), value, traces=traces)


def shifted(values: Floats, rows: int) -> Floats:
    """Row t holds what stood at row t − rows; negative `rows` look ahead."""
    out = np.full(values.shape, np.nan)
    if rows >= 0:
        out[rows:] = values[: len(values) - rows]
    else:
        out[:rows] = values[-rows:]
    return out


def hourly_return(frame: Frame) -> Floats:
    return 100.0 * (frame.panel.close / shifted(frame.panel.close, 1) - 1.0)


def next_bar(frame: Frame) -> Floats:
    return shifted(hourly_return(frame), -1)


def whole_sample_scaler(frame: Frame) -> Floats:
    returns = hourly_return(frame)
    return (returns - np.nanmean(returns, axis=0)) / np.nanstd(returns, axis=0)


def trailing_scaler(frame: Frame) -> Floats:
    returns = hourly_return(frame)
    out = np.full(returns.shape, np.nan)
    for t in range(48, len(returns)):
        window = np.ascontiguousarray(returns[t - 47 : t + 1])
        out[t] = (returns[t] - window.mean(axis=0)) / window.std(axis=0)
    return out


def fitted_every_four_days(frame: Frame, *, known_after: int) -> tuple[Floats, Floats]:
    """The slope of the next day's return on the last one, over 10 days of labels taken to be known `known_after` bars after their row."""
    close = np.log(frame.panel.close)
    past, label = close - shifted(close, 24), shifted(close, -24) - close
    slope = np.full(len(close), np.nan)
    for t, at in enumerate(frame.panel.known_at.tolist()):
        if t and at % (4 * DAY) and math.isfinite(slope[t - 1]):
            slope[t] = slope[t - 1]
        elif at % (4 * DAY) == 0 and t >= 240 + known_after + 24:
            rows = slice(t - known_after - 239, t - known_after + 1)
            x, y = past[rows].ravel(), label[rows].ravel()
            there = np.isfinite(x) & np.isfinite(y)
            slope[t] = math.fsum((x * y)[there]) / math.fsum((x * x)[there])
    return 50.0 * past * slope[:, None], slope


def label_before_it_is_known(frame: Frame) -> tuple[Floats, Floats]:
    return fitted_every_four_days(frame, known_after=0)


def label_when_it_is_known(frame: Frame) -> tuple[Floats, Floats]:
    return fitted_every_four_days(frame, known_after=24)


def joined(frame: Frame, metric: str, column: str, asset: str | None = None) -> Floats:
    """The newest reading of each asset by one of its two clocks, as a relative change on the reading before."""
    out = np.full(frame.shape, np.nan)
    for a, base in enumerate(frame.assets):
        table = frame.dataset.readings[asset or base, metric]
        change = np.concatenate(([np.nan], np.diff(table.value) / (np.abs(table.value[:-1]) + 1.0)))
        place = np.searchsorted(getattr(table, column), frame.panel.known_at, side="right") - 1
        out[:, a] = np.where(place >= 0, change[np.maximum(place, 0)], np.nan)
    return out


def chain_row_of_the_day(frame: Frame) -> Floats:
    """The row whose date is the date of the bar, looked up by date."""
    out = np.full(frame.shape, np.nan)
    for a, asset in enumerate(frame.assets):
        table = frame.dataset.readings[asset, "exchange_inflow_usd"]
        by_day = dict(zip((table.happened_at // DAY).tolist(), table.value.tolist(), strict=True))
        out[:, a] = [by_day.get(day, math.nan) / 1e9 for day in (frame.panel.open_time // DAY).tolist()]
    return out


def chain_row_as_published(frame: Frame) -> Floats:
    return joined(frame, "exchange_inflow_usd", "known_at")


def centred_mean(frame: Frame) -> Floats:
    close = frame.panel.close
    return 100.0 * (close / np.mean([shifted(close, lag) for lag in range(-3, 4)], axis=0) - 1.0)


def trailing_mean(frame: Frame) -> Floats:
    close = frame.panel.close
    return 100.0 * (close / np.mean([shifted(close, lag) for lag in range(7)], axis=0) - 1.0)


def posts_in_the_last_hours(frame: Frame, column: str) -> Floats:
    """How many posts of the last six hours speak of gains, by one of the clocks of posts."""
    table = frame.dataset.posts["news"]
    moments = np.sort(getattr(table, column))
    length = np.concatenate(([0.0], np.cumsum([len(text) for text in table.text])))
    late, early = (np.searchsorted(moments, frame.panel.known_at - ago, side="right") for ago in (0, 6 * HOUR))
    return np.repeat((length[late] - length[early])[:, None] / 1e4, frame.shape[1], axis=1)


def filled(frame: Frame, *, backward: bool) -> Floats:
    """Returns sampled every five hours, the hours between filled from the next sample or from the last."""
    sampled = np.where((frame.panel.open_time // HOUR % 5 == 0)[:, None], hourly_return(frame), np.nan)
    order = slice(None, None, -1) if backward else slice(None)
    out = sampled[order].copy()
    for t in range(1, len(out)):
        out[t] = np.where(np.isfinite(out[t]), out[t], out[t - 1])
    return out[order]


LEAKS: dict[str, tuple[Formula, Formula]] = {
    "a feature of the next bar": (next_bar, hourly_return),
    "a scaler fitted on the whole sample": (whole_sample_scaler, trailing_scaler),
    "a join on event time": (
        lambda frame: joined(frame, "fear_greed", "happened_at", "*"),
        lambda frame: joined(frame, "fear_greed", "known_at", "*"),
    ),
    "the on-chain row of a day used on that day": (chain_row_of_the_day, chain_row_as_published),
    "a centred moving average": (centred_mean, trailing_mean),
    "news before its embargo": (
        lambda frame: posts_in_the_last_hours(frame, "happened_at"),
        lambda frame: posts_in_the_last_hours(frame, "known_at"),
    ),
    "a gap filled from behind": (lambda frame: filled(frame, backward=True), lambda frame: filled(frame, backward=False)),
}


def audit_formula(market: Dataset, formula: Formula, cuts: int = 3) -> AuditReport:
    return audit(market, path_of(market, models=[Planted(formula)]), cuts=cuts)


def path_of(
    market: Dataset,
    *,
    models: Sequence[Planted] | None = None,
    settings: Settings = SMALL,
    engine: object = None,
    instruments: object = None,
) -> Path:
    """The default path, with other models where they are given."""
    period = last_bars(market)
    usual = default_path(settings, period)
    book = SignalBook(settings.signals, models)

    def prepare(dataset: Dataset) -> SignalTape:
        return book.prepare(dataset, since=period.since, until=period.until)

    return Path(prepare if models is not None else usual.prepare, usual.engine)


def names(report: AuditReport) -> set[str]:
    return {leak.what for leak in report.leaks}


@pytest.mark.parametrize("kind", LEAKS)
def test_a_planted_signal_is_named_and_its_honest_twin_passes(market: Dataset, kind: str) -> None:
    leaky, honest = LEAKS[kind]
    report = audit_formula(market, leaky)
    assert "signal/planted/value" in names(report)
    assert "journal/Signal planted" in names(report)
    assert {name.partition("/")[0] for name in names(report)} == {"signal", "journal"}  # and nothing innocent is blamed
    assert {leak.mode for leak in report.leaks} == {"remove", "poison"}
    assert all(leak.first <= leak.cut and leak.count > 0 for leak in report.leaks)
    twin = audit_formula(market, honest)
    assert twin.is_clean, [str(leak) for leak in twin.leaks]


@pytest.mark.parametrize("seed", range(4))
def test_a_label_used_before_it_is_known_is_found_at_the_fit_that_used_it(market: Dataset, seed: int) -> None:
    """Four days lie between fits and the leak shows for one day after each: cuts at random alone would miss it three times in four."""
    report = audit(market, path_of(market, models=[Planted(label_before_it_is_known)]), cuts=2, seed=seed)
    assert {"weights/planted", "signal/planted/value"} <= names(report)


def test_a_label_used_when_it_is_known_passes(market: Dataset) -> None:
    report = audit_formula(market, label_when_it_is_known)
    assert report.is_clean, [str(leak) for leak in report.leaks]
    assert report.compared["weights"] > 0


def test_the_first_row_that_changed_is_the_last_one_before_the_cut(market: Dataset) -> None:
    report = audit_formula(market, next_bar)
    values = [leak for leak in report.leaks if leak.what == "signal/planted/value"]
    assert [leak.first for leak in values] == [cut for cut in report.cuts for _ in ("remove", "poison")]
    assert {leak.count for leak in values} == {1}
    assert "signal/planted/value: 1 rows changed by removing what became known after" in str(values[0])


# ── a false stamp in the data ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unclosed_bar_in_the_data_is_named(market: Dataset) -> None:
    table = market.bars["SIM2/USDT"]
    stamped = replace(market, bars={**market.bars, "SIM2/USDT": replace(table, known_at=table.open_time)})
    report = audit(stamped, path_of(stamped), cuts=2)
    (leak,) = [leak for leak in report.leaks if leak.mode == "rule"]
    assert leak.what == "bar known before it closed (SIM2/USDT)"
    assert (leak.count, leak.first) == (len(table), int(table.open_time[0]))
    assert str(leak).startswith("bar known before it closed (SIM2/USDT): 1500 times, first at 2022-01-01T00:00")


def test_a_panel_that_shows_unclosed_bars_is_named(market: Dataset) -> None:
    usual = path_of(market)

    def prepare(dataset: Dataset) -> SignalTape:
        tape = usual.prepare(dataset)
        return replace(tape, panel=replace(tape.panel, known_at=tape.panel.open_time))

    assert "bar known before it closed (panel)" in names(audit(market, Path(prepare, usual.engine), cuts=2))


def test_an_on_chain_reading_stamped_before_its_day_is_over_is_named(market: Dataset) -> None:
    key = ("SIM1", "exchange_inflow_usd")
    table = market.readings[key]
    early = replace(market, readings={**market.readings, key: replace(table, known_at=table.happened_at + 23 * HOUR)})
    assert names(audit(early, path_of(early), cuts=2)) == {"reading of a day known before the day was over (SIM1/exchange_inflow_usd)"}
    at_midnight = replace(market, readings={**market.readings, key: replace(table, known_at=table.happened_at + DAY)})
    assert audit(at_midnight, path_of(at_midnight), cuts=2).is_clean


def test_readings_and_texts_known_before_they_happened_are_named(market: Dataset) -> None:
    mood, news = market.readings["*", "fear_greed"], market.posts["news"]
    early = replace(
        market,
        readings={**market.readings, ("*", "fear_greed"): replace(mood, known_at=mood.happened_at - 1)},
        posts={"news": replace(news, known_at=news.happened_at - 1)},
    )
    expected = {"reading known before it happened (*/fear_greed)", "text known before it was published (news)"}
    assert names(audit(early, path_of(early), cuts=2)) == expected


# ── an engine that leaks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_engine(market: Dataset, change: Callable[[Engine, SignalTape], None]) -> Path:
    """The default path, its engine changed after it was built."""
    usual = path_of(market)

    def engine(dataset: Dataset, tape: SignalTape, clock: VirtualClock, journal: Journal) -> Engine:
        built = build_engine(SMALL, dataset, tape.panel.instruments, clock=clock, journal=journal, auto_trading=True, account="audit")
        change(built, tape)
        return built

    return Path(usual.prepare, engine)


class Clairvoyant(EqualWeights):
    """Equal weights for whoever will turn out right: sources that contradict the next bar are left out."""

    def __init__(self, tape: SignalTape, ahead: int) -> None:
        move = shifted(tape.panel.close, -ahead) - tape.panel.close if ahead else tape.panel.close - shifted(tape.panel.close, 1)
        self._moves = dict(zip(tape.panel.known_at.tolist(), move, strict=True))
        self._place = {name: a for a, name in enumerate(tape.panel.instruments)}

    def fuse(
        self,
        at: int,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
        *,
        state_events: Sequence[int],
        signal_events: Sequence[int],
    ) -> list[FusedSignal]:
        right = [signal.value * self._moves[at][self._place[signal.instrument]] > 0.0 for signal in signals]
        chosen = [signal for signal, is_right in zip(signals, right, strict=True) if is_right]
        events = [event for event, is_right in zip(signal_events, right, strict=True) if is_right]
        return super().fuse(at, states, chosen, state_events=state_events, signal_events=events)


def test_a_clairvoyant_weight_is_named(market: Dataset) -> None:
    def leak(engine: Engine, tape: SignalTape) -> None:
        engine.fusion = Clairvoyant(tape, ahead=1)

    def honest(engine: Engine, tape: SignalTape) -> None:
        engine.fusion = Clairvoyant(tape, ahead=0)

    assert names(audit(market, with_engine(market, leak), cuts=4)) == {"journal/FusedSignal"}
    assert audit(market, with_engine(market, honest), cuts=4).is_clean


class Hindsight(SimulatedBroker):
    """Gives every fill the open of the bar its order was decided on."""

    def __init__(self, market: Dataset) -> None:
        super().__init__(SMALL.execution, market.rules)
        self._seen: list[BarStep] = []

    def on_bar(self, step: BarStep) -> list[Outcome]:
        outcomes = super().on_bar(step)
        self._seen.append(step)
        return [self._earlier(event) if isinstance(event, Fill) else event for event in outcomes]

    def _earlier(self, fill: Fill) -> Fill:
        return msgspec.structs.replace(fill, happened_at=self._seen[-2].open_time)


def test_a_fill_in_the_bar_its_order_was_decided_on_is_named(market: Dataset) -> None:
    def leak(engine: Engine, tape: SignalTape) -> None:
        engine.broker = Hindsight(market)

    report = audit(market, with_engine(market, leak), cuts=2)
    assert names(report) == {"fill before its order"}
    assert report.leaks[0].count > 0


def test_a_fill_at_the_close_of_the_signal_is_named(market: Dataset) -> None:
    """The simulated market opens a little away from the last close, as real ones do."""
    settings = SMALL.model_copy(update={"execution": ExecutionConfig(fill="signal_close")})
    report = audit(market, default_path(settings, last_bars(market)), cuts=2)
    assert names(report) == {"fill at another price than the next open"}


# ── the audit itself ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_honest_path_passes_with_every_source_and_feature(market: Dataset) -> None:
    report = audit(market, default_path(Settings(), last_bars(market, 300)), cuts=2)
    assert report.is_clean, [str(leak) for leak in report.leaks]
    assert {"bar", "price", "chain", "signal", "join", "scaler", "weights", "label", "journal", "rule"} <= set(report.compared)
    assert all(count > 0 for count in report.compared.values())
    assert report.rows == 300
    assert len(report.cuts) == 2
    assert report.as_dict()["clean"] is True


def test_a_feature_of_the_next_bar_is_named_by_its_own_name(market: Dataset) -> None:
    settings = SMALL.model_copy(update={"signals": SignalsConfig(sources=("momentum_short",), keep_features=True)})
    usual = default_path(settings, last_bars(market, 200))

    def prepare(dataset: Dataset) -> SignalTape:
        tape = usual.prepare(dataset)
        assert tape.price is not None
        price = tape.price.copy()
        price[:, :, 0] = shifted(price[:, :, 0], -1)
        return replace(tape, price=price)

    assert names(audit(market, Path(prepare, usual.engine), cuts=2)) == {f"price/{PRICE_FEATURES[0].name}"}


def test_a_path_that_needs_the_future_to_run_is_named_by_how_it_broke_off(market: Dataset) -> None:
    usual, end = path_of(market), max(int(table.known_at[-1]) for table in market.bars.values())

    def prepare(dataset: Dataset) -> SignalTape:
        if max(int(table.known_at[-1]) for table in dataset.bars.values()) < end:
            raise DataMissingError("the last bar is gone")
        return usual.prepare(dataset)

    report = audit(market, Path(prepare, usual.engine), cuts=2)
    assert names(report) == {"run broke off with DataMissingError (the last bar is gone)"}
    assert {leak.mode for leak in report.leaks} == {"remove"}


def test_it_tells_of_every_run_and_refuses_a_window_too_short_to_cut(market: Dataset) -> None:
    told: list[int] = []
    audit(market, path_of(market), cuts=2, advance=told.append)
    assert sum(told) == 5
    with pytest.raises(ConfigError, match="480 bars are too few for 241 cuts"):
        audit(market, path_of(market), cuts=241)
    with pytest.raises(ConfigError, match="for 0 cuts"):
        audit(market, path_of(market), cuts=0)
