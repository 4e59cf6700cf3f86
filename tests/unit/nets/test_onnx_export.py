"""An exported Evoformer: the same answers, and the same blindness for the future."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer import Evoformer
from cryptoalpha.nets.evoformer.triangle_attention import TriangleAttention
from cryptoalpha.nets.forecaster.heads import SentimentHead
from cryptoalpha.nets.onnx_export import export_onnx, run_onnx

pytest.importorskip("onnxscript")
TINY = EvoformerConfig(
    sequence_width=8, pair_width=8, heads=2, head_width=4, pair_heads=2, pair_head_width=4, outer_width=4, blocks=2, row_dropout=0.1
)
NAMES, ANSWERS = ("m", "z", "row_mask", "pair_mask"), ("m_out", "z_out")


def net_and_inputs():
    net = Evoformer(TINY, causal="columns", seed=1)
    torch.manual_seed(2)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.3)
    row_mask = torch.rand(1, 3, 6) > 0.2
    columns = torch.ones(1, 6, dtype=torch.bool)
    columns[:, 2] = False
    return net, (torch.randn(1, 3, 6, 8), torch.randn(1, 6, 6, 8), row_mask, columns[:, :, None] & columns[:, None, :])


@pytest.fixture(scope="module")
def exported():
    net, inputs = net_and_inputs()
    return net, inputs, export_onnx(net, inputs, names=NAMES, answers=ANSWERS)


def test_a_causal_triangle_attention_answers_in_onnx_as_in_torch_and_is_blind_for_the_future():
    net = TriangleAttention(8, heads=2, head_width=4, ending=False, order="columns")
    torch.manual_seed(3)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.3)
    z, mask = torch.randn(1, 6, 6, 8), torch.rand(1, 6, 6) > 0.2
    graph = export_onnx(net, (z, mask), names=("z", "mask"), answers=("z_out",))
    later = z + 1e3 * torch.randn_like(z)
    later[:, :4, :4] = z[:, :4, :4]
    before, after = (run_onnx(graph.data, (numbers, mask), ("z", "mask"))[0] for numbers in (z, later))
    assert np.abs(before - after)[:, :4, :4].max() == 0.0
    assert np.abs(before - z.numpy()).max() > 0.01


@pytest.mark.slow
def test_onnx_answers_what_torch_answers_on_other_numbers_and_masks(exported):
    net, (m, z, row_mask, pair_mask), graph = exported
    other = (m.flip(1) * 1.3, z.flip(2) - 0.2, row_mask.flip(1), pair_mask.flip(1).flip(2))
    found = run_onnx(graph.data, other, NAMES)
    with torch.no_grad():
        wanted = net.eval()(*other)
    net.train()
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 3, 5])
def test_the_future_changes_nothing_before_it_through_onnx_too(exported, first):
    _, (m, z, row_mask, pair_mask), graph = exported
    later_m, later_z = (tensor + 1e3 * torch.randn_like(tensor) for tensor in (m, z))
    later_m[:, :, :first] = m[:, :, :first]
    later_z[:, :first, :first] = z[:, :first, :first]
    before, after = (run_onnx(graph.data, (*pair, row_mask, pair_mask), NAMES) for pair in ((m, z), (later_m, later_z)))
    assert np.abs(before[0] - after[0])[:, :, :first].max() == 0.0
    assert np.abs(before[1] - after[1])[:, :first, :first].max() == 0.0
    assert np.abs(before[0] - after[0])[:, :, first:].max() > 0.0


@pytest.mark.slow
def test_the_digest_is_that_of_the_bytes_and_a_net_in_training_stays_in_training(exported):
    import hashlib

    net, _, graph = exported
    assert net.training
    assert graph.digest == hashlib.sha256(graph.data).hexdigest()
    assert __file__.encode() not in graph.data
    assert b"row_attention.py" not in graph.data


def test_weights_that_are_not_finite_and_names_that_do_not_fit_are_refused():
    layer = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="1 inputs have 2 names"):
        export_onnx(layer, [torch.zeros(1, 2)], names=("x", "y"), answers=("y",))
    with pytest.raises(ConfigError, match="1 answers have 2 names"):
        export_onnx(layer, [torch.zeros(1, 2)], names=("x",), answers=("y", "z"))
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="'weight' are not finite"):
        export_onnx(layer, [torch.zeros(1, 2)], names=("x",), answers=("y",))


def test_who_has_no_texts_gets_the_same_sentiment_from_onnx():
    """The exporter leaves out a term of 1e-12, and 0/0 is no sentiment."""
    head = SentimentHead(8, 5).eval()
    with torch.no_grad():
        head.out.weight.normal_(generator=torch.Generator().manual_seed(1))
        head.out.bias.copy_(torch.arange(5.0))
    graph = export_onnx(head, [torch.ones(1, 3, 8)], names=("text",), answers=("sentiment",))
    (answer,) = run_onnx(graph.data, [torch.zeros(1, 3, 8)], ("text",))
    assert np.array_equal(answer, np.broadcast_to(np.arange(5.0, dtype=np.float32), (1, 3, 5)))
