"""One learner: two networks of the caller's, Adam, and an update that either makes them better behaved or does not happen.

The last good weights and the optimiser's memory are kept beside those in use. A loss, a gradient or a weight that is not finite, or a
policy that moves further (KL) than allowed, brings them back, and the report says so: learning online must not be able to lose what was
known before.

Source: Mnih et al. (2016), A2C; the limit on KL is TRPO's (Schulman et al. 2015), here checked after the step, which is undone,
instead of solved for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError, LookAheadError, ModelError, StoreError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import iso
from cryptoalpha.learn.actor_critic.loss import (
    Batch,
    Loss,
    Weights,
    actor_critic_loss,
    check_actions,
    check_mask,
    check_numbers,
    log_policy,
)
from cryptoalpha.learn.config import ActorCriticConfig
from cryptoalpha.learn.replay.settings import refuse_other_settings
from cryptoalpha.store.array_file import Array, read_arrays, write_arrays

KIND = "cryptoalpha actor-critic 1"


class Acted(NamedTuple):
    """Shapes: all `[N]`. `log_behaviour` belongs into the batch that learns from these actions."""

    actions: Tensor
    log_behaviour: Tensor
    values: Tensor


@dataclass(frozen=True)
class UpdateReport:
    """What an update did. Losses and entropy (nats) are those before the step."""

    updates: int
    """Steps kept so far, this one included if it was."""

    policy_loss: float
    value_loss: float
    distillation_loss: float
    entropy: float
    entropy_weight: float
    divergence: float
    """KL (nats) from the policy before to the policy after, mean over the batch; NaN if no step was made."""

    clip_fraction: float
    """Share of the batch whose probability had moved too far from the policy that acted."""

    gradient_norm: float
    """Before it was clipped."""

    explained_variance: float
    """Of the returns by the values: 1 perfect, 0 no better than a constant, NaN where the returns do not vary."""

    rolled_back: str = ""
    """Why the step was undone; empty if it was not."""

    rollbacks: int = 0
    """Steps undone so far."""


class ActorCritic:
    """Learns a policy and its values from outcomes.

    Args:
        policy: features `[N, …]` → logits `[N, A]`.
        value: features `[N, …]` → values `[N]` or `[N, 1]`. The two may share parameters. Neither may draw random numbers (dropout).
        config: step size, weights, limits; its widths are for whoever builds the networks.
        seed: of the run; actions are drawn from `stream(seed, "actor-critic", name)`.
        distillation_weight: weight of the cross-entropy to `Batch.policy_target`.

    Raises:
        ModelError: if a parameter is not finite: there would be nothing to return to.
    """

    def __init__(
        self,
        policy: nn.Module,
        value: nn.Module,
        config: ActorCriticConfig,
        *,
        seed: int,
        name: str = "",
        distillation_weight: float = 0.0,
    ) -> None:
        self.policy, self.value, self.config = policy, value, config
        self.distillation_weight = distillation_weight
        self.updates = self.rollbacks = 0
        both = (*policy.parameters(), *value.parameters())
        self._parameters = [parameter for parameter in dict.fromkeys(both) if parameter.requires_grad]
        self._optimiser = torch.optim.Adam(self._parameters, lr=config.learning_rate)
        self._generator = torch.Generator().manual_seed(int(stream(seed, "actor-critic", name).integers(1 << 63)))
        if not self._weights_are_finite():
            raise ModelError("a weight of the networks is not finite before anything was learned")
        self._keep()

    @property
    def entropy_weight(self) -> float:
        """What the entropy bonus weighs now."""
        return self.config.entropy_weight * math.pow(0.5, self.updates / self.config.entropy_half_life_updates)

    def act(self, features: Tensor, legal: Tensor | None = None, *, greedy: bool = False) -> Acted:
        """Draw actions from the policy, or take the likeliest.

        Raises:
            ModelError: if the networks say NaN, or no action is legal; the row is named, nothing is drawn.
            ConfigError: if `legal` is not bool.
        """
        check_mask(legal)
        with torch.no_grad():
            logits, values = self._forward(features)
            bad = ~(torch.isfinite(logits).all(dim=1) & torch.isfinite(values))
            if legal is not None:
                bad |= ~legal.any(dim=1)
            if bad.any():
                row = int(bad.int().argmax())
                raise ModelError(
                    f"row {row} has no usable policy: logits {logits[row].tolist()}, value {float(values[row])}, or no legal action"
                )
            logs = log_policy(logits, legal)
            if greedy:
                actions = logs.argmax(dim=1)
            else:
                actions = torch.multinomial(logs.exp().cpu(), 1, generator=self._generator).squeeze(1).to(logs.device)
            return Acted(actions, logs.gather(1, actions.unsqueeze(1)).squeeze(1), values)

    def update(self, batch: Batch, *, now: int | None = None) -> UpdateReport:
        """Take one step on a batch, or none, and say which.

        Args:
            now: UTC ns; needed where the batch says when its rewards were known.

        Raises:
            LookAheadError: if a reward in the batch is known only after `now`.
            ConfigError: if the batch does not fit, or `now` is missing.
            ModelError: if the batch (not the network) holds what cannot be learned from.
        """
        check_matured(batch, now)
        check_numbers(batch)
        damaged = not self._weights_are_finite()
        if damaged:
            self._bring_back()
        elif not self._weights_are_kept():  # somebody else has changed them, and may
            self._keep()
        logits, values = self._forward(batch.features)
        check_actions(batch, logits.shape[1])
        entropy_weight = self.entropy_weight
        weights = Weights(self.config.value_weight, entropy_weight, self.distillation_weight, self.config.ratio_clip)
        loss = actor_critic_loss(logits, values, batch, weights)
        divergence, norm, why = math.nan, math.nan, ""
        if damaged:
            why = "a weight was not finite before the update"
        elif not torch.isfinite(loss.total):
            why = f"the loss is {float(loss.total.detach())}"
        else:
            norm, divergence, why = self._step(loss, batch)
        if why:
            self._bring_back()
            self.rollbacks += 1
        else:
            self.updates += 1
            self._keep()
        return self._report(loss, values, batch, entropy_weight, divergence, norm, why)

    def save(self, path: Path) -> None:
        """Write weights, optimiser, counters, settings and the state of the random stream (`array_file`: atomic, checked on reading)."""
        arrays = {name: _array(name, tensor) for name, tensor in self._named_tensors().items()}
        for number, memory in self._optimiser.state_dict()["state"].items():
            arrays |= {f"optimiser.{number}.{key}": _array(key, tensor) for key, tensor in memory.items()}
        arrays["generator"] = self._generator.get_state().numpy()
        write_arrays(path, arrays, {"updates": self.updates, "rollbacks": self.rollbacks, "settings": self._settings()}, kind=KIND)

    def restore(self, path: Path) -> None:
        """Become the learner that was saved, bit for bit; it must have the same networks and learn under the same settings.

        Raises:
            DataMissingError: if there is no such file.
            StoreError: if it is damaged, or of other networks; then nothing has changed here.
            ConfigError: if it learned under other settings, each of which is named; then nothing has changed here.
        """
        kept = read_arrays(path, kind=KIND)
        arrays = kept.arrays
        tensors = self._named_tensors()
        stored = {name: (array.shape, array.dtype) for name, array in arrays.items() if name.startswith(("policy.", "value."))}
        expected = {name: (tuple(tensor.shape), _array(name, tensor).dtype) for name, tensor in tensors.items()}
        odd = sorted(name for name in stored.keys() | expected.keys() if stored.get(name) != expected.get(name))
        memory: dict[int, dict[str, Tensor]] = {}
        for name, array in arrays.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".")
                memory.setdefault(int(number), {})[key] = torch.from_numpy(array)
        trained = {number: tuple(parameter.shape) for number, parameter in enumerate(self._parameters)}
        odd += [f"optimiser.{number}" for number, kept_of in memory.items() if tuple(kept_of["exp_avg"].shape) != trained.get(number)]
        if odd:
            raise StoreError(f"{path} is of other networks: {odd} differ", hint="build the networks with the widths they were trained with")
        refuse_other_settings(str(path), kept.state.get("settings", {}), self._settings())
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(arrays[name]))
        self._optimiser.load_state_dict({"state": memory, "param_groups": self._optimiser.state_dict()["param_groups"]})
        self._generator.set_state(torch.from_numpy(arrays["generator"]))
        self.updates, self.rollbacks = kept.state["updates"], kept.state["rollbacks"]
        self._keep()

    def _settings(self) -> dict[str, Any]:
        settings = {f"learn.actor_critic.{name}": value for name, value in self.config.model_dump().items()}
        return {**settings, "distillation_weight": self.distillation_weight}

    def _forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.policy(features)
        values: Tensor = self.value(features)
        rows = len(features)
        if values.shape == (rows, 1):
            values = values.squeeze(1)
        if logits.ndim != 2 or len(logits) != rows or values.shape != (rows,):
            raise ConfigError(f"{rows} rows gave logits {tuple(logits.shape)} and values {tuple(values.shape)}, expected [N, A] and [N]")
        return logits, values

    def _step(self, loss: Loss, batch: Batch) -> tuple[float, float, str]:
        """Gradient norm, divergence, and why the step cannot stand."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self.config.gradient_clip))
        if not math.isfinite(norm):
            return norm, math.nan, f"the gradient's norm is {norm}"
        self._optimiser.step()
        with torch.no_grad():
            before, after = loss.log_policy.double(), log_policy(self._forward(batch.features)[0], batch.legal).double()
            divergence = float((before.exp() * (before - after)).sum(dim=1).mean())
        if not self._weights_are_finite() or not math.isfinite(divergence):
            return norm, divergence, "the step led to weights that are not finite"
        if divergence > self.config.divergence_limit:
            return norm, divergence, f"the policy moved by {divergence:.4g} nats, more than {self.config.divergence_limit:.4g}"
        return norm, divergence, ""

    def _report(
        self, loss: Loss, values: Tensor, batch: Batch, entropy_weight: float, divergence: float, norm: float, why: str
    ) -> UpdateReport:
        moved = (loss.ratio - 1.0).abs() > self.config.ratio_clip
        spread = float(batch.returns.double().var(correction=0))
        left = float((batch.returns.double() - values.detach().double()).var(correction=0))
        return UpdateReport(
            updates=self.updates,
            policy_loss=float(loss.policy.detach()),
            value_loss=float(loss.value.detach()),
            distillation_loss=float(loss.distillation.detach()),
            entropy=float(loss.entropy.detach()),
            entropy_weight=entropy_weight,
            divergence=divergence,
            clip_fraction=float(moved.double().mean()),
            gradient_norm=norm,
            explained_variance=1.0 - left / spread if spread > 0.0 else math.nan,
            rolled_back=why,
            rollbacks=self.rollbacks,
        )

    def _tensors(self) -> Iterator[Tensor]:
        """All weights and buffers of both networks."""
        for module in (self.policy, self.value):
            yield from module.parameters()
            yield from module.buffers()

    def _named_tensors(self) -> dict[str, Tensor]:
        """What is saved of both networks; views, not copies."""
        parts = {"policy": self.policy, "value": self.value}
        return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}

    def _weights_are_finite(self) -> bool:
        return all(bool(torch.isfinite(tensor).all()) for tensor in self._tensors() if tensor.is_floating_point())

    def _weights_are_kept(self) -> bool:
        return all(torch.equal(tensor, good) for tensor, good in zip(self._tensors(), self._good, strict=True))

    def _keep(self) -> None:
        self._good = [tensor.detach().clone() for tensor in self._tensors()]
        self._good_memory = _copied(self._optimiser.state)

    def _bring_back(self) -> None:
        with torch.no_grad():
            for tensor, good in zip(self._tensors(), self._good, strict=True):
                tensor.copy_(good)
        self._optimiser.state.clear()
        self._optimiser.state.update(_copied(self._good_memory))  # copies: the optimiser goes on writing into them


def check_matured(batch: Batch, now: int | None) -> None:
    """Refuse rewards from the future.

    Raises:
        LookAheadError: if a reward is known only after `now`; the row is named.
        ConfigError: if the batch says when rewards were known, but nobody says what time it is.
    """
    if batch.known_at is None:
        return
    if batch.known_at.shape != (len(batch),):
        raise ConfigError(f"known_at has shape {batch.known_at.shape}, expected [{len(batch)}]")
    if now is None:
        raise ConfigError("the batch says when its rewards were known, but the update was not told what time it is", hint="pass now=")
    early = batch.known_at > now
    if early.any():
        row = int(np.argmax(early))
        raise LookAheadError(
            f"the reward of row {row} is known at {iso(int(batch.known_at[row]))}, but the clock reads {iso(now)}: it cannot teach yet",
            hint="learn from what DelayedRewards.mature(now) hands out",
        )


def _copied(memory: Mapping[Any, Mapping[str, Tensor]]) -> dict[Any, dict[str, Tensor]]:
    return {parameter: {key: tensor.clone() for key, tensor in of.items()} for parameter, of in memory.items()}


def _array(name: str, tensor: Any) -> Array:
    if tensor.dtype == torch.bfloat16:
        raise ConfigError(f"weight {name!r} is bfloat16, which is not kept", hint="train in float32")
    array: Array = tensor.detach().cpu().numpy()
    return array
