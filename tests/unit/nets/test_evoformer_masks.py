"""What is masked is not heard, a query that hears nothing is left alone, and a mask of the wrong shape is refused, not broadcast."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer import Causal, Evoformer, EvoformerBlock, Pairs
from cryptoalpha.nets.evoformer.masks import has_key, not_ahead, pairs_of, triangle_factor

SIZES = EvoformerConfig(sequence_width=8, pair_width=4, head_width=3, heads=2, pair_heads=2, pair_head_width=2, outer_width=3, blocks=2)
MODES: list[tuple[Causal, Pairs]] = [("none", "shared"), ("columns", "shared"), ("rows", "shared"), ("rows", "per_step")]


def trunk(causal: Causal, pairs: Pairs, dtype: torch.dtype = torch.float64) -> Evoformer:
    net = Evoformer(SIZES, causal=causal, pairs=pairs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return net.to(dtype).eval()


def world(pairs: Pairs, batch: int, rows: int, columns: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    grid = (batch, rows, columns, columns) if pairs == "per_step" else (batch, columns, columns)
    m, z = torch.randn(batch, rows, columns, 8, generator=generator), torch.randn(*grid, 4, generator=generator)
    return m.double(), z.double()


@pytest.mark.parametrize(("causal", "pairs"), MODES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), columns=st.integers(1, 5), noise=st.sampled_from([1.0, 1e3, 1e6]))
def test_what_stands_in_padding_changes_no_answer_that_counts(causal, pairs, seed, rows, columns, noise):
    """Some columns are padding everywhere, some cells are missing, the pair mask is what both sides observed."""
    generator = torch.Generator().manual_seed(seed)
    m, z = world(pairs, 2, rows, columns, seed)
    row_mask = (torch.rand(2, rows, columns, generator=generator) > 0.3) & (torch.rand(2, 1, columns, generator=generator) > 0.3)
    sides = row_mask if pairs == "per_step" else row_mask.any(1)
    pair_mask = pairs_of(sides)
    other_m = torch.where(row_mask.unsqueeze(-1), m, noise * torch.randn(m.shape, generator=generator).double())
    other_z = torch.where(pair_mask.unsqueeze(-1), z, noise * torch.randn(z.shape, generator=generator).double())
    net = trunk(causal, pairs)
    with torch.no_grad():
        here, there = net(m, z, row_mask, pair_mask), net(other_m, other_z, row_mask, pair_mask)
        by_position = net(m, z, row_mask, sides)
    assert torch.equal(here[0][row_mask], there[0][row_mask])
    assert torch.equal(here[1][pair_mask], there[1][pair_mask])
    for ours, again in zip(here, by_position, strict=True):
        torch.testing.assert_close(again, ours, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(("causal", "pairs"), MODES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_with_everything_masked_nothing_is_added(causal, pairs, dtype):
    m, z = (tensor.to(dtype) for tensor in world(pairs, 2, 3, 4))
    net = trunk(causal, pairs, dtype)
    nothing = torch.zeros(m.shape[:3], dtype=torch.bool), torch.zeros(z.shape[:-1], dtype=torch.bool)
    with torch.no_grad():
        block = net.blocks[0]
        flat = z.flatten(0, -4), nothing[1].flatten(0, -3)
        updates = [
            block.row_attention.update(m, z, nothing[0]),
            block.column_attention.update(m, nothing[0]),
            block.sequence_transition.update(m, nothing[0]),
            block.outer_product_mean.update(m, nothing[0]),
            block.triangle_starting.update(*flat),
            block.triangle_ending.update(*flat),
            block.pair_transition.update(*flat),
        ]
        whole = net(m, z, *nothing)
    assert all(torch.count_nonzero(update) == 0 for update in updates)
    assert torch.equal(whole[0], m)
    # Triangle multiplication has no keys: what it adds to a pair of nothing depends on that pair alone.
    assert all(torch.isfinite(tensor).all() for tensor in whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_near_double_precision_under_a_mask(dtype):
    """−1e9 would overflow in float16 and −65504 must not be lost beside a bias."""
    m, z = world("shared", 2, 3, 4)
    row_mask, pair_mask = torch.ones(2, 3, 4, dtype=torch.bool), torch.ones(2, 4, 4, dtype=torch.bool)
    row_mask[0, 0] = row_mask[1, :, 2] = pair_mask[0, 1] = pair_mask[1, :, 2] = False
    with torch.no_grad():
        exact = trunk("columns", "shared")(m, z, row_mask, pair_mask)
        rough = trunk("columns", "shared", dtype)(m.to(dtype), z.to(dtype), row_mask, pair_mask)
    for ours, expected in zip(rough, exact, strict=True):
        assert (ours.double() - expected).abs().max() < 40 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize(("causal", "pairs"), MODES)
def test_a_batch_as_large_as_the_number_of_columns_is_no_special_case(causal, pairs):
    """B = S = N: a mask laid over the wrong axis would fit without a word."""
    size = 4
    m, z = world(pairs, size, size, size)
    generator = torch.Generator().manual_seed(5)
    masks = torch.rand(m.shape[:3], generator=generator) > 0.3, torch.rand(z.shape[:-1], generator=generator) > 0.3
    net = trunk(causal, pairs)
    with torch.no_grad():
        together = net(m, z, *masks)
        for b in range(size):
            alone = net(*(tensor[b : b + 1] for tensor in (m, z, *masks)))
            for ours, expected in zip(alone, together, strict=True):
                torch.testing.assert_close(ours[0], expected[b], rtol=0.0, atol=1e-12)
        turned = net(m, z, masks[0].transpose(0, 1), masks[1])
    assert (turned[0] - together[0]).abs().max() > 1e-3


def test_masks_that_exclude_nothing_are_as_none():
    for causal, pairs in MODES:
        m, z = world(pairs, 2, 3, 4)
        net = trunk(causal, pairs)
        with torch.no_grad():
            here, there = net(m, z), net(m, z, torch.ones(m.shape[:3], dtype=torch.bool), torch.ones(z.shape[:-1], dtype=torch.bool))
        for ours, expected in zip(here, there, strict=True):
            torch.testing.assert_close(ours, expected, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize(("causal", "pairs"), MODES)
def test_gradients_stay_finite_where_nothing_is_heard(causal, pairs):
    m, z = (tensor.requires_grad_() for tensor in world(pairs, 2, 3, 4))
    masks = torch.ones(m.shape[:3], dtype=torch.bool), torch.ones(z.shape[:-1], dtype=torch.bool)
    masks[0][0], masks[1][0], masks[0][1, :, 0] = False, False, False
    net = trunk(causal, pairs)
    sum(tensor.square().sum() for tensor in net(m, z, *masks)).backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in (m, z, *net.parameters()))


def test_the_rules_of_time_by_hand():
    assert not_ahead(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    keys = torch.tensor([False, True, False])
    assert has_key(keys, ordered=True).tolist() == [False, True, True]
    assert has_key(keys, ordered=False).tolist() == [True]
    # a_ik b_jk over k ≤ min(i, j): with all ones the sum counts the moments both may know.
    outgoing, incoming = (triangle_factor(3, outgoing=kind, dtype=torch.float64) for kind in (True, False))
    counts = [[1.0, 1.0, 1.0], [1.0, 2.0, 2.0], [1.0, 2.0, 3.0]]
    assert (outgoing @ outgoing.T).tolist() == counts
    assert (incoming.T @ incoming).tolist() == counts


def test_what_does_not_fit_is_refused_by_name():
    m, z = torch.zeros(2, 3, 4, 8), torch.zeros(2, 4, 4, 4)
    net = Evoformer(SIZES)
    row_mask, pair_mask = torch.ones(2, 3, 4, dtype=torch.bool), torch.ones(2, 4, 4, dtype=torch.bool)
    for given_m, given_z, *masks, said in (
        (m[0], z, None, None, r"m must be \[B, S, N, 8\]"),
        (m[..., :7], z, None, None, r"m must be"),
        (m, z[:, :3], None, None, r"z must be \[2, 4, 4, 4\]"),
        (m, z.unsqueeze(1), None, None, r"pairs='shared'"),
        (m, z, row_mask[:, 0], None, r"row_mask must be bool \[2, 3, 4\]"),
        (m, z, row_mask.float(), None, r"got torch.float32"),
        (m, z, row_mask, pair_mask[:, :3], r"pair_mask must be bool \[2, 4, 4\]"),
        (m, z, row_mask, pair_mask[:, 0, :3], r"pair_mask must be bool \[2, 4\]"),
    ):
        with pytest.raises(ModelError, match=said):
            net(given_m, given_z, *masks)
    with pytest.raises(ConfigError, match="per_step"):
        EvoformerBlock(SIZES, causal="columns", pairs="per_step")
    with pytest.raises(ConfigError, match="causal is none, columns or rows"):
        Evoformer(SIZES, causal="time")
