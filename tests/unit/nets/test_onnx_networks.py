"""The two networks of the loop as ONNX graphs: torch's answers, and the past unmoved by the future."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import EvoformerConfig, GenomeConfig, HeadsConfig
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.nets.forecaster.values import ForecastInputs
from cryptoalpha.nets.genome import GenomeInputs, MarketGenome
from cryptoalpha.nets.onnx_export import export_network, run_onnx

pytest.importorskip("onnxscript")
BARS, ASSETS, FRAMES = 6, 3, 2


def randomised(net: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.2)
    return net.eval()


def forecaster() -> tuple[nn.Module, ForecastInputs]:
    sizes = EvoformerConfig(sequence_width=8, pair_width=8, heads=2, head_width=4, pair_heads=2, pair_head_width=4, outer_width=4, blocks=2)
    net = randomised(Forecaster(sizes, HeadsConfig(), horizons=2, price=5, chain=3, text=4, pair=2, seed=0))
    torch.manual_seed(2)
    shape = (1, BARS, ASSETS)
    return net, ForecastInputs(
        price=torch.randn(*shape, 5),
        price_seen=torch.rand(*shape, 5) > 0.2,
        chain=torch.randn(*shape, 3),
        chain_seen=torch.rand(*shape, 3) > 0.2,
        text=torch.randn(*shape, 4),
        text_weight=torch.rand(*shape),
        pair=torch.randn(*shape, ASSETS, 2),
        pair_seen=torch.rand(*shape, ASSETS, 2) > 0.2,
        present=torch.rand(*shape) > 0.1,
    )


def genome() -> tuple[nn.Module, GenomeInputs]:
    sizes = GenomeConfig(window_bars=BARS, width=8, heads=2, layers=2, pair_width=8, pair_heads=2, pair_head_width=4, outer_width=4)
    net = randomised(MarketGenome(sizes, frames=FRAMES, pair=2, seed=0))
    torch.manual_seed(3)
    tokens = torch.rand(1, FRAMES, BARS, 16) < 0.3
    return net, GenomeInputs(
        tokens=tokens,
        missing=(torch.rand(1, FRAMES, BARS, 16) < 0.1) & ~tokens,
        hidden=torch.zeros(1, BARS, dtype=torch.bool),
        pair=torch.randn(1, BARS, BARS, 2),
        present=torch.rand(1, FRAMES, BARS) > 0.1,
    )


def later_changed(part: Tensor, row: int) -> Tensor:
    """Everything from bar `row` on is something else. Bars are axis 1."""
    changed = ~part if part.dtype == torch.bool else part + 100.0 * torch.randn_like(part)
    kept = part.clone()
    kept[:, row:] = changed[:, row:]
    return kept


@pytest.mark.slow
def test_the_forecaster_answers_in_onnx_as_in_torch_and_cannot_see_ahead():
    net, inputs = forecaster()
    graph, names, answers = export_network(net, inputs)
    other = ForecastInputs(*(part.flip(2) for part in inputs))
    with torch.inference_mode():
        wanted = net(other)
    found = dict(zip(answers, run_onnx(graph.data, other, names), strict=True))
    for name in answers:
        np.testing.assert_allclose(found[name], getattr(wanted, name.removeprefix("answer_")).numpy(), atol=2e-5, err_msg=name)
    torch.manual_seed(4)
    later = ForecastInputs(*(later_changed(part, 4) for part in other))
    later = later._replace(text_weight=later.text_weight.abs())  # a weight is never below 0
    for name, after in zip(answers, run_onnx(graph.data, later, names), strict=True):
        assert np.abs(after - found[name])[:, :4].max() == 0.0, name
        assert np.abs(after - found[name])[:, 4:].max() > 0.0, name


@pytest.mark.slow
def test_the_genome_answers_in_onnx_as_in_torch_and_cannot_see_ahead():
    net, inputs = genome()
    graph, names, answers = export_network(net, inputs)
    before = dict(zip(answers, run_onnx(graph.data, inputs, names), strict=True))
    with torch.inference_mode():
        wanted = net(inputs)
    for name in answers:
        np.testing.assert_allclose(before[name], getattr(wanted, name.removeprefix("answer_")).numpy(), atol=2e-5, err_msg=name)
    torch.manual_seed(5)
    tokens, pair, present = inputs.tokens.clone(), inputs.pair.clone(), inputs.present.clone()
    tokens[:, :, 4:], present[:, :, 4:] = ~tokens[:, :, 4:], True
    pair[:, 4:], pair[:, :, 4:] = 100.0 * torch.randn_like(pair[:, 4:]), 100.0 * torch.randn_like(pair[:, :, 4:])
    later = inputs._replace(tokens=tokens, pair=pair, present=present, missing=inputs.missing & ~tokens)
    for name, after in zip(answers, run_onnx(graph.data, later, names), strict=True):
        past = np.abs(after - before[name])
        past = past[:, :, :4] if name == "answer_tokens" else past[:, :4, :4] if name == "answer_distance" else past[:, :4]
        assert past.max() == 0.0, name
        assert np.abs(after - before[name]).max() > 0.0, name


def test_a_network_without_named_answers_is_refused():
    class Plain(nn.Module):
        def forward(self, inputs: ForecastInputs) -> Tensor:
            return inputs.price

    with pytest.raises(ConfigError, match="Plain does not lead from a named tuple"):
        export_network(Plain(), forecaster()[1])
