"""How an Evoformer begins and how it is taught: first weights, dropout, gradients, and memory kept or computed again."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer import Evoformer, EvoformerBlock
from cryptoalpha.nets.evoformer.dropout import SharedDropout, dropout_factor
from cryptoalpha.nets.evoformer.initialisation import FusedQKVG, bias_linear, final_linear, gate_linear, linear, relu_linear

TINY = EvoformerConfig(sequence_width=4, pair_width=3, head_width=2, heads=2, pair_heads=2, pair_head_width=2, outer_width=2, blocks=2)
SIZES = EvoformerConfig(sequence_width=32, pair_width=16, head_width=8, heads=4, pair_heads=2, pair_head_width=8, outer_width=8, blocks=2)
MODES = [("none", "shared"), ("columns", "shared"), ("rows", "shared"), ("rows", "per_step")]


def world(sizes: EvoformerConfig, pairs: str, batch: int, rows: int, columns: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    grid = (batch, rows, columns, columns) if pairs == "per_step" else (batch, columns, columns)
    m = torch.randn(batch, rows, columns, sizes.sequence_width, generator=generator)
    z = torch.randn(*grid, sizes.pair_width, generator=generator)
    return [m.to(dtype), z.to(dtype), torch.rand(m.shape[:3], generator=generator) > 0.2, torch.rand(grid, generator=generator) > 0.2]


def randomised(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return net


@pytest.mark.parametrize(("causal", "pairs"), MODES)
def test_a_fresh_trunk_is_the_identity(causal, pairs):
    m, z, *masks = world(SIZES, pairs, 2, 3, 5)
    net = Evoformer(SIZES, causal=causal, pairs=pairs)  # in training, with dropout: of nothing
    ours_m, ours_z = net(m, z, *masks)
    assert torch.equal(ours_m, m)
    assert torch.equal(ours_z, z)
    for parameter in net.parameters():  # torch's own first weights are no identity
        if parameter.dim() == 2:
            torch.nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
    assert not torch.equal(net(m, z, *masks)[0], m)


def test_a_fresh_gate_is_open_at_sigmoid_of_one_whatever_comes_in():
    generator = torch.Generator().manual_seed(0)
    x = 100.0 * torch.randn(7, 6, generator=generator)
    expected = torch.full((7, 8), 1.0 / (1.0 + math.exp(-1.0)))
    torch.testing.assert_close(torch.sigmoid(FusedQKVG(6, 2, 4)(x)[:, 24:]), expected)
    torch.testing.assert_close(torch.sigmoid(gate_linear(6, 8)(x)), expected)


def test_the_spread_of_first_weights_is_that_of_their_role():
    """Standard deviations from the published formulas: 1/√in, √(2/in), √(2/(in + out)), and no draw beyond two standard deviations."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lecun, he, bias = linear(400, 300).weight, relu_linear(400, 300).weight, bias_linear(400, 300).weight
        final, fused = final_linear(400, 300), FusedQKVG(400, 10, 30)
    assert lecun.std().item() == pytest.approx(1 / 20, rel=0.01)
    assert he.std().item() == pytest.approx(math.sqrt(2) / 20, rel=0.01)
    assert bias.std().item() == pytest.approx(1 / 20, rel=0.01)
    assert torch.count_nonzero(final.weight) == torch.count_nonzero(final.bias) == 0
    for weight, std in ((lecun, 1 / 20), (he, math.sqrt(2) / 20)):  # a normal cut at ±2 has .8796 of the spread it is cut from
        assert weight.abs().max().item() <= 2.0 * std / 0.87962566103423978 * (1 + 1e-6)
    assert bias.abs().max().item() > 3 / 20
    for part in range(3):  # q, k and v each on its own: [300, 400], not [1200, 400]
        weight = fused.weight[300 * part : 300 * (part + 1)]
        assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / 700), rel=1e-3)
        assert weight.std().item() == pytest.approx(math.sqrt(2 / 700), rel=0.01)
    assert torch.count_nonzero(fused.weight[900:]) == 0
    block = EvoformerBlock(SIZES)
    assert all(
        torch.count_nonzero(getattr(block, name).out.weight) == 0 for name in ("row_attention", "column_attention", "outer_product_mean")
    )


def test_the_seed_alone_decides_the_first_weights_and_leaves_other_randomness_alone():
    before = torch.random.get_rng_state()
    first, again, other = (Evoformer(TINY, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("axis", "shared"), [("rows", -3), ("columns", -2)])
def test_dropout_is_constant_along_its_shared_axis_and_keeps_the_mean(axis, shared):
    x = torch.ones(2, 30, 40, 50)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        factor = dropout_factor(x, 0.25, axis)
    assert factor.shape[shared] == 1
    assert sorted(set(factor.flatten().tolist())) == pytest.approx([0.0, 1 / 0.75])
    assert (factor == 0).double().mean().item() == pytest.approx(0.25, abs=0.03)
    other = factor.movedim(shared, 0)[0]  # and nothing is shared along the other one
    assert torch.unique(other, dim=1).shape[1] > 1


def test_dropout_rests_in_evaluation_and_refuses_a_rate_that_is_none():
    module = SharedDropout(0.5, "rows")
    assert module.factor(torch.ones(1, 2, 2, 3)) is not None
    assert module.eval().factor(torch.ones(1, 2, 2, 3)) is None
    assert SharedDropout(0.0, "rows").factor(torch.ones(1, 2, 2, 3)) is None
    with pytest.raises(ConfigError, match="below one"):
        SharedDropout(1.0, "rows")


def test_the_block_drops_row_attention_and_triangles_along_the_papers_axes():
    """One module speaks at a time: what it adds is 0 along whole rows (columns at the ending node), as often as its rate says."""
    sizes = SIZES.model_copy(update={"row_dropout": 0.3, "pair_dropout": 0.4})
    m, z, *_ = world(sizes, "shared", 1, 6, 40)
    for name, rate, shared in (
        ("row_attention", 0.3, 1),
        ("column_attention", 0.0, None),
        ("triangle_outgoing", 0.4, 1),
        ("triangle_incoming", 0.4, 1),
        ("triangle_starting", 0.4, 1),
        ("triangle_ending", 0.4, 2),
        ("pair_transition", 0.0, None),
        ("sequence_transition", 0.0, None),
    ):
        block = EvoformerBlock(sizes)
        randomised(getattr(block, name))
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            ours = block(m, z)
        change = ours[0] - m if name in ("row_attention", "column_attention", "sequence_transition") else ours[1] - z
        dropped = change == 0
        if shared is None:
            assert not dropped.any(), name
        else:
            assert torch.equal(dropped.all(dim=shared), dropped.any(dim=shared)), name
            assert dropped.double().mean().item() == pytest.approx(rate, abs=0.08), name


@pytest.mark.parametrize(("causal", "pairs"), MODES)
def test_gradients_of_every_module_and_of_the_block_are_those_of_finite_differences(causal, pairs):
    m, z, row_mask, pair_mask = world(TINY, pairs, 1, 2, 3, torch.float64)
    row_mask[0, 0, 1] = False
    block = randomised(EvoformerBlock(TINY, causal=causal, pairs=pairs)).double().eval()
    inputs = (m.requires_grad_(), z.requires_grad_())

    def whole(m, z, *_):
        return block(m, z, row_mask, pair_mask)

    assert torch.autograd.gradcheck(whole, inputs)
    assert torch.autograd.gradcheck(whole, (*inputs, *block.parameters()), fast_mode=True)
    assert torch.autograd.gradcheck(lambda m, z: block.row_attention(m, z, row_mask), inputs)
    assert torch.autograd.gradcheck(lambda m: block.column_attention(m, row_mask), inputs[:1])
    assert torch.autograd.gradcheck(lambda m, z: block.outer_product_mean(m, z, row_mask), inputs)
    for name in ("triangle_outgoing", "triangle_incoming", "triangle_starting", "triangle_ending", "pair_transition"):
        flat = z.detach().flatten(0, -4)[:1].requires_grad_()
        module = getattr(block, name)
        assert torch.autograd.gradcheck(lambda z, module=module: module(z, pair_mask.flatten(0, -3)[:1]), (flat,))


def test_computing_again_gives_the_gradients_of_keeping_dropout_included():
    m, z, *masks = world(SIZES, "shared", 2, 3, 5, torch.float64)
    found = []
    for recompute in (False, True):
        net = randomised(Evoformer(SIZES, causal="columns", recompute=recompute)).double().train()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            answer = net(m, z, *masks)
            (answer[0].square().sum() + answer[1].square().sum()).backward()
        found.append([*answer, *(parameter.grad for parameter in net.parameters())])
    assert all(torch.equal(kept, again) for kept, again in zip(*found, strict=True))
