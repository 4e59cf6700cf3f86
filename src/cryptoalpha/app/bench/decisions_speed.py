"""How fast the whole loop decides: `python -m cryptoalpha.app.bench.decisions_speed`, one JSON object.

Eight assets of the simulated market, hourly, with chain readings, posts and funding; all sources with forecaster and genome of the preset
`small`, a regime model, the searched fusion with a network that guides it, four agents with value functions in a council, risk, simulated
broker and journal. All networks are untrained: their time hardly depends on their weights. CPU seconds of one thread.

`full_loop`: a replay, signals and loop together, of a long and of a short period; the difference counts, so that what is paid once per run
(warm-up, refits at its beginning) is paid in both. `live`: bar after bar as a live session takes them, with as many simulations as a live
decision has: signals of the newest bar, then the engine's step, the journal's fsync included.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from cryptoalpha.app.backtest import learn_before
from cryptoalpha.app.bench.decisions_untrained import write_agents, write_fusion, write_regime
from cryptoalpha.app.book import build_engine, tape_steps
from cryptoalpha.app.engine import Step
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.config import MEMBERS
from cryptoalpha.nets.config import NetsConfig
from cryptoalpha.nets.presets import forecaster_sizes, genome_sizes
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import ALL_SOURCES
from cryptoalpha.signals.forecast.arrays import forecast_arrays
from cryptoalpha.signals.forecast.model import ForecastDesign, ForecastModel
from cryptoalpha.signals.forecast.model import finish as finish_forecaster
from cryptoalpha.signals.forecast.scaling import fit_scalers
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.model import GenomeDesign, GenomeModel
from cryptoalpha.signals.genome.model import finish as finish_genome
from cryptoalpha.signals.single_thread import single_thread
from cryptoalpha.signals.text import EncoderId, open_encoder
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

ASSETS, BARS = 8, 17_600
"""Two years of hours: the genome's daily bars look back nearly as far."""
SCALER_BARS = 3_000
"""Bars that the forecaster's scalers are fitted on."""
WARM_UP = 24
"""Live bars that are not counted: the first pays for compiled code, the genome's first window and the ridge's fit."""
WARM_UP_DAYS = 30.0
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Speed:
    """What was measured. Milliseconds of CPU and of the wall clock per live bar; of them in the signals."""

    full_loop_bars_per_second: float
    live_decision_p50_ms: float
    live_decision_p99_ms: float
    live_wall_p50_ms: float
    live_wall_p99_ms: float
    live_signals_p50_ms: float
    live_bars: int


def market() -> Dataset:
    """The data."""
    return simulate(SimulatedConfig(assets=ASSETS, bars=BARS, posts_per_day=8.0), seed=7).dataset


def whole_settings(dataset: Dataset, folder: Path) -> Settings:
    """Settings with everything switched on; untrained models are written to `folder`."""
    settings, nets = Settings(), NetsConfig(preset="small")
    panel = build_panel(dataset, since=0, until=2**62)
    usable, fitted = int(panel.known_at[SCALER_BARS]), panel.rows(0, SCALER_BARS)
    genome = GenomeDesign(genome_sizes(nets), settings.signals.genome, panel.interval)
    (folder / "genome").mkdir(parents=True)
    finish_genome(folder / "genome", genome, [GenomeModel(genome, _stirred(genome.build(1)), usable).save(folder / "genome", 0)], {})
    encoder = open_encoder(settings.signals.text)
    forecaster = ForecastDesign(
        sizes=forecaster_sizes(nets), heads=nets.heads, config=settings.signals.forecast, news=settings.signals.news,
        interval=panel.interval, encoder=EncoderId.of(encoder), sentiment=False,
    )  # fmt: skip
    arrays = forecast_arrays(Frame(fitted, dataset, first=0), settings.signals.forecast, encoder, news=settings.signals.news)
    scaler = fit_scalers(arrays, np.arange(len(fitted)), clip=settings.signals.forecast.clip)
    (folder / "forecaster").mkdir()
    model = ForecastModel(forecaster, _stirred(forecaster.build(1)).eval(), scaler, usable, strength=0.1)
    finish_forecaster(folder / "forecaster", forecaster, [model.save(folder / "forecaster", 0)], {})
    write_regime(folder / "regime", settings, Frame(fitted, dataset, first=0), usable)
    signals = settings.signals.model_copy(
        update={
            "sources": (*ALL_SOURCES, *(name for name in ("forecast", "genome") if name not in ALL_SOURCES)),
            "forecast": settings.signals.forecast.model_copy(update={"model": str(folder / "forecaster")}),
            "genome": settings.signals.genome.model_copy(update={"model": str(folder / "genome")}),
            "regime": settings.signals.regime.model_copy(update={"model": str(folder / "regime")}),
        }
    )
    learning = settings.fusion.learning.model_copy(update={"model": str(folder / "fusion")})
    fusion = settings.fusion.model_copy(update={"method": "search", "warmup_days": WARM_UP_DAYS, "learning": learning})
    planner = settings.agent.planner.model_copy(update={"model": str(folder / "agent")})
    agent = settings.agent.model_copy(update={"members": MEMBERS, "planner": planner})
    settings = settings.model_copy(update={"signals": signals, "fusion": fusion, "agent": agent})
    write_fusion(folder / "fusion", settings, usable)
    write_agents(folder / "agent", settings, book_size=len(dataset.bars), interval=panel.interval, usable_from=usable)
    return settings


def _stirred(net: Net) -> Net:
    """A fresh network is silent; with its weights shaken what follows has something to do."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=draw))
    return net


def replay_seconds(settings: Settings, dataset: Dataset, period: Period) -> float:
    """CPU seconds of a replay: signals and loop."""
    names, clock = tuple(sorted(dataset.bars)), VirtualClock()
    with Journal(None, durable=False, header={"bench": "decisions"}) as journal:
        engine = build_engine(settings, dataset, names, clock=clock, journal=journal, auto_trading=True, account="bench")
        book = SignalBook(settings.signals)
        learn_before(settings, dataset, period, names, engine, book=book)
        began = time.process_time()
        tape = book.prepare(dataset, since=period.since, until=period.until, instruments=names)
        engine.run(tape_steps(tape, dataset, clock))
        return time.process_time() - began


def live_times(settings: Settings, dataset: Dataset, first: int, bars: int, folder: Path) -> list[tuple[float, float, float]]:
    """CPU seconds, wall seconds, and CPU seconds of the signals, of every live bar from the row `first` of the history on."""
    names, clock, taken = tuple(sorted(dataset.bars)), VirtualClock(), list[tuple[float, float, float]]()
    opens = dataset.bars[names[0]].open_time[first : first + bars].tolist()
    book = SignalBook(settings.signals)

    def steps() -> Iterator[Step]:
        for at in opens:
            known = {name: table.take(table.open_time <= at) for name, table in dataset.bars.items()}
            now = replace(dataset, bars=known)
            cpu, wall = time.process_time(), time.perf_counter()
            tape = book.prepare(now, since=at, until=at + HOUR, instruments=names)
            signals = time.process_time() - cpu
            yield from tape_steps(tape, now, clock)
            taken.append((time.process_time() - cpu, time.perf_counter() - wall, signals))

    with Journal(folder / "live.journal", durable=True, header={"bench": "decisions"}) as journal:
        engine = build_engine(settings, dataset, names, clock=clock, journal=journal, auto_trading=True, account="bench", live=True)
        learn_before(settings, dataset, Period(opens[0], opens[-1] + HOUR), names, engine, book=book)
        engine.run(steps())
    return taken


def measure(bars: int) -> Speed:
    """Measure; `bars` are replayed, and as many taken live."""
    with single_thread(), TemporaryDirectory() as place:
        dataset, folder = market(), Path(place)
        settings = whole_settings(dataset, folder / "models")
        opens = next(iter(dataset.bars.values())).open_time
        first = len(opens) - 2 * bars - 8
        short, long = (replay_seconds(settings, dataset, Period(int(opens[first]), int(opens[first + n]))) for n in (bars // 4, 2 * bars))
        taken = live_times(settings, dataset, first, bars + WARM_UP, folder)[WARM_UP:]
    cpu, wall, signals = ([1e3 * seconds for seconds in column] for column in zip(*taken, strict=True))
    return Speed(
        full_loop_bars_per_second=(2 * bars - bars // 4) / (long - short),
        live_decision_p50_ms=statistics.median(cpu),
        live_decision_p99_ms=float(np.quantile(cpu, 0.99)),
        live_wall_p50_ms=statistics.median(wall),
        live_wall_p99_ms=float(np.quantile(wall, 0.99)),
        live_signals_p50_ms=statistics.median(signals),
        live_bars=len(cpu),
    )


if __name__ == "__main__":
    print(json.dumps(vars(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 240))))
