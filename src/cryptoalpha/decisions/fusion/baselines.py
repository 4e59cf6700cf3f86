"""The fusions that need no training and no search: those that every other has to beat, by name."""

from __future__ import annotations

from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.contract import EqualWeights, Fusion
from cryptoalpha.decisions.fusion.hedge import Hedge
from cryptoalpha.decisions.fusion.ridge import RollingRidge


def baseline_fusion(config: FusionConfig) -> Fusion:
    """The baseline that `config.method` names; the ridge, first in charge of a searched fusion, where that is `search`."""
    match config.method:
        case "equal":
            return EqualWeights()
        case "hedge":
            return Hedge(config)
        case "ridge" | "search":
            return RollingRidge(config)
