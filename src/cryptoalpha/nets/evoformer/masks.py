"""Who may look at whom: keys that are missing, keys that lie ahead.

Masks are boolean and True means observed. They take keys away and leave queries alone, so a masked position still gets an answer; only a
query without any key left gets an update of zero. `attention_kernel` fills what is taken away with −inf or the dtype's lowest number, never
with −1e9: that overflows in float16, is a harmless number in bfloat16, and makes a query without keys the mean of all values.

Order. With `order="columns"` positions 0, 1, … are moments, and after every module `m[s, i]` knows moments ≤ i and `z[i, j]` knows moments
≤ max(i, j). One triangle does it for all:

| module | rule | what uses it |
|---|---|---|
| row attention | keys j ≤ i | `not_ahead` |
| triangle attention, starting node (query z_ij, key z_ik) | k ≤ j | `not_ahead`, for every row i the same |
| triangle attention, ending node (query z_ij, key z_kj) | k ≤ i | the same on transposed z |
| triangle multiplication, outgoing, Σ_k a_ik b_jk | k ≤ i and k ≤ j | `triangle_factor(outgoing=True)` on a and on b |
| triangle multiplication, incoming, Σ_k a_ki b_kj | k ≤ i and k ≤ j | `triangle_factor(outgoing=False)` on a and on b |

k ≤ max(i, j) would be allowed in both triangle attentions, too, but depends on the row, so that the rows could no longer share one bias; in
the multiplications it would not be one matrix product per channel. With rows = time the same triangle stands over the rows of column
attention, and the pairs know nothing of time.

Source: the rules are ours; Jumper et al. (2021) have no time axis.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Causal = Literal["none", "columns", "rows"]
"""Which axis of m `[B, S, N, C]` is time: none, the columns N, or the rows S."""
Order = Literal["none", "columns"]
"""Whether positions (the last two axes of a pair representation, the columns of m) are moments."""
Pairs = Literal["shared", "per_step"]
"""One pair representation for all rows, or one for each."""


def not_ahead(length: int, device: torch.device | None = None) -> Tensor:
    """`[L, L]` bool: True where key (second axis) is not later than query (first axis)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def pairs_of(positions: Tensor) -> Tensor:
    """The pairs of two positions that are both there: `[..., N]` → `[..., N, N]`, bool."""
    return positions.unsqueeze(-1) & positions.unsqueeze(-2)


def has_key(key_mask: Tensor, *, ordered: bool) -> Tensor:
    """Queries with at least one key left: `[..., L]` → `[..., L]` if ordered (a key at or before it), else `[..., 1]`, bool."""
    if not ordered:
        return key_mask.any(dim=-1, keepdim=True)
    # The number of keys so far; a sum and not cummax, because ONNX knows sums.
    return key_mask.to(torch.int32).cumsum(dim=-1) > 0


def triangle_factor(length: int, *, outgoing: bool, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """0/1 factor `[L, L]` on both a and b of a triangle multiplication in which k is not later than i and j.

    Outgoing multiplies a_ik b_jk: the factor of `[i, k]` is 1 for k ≤ i, the lower triangle. Incoming a_ki b_kj: `[k, i]`, the upper one.
    """
    ones = torch.ones(length, length, dtype=dtype, device=device)
    return ones.tril() if outgoing else ones.triu()
