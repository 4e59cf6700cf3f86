"""How far a training run has come: what a checkpoint holds beside the weights and the optimiser's moments."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from cryptoalpha.learn.config import FitConfig

Weights = dict[str, Any]


@dataclass
class TrainingState:
    """Steps done, what they cost, and the best weights so far. The step alone says where in which epoch the run stands."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    best: float = math.inf
    best_step: int = 0
    best_check: int = 0
    best_weights: Weights | None = None
    stopped: Literal["", "epochs", "patience"] = ""

    def judge(self, value: float, model: nn.Module, patience: int) -> None:
        """Take a value on validation samples, less is better: keep the weights of the best, stop after `patience` checks without one."""
        self.validations.append(value)
        if value < self.best:
            self.best, self.best_step, self.best_check = value, self.step, len(self.validations)
            self.best_weights = weights_of(model)
        elif len(self.validations) - self.best_check >= patience:
            self.stopped = "patience"

    def pack(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return {
            **{name: getattr(self, name) for name in ("step", "best", "best_step", "best_check", "best_weights", "stopped")},
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "validations": torch.tensor(self.validations, dtype=torch.float64),
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> TrainingState:
        """The state that was packed."""
        return cls(**{**packed, "losses": packed["losses"].tolist(), "validations": packed["validations"].tolist()})


def weights_of(model: nn.Module) -> Weights:
    """A copy of all weights and buffers, on the CPU."""
    return {name: value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value for name, value in model.state_dict().items()}


def model_fingerprint(model: nn.Module) -> str:
    """A text that differs between models built differently: names, shapes and types of weights, which of them learn. Not their values."""
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    parts = [
        (name, *((tuple(value.shape), str(value.dtype)) if isinstance(value, torch.Tensor) else ()), name in learning)
        for name, value in model.state_dict().items()
    ]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def settings_of(config: FitConfig) -> dict[str, object]:
    """The settings that decide what is learned; how often it is written down does not."""
    return {f"learn.fit.{name}": value for name, value in config.model_dump().items() if name != "checkpoint_seconds"}
