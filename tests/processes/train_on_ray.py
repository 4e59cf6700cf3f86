"""The same training by one process, by two that Ray Train starts, and by two of which one dies or fails.

python train_on_ray.py FOLDER                                                    prints one JSON object
python -m cryptoalpha.learn.fit.launch --processes 2 train_on_ray.py FOLDER      one of two processes, as torchrun starts them
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import runtime_training as training
import torch

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.config import DistributedConfig, RuntimeConfig
from cryptoalpha.learn.fit import World
from cryptoalpha.learn.runtime.ray_cluster import join_cluster
from cryptoalpha.learn.runtime.ray_train import train_on_ray

ON_RAY = RuntimeConfig(backend="ray", cpus=2, restarts=2)
TWO = DistributedConfig(world_size=2, backend="gloo")


def new(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).touch()
    return folder


def on_ray(folder: Path, distributed: DistributedConfig = TWO) -> Any:
    return train_on_ray(functools.partial(training.train, str(folder)), ON_RAY, distributed, folder=folder)


def all_of_it(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"alone": training.train(str(new(folder / "alone")), World.alone())}
    leave = join_cluster(ON_RAY)
    try:
        began = time.monotonic()
        found["two"] = on_ray(new(folder / "two"))
        found["seconds"] = round(time.monotonic() - began, 1)
        found["killed"] = on_ray(new(folder / "killed", "die"))
        found["died"] = not (folder / "killed" / "die").exists()
        try:
            on_ray(new(folder / "failed", "fail"))
        except ModelError as error:
            found["failed"] = [str(error), error.hint, (folder / "failed" / "began 1").read_text()]
        found["refused"] = []
        for distributed in (DistributedConfig(world_size=30, backend="gloo"), DistributedConfig(world_size=2, backend="nccl")):
            try:
                on_ray(new(folder / f"refused {distributed.backend}"), distributed)
            except ConfigError as error:
                found["refused"].append(str(error))
    finally:
        leave()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    work = Path(sys.argv[1])
    if "RANK" in os.environ:
        with World.join(TWO) as world:
            done = training.train(str(work), world)
            if world.leads:
                (work / "done.json").write_text(json.dumps(done))
    else:
        sys.stdout.write(json.dumps(all_of_it(work)) + "\n")
