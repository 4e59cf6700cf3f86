"""Outer product mean: what the rows say about two positions together becomes what the pair knows. A learned covariance.

    update_ij = (W Σ_s a_si ⊗ b_sj + bias) / (count_ij + 1e-3)            count_ij = rows in which both are observed

Three orders of the same sums, because their costs differ by orders of magnitude. `outer` builds Σ_s a ⊗ b, `[N, N, c²]`, and applies W;
`projected` applies W to b first, `[S, N, c, Z]`, and sums over rows and channels in one matrix product: with few rows and many positions
(the genome: 6 × 1000) a two-hundredth of the memory. With a pair representation per row, the sum over rows is a running one: row s gets the
mean over rows ≤ s, so no pair ever hears of a later row.

Source: Jumper et al. (2021), Suppl. Alg. 10; the bias is divided too, as in the authors' code. Departures: the running mean; a pair
never observed together is left alone, where the formula would give it a thousand times the bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryptoalpha.nets.evoformer.initialisation import final_linear, linear
from cryptoalpha.nets.evoformer.masks import Pairs, not_ahead

EPSILON = 1e-3
"""Added to the count, as in the paper's code."""


class OuterProductMean(nn.Module):
    """Update of the pairs by the mean over rows of the outer product of two projections.

    Args:
        channels: width C of m.
        pair_channels: width Z of z.
        width: channels c of each factor.
        pairs: "per_step" for one answer per row s, the mean over rows ≤ s.

    Shapes:
        m `[B, S, N, C]`, row_mask `[B, S, N]` bool, True where observed → `[B, N, N, Z]`; "per_step": `[B, S, N, N, Z]`.
        A pair never observed together gets an update of zero.

    Source: Jumper et al. (2021), Suppl. Alg. 10.
    """

    def __init__(self, channels: int, pair_channels: int, width: int, *, pairs: Pairs = "shared") -> None:
        super().__init__()
        self.width = width
        self.per_step = pairs == "per_step"
        self.norm_m = nn.LayerNorm(channels)
        self.factors = linear(channels, 2 * width)
        """Rows: the channels of a, then those of b."""
        self.out = final_linear(width * width, pair_channels)
        """Input `(channel of a) · c + (channel of b)`."""

    def update(self, m: Tensor, row_mask: Tensor | None = None) -> Tensor:
        """What is added to z."""
        total, count = self.sums(m, row_mask)
        return self.mean(total, count, masked=row_mask is not None)

    def sums(self, m: Tensor, row_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """W Σ_s a ⊗ b and the rows in which both are observed: `[B, N, N, Z]`, `[B, N, N]`; "per_step" over rows ≤ s, with an axis S."""
        factors = self.factors(self.norm_m(m))
        seen = row_mask.to(m.dtype) if row_mask is not None else m.new_ones(m.shape[:3])  # [B, S, N]
        if row_mask is not None:
            factors = factors * seen.unsqueeze(-1)
        a, b = factors.split(self.width, dim=-1)  # [B, S, N, c] each
        if self.per_step:
            return self._so_far(self._by_row(a, b)), self._so_far(seen.unsqueeze(-1) * seen.unsqueeze(-2))
        return self._projected(a, b) if self._project_first(m) else self._outer(a, b), seen.transpose(1, 2) @ seen

    def mean(self, total: Tensor, count: Tensor, *, masked: bool = True) -> Tensor:
        """The update of these sums; `masked` if a count may be 0."""
        share = 1.0 / (count + EPSILON)
        if masked:
            share = share * (count > 0)
        return (total + self.out.bias) * share.unsqueeze(-1)

    def forward(self, m: Tensor, z: Tensor, row_mask: Tensor | None = None) -> Tensor:
        """z with the update added."""
        return z + self.update(m, row_mask)

    def _project_first(self, m: Tensor) -> bool:
        """The smaller intermediate wins: `[S, N, c, Z]` or `[N, N, c, c]`."""
        return m.shape[1] * self.out.out_features < m.shape[2] * self.width

    def _kernel(self) -> Tensor:
        """W as `[c of a, c of b, Z]`."""
        return self.out.weight.t().view(self.width, self.width, -1)

    def _outer(self, a: Tensor, b: Tensor) -> Tensor:
        """Sum over rows, then W: `[B, N, N, Z]`."""
        batch, positions, width = a.shape[0], a.shape[2], self.width
        outer = a.flatten(2).transpose(1, 2) @ b.flatten(2)  # [B, N·c, N·c]
        outer = outer.view(batch, positions, width, positions, width).transpose(2, 3)
        return nn.functional.linear(outer.flatten(-2), self.out.weight)

    def _projected(self, a: Tensor, b: Tensor) -> Tensor:
        """W, then the sum over rows and channels at once: `[B, N, N, Z]`."""
        batch, positions = a.shape[0], a.shape[2]
        right = torch.einsum("bsjd,cdz->bscjz", b, self._kernel()).flatten(3).flatten(1, 2)  # [B, S·c, N·Z]
        left = a.transpose(2, 3).flatten(1, 2)  # [B, S·c, N]
        return (left.transpose(1, 2) @ right).view(batch, positions, positions, -1)

    def _by_row(self, a: Tensor, b: Tensor) -> Tensor:
        """W a ⊗ b of every row by itself: `[B, S, N, N, Z]`."""
        left = (a @ self._kernel().flatten(1)).view(*a.shape, -1)  # [B, S, N, c of b, Z]
        return b.unsqueeze(2) @ left  # [B, S, 1, N, c] @ [B, S, N, c, Z]

    def _so_far(self, x: Tensor) -> Tensor:
        """Running sum over rows, axis 1. A product with a triangle of ones, because torch sums a strided axis slowly."""
        return (not_ahead(x.shape[1], x.device).to(x.dtype) @ x.flatten(2)).view(x.shape)
