"""A net's weights on their way to a worker's copy of it: every parameter and buffer, bit for bit."""

from __future__ import annotations

import pickle

import torch
from torch import nn


def packed_weights(net: nn.Module) -> bytes:
    """All weights of a net, as arrays of the CPU."""
    return pickle.dumps({name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}, pickle.HIGHEST_PROTOCOL)


def put_weights(net: nn.Module, weights: bytes) -> None:
    """Give a net built the same way these weights, on whatever device it is."""
    net.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in pickle.loads(weights).items()})
