"""What the benchmark of networks computes: the five pair steps of one Evoformer block, ours and the plain ones, on the same numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cryptoalpha.app.bench.plain_evoformer import PlainPairStack
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer.block import EvoformerBlock

SEED = 4
OBSERVED = 0.9
"""Share of positions that the mask leaves."""


class PairStack(nn.Module):
    """The five pair steps of our block: z `[B, N, N, Z]`, mask bool `[B, N, N]` → `[B, N, N, Z]`."""

    def __init__(self, block: EvoformerBlock) -> None:
        super().__init__()
        self.triangles = nn.ModuleList(
            [block.triangle_outgoing, block.triangle_incoming, block.triangle_starting, block.triangle_ending, block.pair_transition]
        )

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        for step in self.triangles:
            z = step(z, mask)
        return z


@dataclass(frozen=True)
class PairWork:
    """Both stacks with equal weights, and numbers for them."""

    ours: PairStack
    plain: PlainPairStack
    z: Tensor
    mask: Tensor


def pair_work(positions: int, *, width: int = 128, heads: int = 4, head_width: int = 32, ragged: bool = False) -> PairWork:
    """Weights drawn at random (a fresh block is the identity and would compare nothing).

    Args:
        ragged: a mask that differs by row, instead of one of missing positions.
    """
    config = EvoformerConfig(
        sequence_width=32, heads=2, head_width=16, outer_width=8, pair_width=width, pair_heads=heads, pair_head_width=head_width
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        block = EvoformerBlock(config).eval()
        for weight in block.parameters():
            nn.init.normal_(weight, std=width**-0.5)
        z = torch.randn(1, positions, positions, width)
        seen = torch.rand(1, positions) < OBSERVED
        mask = torch.rand(1, positions, positions) < OBSERVED if ragged else seen[:, :, None] & seen[:, None, :]
    return PairWork(PairStack(block), PlainPairStack(block), z, mask)


def train_step(stack: nn.Module, z: Tensor, mask: Tensor) -> None:
    """One forward and backward, gradients for z and all weights."""
    stack.zero_grad(set_to_none=True)
    z = z.detach().requires_grad_(True)
    stack(z, mask).square().mean().backward()


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
