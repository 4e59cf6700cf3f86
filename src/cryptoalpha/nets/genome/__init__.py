"""The market genome: named tokens over several time frames in, levels, trend and the next movement out."""

from cryptoalpha.nets.genome.calibration import fit_hold_calibration
from cryptoalpha.nets.genome.losses import PRETRAINING, LossWeights, genome_loss
from cryptoalpha.nets.genome.values import GenomeInputs, GenomeReading, GenomeTargets

__all__ = [
    "PRETRAINING",
    "GenomeInputs",
    "GenomeReading",
    "GenomeTargets",
    "LossWeights",
    "fit_hold_calibration",
    "genome_loss",
]
