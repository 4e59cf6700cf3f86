"""AdamW whose decay leaves vectors alone.

Biases and the scales of normalisations shift and stretch; shrinking them towards zero does not regularise, it distorts. So decay holds for
tensors of two or more axes only.

Source: Loshchilov & Hutter (2019), "Decoupled weight decay regularization", Alg. 2; Kingma & Ba (2015) for β and ε.
"""

from __future__ import annotations

import torch
from torch import nn

from cryptoalpha.core.errors import ConfigError


def adamw(model: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the parameters of `model` that want a gradient, in the order of the model: matrices first, vectors second.

    Raises:
        ConfigError: if nothing in the model wants a gradient.
    """
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not wanted:
        raise ConfigError("the model has no parameter that wants a gradient", hint="set requires_grad on what is to be trained")
    groups = [
        {"params": [parameter for parameter in wanted if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in wanted if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)
