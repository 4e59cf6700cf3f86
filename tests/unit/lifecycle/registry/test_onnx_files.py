"""Graphs of a version answer what torch answers, on inputs of their own, and are refused once they are changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.lifecycle.registry.onnx_files import _drawn, export_onnx, forecaster_of, open_onnx
from cryptoalpha.signals.config import ForecastConfig
from cryptoalpha.signals.forecast.model import ForecastModel
from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.panel import build_panel

pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_a_registered_forecaster_is_exported_once_verified_and_collected_with_its_version(registry, clock, random_forecaster, tmp_path):
    from cryptoalpha.nets.onnx_export import TOLERANCE, run_onnx

    data = simulate(SimulatedConfig(assets=3, bars=1400, start="2021-01-01"), seed=3).dataset
    config = ForecastConfig(context_bars=8, block_bars=4)
    frame = Frame(build_panel(data, since=0, until=2**62), data, first=900)
    folder = random_forecaster(tmp_path / "trained", frame, config, (1000, 1200))
    version = registry.register(folder, line="forecaster", data="d", commit="c", config={}, seed=0, metrics={})
    with pytest.raises(ConfigError, match="how many assets"):
        export_onnx(version)
    with pytest.raises(ConfigError, match="was not exported"):
        open_onnx(version, assets=3)
    graphs = export_onnx(version, assets=3)
    assert [path.name for path in graphs.files] == ["forecaster_00.onnx", "forecaster_01.onnx"]
    assert (graphs.bars, graphs.assets, graphs.opset, graphs.tolerance) == (12, 3, 20, 1e-5)
    assert registry.get(version.id) == version  # nothing was added to it
    held, design = forecaster_of(version)
    asked = _drawn(design, 3, graphs.bars, seed=99)  # not the inputs it was checked with
    for number, path in enumerate(graphs.files):
        with torch.inference_mode():
            wanted = ForecastModel.load(held, number, design).net(asked)
        for ours, theirs in zip(run_onnx(path.read_bytes(), asked, graphs.inputs), wanted, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=TOLERANCE, rtol=TOLERANCE)
    moment = graphs.files[0].stat().st_mtime_ns
    assert export_onnx(version, assets=3) == graphs
    assert graphs.files[0].stat().st_mtime_ns == moment
    other = dataclasses.replace(version, id="f" * 64)
    with pytest.raises(ConfigError):
        open_onnx(other, assets=3)
    content = bytearray(graphs.files[1].read_bytes())
    content[len(content) // 2] ^= 1
    graphs.files[1].write_bytes(bytes(content))
    with pytest.raises(ModelError, match="forecaster_01"):
        export_onnx(version, assets=3)
    clock.advance_to(9_000)
    for number in range(2):
        later = random_forecaster(tmp_path / f"later {number}", frame, config, (1000 + number,))
        last = registry.register(later, line="forecaster", data="e", commit="c", config={}, seed=0, metrics={})
    registry.promote("forecaster", last.id, reason="newer")
    registry.gc(1, dry_run=False)
    assert not version.path.exists()
    assert not graphs.path.exists()


def test_only_a_version_with_a_forecaster_is_exported(registry, registered):
    genome = registered(1.0, line="genome")
    with pytest.raises(ConfigError, match="holds no forecaster"):
        export_onnx(genome)
