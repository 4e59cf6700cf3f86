"""The pair modules in blocks: the same numbers and the same gradients as at once, masked, ordered in time, with dropout."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from cryptoalpha.nets.evoformer import row_wise, transition, triangle_attention, triangle_multiplication
from cryptoalpha.nets.evoformer.dropout import dropout_factor
from cryptoalpha.nets.evoformer.masks import pairs_of
from cryptoalpha.nets.evoformer.row_wise import Rows
from cryptoalpha.nets.evoformer.transition import Transition
from cryptoalpha.nets.evoformer.triangle_attention import TriangleAttention
from cryptoalpha.nets.evoformer.triangle_multiplication import TriangleMultiplication

POSITIONS, WIDTH, ROWS = 11, 8, 3
MODULES = (transition, triangle_attention, triangle_multiplication)
BUILT = {
    "outgoing": lambda order: TriangleMultiplication(WIDTH, outgoing=True, order=order),
    "incoming": lambda order: TriangleMultiplication(WIDTH, outgoing=False, order=order),
    "starting": lambda order: TriangleAttention(WIDTH, heads=2, head_width=4, ending=False, order=order),
    "ending": lambda order: TriangleAttention(WIDTH, heads=2, head_width=4, ending=True, order=order),
    "transition": lambda _: Transition(WIDTH),
}
MASKS = ("none", "positions", "pairs", "ragged")


def drawn(module):
    torch.manual_seed(5)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.3)
    return module.double()


def mask_of(kind, positions=POSITIONS):
    torch.manual_seed(6)
    if kind == "none":
        return None
    seen = torch.rand(2, positions) > 0.3
    return {"positions": seen, "pairs": pairs_of(seen)}.get(kind, torch.rand(2, positions, positions) > 0.4)


def given(name, mask):
    """A mask of positions is for triangle attention; the others want one of pairs."""
    return pairs_of(mask) if mask is not None and mask.dim() == 2 and name not in ("starting", "ending") else mask


@pytest.fixture
def in_blocks(monkeypatch):
    """Switch that puts all modules into blocks of three rows (which eleven is not a multiple of), or none."""

    def switch(on):
        for module in MODULES:
            monkeypatch.setattr(module, "blocks_pay", lambda *_: on)
            monkeypatch.setattr(module, "rows_per_block", lambda *_: ROWS)

    return switch


def answers(module, z, mask, factor):
    """Output and the gradients of z and of every weight, of a loss without symmetry."""
    z = z.clone().requires_grad_(True)
    out = module(z, mask) if factor is None else module(z, mask, factor=factor)
    loss = (out * torch.arange(out.numel(), dtype=out.dtype).view_as(out).sin()).sum()
    return [out.detach(), *torch.autograd.grad(loss, [z, *module.parameters()])]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("order", ["none", "columns"])
@pytest.mark.parametrize("name", BUILT)
def test_blocked_equals_plain_in_output_and_all_gradients(in_blocks, name, order, mask):
    module, seen = drawn(BUILT[name](order)), given(name, mask_of(mask))
    z = torch.randn(2, POSITIONS, POSITIONS, WIDTH, dtype=torch.double)
    factor = None if name == "transition" else dropout_factor(z, 0.25, "columns" if name == "ending" else "rows")
    in_blocks(False)
    plain = answers(module, z, seen, factor)
    in_blocks(True)
    blocked = answers(module, z, seen, factor)
    with torch.no_grad():
        blocked.append(module(z, seen) if factor is None else module(z, seen, factor=factor))
    for ours, theirs in zip(blocked, [*plain, plain[0]], strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max()


@pytest.mark.parametrize("name", ["outgoing", "incoming", "starting", "ending"])
@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("mask", MASKS)
def test_in_blocks_too_the_future_changes_nothing_before_it(in_blocks, name, scale, mask):
    in_blocks(True)
    z, seen, first = torch.randn(2, POSITIONS, POSITIONS, WIDTH, dtype=torch.double), given(name, mask_of(mask)), 6
    noise = scale * torch.randn_like(z)  # not one number for all channels: a layer norm takes that away again
    noise[:, :first, :first] = 0.0
    later = z + noise
    leaks = {}
    for order in ("none", "columns"):
        module = drawn(BUILT[name](order))
        difference = (module(z, seen) - module(later, seen)).detach().abs()
        leaks[order] = float(difference[:, :first, :first].max())
        assert difference[:, first:].max() > 0.0
    assert leaks["columns"] == 0.0
    assert leaks["none"] > 1e-6, "without the order it leaks: the check can fail"


@pytest.mark.parametrize("name", ["starting", "ending"])
@pytest.mark.parametrize("width", [8, 16])
def test_a_pair_that_goes_missing_later_changes_no_bit_before(name, width):
    """All pairs there but one: once the rows shared one mask only if its content let them, and rounded otherwise from the first bar on."""
    torch.manual_seed(5)
    module = TriangleAttention(16, heads=2, head_width=width, ending=name == "ending", order="columns")
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.3)
    z, whole = torch.randn(1, 96, 96, 16), torch.ones(1, 96, 96, dtype=torch.bool)
    holed = whole.clone()
    holed[0, 80, 90] = False
    with torch.no_grad():
        assert torch.equal(module(z, whole)[:, :60, :60], module(z, holed)[:, :60, :60])


@pytest.mark.parametrize("name", ["starting", "ending"])
def test_in_blocks_under_autocast_a_narrow_bias_takes_a_narrow_number(name):
    torch.manual_seed(5)
    module = TriangleAttention(16, heads=2, head_width=8, ending=name == "ending", order="columns")
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.1)
    z, there = torch.randn(1, 130, 130, 16), torch.rand(1, 130) > 0.2
    for mask in (None, there, pairs_of(there)):
        with torch.no_grad():
            exact = module(z, mask)
        free = z.clone().requires_grad_(True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = module(free, mask)
        (slope,) = torch.autograd.grad(rough.float().square().mean(), [free])
        assert torch.isfinite(slope).all()
        assert (rough.float() - exact).abs().max() < 0.05 * (exact - z).abs().max()


@pytest.mark.parametrize("name", BUILT)
def test_what_is_masked_may_hold_anything(in_blocks, name):
    module, seen = drawn(BUILT[name]("columns")), mask_of("pairs")
    z = torch.randn(2, POSITIONS, POSITIONS, WIDTH, dtype=torch.double)
    poisoned = torch.where(seen.unsqueeze(-1), z, 1e4)
    for on in (False, True):
        in_blocks(on)
        assert torch.equal(module(z, seen)[seen], module(poisoned, seen)[seen])


@pytest.mark.parametrize("name", BUILT)
def test_a_row_with_nothing_observed_is_left_as_it_is(in_blocks, name):
    if name in ("outgoing", "incoming"):
        pytest.skip("a sum over nothing is 0, but its norm has a bias: what masked pairs hear is never heard")
    module, seen = drawn(BUILT[name]("none")), torch.zeros(2, POSITIONS, POSITIONS, dtype=torch.bool)
    z = torch.randn(2, POSITIONS, POSITIONS, WIDTH, dtype=torch.double)
    for on in (False, True):
        in_blocks(on)
        assert torch.equal(module(z, seen), z)


@pytest.mark.parametrize("name", BUILT)
def test_gradients_of_the_blocks_are_those_of_differences(in_blocks, name):
    in_blocks(True)
    module = drawn(BUILT[name]("columns"))
    z = torch.randn(1, 4, 4, WIDTH, dtype=torch.double, requires_grad=True)
    seen = torch.ones(1, 4, 4, dtype=torch.bool)
    seen[0, 1, 2] = False
    assert torch.autograd.gradcheck(lambda x: module(x, seen), (z,), fast_mode=True)


def test_a_row_function_adds_up_what_is_shared_and_broadcast_and_leaves_alone_what_asks_for_nothing():
    x = torch.randn(7, 3, dtype=torch.double, requires_grad=True)
    wide = torch.randn(1, 3, dtype=torch.double, requires_grad=True)
    turned = torch.randn(3, 7, dtype=torch.double, requires_grad=True)
    weight, still = torch.randn(3, 3, dtype=torch.double, requires_grad=True), torch.randn(3, dtype=torch.double)

    def body(sliced, shared):
        return ((sliced[0] * sliced[1]) @ shared[0] + sliced[2].t() * shared[1]).tanh()

    blocked = row_wise.row_wise(body, 2, [Rows(x), Rows(wide), Rows(turned, 1)], [weight, still])
    whole = body([x, wide, turned], [weight, still])
    leaves = [x, wide, turned, weight]
    for ours, theirs in zip(torch.autograd.grad(blocked.exp().sum(), leaves), torch.autograd.grad(whole.exp().sum(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    assert torch.equal(blocked, whole)


def test_which_path_is_taken_depends_on_size_and_on_gradients_alone():
    cpu = torch.device("cpu")
    assert [row_wise.blocks_pay(length, cpu) for length in (8, 127, 128)] == [False, False, True]
    with torch.no_grad():
        assert [row_wise.blocks_pay(length, cpu) for length in (8, 63, 64)] == [False, False, True]
        assert not row_wise.blocks_pay(256, torch.device("meta"))


@pytest.mark.slow
def test_training_in_blocks_needs_a_fraction_of_the_memory():
    def peak(kind):
        command = [sys.executable, "-m", "cryptoalpha.app.bench.networks_memory", kind, "128"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return float(done.stdout.split()[0]) if done.stdout.strip() else None

    ours, plain = peak("ours"), peak("plain")
    if ours is None or plain is None:
        pytest.skip("only Linux tells a process's peak")
    assert ours < plain / 3
