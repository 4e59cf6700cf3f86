"""The market genome: named tokens over several time frames in, levels, trend and the next movement out."""

from cryptoalpha.nets.genome.calibration import fit_hold_calibration, fit_temperature
from cryptoalpha.nets.genome.losses import PRETRAINING, LossWeights, genome_loss
from cryptoalpha.nets.genome.market_genome import MarketGenome
from cryptoalpha.nets.genome.values import GenomeInputs, GenomeReading, GenomeTargets

__all__ = [
    "PRETRAINING",
    "GenomeInputs",
    "GenomeReading",
    "GenomeTargets",
    "LossWeights",
    "MarketGenome",
    "fit_hold_calibration",
    "fit_temperature",
    "genome_loss",
]
