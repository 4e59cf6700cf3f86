"""One Evoformer block: the sequences through their pairs, then the pairs through the sequences, then the pairs among themselves.

Source: Jumper et al. (2021), Suppl. Alg. 6, in the order of AlphaFold 2. Departures: time (see `masks`), and a pair representation per row.
"""

from __future__ import annotations

from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer.column_attention import ColumnAttention
from cryptoalpha.nets.evoformer.dropout import SharedDropout
from cryptoalpha.nets.evoformer.masks import Causal, Order, Pairs, pairs_of
from cryptoalpha.nets.evoformer.outer_product_mean import OuterProductMean
from cryptoalpha.nets.evoformer.row_attention import RowAttentionWithPairBias
from cryptoalpha.nets.evoformer.transition import Transition
from cryptoalpha.nets.evoformer.triangle_attention import TriangleAttention
from cryptoalpha.nets.evoformer.triangle_multiplication import TriangleMultiplication


class EvoformerBlock(nn.Module):
    """m and z, each updated by itself and by the other.

    Args:
        config: widths, heads and dropout.
        causal: which axis of m is time; see `Evoformer`.
        pairs: "per_step" for one pair representation per row, which only hears of rows up to its own; wants `causal="rows"`.

    Shapes:
        m `[B, S, N, C]`; z `[B, N, N, Z]` ("per_step": `[B, S, N, N, Z]`); row_mask `[B, S, N]` bool and pair_mask, bool, the shape of z
        without its channels, or without its last N too (`Evoformer`), True where observed; None if all is → m and z of the same shapes.
        Masks take keys away; both transitions give masked entries no update.

    Raises:
        ConfigError: if a pair representation per step is asked for where rows are not time.

    Source: Jumper et al. (2021), Suppl. Alg. 6.
    """

    def __init__(self, config: EvoformerConfig, *, causal: Causal = "none", pairs: Pairs = "shared") -> None:
        super().__init__()
        if pairs == "per_step" and causal != "rows":
            raise ConfigError(
                f'pairs="per_step" means one pair representation per row of a block whose rows are time, but causal is {causal!r}',
                hint='give causal="rows" with it, or pairs="shared"',
            )
        width, pair_width = config.sequence_width, config.pair_width
        order: Order = "columns" if causal == "columns" else "none"
        heads, pair_heads = (config.heads, config.head_width), (config.pair_heads, config.pair_head_width)
        self.row_attention = RowAttentionWithPairBias(width, pair_width, heads=heads[0], head_width=heads[1], order=order)
        self.column_attention = ColumnAttention(width, heads=heads[0], head_width=heads[1], causal=causal)
        self.sequence_transition = Transition(width)
        self.outer_product_mean = OuterProductMean(width, pair_width, config.outer_width, pairs=pairs)
        self.triangle_outgoing = TriangleMultiplication(pair_width, outgoing=True, order=order)
        self.triangle_incoming = TriangleMultiplication(pair_width, outgoing=False, order=order)
        self.triangle_starting = TriangleAttention(pair_width, heads=pair_heads[0], head_width=pair_heads[1], ending=False, order=order)
        self.triangle_ending = TriangleAttention(pair_width, heads=pair_heads[0], head_width=pair_heads[1], ending=True, order=order)
        self.pair_transition = Transition(pair_width)
        self.row_dropout = SharedDropout(config.row_dropout, "rows")
        self.pair_dropout = SharedDropout(config.pair_dropout, "rows")
        self.ending_dropout = SharedDropout(config.pair_dropout, "columns")

    def forward(self, m: Tensor, z: Tensor, row_mask: Tensor | None = None, pair_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        m = self.row_attention(m, z, row_mask, factor=self.row_dropout.factor(m))
        m = self.column_attention(m, row_mask)
        m = self.sequence_transition(m, row_mask)
        return m, self.update_pairs(m, z, row_mask, pair_mask)

    def update_pairs(self, m: Tensor, z: Tensor, row_mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
        """The second half: z after the outer product mean and the five steps in which pairs only see pairs."""
        return self.among_pairs(self.outer_product_mean(m, z, row_mask), pair_mask)

    def among_pairs(self, z: Tensor, pair_mask: Tensor | None) -> Tensor:
        """The five steps in which pairs only see pairs."""
        shape = z.shape
        z = z.flatten(0, -4)  # a pair representation per step is a batch of its own: the rest knows nothing of steps
        if pair_mask is not None:
            pair_mask = pair_mask.flatten(0, len(shape) - 4)
        attended = pair_mask  # triangle attention is faster with a mask of positions, the others know masks of pairs
        if pair_mask is not None and pair_mask.dim() == 2:
            pair_mask = pairs_of(pair_mask)
        z = self.triangle_outgoing(z, pair_mask, factor=self.pair_dropout.factor(z))
        z = self.triangle_incoming(z, pair_mask, factor=self.pair_dropout.factor(z))
        z = self.triangle_starting(z, attended, factor=self.pair_dropout.factor(z))
        z = self.triangle_ending(z, attended, factor=self.ending_dropout.factor(z))
        z = self.pair_transition(z, pair_mask)
        return z.reshape(shape)
