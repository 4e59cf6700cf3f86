"""Several processes train one model: the loss curve of one process, the same bits after one of them was killed, no survivor that hangs."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

torch.set_num_threads(1)

SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
import torch
from torch import nn
from cryptoalpha.learn.config import DistributedConfig, FitConfig
from cryptoalpha.learn.fit import TensorSamples, World, fit, gradient_step

# 203 samples: 26 steps per epoch, the last of 3 samples (so of 4 processes one has none). Processes look at the losses, and save, after
# 16 steps and after each epoch.
CONFIG = FitConfig(learning_rate=0.02, batch=8, epochs=2, checkpoint_seconds=1e-9, patience=5)

def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(203, 5, generator=generator)
    y = torch.tanh(x @ torch.randn(5, 1, generator=generator))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))
    return model, TensorSamples(x, y)

def train(world, path, fatal_rank=-1, fatal_step=-1, how=signal.SIGKILL, nan_step=-1):
    model, samples = problem()
    steps = -1 if world.size > 1 else 0  # several processes rehearse first

    def loss(model, batch):
        nonlocal steps
        steps += 1
        if world.rank == fatal_rank and steps == fatal_step:
            os.kill(os.getpid(), how)
        mean = ((model(batch[0]) - batch[1]) ** 2).mean()
        return mean * float("nan") if steps == nan_step and world.rank == 1 else mean

    def validate(model):
        assert world.leads
        with torch.no_grad():
            return float(((model(samples.tensors[0]) - samples.tensors[1]) ** 2).mean())

    return model, fit(model, loss, samples, config=CONFIG, seed=9, checkpoint=path, validate=validate, world=world)

def keep(folder, world, model, report):
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    known = {"losses": report.losses, "validations": report.validations, "resumed_at": report.resumed_at}
    np.savez(folder / f"rank{world.rank}.npz", listening=np.array(listening()), **known, **weights)

def listening():
    if sys.platform != "linux":
        return []
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in own_sockets()]

def own_sockets():
    processes = (os.getpid(), os.getppid())  # this one and torchrun's agent
    links = [os.readlink(link) for process in processes for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink()]
    return {link[8:-1] for link in links if link.startswith("socket:[")}

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, size, timeout, fatal_rank, fatal_step, how, nan_step = Path(sys.argv[1]), *map(int, sys.argv[2:])
    if os.environ.get("WITHOUT_REHEARSAL"):
        gradient_step.GradientStep._rehearse = lambda self: None
    with World.join(DistributedConfig(world_size=size, backend="gloo"), timeout_seconds=timeout) as world:
        once = folder / "died"
        if world.rank == fatal_rank and fatal_step >= 0 and once.exists():
            fatal_step = -1
        elif world.rank == fatal_rank:
            once.touch()
        model, report = train(world, folder / "run.fit", fatal_rank, fatal_step, how, nan_step)
        keep(folder, world, model, report)
"""


@dataclass
class Ended:
    """A training of several processes that has ended."""

    code: int
    errors: str
    folder: Path

    def rank(self, number: int) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"rank{number}.npz") as kept:
            return dict(kept)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(
    folder: Path,
    *,
    size: int = 2,
    timeout: int = 600,
    fatal_rank: int = -1,
    fatal_step: int = -1,
    how: int = signal.SIGKILL,
    nan_step: int = -1,
    restarts: int = 0,
    **environment: str,
) -> Ended:
    folder.mkdir(exist_ok=True)
    script = folder / "train.py"
    script.write_text(SCRIPT)
    launch = [
        sys.executable,
        "-m",
        "cryptoalpha.learn.fit.launch",
        f"--processes={size}",
        f"--port={free_port()}",
        f"--restarts={restarts}",
    ]
    numbers = [str(int(number)) for number in (size, timeout, fatal_rank, fatal_step, how, nan_step)]
    done = subprocess.run(
        [*launch, str(script), str(folder), *numbers],
        env={**os.environ, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,  # half of what a process waits for one that does not answer
        check=False,
    )
    return Ended(done.returncode, done.stderr, folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Ended:
    """Two processes that nobody disturbs."""
    ended = together(tmp_path_factory.mktemp("pair") / "run")
    assert ended.code == 0, ended.errors
    return ended


def alone(folder: Path):
    script = folder / "alone.py"
    script.write_text(SCRIPT)
    names = runpy.run_path(str(script))
    return names["train"](names["World"].alone(), None)


WEIGHTS = [f"{layer}.{part}" for layer in (0, 2, 4) for part in ("weight", "bias")]


def assert_the_curve_of_one(ended: Ended, folder: Path) -> None:
    model, report = alone(folder)
    assert report.steps == 52
    kept = ended.rank(0)
    assert_allclose(kept["losses"], report.losses, rtol=1e-5)
    assert_allclose(kept["validations"], report.validations, rtol=1e-5)
    for name in WEIGHTS:
        assert_allclose(kept[name], model.state_dict()[name].numpy(), atol=2e-5)


@pytest.mark.lengthy
def test_two_processes_have_the_loss_curve_and_the_weights_of_one(pair, tmp_path):
    assert_the_curve_of_one(pair, tmp_path)
    # The first steps, before rounding has spread through the weights; all 52 steps within 1e-5.
    assert_allclose(pair.rank(0)["losses"][:5], alone(tmp_path)[1].losses[:5], rtol=1e-6)


def test_every_process_ends_with_the_same_weights_and_report(pair):
    first, second = pair.rank(0), pair.rank(1)
    for name in [*WEIGHTS, "losses", "validations"]:
        assert_array_equal(first[name], second[name])


def test_nothing_listens_beyond_this_machine(pair):
    if sys.platform != "linux":
        pytest.skip("reads /proc/self/net")
    listening = {address for rank in (0, 1) for address in pair.rank(rank)["listening"]}
    assert listening == {"0100007F"}  # 127.0.0.1: the store of torchrun's agent, and gloo


@pytest.mark.lengthy
def test_a_process_killed_in_the_middle_of_an_epoch_ends_all_and_the_run_resumes_to_the_same_bits(pair, tmp_path):
    ended = together(tmp_path / "run", fatal_rank=1, fatal_step=20, restarts=1)  # torchrun starts both again
    assert ended.code == 0, ended.errors
    kept, straight = ended.rank(0), pair.rank(0)
    assert kept["resumed_at"] == 16
    for name in [*WEIGHTS, "losses", "validations"]:
        assert_array_equal(kept[name], straight[name])


@pytest.mark.slow
def test_without_restarts_the_command_fails_and_says_who_died_and_is_resumed_by_hand(pair, tmp_path):
    died = together(tmp_path / "run", fatal_rank=0, fatal_step=30)
    assert died.code == 1
    assert "process 0 of 2 ended with code -9" in died.errors
    resumed = together(tmp_path / "run")
    assert resumed.code == 0, resumed.errors
    kept = resumed.rank(1)
    assert kept["resumed_at"] == 26
    for name in [*WEIGHTS, "losses"]:
        assert_array_equal(kept[name], pair.rank(1)[name])


@pytest.mark.slow
def test_a_process_that_stands_still_ends_the_others_after_the_timeout(tmp_path):
    ended = together(tmp_path / "run", timeout=5, fatal_rank=1, fatal_step=20, how=signal.SIGSTOP)
    assert ended.code == 1
    assert "WorldLostError: another process of this training has ended or does not answer" in ended.errors


@pytest.mark.slow
def test_a_bad_loss_in_one_process_is_refused_by_all_with_its_step(tmp_path):
    ended = together(tmp_path / "run", nan_step=20)
    assert ended.code == 1
    assert ended.errors.count("ModelError: the loss is nan in step 20 of 52 (epoch 1") == 2
    assert "the last good checkpoint is" in ended.errors


@pytest.mark.slow
def test_four_processes_have_the_curve_of_one_and_resume_to_the_same_bits(tmp_path):
    straight = together(tmp_path / "straight", size=4)
    assert straight.code == 0, straight.errors
    assert_the_curve_of_one(straight, tmp_path)
    assert together(tmp_path / "killed", size=4, fatal_rank=2, fatal_step=20).code == 1
    resumed = together(tmp_path / "killed", size=4)
    assert resumed.code == 0, resumed.errors
    assert resumed.rank(0)["resumed_at"] == 16
    for name in [*WEIGHTS, "losses"]:
        assert_array_equal(resumed.rank(3)[name], straight.rank(0)[name])


@pytest.mark.slow
def test_without_the_rehearsal_four_processes_add_up_in_another_order_after_a_resume(tmp_path):
    straight = together(tmp_path / "straight", size=4, WITHOUT_REHEARSAL="1")
    assert together(tmp_path / "killed", size=4, fatal_rank=2, fatal_step=20, WITHOUT_REHEARSAL="1").code == 1
    resumed = together(tmp_path / "killed", size=4, WITHOUT_REHEARSAL="1")
    assert not all(np.array_equal(resumed.rank(0)[name], straight.rank(0)[name]) for name in WEIGHTS)
