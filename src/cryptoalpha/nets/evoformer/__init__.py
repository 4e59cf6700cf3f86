"""The Evoformer of AlphaFold 2 for markets: sequences and pairs that inform each other, and a time axis that cannot see ahead."""

from cryptoalpha.nets.evoformer.block import EvoformerBlock
from cryptoalpha.nets.evoformer.column_attention import ColumnAttention
from cryptoalpha.nets.evoformer.evoformer import Evoformer
from cryptoalpha.nets.evoformer.masks import Causal, Order, Pairs
from cryptoalpha.nets.evoformer.outer_product_mean import OuterProductMean
from cryptoalpha.nets.evoformer.row_attention import RowAttentionWithPairBias
from cryptoalpha.nets.evoformer.transition import Transition
from cryptoalpha.nets.evoformer.triangle_attention import TriangleAttention
from cryptoalpha.nets.evoformer.triangle_multiplication import TriangleMultiplication

__all__ = [
    "Causal",
    "ColumnAttention",
    "Evoformer",
    "EvoformerBlock",
    "Order",
    "OuterProductMean",
    "Pairs",
    "RowAttentionWithPairBias",
    "Transition",
    "TriangleAttention",
    "TriangleMultiplication",
]
