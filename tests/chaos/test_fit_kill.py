"""Training is killed for good (SIGKILL), in a step and around the writing of its checkpoint; what is left resumes to the same bits."""

from __future__ import annotations

import runpy
import subprocess
import sys

import pytest
import torch

torch.set_num_threads(1)

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.learn.fit import TensorSamples, checkpoint, fit

CONFIG = FitConfig(learning_rate=0.02, batch=8, epochs=3, checkpoint_seconds=1e-9)  # 8 steps per epoch; a checkpoint after each
done = {"steps": 0, "writes": 0}

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def train(path, fatal=""):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=generator)
    y = torch.tanh(x @ torch.randn(5, 1, generator=generator))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))

    def loss(model, batch):
        done["steps"] += 1
        mean = ((model(batch[0]) - batch[1]) ** 2).mean()
        if fatal == "in step 12" and done["steps"] == 12:
            die()
        return mean

    report = fit(model, loss, TensorSamples(x, y), config=CONFIG, seed=9, checkpoint=path)
    return model, report

def deadly(fatal):
    # Die around what makes the 12th checkpoint durable.
    real_fsync, real_replace, real_open = os.fsync, Path.replace, Path.open
    def fsync(handle):
        done["writes"] += 1  # two for each checkpoint: the file, the folder
        if fatal == "before the file is synced" and done["writes"] == 23:
            die()
        real_fsync(handle)
    def replace(path, target):
        if fatal == "before the rename" and done["writes"] == 23:
            die()
        result = real_replace(path, target)
        if fatal == "after the rename" and done["writes"] == 23:
            die()
        return result
    class Half:
        def __init__(self, file): self.file = file
        def __enter__(self): return self
        def __exit__(self, *error): self.file.close()
        def __getattr__(self, name): return getattr(self.file, name)
        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            die()
    def open_(path, *arguments, **named):
        file = real_open(path, *arguments, **named)
        return Half(file) if fatal == "half-way through the writing" and done["writes"] == 22 else file
    os.fsync, Path.replace, Path.open = fsync, replace, open_

if __name__ == "__main__":
    import torch._dynamo  # what the first optimiser would import; children share it
    torch.set_num_threads(1)
    for fatal, folder in zip(sys.argv[1::2], sys.argv[2::2]):
        child = os.fork()
        if not child:
            deadly(fatal)
            train(Path(folder) / "run.fit", fatal)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, fatal
"""

FATAL = {
    "in step 12": 11,
    "half-way through the writing": 11,
    "before the file is synced": 11,
    "before the rename": 11,
    "after the rename": 12,
}
"""Where it dies, and the steps of the checkpoint that stands afterwards."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folders of training runs that were killed at each place, and how to train."""
    root = tmp_path_factory.mktemp("killed")
    script = root / "train.py"
    script.write_text(SCRIPT)
    folders = {fatal: root / str(place) for place, fatal in enumerate(FATAL)}
    for folder in folders.values():
        folder.mkdir()
    command = [sys.executable, str(script), *(str(word) for pair in folders.items() for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folders, runpy.run_path(str(script))["train"]


@pytest.mark.lengthy
@pytest.mark.parametrize(("fatal", "steps"), FATAL.items())
def test_a_killed_training_resumes_to_the_bits_of_one_that_was_not(killed, fatal, steps):
    folders, train = killed
    straight, _ = train(None)
    path = folders[fatal] / "run.fit"
    resumed, report = train(path)
    assert report.resumed_at == steps
    assert all(torch.equal(resumed.state_dict()[name], value) for name, value in straight.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == ["run.fit"]  # what was half-written has been written over
