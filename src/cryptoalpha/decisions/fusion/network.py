"""The fusion's network: it proposes actions to the search (prior) and says what a state is worth (leaf value).

`nets.policy_value` with the user's widths, 100 → 512 → 512 → 256, then a head of logits over the 24 actions (`search.actions`) and a head
of one value. The regime belief is part of the 100 numbers that go in; nothing multiplies weights afterwards. A version of the network is
the SHA-256 of its ONNX graph: the same weights have the same name in every journal.

Values are in the unit of the search's rewards: a step earns a few basis points, so the head says μ + s·net, with μ and s taken from what it
is taught (`scale_from`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.decisions.fusion.experience import STATE_WIDTH
from cryptoalpha.learn.search.row_network import RowNetwork
from cryptoalpha.nets.config import PolicyValueConfig
from cryptoalpha.nets.onnx_writer import write_onnx
from cryptoalpha.nets.policy_value import PolicyValueNet
from cryptoalpha.store.array_file import Array

SMALLEST_SCALE = 1e-5
"""Least scale of values: a tenth of a basis point. In a history in which hardly anything was earned, rounding would be the unit."""


def build_network(actions: int, *, sizes: PolicyValueConfig | None = None, seed: int = 0) -> PolicyValueNet:
    """A fresh network for so many actions.

    Its last layers begin at zero: an untaught network has an even prior and says that every state is worth its mean, so a search that it
    guides is the search without it.
    """
    config = sizes or PolicyValueConfig(state_width=STATE_WIDTH)
    net = PolicyValueNet(config, actions, seed=seed)
    with torch.no_grad():
        for head in (net.policy, net.value):
            for parameter in head[-1].parameters():
                parameter.zero_()
    return net


def is_unscaled(net: PolicyValueNet) -> bool:
    """Whether the value head has never been given a unit."""
    return bool((net.value_scale == 1.0).all()) and bool((net.value_mean == 0.0).all())


def scale_from(net: PolicyValueNet, rewards: ArrayLike, *, discount: float) -> None:
    """Give the value head the unit of sums of discounted rewards; the weights stay.

    With mean m and standard deviation s of the rewards `[N]` of one step, a sum of independent ones has mean m/(1 − γ) and standard
    deviation s/√(1 − γ²).

    Raises:
        ConfigError: without rewards, or for a discount outside 0 ≤ γ < 1.
        ModelError: if a reward is not finite.
    """
    earned = np.asarray(rewards, np.float64)
    if not earned.size or not 0.0 <= discount < 1.0:
        raise ConfigError(f"a value cannot be scaled from {earned.size} rewards at discount {discount}")
    net.scale_values(float(earned.mean() / (1.0 - discount)), max(float(earned.std() / np.sqrt(1.0 - discount**2)), SMALLEST_SCALE))


@dataclass(frozen=True, eq=False)
class Guide:
    """A network as the search asks it. `version`: the SHA-256 of its graph, the name under which it is journaled."""

    evaluator: RowNetwork
    graph: bytes
    version: str


def guide_of(net: PolicyValueNet) -> Guide:
    """The network as an ONNX graph, checked against torch.

    Raises:
        ModelError: if a weight is not finite, or the graph and torch differ.
    """
    return guide_from(write_onnx(net).data)


def guide_from(graph: bytes, *, version: str | None = None) -> Guide:
    """A graph as it was kept.

    Raises:
        ModelError: if its bytes are others than `version` names.
    """
    evaluator = RowNetwork(graph, digest=version)
    return Guide(evaluator, graph, evaluator.digest)


def weights_of(net: PolicyValueNet) -> dict[str, Array]:
    """All weights and buffers, by name; copies."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in net.state_dict().items()}


def network_from(weights: dict[str, Array]) -> PolicyValueNet:
    """The network that has these weights; its widths are read from them.

    Raises:
        ModelError: if they are no weights of such a network, or not finite.
    """
    try:
        trunk = [weights[name] for name in sorted(weights, key=_place) if name.startswith("trunk.") and name.endswith("weight")]
        actions, value_hidden = len(weights["policy.2.bias"]), len(weights["value.0.bias"])
        hidden = tuple(len(layer) for layer in trunk)
        sizes = PolicyValueConfig(
            state_width=trunk[0].shape[1], hidden=hidden, value_hidden=value_hidden, policy_hidden=len(weights["policy.0.bias"])
        )
        net = PolicyValueNet(sizes, actions)
        net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    except (KeyError, IndexError, RuntimeError) as error:
        raise ModelError(f"these are no weights of a fusion network: {error}", hint="train it anew: cryptoalpha train fusion") from error
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise ModelError("weights of the fusion network are not finite", hint="go back to an earlier version")
    return net


def _place(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else -1
