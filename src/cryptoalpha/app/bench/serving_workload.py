"""What `bench serving` asks and whom: a drawn market, a `small` forecaster of drawn weights, its server, and the baselines."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.lifecycle.serving.predictor import Predictor
from cryptoalpha.lifecycle.serving.windows import BINARY, encode_window, newest_rows, read_window
from cryptoalpha.nets.config import HeadsConfig
from cryptoalpha.nets.presets import EVOFORMERS
from cryptoalpha.signals.config import ForecastConfig, NewsConfig, TextConfig
from cryptoalpha.signals.forecast.arrays import forecast_arrays
from cryptoalpha.signals.forecast.blocks import Blocks
from cryptoalpha.signals.forecast.model import ForecastDesign, ForecastModel, finish
from cryptoalpha.signals.forecast.scaling import fit_scalers
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.single_thread import single_thread
from cryptoalpha.signals.text import EncoderId, open_encoder
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

ASSETS, BARS, FIRST = 8, 3_900, 2_300
NEEDED = 2_097
_START_SECONDS = 90.0


@dataclass(frozen=True, eq=False)
class ServedWorkload:
    """A folder of models and the market it is asked about; `market` begins at bar 0 of its grid."""

    folder: Path
    market: Dataset
    frame: Frame

    def body(self, row: int) -> bytes:
        """The request that asks for a bar."""
        known = int(self.frame.panel.open_time[row]) + HOUR
        return encode_window(newest_rows(self.market, known, NEEDED), beside=False)

    def endless_bodies(self) -> Iterator[bytes]:
        """One bar after the other, from the first again after the last."""
        while True:
            yield from map(self.body, range(FIRST + 1, BARS))


def workload(place: Path) -> ServedWorkload:
    """Draw market and weights; write the model's folder."""
    market = simulate(SimulatedConfig(assets=ASSETS, bars=BARS, start="2021-01-01"), seed=0).dataset
    frame = Frame(build_panel(market, since=0, until=2**62), market, first=FIRST - 50)
    config, encoder = ForecastConfig(), open_encoder(TextConfig())
    arrays = forecast_arrays(frame, config, encoder)
    scaler = fit_scalers(arrays, np.arange(arrays.begin, FIRST), clip=config.clip)
    design = ForecastDesign(EVOFORMERS["small"], HeadsConfig(), config, NewsConfig(), HOUR, EncoderId.of(encoder))
    net, generator = design.build(0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    folder = place / "model"
    model = ForecastModel(design, net, scaler, int(frame.panel.known_at[FIRST]), strength=0.5)
    finish(folder, design, [model.save(folder, 0)], {"seed": 0})
    return ServedWorkload(folder, market, frame)


def plain_forward_ms(made: ServedWorkload, repeats: int) -> float:
    """Milliseconds of the network alone, over a whole block at once."""
    config, encoder = ForecastConfig(), open_encoder(TextConfig())
    design = ForecastDesign(EVOFORMERS["small"], HeadsConfig(), config, NewsConfig(), HOUR, EncoderId.of(encoder))
    arrays = forecast_arrays(made.frame, config, encoder)
    rows = np.arange(arrays.begin, FIRST)
    blocks = Blocks(arrays, config)
    inputs = blocks.inputs(blocks.holding(np.array([FIRST])), fit_scalers(arrays, rows, clip=config.clip))
    net = design.build(0).eval()
    with single_thread():
        return _median_ms(lambda: net(inputs), 3 * repeats)


def in_process_ms(made: ServedWorkload, repeats: int) -> float:
    """Milliseconds of the same forecast without a server: reading the body, features, network; one bar after the other."""
    predictor = Predictor(made.folder, "bench")
    bodies = [made.body(row) for row in range(FIRST + 1, FIRST + 12 + 3 * repeats)]
    turns = iter(bodies)
    for _ in range(10):
        predictor.answer(read_window(next(turns), BINARY, now=2**62))
    return _median_ms(lambda: predictor.answer(read_window(next(turns), BINARY, now=2**62)), 3 * repeats - 1)


@contextmanager
def running_server(folder: Path, home: Path) -> Iterator[tuple[str, int | None]]:
    """`cryptoalpha serve` on a free port, and the one core it has with its model (None: the system does not bind processes).

    Raises:
        DataError: if it does not start.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    core = cores[-1] if cores else None
    command = [sys.executable, "-m", "cryptoalpha", "serve", "--version", str(folder), "--port", "0", "--host", "127.0.0.1",
               "--set", "lifecycle.serving.drain_seconds=0"]  # fmt: skip
    environment = {**os.environ, "CRYPTOALPHA_HOME": str(home), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if core is not None:
        os.sched_setaffinity(process.pid, {core})  # before it starts its model, whose process inherits it
    try:
        assert process.stderr is not None
        address, until = "", time.monotonic() + _START_SECONDS
        for line in process.stderr:
            address = line.split()[-1] if line.startswith("listening") else address
            if line.startswith("ready") or time.monotonic() > until:
                break
        if process.poll() is not None or not address:
            raise DataError("the server did not start", hint="run `cryptoalpha serve` by hand to see why")
        yield address, core
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stderr.close()  # type: ignore[union-attr]


def _median_ms(step: Callable[[], object], times: int) -> float:
    step()
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(seconds)
