"""`bench evolution`: the sketch's strategy walks as its formula says, memory is measured, and all keys are there."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from cryptoalpha.app.bench import evolution, evolution_finetune
from cryptoalpha.app.bench.sketch_evolution import SketchEvolution


def test_without_a_signal_the_sketch_walks_sigma_root_of_weights_over_elites():
    net = nn.Linear(200, 200, bias=False)
    start = net.weight.detach().clone()
    strategy = SketchEvolution(net, population=50, sigma=0.02, seed=0)
    for generation in (1, 2, 3, 4):
        strategy.generation(lambda: 0.0)
        walked = float((net.weight.detach() - start).norm())
        assert walked == pytest.approx(0.02 * math.sqrt(40_000 / 25 * generation), rel=0.03)


def test_the_task_starts_at_an_optimum_and_the_network_has_the_stated_size():
    start = evolution_finetune.trained_task(steps=60)
    assert sum(parameter.numel() for parameter in start.net.parameters()) == 74_497
    raw = evolution_finetune.Task(evolution_finetune.network(0), evolution_finetune.network(1))
    assert start.loss() < raw.loss() / 1_000
    assert start.loss("accept") != start.loss("test")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process can forget its peak on Linux only")
def test_memory_of_one_generation_at_ten_million_weights():
    peak = evolution._peak("low_rank")
    assert peak is not None
    assert 0.1 < peak < 20.0


@pytest.mark.slow
def test_all_keys_are_measured(monkeypatch):
    monkeypatch.setattr(evolution, "SIDE", 32)
    monkeypatch.setattr(evolution_finetune, "GENERATIONS", 10)
    found, notes = evolution.bench_evolution(repeats=1, advance=lambda steps: None)
    assert found["workers_identical"] == 1.0
    assert found["extra_memory_10m_mb"] < 20.0
    assert found["finetune_loss_ratio_to_sketch"] > 2.0
    assert 0.0 < found["finetune_drift"] < 0.05
    assert (found["ratio_evotorch_full"] is None) == (find_spec("evotorch") is None)
    assert any("ours with an accept split" in note for note in notes)
    assert torch.get_num_threads() >= 1
