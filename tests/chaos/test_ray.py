"""A real Ray in a network of its own: what is promised of threads and processes holds there too, and what that costs.

Each script of `tests/processes` runs in a network namespace, because Ray listens on all interfaces, with a home and a folder for temporary
files of its own. At the end nothing of it may run any more.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PROCESSES = Path(__file__).resolve().parents[1] / "processes"
MARK = "CRYPTOALPHA_TEST_RUN"


def isolated(command: str, *more: str) -> list[str]:
    """A shell command in a network of its own."""
    return ["unshare", *(["-r"] if os.geteuid() else []), "-n", *more, "bash", "-c", f"ip link set lo up && {command}"]


def absent(*modules: str) -> str:
    """Why Ray cannot be run here; empty if it can."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            return f'{module} is not installed: pip install "cryptoalpha[ray]"'
    if not (sys.platform.startswith("linux") and shutil.which("unshare") and shutil.which("ip")):
        return "a network of its own needs Linux with unshare and ip"
    tried = subprocess.run(isolated("true"), capture_output=True, text=True, check=False)
    return f"no network of its own may be made here: {tried.stderr.strip()}" if tried.returncode else ""


def needed(*modules: str) -> None:
    if reason := absent(*modules):
        if os.environ.get("TESTS_SKIP_NOTHING") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


class Place:
    """Where a Ray may run: a home, a short folder for temporary files, a mark by which its processes are known."""

    def __init__(self, folder: Path) -> None:
        self.home, self.temporary, self.mark = folder / "home", Path(tempfile.mkdtemp(prefix="x", dir="/tmp")), uuid.uuid4().hex
        self.home.mkdir()

    def run(self, command: str, *more: str, timeout: float = 600.0) -> subprocess.CompletedProcess[str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        changed = {"HOME": str(self.home), "TMPDIR": str(self.temporary), MARK: self.mark, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            isolated(command, *more), env={**keep, **changed}, capture_output=True, text=True, timeout=timeout, check=False
        )

    def left(self) -> list[str]:
        """Processes that were started there and still run."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes():
                    found.append((path / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("ray"))
    yield made
    shutil.rmtree(made.temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def found(place, tmp_path_factory) -> dict:
    needed("ray", "torch")
    began = time.monotonic()
    done = place.run(f"exec {sys.executable} {PROCESSES / 'on_ray.py'} {tmp_path_factory.mktemp('work')}")
    assert done.returncode == 0, done.stderr[-6000:]
    results = json.loads(done.stdout.splitlines()[-1])
    results["whole script, s"] = round(time.monotonic() - began, 1)
    return results


def test_an_actor_on_ray_keeps_the_promises_of_threads_and_processes(found):
    executor = found["executor"]
    assert executor["order"] == [11, 13, 16, 20]
    assert executor["by id"] == [25, 30, 25, 30, 35]
    assert executor["coroutine"] == [36, 38, 41]
    assert executor["error"] == ["7 is bad", "take another", True]
    assert executor["start"] == "the model is not there"
    assert "cannot be sent to another process" in executor["unsendable"]
    assert executor["killed at work"] == 15  # what `build` makes, and the call
    assert executor["another process"]
    assert executor["killed at rest"] == ["dead", 11]
    assert executor["poison"].startswith("actor 'a' died 4 times over one call")
    assert "exit code 9" in executor["poison"]
    assert executor["after poison"] == [11, 6]
    assert (executor["busy"], executor["closed"]) == ("busy", "WorkerDiedError")


def test_an_actor_that_does_not_answer_is_killed_and_one_without_room_refused(found):
    assert "did not answer within 3 s" in found["slow"]["slow"]
    assert "Ray has not placed and built actor 'b' within 15 s" in found["slow"]["no room"]
    assert found["slow"]["names"] == ["a"]


def test_four_agents_on_ray_lose_no_message_and_handle_none_twice_though_two_are_killed(found):
    agents = found["agents"]
    assert agents["published"] > 100
    for kind in ("texts", "prices", "chain", "all"):
        assert agents["handled"][kind] == agents["published"]
        assert agents["twice"][kind] == agents["dead letters"][kind] == agents["signals twice"][kind] == 0
        assert agents["signals"][kind] >= 24
        assert agents["as expected"][kind]  # every signal, by id and by content, as the same agent says it in this process
    assert agents["restarts"] == agents["recalls"] == {"texts": 1, "prices": 0, "chain": 0, "all": 1}


def test_learning_by_ray_workers_of_which_one_is_killed_is_learning_here_bit_for_bit(found):
    learning = found["learning"]
    assert learning["evolution"] == [True, True, False]  # same digest, same weights; the file is gone: one has died
    assert learning["self-play"] == [True, False]
    assert learning["expert iteration"] == [True, False]
    assert learning["first error"]


def test_the_token_is_its_owners_alone_and_nothing_is_left_behind(found, place):
    assert found["token"] == {"mode": "0o600", "friend": "joined", "stranger": "VenueError"}
    assert place.left() == []
    assert [path.name for path in place.temporary.iterdir() if path.name.startswith("ray")] == []
    assert not (place.home / ".ray").exists()


def test_what_ray_costs_is_printed(found, capsys):
    costs = {"start, s": found["start, s"], **found["cost"], "stop, s": found["stop, s"], "whole script, s": found["whole script, s"]}
    with capsys.disabled():
        print(f"\nRay: {json.dumps(costs)}")
    assert 0.1 < costs["call p50, ms"] < 50.0  # a way there and back through another process
    assert costs["all, MiB (PSS)"] > 300.0


def test_training_through_ray_train_is_that_of_torchrun_and_of_one_process(place, tmp_path):
    needed("ray", "torch", "pyarrow")
    ray, alone = tmp_path / "ray", tmp_path / "torchrun"
    ray.mkdir()
    alone.mkdir()
    script = PROCESSES / "train_on_ray.py"
    launched = place.run(f"exec {sys.executable} -m cryptoalpha.learn.fit.launch --processes 2 {script} {alone}")
    assert launched.returncode == 0, launched.stderr[-4000:]
    torchrun = json.loads((alone / "done.json").read_text())
    done = place.run(f"exec {sys.executable} {script} {ray}")
    assert done.returncode == 0, done.stderr[-6000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["two"] == torchrun  # the same bits
    assert found["two"]["losses"] == pytest.approx(found["alone"]["losses"], rel=1e-5)
    assert found["died"]
    assert found["killed"]["weights"] == torchrun["weights"]
    assert found["killed"]["losses"] == torchrun["losses"]
    assert found["killed"]["resumed at"] > 0
    assert found["failed"] == ["a bad batch", "look at it", "x"]  # begun once: an error is not tried again
    assert [message.partition(" each do not fit")[0] for message in found["refused"]] == [
        "30 processes with 0.1 CPU",
        "2 processes with 1 GPU",
    ]
    assert place.left() == []


def documented(guide: str, part: str) -> str:
    """The commands of the guide after the line that begins with `part`."""
    return guide.partition(f"\n{part}")[2].partition("```\n")[2].partition("```")[0]


def test_the_documented_commands_start_a_cluster_of_two_that_is_joined_from_inside_and_from_outside(place, tmp_path):
    needed("ray", "torch", "grpc")
    guide = (PROCESSES.parents[1] / "docs" / "ray.md").read_text(encoding="utf-8")
    here = "--num-cpus 1"
    head = documented(guide, "On the head").replace("ray start", f"ray start {here} --node-ip-address 127.0.0.1")
    further = documented(guide, "On each further machine").replace("ray start", f"ray start {here}").replace("head.internal", "127.0.0.1")
    joins = "".join(f"python {PROCESSES / 'join_ray.py'} {address}\n" for address in ("127.0.0.1:6379", "ray://127.0.0.1:10001"))
    script = tmp_path / "cluster.sh"
    script.write_text(
        f"""set -eu
python() {{ {sys.executable} "$@"; }}
ray() {{ python -m ray.scripts.scripts "$@" >&2; }}
export PYTHONPATH={PROCESSES}
export RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S=200  # 30 s are not enough where tests run side by side
{head}
{further}
unset RAY_AUTH_MODE
{joins}
ray stop
"""
    )
    done = place.run(f"exec bash {script}", "-p", "-f", "--mount-proc")  # `ray stop` ends whatever Ray it sees
    assert done.returncode == 0, done.stderr[-6000:]
    inside, outside = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert inside == outside == {"called": [3, 3], "equal": True, "machines": 2}
    assert "Stopped all" in done.stderr
