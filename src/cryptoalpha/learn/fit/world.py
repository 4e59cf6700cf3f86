"""The processes that train one model together: who this one is, and what they tell each other.

`World.alone()` is one process and needs no network. `World.join(config)` is for processes started by torchrun (or by `launch`), which tells
each its place in the environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT. gloo connects CPU processes, NCCL connects GPUs.

A process that has ended ends the others: what they try to exchange fails, at once where its connection breaks and after
`timeout_seconds` where it just stands still.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # public, but not exported by name

from cryptoalpha.core.errors import ConfigError, WorldLostError
from cryptoalpha.learn.config import DistributedConfig

LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class World:
    """This process's place: `rank` (0 … `size` − 1) and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def alone(cls, device: str | torch.device = "cpu") -> Self:
        """One process."""
        return cls(0, 1, torch.device(device))

    @classmethod
    def connected(cls, device: torch.device) -> Self:
        """The place among processes that something else (Ray Train) has connected and will disconnect."""
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @classmethod
    @contextmanager
    def join(cls, config: DistributedConfig, *, timeout_seconds: float = 600.0) -> Iterator[Self]:
        """Meet the other processes; leave them at the end of the `with` block.

        The processes are as many as were started (WORLD_SIZE), which must be `config.world_size`. `timeout_seconds` is how long one waits
        for another, so it must be longer than a validation, which rank 0 does while the others wait.

        Raises:
            ConfigError: if this process was not started by torchrun, the numbers disagree, or NCCL finds no GPU.
        """
        place = _place(os.environ)
        if place["WORLD_SIZE"] != config.world_size:
            raise ConfigError(
                f"{place['WORLD_SIZE']} processes were started, but learn.distributed.world_size is {config.world_size}",
                hint="start as many as the setting says, or change the setting",
            )
        device = _device(config.backend, place["LOCAL_RANK"])
        if os.environ["MASTER_ADDR"] in LOOPBACK:
            # Left to itself gloo binds the address of the host's name, which others may reach.
            interface = "lo" if sys.platform == "linux" else "lo0"
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
        patience = timedelta(seconds=timeout_seconds)
        with lost_world():
            store = _store(os.environ, place, patience)
            dist.init_process_group(
                config.backend,
                store=store,
                rank=place["RANK"],
                world_size=place["WORLD_SIZE"],
                timeout=patience,
                device_id=device if device.type == "cuda" else None,
            )
        try:
            yield cls(place["RANK"], place["WORLD_SIZE"], device)
        finally:
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this is the process that validates, writes checkpoints and reports."""
        return self.rank == 0

    def share(self, indices: torch.Tensor) -> torch.Tensor:
        """This process's part of a batch: consecutive, sizes that differ by one at most, possibly empty."""
        return indices if self.size == 1 else indices.tensor_split(self.size)[self.rank]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all processes of float64 `values`, the same shape in each; the result lies on the CPU."""
        if self.size == 1:
            return values.cpu()
        with lost_world():
            values = values.to(self.device)
            dist.all_reduce(values)
            return values.cpu()

    def from_leader(self, content: bytes | None) -> bytes | None:
        """What the process of rank 0 passes in, in every process; None stays None."""
        if self.size == 1:
            return content
        with lost_world():
            length = torch.tensor([-1 if content is None else len(content)], dtype=torch.int64, device=self.device)
            dist.broadcast(length, src=0)
            if int(length) < 0:
                return None
            buffer = torch.empty(int(length), dtype=torch.uint8)
            if self.leads and content:
                buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            buffer = buffer.to(self.device)
            if int(length):
                dist.broadcast(buffer, src=0)
            return buffer.cpu().numpy().tobytes()


@contextmanager
def lost_world() -> Iterator[None]:
    """Turn what gloo or NCCL raise when a process is gone into one error that says so.

    Raises:
        WorldLostError: with the backend's own words.
    """
    try:
        yield
    except RuntimeError as error:  # gloo raises bare RuntimeErrors, NCCL its subclass DistBackendError
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise WorldLostError(
                f"another process of this training has ended or does not answer: {str(error).splitlines()[0]}",
                hint="look at the first error among all processes, then start them again: they resume from the last checkpoint",
            ) from error
        raise


def _place(environment: Mapping[str, str]) -> dict[str, int]:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    missing = [name for name in (*names, "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        raise ConfigError(
            f"this process was not started to train with others: {', '.join(missing)} not in its environment",
            hint="start it with `python -m cryptoalpha.learn.fit.launch` or torchrun, or train alone",
        )
    return {name: int(environment[name]) for name in names}


def _store(environment: Mapping[str, str], place: Mapping[str, int], patience: timedelta) -> PrefixStore:
    """Where the processes find each other, with a corner of its own for each attempt: torch 2.13 by itself reads, after a restart, the
    addresses of the processes that have died."""
    hosts = place["RANK"] == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # else torchrun's agent does
    store = TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), place["WORLD_SIZE"], hosts, patience)
    return PrefixStore(f"fit attempt {environment.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _device(backend: str, local_rank: int) -> torch.device:
    if backend == "gloo":
        return torch.device("cpu")
    if not torch.cuda.is_available() or local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"NCCL needs a GPU for each process, and process {local_rank} of this machine finds none",
            hint="set learn.distributed.backend to gloo to train on CPUs",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
