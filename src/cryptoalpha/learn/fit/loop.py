"""The training loop: epochs of gradient steps, a check on validation samples after each, checkpoints that resume to the bit.

A run is a pure function of model, samples, settings and seed. Batches and dropout are functions of (seed, step), the step size of the step,
so a checkpoint is the weights, AdamW's moments, the step and the history: the run that is killed and resumed ends with the very bits of the
run that was not. This holds for one process and for any number of them, on the same kind of machine with the same number of processes; on a
GPU it needs deterministic kernels too (`torch.use_deterministic_algorithms(True)`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.learn.fit import checkpoint as disk
from cryptoalpha.learn.fit.gradient_step import GradientStep, Loss, first_bad
from cryptoalpha.learn.fit.order import Order
from cryptoalpha.learn.fit.report import FitInterrupted, FitProgress, FitReport, Progress
from cryptoalpha.learn.fit.samples import Samples
from cryptoalpha.learn.fit.state import TrainingState, model_fingerprint, settings_of, weights_of
from cryptoalpha.learn.fit.stop_request import StopRequest
from cryptoalpha.learn.fit.world import World

B = TypeVar("B")

STEPS_UNSEEN = 16
"""Steps between two looks at the losses where a look makes a GPU or other processes wait. A bad loss is noticed this late, never missed."""

SECONDS_UNTOLD = 0.1
"""Progress is told this often at most, and after each epoch."""


def fit(
    model: nn.Module,
    loss: Loss[B],
    samples: Samples[B],
    *,
    config: FitConfig,
    seed: int,
    validate: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    world: World | None = None,
    micro_batch: int | None = None,
    labels: Mapping[str, str | int | float] | None = None,
    checks_per_epoch: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> FitReport:
    """Train `model` in place; it ends with the weights that validated best, or with the last where nothing validates.

    Args:
        model: moved to the world's device. In several processes every weight that wants a gradient must get one in every step.
        loss: `loss(model, batch)`, the mean over the batch's samples.
        samples: what is trained on, the same in every process.
        seed: of the order of samples and of dropout. The initial weights are the caller's; several processes begin with those of rank 0.
        validate: value on samples of the same fold that are not trained on, less is better; called at each check with the model in
            evaluation mode and no gradients, in the process of rank 0 only. Without it there is no early stopping.
        checkpoint: file that the run is kept in; if it exists, the run goes on from there.
        progress: told where training stands, in the process of rank 0 only.
        world: the processes that train together; by default this one alone, on the CPU.
        micro_batch: samples computed at once, where a whole share of a batch would not fit into memory.
        labels: what else must be equal for a run to be resumed, such as the name and revision of an encoder.
        checks_per_epoch: looks at the validation samples per epoch, evenly spaced, the last one at its end.

    Raises:
        ModelError: a loss, a gradient or a validation that is not finite, named with its step; the checkpoint from before it stands.
            Trained by one process on the CPU, `model` keeps the parameters of the last good step; on a GPU or by several processes the
            bad step is noticed up to 16 steps late, so that `model` is spoiled and only the checkpoint is good.
        ConfigError: nothing to train, or a checkpoint of another run (other settings, seed, data, model, world or labels).
        StoreError: a checkpoint that is damaged or cannot be written.
        FitInterrupted: after Ctrl-C or SIGTERM, once the checkpoint is written; it is a `KeyboardInterrupt`.
        WorldLostError: another process of the world has ended.
    """
    world = world or World.alone()
    was_training = model.training
    with torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else []), StopRequest() as stop:
        run = _Run(
            model, loss, samples, config, seed, validate, checkpoint, progress, world, micro_batch, labels or {}, checks_per_epoch, clock
        )
        try:
            run.train(stop)
        finally:
            model.train(was_training)
    return run.report()


def check_steps(steps_per_epoch: int, checks: int) -> frozenset[int]:
    """After how many steps of an epoch the validation samples are looked at; no more often than there are steps, always after the last.

    Raises:
        ConfigError: for fewer than one check.
    """
    if checks < 1:
        raise ConfigError(f"{checks} checks per epoch were asked for; at least 1 is needed")
    return frozenset(math.ceil(steps_per_epoch * (place + 1) / checks) for place in range(checks))


class _Run(Generic[B]):
    """One call of `fit`."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss[B],
        samples: Samples[B],
        config: FitConfig,
        seed: int,
        validate: Callable[[nn.Module], float] | None,
        checkpoint: Path | None,
        progress: Progress | None,
        world: World,
        micro_batch: int | None,
        labels: Mapping[str, str | int | float],
        checks_per_epoch: int,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._config, self._world, self._clock = model.to(world.device).train(), config, world, clock
        self._validate, self._progress, self._checkpoint = validate, progress, checkpoint
        self._order = Order(len(samples), config.batch, config.epochs, seed=seed, rank=world.rank)
        self._checks = check_steps(self._order.steps_per_epoch, checks_per_epoch)
        content = None if checkpoint is None else world.from_leader(disk.read(checkpoint) if world.leads else None)
        self._step = GradientStep(self._model, loss, samples, self._order, config=config, world=world, micro_batch=micro_batch)
        self._state = TrainingState()
        self._identity: dict[str, object] = {}
        if checkpoint is not None:
            self._identity = {
                **settings_of(config),
                **{f"label {name}": value for name, value in labels.items()},
                "seed": seed,
                "number of samples": len(samples),
                "data": samples.fingerprint(),
                "model": model_fingerprint(model),
                "processes": world.size,
                "device": world.device.type,
                "precision": self._step.precision,
                "micro batch": micro_batch,
                "validation": validate is not None,
                "checks per epoch": checks_per_epoch,
            }
        if content is not None:
            self._restore(content)
        self._resumed_at = self._state.step
        self._pending: list[torch.Tensor] = []
        self._began = self._saved = clock()
        self._told = -math.inf

    def train(self, stop: StopRequest) -> None:
        """Step until the epochs or the patience are used up."""
        state, look_every = self._state, 1 if self._world.size == 1 and self._world.device.type == "cpu" else STEPS_UNSEEN
        while not state.stopped:
            self._pending.append(self._step(state.step))
            state.step += 1
            check_is_due = (state.step - 1) % self._order.steps_per_epoch + 1 in self._checks
            if len(self._pending) < look_every and not check_is_due:
                continue
            asked, due = self._look(stop)
            if check_is_due:
                self._check()
            self._tell()
            if due or asked or state.stopped:
                self._save()
            if asked:
                raise FitInterrupted(state.step, self._checkpoint)
        if state.best_weights is not None:
            self._model.load_state_dict(state.best_weights)

    def report(self) -> FitReport:
        """What came of it."""
        state = self._state
        return FitReport(
            losses=np.array(state.losses),
            validations=np.array(state.validations),
            best_step=state.best_step if state.best_weights is not None else state.step,
            stopped="patience" if state.stopped == "patience" else "epochs",
            resumed_at=self._resumed_at,
            checkpoint=self._checkpoint,
        )

    def _look(self, stop: StopRequest) -> tuple[bool, bool]:
        """Read the losses since the last look and refuse a bad one; whether to stop and whether to save, agreed by all processes."""
        steps = len(self._pending)
        due = self._world.leads and self._clock() - self._saved >= self._config.checkpoint_seconds
        seen = torch.cat((*self._pending, torch.tensor([stop.asked, due], dtype=torch.float64, device=self._world.device)))
        self._pending = []
        values = self._world.total(seen).tolist()
        losses, norms = values[0 : 2 * steps : 2], values[1 : 2 * steps : 2]
        bad = first_bad(losses, norms)
        if bad is not None:
            self._refuse(self._state.step - steps + bad[0], bad[1])
        self._state.losses += losses
        return values[-2] > 0, values[-1] > 0

    def _refuse(self, step: int, what: str) -> None:
        batch = self._order.batch(step).tolist()
        some = ", ".join(str(index) for index in batch[:5]) + (" …" if len(batch) > 5 else "")
        kept = self._checkpoint if self._checkpoint is not None and self._checkpoint.exists() else None
        raise ModelError(
            f"{what} in step {step + 1} of {self._order.steps} (epoch {self._order.epoch(step) + 1}, samples {some}); "
            + (f"the last good checkpoint is {kept}" if kept else "there is no checkpoint"),
            hint="look at these samples and at what the loss divides by or takes the logarithm of; else lower learn.fit.learning_rate",
        )

    def _check(self) -> None:
        state = self._state
        if self._validate is not None:
            value = torch.zeros(1, dtype=torch.float64)
            if self._world.leads:
                self._model.eval()
                with torch.no_grad():
                    value += float(self._validate(self._model))
                self._model.train()
            known = float(self._world.total(value))
            if not math.isfinite(known):
                raise ModelError(f"validation in epoch {self._order.epoch(state.step - 1) + 1} (step {state.step}) gave {known}")
            state.judge(known, self._model, self._config.patience)
        if state.step == self._order.steps and not state.stopped:
            state.stopped = "epochs"

    def _tell(self) -> None:
        if self._progress is None or not self._world.leads:
            return
        state, now = self._state, self._clock()
        if now - self._told < SECONDS_UNTOLD and not self._order.ends_epoch(state.step - 1):
            return
        self._told, seconds = now, now - self._began
        rate = (state.step - self._resumed_at) / seconds if seconds > 0 else 0.0
        left = (self._order.steps - state.step) / rate if rate > 0 else 0.0
        validation = state.validations[-1] if state.validations else float("nan")
        epochs = state.step // self._order.steps_per_epoch
        self._progress(FitProgress(state.step, self._order.steps, epochs, state.losses[-1], validation, rate, left))

    def _save(self) -> None:
        if self._checkpoint is not None and self._world.leads:
            parts = {"model": weights_of(self._model), "optimiser": self._step.optimiser.state_dict(), "state": self._state.pack()}
            disk.write(self._checkpoint, disk.encode({"identity": self._identity, **parts}))
        self._world.total(torch.zeros(1, dtype=torch.float64))  # nobody goes on, or ends, before it is written
        self._saved = self._clock()

    def _restore(self, content: bytes) -> None:
        found = disk.decode(content, str(self._checkpoint))
        disk.check_identity(found.get("identity"), self._identity, str(self._checkpoint))
        self._model.load_state_dict(found["model"])
        self._step.optimiser.load_state_dict(found["optimiser"])
        self._state = TrainingState.unpack(found["state"])
