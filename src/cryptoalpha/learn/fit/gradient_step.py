"""One step of training: batch → loss → gradient, averaged over all processes → clipped → AdamW.

Each process computes the gradient of its share of the batch, weighted by the share's size; torch's DistributedDataParallel adds them up. So
many processes descend the same mean loss as one, also where the last batch of an epoch does not divide evenly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.learn.fit.optimiser import adamw
from cryptoalpha.learn.fit.order import Order
from cryptoalpha.learn.fit.samples import Samples, on_device
from cryptoalpha.learn.fit.schedule import step_size_factor
from cryptoalpha.learn.fit.world import World, lost_world

B = TypeVar("B")
Loss = Callable[[nn.Module, B], torch.Tensor]
"""`loss(model, batch)`: the mean over the batch's samples, one number that can be differentiated."""

Precision = Literal["bf16", "fp32"]


def precision(wish: Literal["auto", "bf16", "off"], device: torch.device) -> Precision:
    """The precision to compute in: `auto` is bf16 on a GPU that has it, else fp32; `bf16` is taken at its word, also on a CPU.

    Raises:
        ConfigError: if bf16 is asked of a GPU without it.
    """
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported()
    if wish == "bf16" and not has_bf16:
        raise ConfigError(f"{device} does not compute in bf16", hint="set learn.fit.mixed_precision to auto or off")
    return "bf16" if wish == "bf16" or (wish == "auto" and device.type == "cuda" and has_bf16) else "fp32"


class GradientStep(Generic[B]):
    """Does step after step on `model`, in place. `optimiser` holds its moments; all else is a function of the step's number.

    Args:
        micro_batch: samples computed at once in this process; a larger share is split and its gradients are added up. None: no split.

    Raises:
        ModelError: if the loss is not one number with a gradient.
        WorldLostError: if another process has ended.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss[B],
        samples: Samples[B],
        order: Order,
        *,
        config: FitConfig,
        world: World,
        micro_batch: int | None,
    ) -> None:
        if micro_batch is not None and micro_batch < 1:
            raise ConfigError(f"a micro batch of {micro_batch} samples was asked for; at least 1 is needed")
        self._samples, self._order, self._config, self._world = samples, order, config, world
        self._micro_batch = micro_batch
        self._looks_first = world.size == 1 and world.device.type == "cpu"  # elsewhere a look would make the device or others wait
        self.precision = precision(config.mixed_precision, world.device)
        self.optimiser = adamw(model, learning_rate=config.learning_rate, weight_decay=config.weight_decay)
        self._parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        self._objective: nn.Module = _Objective(model, loss)
        if world.size > 1:
            with lost_world():
                self._objective = nn.parallel.DistributedDataParallel(self._objective)
            self._rehearse()

    def __call__(self, step: int) -> torch.Tensor:
        """Do it. Answers float64 `[2]` on the device: this process's part of the batch's mean loss, and the norm of the gradient.

        In a single process on the CPU a loss or gradient that is not finite moves no weight.
        """
        batch = self._order.batch(step)
        seed_randomness(self._order.noise_seed(step), self._world.device)
        factor = step_size_factor(step, self._order.steps, self._config.warmup, self._config.schedule)
        for group in self.optimiser.param_groups:
            group["lr"] = self._config.learning_rate * factor
        self.optimiser.zero_grad(set_to_none=True)
        with lost_world() if self._world.size > 1 else nullcontext():
            loss = self._descend(batch)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._config.gradient_clip)
        if not self._looks_first or (math.isfinite(float(loss)) and math.isfinite(float(norm))):
            self.optimiser.step()
        return torch.stack((loss, norm.double()))

    def _descend(self, batch: torch.Tensor) -> torch.Tensor:
        """Gradients of the mean loss of `batch` into the parameters; this process's part of that mean."""
        share = self._world.share(batch)
        # Without samples of its own a process still takes part in the exchange: with one sample that weighs nothing.
        whole = share if len(share) else batch[:1]
        pieces = [whole] if self._micro_batch is None else torch.split(whole, self._micro_batch)
        parts: list[torch.Tensor] = []
        for place, piece in enumerate(pieces):
            weight = len(piece) / len(batch) if len(share) else 0.0
            with self._exchanging(place == len(pieces) - 1):
                mean = self._loss(piece)
                # DistributedDataParallel averages over processes; `size` makes a sum of it.
                scale = weight * self._world.size
                (mean if scale == 1.0 else mean * scale).backward()  # type: ignore[no-untyped-call]
            parts.append(mean.detach().double() * weight)
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    def _loss(self, indices: torch.Tensor) -> torch.Tensor:
        batch = on_device(self._samples.take(indices), self._world.device)
        with torch.autocast(self._world.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext():
            mean = self._objective(batch)
        if not isinstance(mean, torch.Tensor) or mean.ndim != 0 or not mean.requires_grad:
            found = f"a tensor of shape {list(mean.shape)}" if isinstance(mean, torch.Tensor) else f"a {type(mean).__name__}"
            detached = " without a gradient" if isinstance(mean, torch.Tensor) and not mean.requires_grad else ""
            raise ModelError(f"the loss is {found}{detached}; expected the mean over the batch, one number with a gradient")
        return mean if mean.dtype == torch.float64 else mean.float()

    def _exchanging(self, yes: bool) -> AbstractContextManager[Any]:
        if yes or not isinstance(self._objective, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self._objective.no_sync()

    def _rehearse(self) -> None:
        """One gradient that is thrown away. DistributedDataParallel lays out its buffers anew after the first one it sees, and sums of
        three or more numbers depend on the layout: with a rehearsal the first step after a resume adds up like the same step of a run that
        was never interrupted."""
        before = {name: buffer.detach().clone() for name, buffer in self._objective.named_buffers()}
        seed_randomness(0, self._world.device)
        with lost_world():
            self._loss(self._order.batch(0)[:1]).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for name, buffer in self._objective.named_buffers():
                buffer.copy_(before[name])
        self.optimiser.zero_grad(set_to_none=True)


class _Objective(nn.Module, Generic[B]):
    """The loss as a module, so that DistributedDataParallel sees one forward pass whatever the loss calls on the model."""

    def __init__(self, model: nn.Module, loss: Loss[B]) -> None:
        super().__init__()
        self.model, self._of = model, loss

    def forward(self, batch: B) -> torch.Tensor:
        return self._of(self.model, batch)


def seed_randomness(seed: int, device: torch.device) -> None:
    """Seed torch's own generators, which dropout draws from, on the CPU and on `device`."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


def first_bad(losses: list[float], norms: list[float]) -> tuple[int, str] | None:
    """The first step whose loss or gradient is not a finite number, and what is wrong with it."""
    for place, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        if not math.isfinite(loss):
            return place, f"the loss is {loss}"
        if not math.isfinite(norm):
            return place, f"the gradient's norm is {norm} (the loss is {loss:.6g})"
    return None
