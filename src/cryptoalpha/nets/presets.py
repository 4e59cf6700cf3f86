"""The sizes that have a name: `small` for a laptop, `base` for a GPU, `seed` with the user's numbers."""

from __future__ import annotations

from cryptoalpha.nets.config import EvoformerConfig, GenomeConfig, NetsConfig

EVOFORMERS: dict[str, EvoformerConfig] = {
    "small": EvoformerConfig(
        sequence_width=128, pair_width=32, head_width=32, heads=4, pair_heads=2, pair_head_width=16, outer_width=16, blocks=3
    ),
    "base": EvoformerConfig(sequence_width=256, pair_width=128, heads=8, blocks=8),
    "seed": EvoformerConfig(),
}
"""Trunks of the forecaster. The pair representation of `small` is narrow because there is one per time step, not one per window."""

GENOMES: dict[str, GenomeConfig] = {
    "small": GenomeConfig(window_bars=64, width=64, heads=4, layers=3, pair_width=16, pair_heads=2, pair_head_width=8, outer_width=16),
    "base": GenomeConfig(window_bars=128, width=256, heads=8, layers=8),
    "seed": GenomeConfig(),
}
"""Sizes of the genome's network."""


def forecaster_sizes(config: NetsConfig) -> EvoformerConfig:
    """The trunk that `config` asks for: a preset's, or its own section under `custom`."""
    return EVOFORMERS.get(config.preset, config.evoformer)


def genome_sizes(config: NetsConfig) -> GenomeConfig:
    """The genome that `config` asks for: a preset's, or its own section under `custom`."""
    return GENOMES.get(config.preset, config.genome)
