"""Column attention: at one position the rows look at each other.

Source: Jumper et al. (2021), Suppl. Alg. 8. Departures: a causal mask where the rows are moments; a column with nothing observed gets an
update of zero.
"""

from __future__ import annotations

from torch import Tensor, nn

from cryptoalpha.nets.evoformer.attention_kernel import attend
from cryptoalpha.nets.evoformer.initialisation import FusedQKVG, final_linear
from cryptoalpha.nets.evoformer.masks import Causal, has_key


class ColumnAttention(nn.Module):
    """Attend along the rows of each column, without a bias.

    Args:
        channels: width C of m.
        heads: number of heads H.
        head_width: hidden channels of one head D.
        causal: "rows" if rows are moments: row s then sees rows ≤ s only. With "columns" one column is one moment and no rule is needed.

    Shapes:
        m `[B, S, N, C]`, row_mask `[B, S, N]` bool, True where observed, of keys → `[B, S, N, C]`. A query without a key left: zero update.

    Source: Jumper et al. (2021), Suppl. Alg. 8.
    """

    def __init__(self, channels: int, *, heads: int, head_width: int, causal: Causal = "none") -> None:
        super().__init__()
        self.heads = heads
        self.head_width = head_width
        self.ordered = causal == "rows"
        self.norm_m = nn.LayerNorm(channels)
        self.qkvg = FusedQKVG(channels, heads, head_width)
        self.out = final_linear(heads * head_width, channels)

    def update(self, m: Tensor, row_mask: Tensor | None = None) -> Tensor:
        """What is added to m."""
        fused = self.qkvg(self.norm_m(m)).unflatten(-1, (4, self.heads, self.head_width))  # [B, S, N, 4, H, D]
        q, k, v, gate = fused.unbind(-3)
        q, k, v = (part.permute(0, 2, 3, 1, 4) for part in (q, k, v))  # [B, N, H, S, D]: views, m itself is never transposed
        key_mask = row_mask.transpose(1, 2) if row_mask is not None else None  # [B, N, S]
        seen = attend(q, k, v, key_mask=key_mask, causal=self.ordered)
        answer: Tensor = self.out((gate.sigmoid() * seen.permute(0, 3, 1, 2, 4)).flatten(-2))
        return answer if key_mask is None else answer * has_key(key_mask, ordered=self.ordered).transpose(1, 2).unsqueeze(-1)

    def forward(self, m: Tensor, row_mask: Tensor | None = None) -> Tensor:
        """m with the update added."""
        return m + self.update(m, row_mask)
