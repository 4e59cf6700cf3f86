"""Sizes of the networks. The defaults are the user's own numbers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cryptoalpha.core.config import Count, Section

Dropout = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
PresetName = Literal["small", "base", "seed", "custom"]


class EmbeddingConfig(Section):
    """[nets.embedding] Width of what enters the forecaster."""

    text: Count = 768
    """Channels of a text embedding. 768 is what BERT-sized encoders give."""

    price: Count = 50
    """Price features per asset and bar; the number that `signals.price_features` defines."""

    chain: Count = 30
    """On-chain features per asset and bar; the number that `signals.chain_features` defines."""


class EvoformerConfig(Section):
    """[nets.evoformer] The trunk of the forecaster (Jumper et al. 2021, Suppl. Alg. 6)."""

    sequence_width: Count = 768
    """Channels c_m of the sequence representation."""

    pair_width: Count = 128
    """Channels c_z of the pair representation; the paper's width."""

    head_width: Count = 32
    """Hidden channels of one attention head; the paper's width, per head and not in all."""

    heads: Count = 12
    """Heads of row and column attention; 12 × 32 channels attend inside a width of 768."""

    pair_heads: Count = 4
    """Heads of triangle attention; the paper's number."""

    pair_head_width: Count = 32
    """Hidden channels of one head of triangle attention; the paper's width."""

    outer_width: Count = 32
    """Channels of each factor of the outer product mean; the paper's width."""

    blocks: Count = 6
    """Blocks in the trunk. The paper has 48; six are 50 million weights at the default widths."""

    row_dropout: Dropout = 0.15
    """Dropout of row attention (0 up to but not 1), shared along a row; the paper's value."""

    pair_dropout: Dropout = 0.25
    """Dropout of the triangle updates (0 up to but not 1), shared along an axis; the paper's value."""


class HeadsConfig(Section):
    """[nets.heads] What the forecaster answers."""

    sentiment_classes: Count = 5
    """Classes of sentiment, very negative to very positive."""

    direction_classes: Count = 3
    """Classes of direction: up, down, sideways."""

    quantiles: tuple[Probability, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    """Quantiles of the return ahead, rising. The planners draw their scenarios from them."""

    correlation_bins: Count = 16
    """Bins of the correlation expected between two assets, from −1 to 1."""

    @model_validator(mode="after")
    def _quantiles_rise(self) -> Self:
        if not self.quantiles or any(b <= a for a, b in zip(self.quantiles, self.quantiles[1:], strict=False)):
            raise ValueError("the quantiles must rise, and there must be one")
        return self


class GenomeConfig(Section):
    """[nets.genome] The market's 'genome': named tokens per bar, read over several time frames."""

    vocabulary: Count = 16
    """Named tokens; padding, mask and start come on top."""

    window_bars: Count = 1000
    """Bars in one window. Time and memory of the pair representation grow with its square: 128 bars cost a sixtieth."""

    width: Count = 512
    """Channels of the token representation."""

    heads: Count = 8
    """Attention heads; must divide `width`."""

    layers: Count = 12
    """Layers of the token network."""

    pair_width: Count = 128
    """Channels of the representation of pairs of bars."""

    pair_heads: Count = 4
    """Heads of triangle attention."""

    pair_head_width: Count = 32
    """Hidden channels of one head of triangle attention."""

    outer_width: Count = 32
    """Channels of each factor of the outer product mean."""

    distance_bins: Count = 16
    """Bins of the distance between the price of one bar and the price ahead of another, in volatility units."""

    supports: Count = 5
    """Support levels predicted below the price."""

    resistances: Count = 5
    """Resistance levels predicted above the price."""

    trend_classes: Count = 3
    """Classes of trend: up, down, sideways."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        return self


class PolicyValueConfig(Section):
    """[nets.policy_value] The network that guides the search."""

    state_width: Count = 100
    """Numbers that describe a state."""

    hidden: tuple[Count, ...] = (512, 512, 256)
    """Widths of the shared layers, first to last."""

    value_hidden: Count = 64
    """Width of the layer before the value."""

    policy_hidden: Count = 128
    """Width of the layer before the policy."""


class NetsConfig(Section):
    """[nets] Sizes of the networks."""

    preset: PresetName = "small"
    """`small` trains on a laptop, `base` wants a GPU, `seed` has the user's sizes; `custom` takes `nets.evoformer` and `nets.genome` below.
    Under the other three those two sections are not read."""

    embedding: EmbeddingConfig = EmbeddingConfig()
    """What enters."""

    evoformer: EvoformerConfig = EvoformerConfig()
    """The trunk."""

    heads: HeadsConfig = HeadsConfig()
    """What leaves."""

    genome: GenomeConfig = GenomeConfig()
    """Tokens and levels."""

    policy_value: PolicyValueConfig = PolicyValueConfig()
    """The search's guide."""
