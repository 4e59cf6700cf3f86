"""Gradient training by many processes of a Ray cluster, through Ray Train: the same `train(world)` that torchrun starts.

Ray Train places the processes, connects them (gloo on CPUs, NCCL on GPUs) and starts all of them again when one dies or its machine is
lost; `learn.fit` inside resumes from its checkpoint, to the bit. An error of the training itself is not tried again and is raised here with
its own type. For one machine `learn.fit.launch` starts in a third of the time; this is for clusters.

    report = train_on_ray(partial(train, settings), settings.learn.runtime, settings.learn.distributed, folder=shared)

NCCL on GPUs goes the same way and has not been run here.

Source: docs.ray.io, "Ray Train" (TorchTrainer of Ray 2.60).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from cryptoalpha.core.errors import ConfigError, WorkerDiedError, WorldLostError
from cryptoalpha.learn.config import DistributedConfig, RuntimeConfig
from cryptoalpha.learn.fit.world import World
from cryptoalpha.learn.runtime.ray_cluster import join_cluster, load_ray
from cryptoalpha.learn.travel import Answer, opened, pickled

R = TypeVar("R")


def train_on_ray(train: Callable[[World], R], config: RuntimeConfig, distributed: DistributedConfig, *, folder: Path) -> R:
    """Run `train(world)` in `distributed.world_size` processes; returns what the process of rank 0 returned.

    Args:
        train: a function of an importable module, or a partial of one; what it returns can be pickled.
        folder: seen by all machines of the cluster; Ray Train keeps its own records there, `train` its checkpoint.

    Raises:
        ConfigError: if Ray Train is not installed, `train` cannot be sent, or the cluster has no room.
        VenueError: if the cluster cannot be reached.
        WorkerDiedError: if processes died more often than `config.restarts` allows.
        The error of `train` in the lowest rank that raised one.
    """
    payload = pickled(train, "what is to be trained")
    leave = join_cluster(config)
    try:
        ray, ray_train, ray_torch = load_ray(), load_ray("ray.train"), load_ray("ray.train.torch")
        _check_room(ray, config, distributed)
        mail = ray.remote(RayMail).options(num_cpus=0).remote()
        trainer = ray_torch.TorchTrainer(
            _train_here,
            train_loop_config={"train": payload, "mail": mail, "backend": distributed.backend},
            torch_config=ray_torch.TorchConfig(backend=distributed.backend),
            scaling_config=ray_train.ScalingConfig(
                num_workers=distributed.world_size, use_gpu=distributed.backend == "nccl", resources_per_worker=_share(config, distributed)
            ),
            run_config=ray_train.RunConfig(
                storage_path=str(folder.resolve()), failure_config=ray_train.FailureConfig(max_failures=config.restarts)
            ),
        )
        failure: BaseException | None = None
        try:
            trainer.fit()
        except ray_train.TrainingFailedError as error:
            failure = error
        answers: dict[int, bytes] = ray.get(mail.all.remote())
    finally:
        leave()
    outcome: R = _outcome(answers, failure)
    return outcome


class RayMail:
    """A Ray actor that keeps what came of the training, by rank."""

    def __init__(self) -> None:
        self._answers: dict[int, bytes] = {}

    def put(self, rank: int, answer: bytes) -> None:
        self._answers[rank] = answer

    def all(self) -> dict[int, bytes]:
        return self._answers


def _train_here(settings: dict[str, Any]) -> None:
    """One process of the training, connected to the others by Ray Train."""
    import torch

    ray, ray_torch = load_ray(), load_ray("ray.train.torch")
    mail = settings["mail"]
    if any(not opened(told)[0] for told in ray.get(mail.all.remote()).values()):
        return  # Ray Train begins again after any failure; an error of the training would only repeat itself
    torch.set_num_threads(1)
    world, lost = World.connected(ray_torch.get_device()), None
    with Answer() as answer:
        try:
            value = pickle.loads(settings["train"])(world)
            answer.give(value if world.leads else None)
        except WorldLostError as error:
            lost = error
    if lost is not None:
        raise lost  # another one has died or failed
    fine, value = opened(answer.payload)
    ray.get(mail.put.remote(world.rank, answer.payload))
    if not fine:
        raise value  # Ray Train then ends those who wait for this one
    dist.barrier()


def _share(config: RuntimeConfig, distributed: DistributedConfig) -> dict[str, float]:
    """What is set aside for each process."""
    gpus = (config.gpus_per_actor or 1.0) if distributed.backend == "nccl" else 0.0
    return {"CPU": config.cpus_per_actor, **({"GPU": gpus} if gpus else {})}


def _check_room(ray: Any, config: RuntimeConfig, distributed: DistributedConfig) -> None:
    """Ray Train would wait for ever for machines that do not come."""
    there = ray.cluster_resources()
    for name, amount in _share(config, distributed).items():
        if there.get(name, 0.0) < amount * distributed.world_size:
            raise ConfigError(
                f"{distributed.world_size} processes with {amount:g} {name} each do not fit the Ray cluster, "
                f"which has {there.get(name, 0.0):g}",
                hint="lower learn.distributed.world_size, or set learn.distributed.backend to gloo to train on CPUs",
            )


def _outcome(answers: dict[int, bytes], failure: BaseException | None) -> Any:
    found = {rank: opened(answer) for rank, answer in sorted(answers.items())}
    for fine, value in found.values():
        if not fine:
            raise value
    if failure is not None or 0 not in found:
        raise WorkerDiedError(
            f"the training on Ray ended before it was done: {failure or 'no answer came'}",
            hint="start it again to resume from the last checkpoint; raise learn.runtime.restarts where machines come and go",
        ) from failure
    return found[0][1]
