"""Row attention: the positions of one row look at each other, and the pairs say who is worth looking at.

Source: Jumper et al. (2021), Suppl. Alg. 7. Departures: a causal mask where the positions are moments; a pair representation per row is
possible; a row with nothing observed gets an update of zero.
"""

from __future__ import annotations

from torch import Tensor, nn

from cryptoalpha.nets.evoformer.attention_kernel import attend
from cryptoalpha.nets.evoformer.initialisation import FusedQKVG, bias_linear, final_linear
from cryptoalpha.nets.evoformer.masks import Order, has_key


class RowAttentionWithPairBias(nn.Module):
    """Attend along the positions of each row, biased by the pairs.

    Args:
        channels: width C of m.
        pair_channels: width Z of z.
        heads: number of heads H.
        head_width: hidden channels of one head D.
        order: "columns" if positions are moments: position i then sees positions ≤ i only.

    Shapes:
        m `[B, S, N, C]`; z `[B, N, N, Z]`, or `[B, S, N, N, Z]` with one pair representation per row; row_mask `[B, S, N]` bool, True where
        observed, of keys (a masked query still gets its update) → `[B, S, N, C]`. A query that has no key left gets an update of zero.

    Source: Jumper et al. (2021), Suppl. Alg. 7.
    """

    def __init__(self, channels: int, pair_channels: int, *, heads: int, head_width: int, order: Order = "none") -> None:
        super().__init__()
        self.heads = heads
        self.head_width = head_width
        self.ordered = order == "columns"
        self.norm_m = nn.LayerNorm(channels)
        self.norm_z = nn.LayerNorm(pair_channels)
        self.pair_bias = bias_linear(pair_channels, heads)
        self.qkvg = FusedQKVG(channels, heads, head_width)
        self.out = final_linear(heads * head_width, channels)

    def update(self, m: Tensor, z: Tensor, row_mask: Tensor | None = None) -> Tensor:
        """What is added to m, before dropout."""
        per_row = z.dim() == 5
        fused = self.qkvg(self.norm_m(m)).unflatten(-1, (4, self.heads, self.head_width))  # [B, S, N, 4, H, D]
        q, k, v, gate = fused.unbind(-3)
        bias = self.pair_bias(self.norm_z(z)).movedim(-1, -3)  # [B, (S,) H, N, N]
        q, k, v = (part.transpose(2, 3) for part in (q, k, v))  # [B, S, H, N, D]
        key_mask = row_mask
        if per_row:  # every row is a batch of its own, because its bias is
            q, k, v = (part.flatten(0, 1).unsqueeze(1) for part in (q, k, v))  # [B·S, 1, H, N, D]
            bias = bias.flatten(0, 1)
            key_mask = row_mask.flatten(0, 1).unsqueeze(1) if row_mask is not None else None
        seen = attend(q, k, v, bias=bias, key_mask=key_mask, causal=self.ordered)
        seen = seen.reshape(*m.shape[:2], *seen.shape[2:])  # [B, S, H, N, D]
        answer: Tensor = self.out((gate.sigmoid() * seen.transpose(2, 3)).flatten(-2))
        if row_mask is None:
            return answer
        # Without this a query that sees nothing would still be moved by the bias of `out`.
        return answer * has_key(row_mask, ordered=self.ordered).unsqueeze(-1)

    def forward(self, m: Tensor, z: Tensor, row_mask: Tensor | None = None, *, factor: Tensor | None = None) -> Tensor:
        """m with the update added, times `factor` (dropout drawn beforehand) if given."""
        update = self.update(m, z, row_mask)
        return m + update if factor is None else m + update * factor
