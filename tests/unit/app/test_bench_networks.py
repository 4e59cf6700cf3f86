"""The benchmark of networks compares equals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cryptoalpha.app.bench.networks_models import designs
from cryptoalpha.app.bench.networks_workload import cpu_seconds, pair_work, train_step
from cryptoalpha.app.bench.plain_evoformer import PlainBlock
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer.block import EvoformerBlock

TINY = EvoformerConfig(sequence_width=16, pair_width=8, heads=2, head_width=4, pair_heads=2, pair_head_width=4, outer_width=4)


def test_the_plain_block_is_the_same_function():
    torch.manual_seed(1)
    block = EvoformerBlock(TINY).eval().double()
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.3)
    m, z = torch.randn(2, 3, 7, 16, dtype=torch.double), torch.randn(2, 7, 7, 8, dtype=torch.double)
    rows, pairs = torch.rand(2, 3, 7) > 0.2, torch.rand(2, 7, 7) > 0.2
    rows[:, 0], rows[:, :, 0], pairs[:, :, 0], pairs[:, 0] = True, True, True, True  # a query without keys is where the two differ
    for ours, plain in zip(block(m, z, rows, pairs), PlainBlock(block)(m, z, rows, pairs), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("ragged", [False, True])
def test_both_pair_stacks_get_the_same_gradients(ragged):
    work = pair_work(9, width=8, heads=2, head_width=4, ragged=ragged)
    gradients = []
    for stack in (work.ours, work.plain):
        z = work.z.clone().requires_grad_(True)
        stack(z, work.mask)[work.mask].square().sum().backward()
        gradients.append(z.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_a_training_step_leaves_a_gradient_on_every_weight_and_takes_time():
    work = pair_work(6, width=8, heads=2, head_width=4)
    assert cpu_seconds(lambda: train_step(work.ours, work.z, work.mask)) > 0.0
    assert all(weight.grad is not None and bool(weight.grad.abs().sum() > 0) for weight in work.ours.parameters())


def test_the_two_designs_run_and_supervise_one_bar_and_a_block_of_them():
    found = designs()
    assert {name: answered for name, (_, _, answered) in found.items()} == {"window": 1, "per step": 16}
    for forward, training, _ in found.values():
        forward()
        training()
