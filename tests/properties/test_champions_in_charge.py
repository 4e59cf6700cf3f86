"""A model takes over while bars come. Bar by bar, and prepared at once afterwards, every bar has the same opinions, to the last bit; and
those before the change are the ones of a run in which it never came."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptoalpha.core.time import HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import ForecastConfig, GenomeSignalConfig, RegimeConfig, SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.model_series import extend_series
from cryptoalpha.store.panel import build_panel

BARS, FIRST, TAKEN_OVER = 2_330, 2_296, 2_312
FORECAST = ForecastConfig(context_bars=16, block_bars=8, correlation_bars=(24, 96))
GENOME = GenomeSignalConfig(frames=("1h", "4h"), horizon_bars=6)
REGIME = RegimeConfig(block_bars=16, warm_up_bars=48)
KINDS = {"forecast": "forecaster", "genome": "genome", "regime": "regime"}


def book_of(folders: dict[str, Path]) -> SignalBook:
    return SignalBook(
        SignalsConfig(
            sources=("forecast", "genome"),
            keep_features=False,
            forecast=FORECAST.model_copy(update={"model": str(folders["forecast"])}),
            genome=GENOME.model_copy(update={"model": str(folders["genome"])}),
            regime=REGIME.model_copy(update={"model": str(folders["regime"])}),
        )
    )


def test_who_is_in_charge_when_a_bar_becomes_known_answers_it(
    tmp_path: Path,
    random_forecaster: Callable[..., Path],
    random_genome: Callable[..., Path],
    random_regime: Callable[..., Path],
) -> None:
    market = simulate(SimulatedConfig(assets=2, bars=BARS, posts_per_day=1.0), seed=3).dataset
    frame = Frame(build_panel(market, since=0, until=2**62), market)
    opens = next(iter(market.bars.values())).open_time
    make = {"forecast": (random_forecaster, FORECAST), "genome": (random_genome, GENOME), "regime": (random_regime, REGIME)}
    other = {"forecast": {"spread": 0.3}, "genome": {"spread": 0.3}, "regime": {"stay": 0.95}}
    models = {}
    for name, (write, config) in make.items():
        for member, changes in (("first", {}), ("second", other[name])):
            folder = write(tmp_path / member / name, frame, config, (2_290,), **changes)
            models[name, member] = ModelFolder.open(folder, KINDS[name])
    series = {name: tmp_path / "series" / name for name in make}
    for name, place in series.items():
        extend_series(place, models[name, "first"], member="first", now=0)
    live, never = book_of(series), book_of({name: models[name, "first"].path for name in make})
    said = []
    for row in range(FIRST, BARS):
        if row == TAKEN_OVER:  # while bar 2,312 runs: it is known an hour after it opens, the next model is in charge by then
            for name, place in series.items():
                extend_series(place, models[name, "second"], member="second", now=int(opens[row]) + HOUR // 2)
        tape = live.prepare(market.known_until(int(opens[row]) + HOUR), since=int(opens[row]), until=int(opens[row]) + HOUR)
        said.append((tape.signals_at(0), tape.states_at(0)))
    again = book_of(series).prepare(market, since=int(opens[FIRST]), until=2**62)
    assert said == [(again.signals_at(t), again.states_at(t)) for t in range(BARS - FIRST)]
    alone = never.prepare(market, since=int(opens[FIRST]), until=2**62)
    taken_over = TAKEN_OVER - FIRST
    for t in range(BARS - FIRST):
        mine, theirs = ({signal.source: signal.value for signal in tape.signals_at(t)} for tape in (again, alone))
        regimes = [[state.regime for state in tape.states_at(t)] for tape in (again, alone)]
        changed = {name for name in mine if mine[name] != theirs[name]} | ({"regime"} if regimes[0] != regimes[1] else set())
        assert changed == (set() if t < taken_over else {"forecast", "genome", "regime"}), t
