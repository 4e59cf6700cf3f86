"""Nothing in the Evoformer hears of what comes later: changed by any finite number, or taken away, the past stays the same to the last bit.

All weights are random here: as first drawn the last layer of every module is zero, and then nothing leaks whatever the rules are.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer import Evoformer

SIZES = EvoformerConfig(
    sequence_width=8, pair_width=4, head_width=3, heads=2, pair_heads=2, pair_head_width=2, outer_width=3, blocks=2, row_dropout=0.0
)
SPAN = 6
MOMENTS = (1, SPAN // 2, SPAN - 1)
KINDS = ("columns", "steps")


def trunk(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Evoformer:
    net = Evoformer(SIZES, causal="rows", pairs="per_step") if kind == "steps" else Evoformer(SIZES, causal="columns")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return net.to(dtype).eval()


def world(kind: str, dtype: torch.dtype = torch.float64, span: int = SPAN) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """m, z and masks; time are the columns, or the rows of "steps"."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = (span, 4) if kind == "steps" else (3, span)
    grid = (2, rows, columns, columns) if kind == "steps" else (2, columns, columns)
    m, z = (torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in ((2, rows, columns, 8), (*grid, 4)))
    row_mask, pair_mask = (torch.rand(*shape, generator=generator) > 0.2 for shape in ((2, rows, columns), grid))
    return m, z, row_mask, pair_mask


def later(kind: str, moment: int, m: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Which cells of m and z (without channels) are allowed to know `moment` or later."""
    at_m, at_z = torch.zeros(m.shape[:-1], dtype=torch.bool), torch.zeros(z.shape[:-1], dtype=torch.bool)
    if kind == "steps":
        at_m[:, moment:] = at_z[:, moment:] = True
    else:
        at_m[:, :, moment:] = at_z[:, moment:] = at_z[:, :, moment:] = True
    return at_m, at_z


def spread(net: Evoformer, kind: str, moment: int, scale: float, *, masked: bool, dtype: torch.dtype = torch.float64) -> list[float]:
    """Largest change of what is added to m and z before `moment`, then from it on, when all from `moment` on is pushed by ±scale."""
    m, z, *masks = world(kind, dtype)
    if not masked:
        masks = [None, None]
    changed, at = [], later(kind, moment, m, z)
    generator = torch.Generator().manual_seed(2)
    for tensor, where in zip((m, z), at, strict=True):
        push = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(dtype).sign() * scale
        changed.append(torch.where(where.unsqueeze(-1), tensor + push, tensor))
    with torch.no_grad():
        here, there = net(m, z, *masks), net(*changed, *masks)
    past = [(a - b).abs()[~where].max().item() for a, b, where in zip(here, there, at, strict=True)]
    # What the net adds, not what comes out: the push itself is no answer of the net.
    added = zip(here, there, (m, z), changed, at, strict=True)
    future = [((a - x) - (b - y)).abs()[where].max().item() for a, b, x, y, where in added]
    return past + future


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_what_comes_later_changes_nothing_before_it(kind, moment, scale):
    for masked in (True, False):
        for dtype in (torch.float64, torch.float32):
            past_m, past_z, future_m, future_z = spread(trunk(kind, dtype), kind, moment, scale, masked=masked, dtype=dtype)
            assert (past_m, past_z) == (0.0, 0.0)
            assert min(future_m, future_z) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_taken_away_later_changes_nothing_before_it(kind):
    m, z, row_mask, pair_mask = world(kind)
    net = trunk(kind)
    for moment in MOMENTS:
        at_m, at_z = later(kind, moment, m, z)
        with torch.no_grad():
            whole, cut = net(m, z, row_mask, pair_mask), net(m * ~at_m.unsqueeze(-1), z, row_mask & ~at_m, pair_mask & ~at_z)
        assert torch.equal(whole[0][~at_m], cut[0][~at_m])
        assert torch.equal(whole[1][~at_z], cut[1][~at_z])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [True, False])
def test_a_run_that_ends_earlier_agrees(kind, masked):
    m, z, *masks = world(kind)
    net = trunk(kind)
    for moment in MOMENTS:
        cut = slice(moment)
        prefix = [m[:, cut], z[:, cut]] if kind == "steps" else [m[:, :, cut], z[:, cut, cut]]
        keys = [masks[0][:, cut], masks[1][:, cut]] if kind == "steps" else [masks[0][:, :, cut], masks[1][:, cut, cut]]
        with torch.no_grad():
            whole = net(m, z, *(masks if masked else ()))
            short = net(*prefix, *(keys if masked else ()))
        kept = [whole[0][:, cut], whole[1][:, cut]] if kind == "steps" else [whole[0][:, :, cut], whole[1][:, cut, cut]]
        for ours, expected in zip(short, kept, strict=True):
            torch.testing.assert_close(ours, expected, rtol=0.0, atol=1e-12)


def everything_at_once(module):
    """The outer product mean over the whole block, given to every step."""

    def update(m: Tensor, row_mask: Tensor | None = None) -> Tensor:
        return type(module).update(module, m, row_mask)[:, -1:].expand(-1, m.shape[1], -1, -1, -1)

    return update


RULES = [
    ("columns", "row_attention", "ordered", False),
    ("columns", "triangle_outgoing", "order", "none"),
    ("columns", "triangle_incoming", "order", "none"),
    ("columns", "triangle_starting", "order", "none"),
    ("columns", "triangle_ending", "order", "none"),
    ("steps", "column_attention", "ordered", False),
    ("steps", "outer_product_mean", "update", everything_at_once),
]


@pytest.mark.parametrize(("kind", "module", "attribute", "without"), RULES)
def test_without_any_one_rule_it_leaks(kind, module, attribute, without):
    net = trunk(kind)
    for block in net.blocks:
        part = getattr(block, module)
        setattr(part, attribute, without(part) if callable(without) else without)
    past_m, past_z, _, _ = spread(net, kind, SPAN // 2, 1.0, masked=False)
    assert past_m > 1e-9
    assert past_z > 1e-9


def test_one_pair_representation_for_all_rows_tells_earlier_rows_of_later_ones_but_column_attention_does_not():
    net = Evoformer(SIZES, causal="rows")
    net.load_state_dict(trunk("steps").state_dict())
    net.double().eval()
    m, _, row_mask, _ = world("steps")
    z = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pushed = m.clone()
    pushed[:, -1, :, 0] += 1.0  # not all channels alike: a layer norm would take that away
    with torch.no_grad():
        leak = (net(m, z, row_mask)[0] - net(pushed, z, row_mask)[0])[:, :-1].abs().max()
        for block in net.blocks:  # the only way is through the pairs
            block.outer_product_mean.out.weight.zero_()
        closed = (net(m, z, row_mask)[0] - net(pushed, z, row_mask)[0])[:, :-1].abs().max()
    assert leak > 1e-6
    assert closed == 0.0


@pytest.mark.parametrize("pairs", ["shared", "per_step"])
def test_permuted_assets_permute_the_answers(pairs):
    net = Evoformer(SIZES, causal="rows", pairs=pairs)
    net.load_state_dict(trunk("steps").state_dict())
    net.double().eval()
    m, z, row_mask, pair_mask = world("steps")
    if pairs == "shared":
        z, pair_mask = z[:, 0], pair_mask[:, 0]
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        ours_m, ours_z = net(
            m[:, :, order], z[..., order, :, :][..., order, :], row_mask[:, :, order], pair_mask[..., order, :][..., order]
        )
        m, z = net(m, z, row_mask, pair_mask)
    torch.testing.assert_close(ours_m, m[:, :, order], rtol=0.0, atol=1e-12)
    torch.testing.assert_close(ours_z, z[..., order, :, :][..., order, :], rtol=0.0, atol=1e-12)
    assert not torch.allclose(ours_m, m)


def test_rows_of_the_genome_have_no_order_of_their_own():
    net = trunk("columns")
    m, z, row_mask, pair_mask = world("columns")
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        ours_m, ours_z = net(m[:, order], z, row_mask[:, order], pair_mask)
        m, z = net(m, z, row_mask, pair_mask)
    torch.testing.assert_close(ours_m, m[:, order], rtol=0.0, atol=1e-12)
    torch.testing.assert_close(ours_z, z, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_a_window_long_enough_for_the_fast_kernels_is_causal_too(training):
    """Flash attention and cache blocks have their own ways of leaving keys out."""
    span = 130
    net = trunk("columns", torch.float32).train(training)  # there is no dropout in these sizes beside the pairs'
    for block in net.blocks:
        block.pair_dropout.rate = block.ending_dropout.rate = 0.0
    m, z, row_mask, pair_mask = world("columns", torch.float32, span)
    at_m, at_z = later("columns", 77, m, z)
    pushed = [x + 1e3 * x.sign() * where.unsqueeze(-1) for x, where in ((m, at_m), (z, at_z))]
    with torch.set_grad_enabled(training):
        here, there = net(m, z, row_mask, pair_mask), net(*pushed, row_mask, pair_mask)
    for a, b, push, where in zip(here, there, (pushed[0] - m, pushed[1] - z), (at_m, at_z), strict=True):
        assert torch.equal(a[~where], b[~where])
        assert (b - a - push)[where].abs().max() > 0.1
