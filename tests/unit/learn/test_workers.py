"""Workers: the same list for one or many, errors with their type, a dead worker named, nothing that hangs or stays behind."""

from __future__ import annotations

import functools
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, WorkerDiedError
from cryptoalpha.learn.workers import InProcess, LocalProcesses

TASKS = """
import os, sys, time

class Total:
    def __init__(self):
        self.value = 0

def add(total, amount):
    total.value += amount
    return total.value

def slow_first(state, item):
    time.sleep(0.2 if item == 0 else 0.0)
    return item, os.getpid()

def threads(state, item):
    import torch
    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]

class Needy(Exception):
    def __init__(self, first, second):
        super().__init__(first)

def needy(state, item):
    raise Needy("what cannot travel", item)

def hinted(state, item):
    from cryptoalpha.core.errors import ModelError
    raise ModelError(f"item {item} is bad", hint="take another")

def die_with_a_child(state, item):
    if os.fork() == 0:
        time.sleep(item)  # holds the pipe to the parent open
        os._exit(0)
    os._exit(9)

def leave(state, item):
    sys.exit(item)

def unsendable(state, item):
    return lambda: item

def start_badly():
    raise FileNotFoundError("the model is not there")

def start_torch():
    import torch
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A module that worker processes can import: what a spawned process runs is named, not copied."""
    (tmp_path / "worker_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "worker_tasks", raising=False)
    import worker_tasks

    yield worker_tasks
    del sys.modules["worker_tasks"]


def no_child_is_left() -> bool:
    return multiprocessing.active_children() == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_many_workers_give_the_list_of_one(count):
    items = list(range(-7, 40))
    with LocalProcesses(count, functools.partial(int, 10)) as workers:
        assert workers.count == count
        assert workers.map(operator.mul, items) == InProcess(functools.partial(int, 10)).map(operator.mul, items) == [10 * i for i in items]
        assert workers.map(operator.mul, []) == []
    assert no_child_is_left()


def test_results_keep_the_order_of_the_items_when_the_first_comes_last(tasks):
    with LocalProcesses(2, int) as workers:
        results = workers.map(tasks.slow_first, range(6))
    assert [item for item, _ in results] == list(range(6))
    assert len({process for _, process in results}) == 2
    assert results[1:] == [(item, results[1][1]) for item in range(1, 6)]  # the other worker did all the rest meanwhile


def test_each_changes_the_state_of_every_worker_once(tasks):
    with LocalProcesses(3, tasks.Total) as workers:
        assert workers.each(tasks.add, 5) == [5, 5, 5]
        assert workers.each(tasks.add, 2) == [7, 7, 7]
        assert workers.map(tasks.add, [0, 0, 0, 0]) == [7, 7, 7, 7]
    assert InProcess(tasks.Total).each(tasks.add, 5) == [5]


def test_a_worker_computes_on_one_thread(tasks, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with LocalProcesses(1, tasks.start_torch) as workers:
        assert workers.map(tasks.threads, [0]) == [(1, "1")]
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_an_error_keeps_its_type_and_shows_the_workers_traceback_and_the_workers_go_on(tasks):
    with LocalProcesses(2, functools.partial(int, 6)) as workers:
        with pytest.raises(ZeroDivisionError) as raised:
            workers.map(operator.truediv, [1, 2, 0, "text", 0])
        assert "in a worker process" in str(raised.value.__cause__)
        assert "ZeroDivisionError" in str(raised.value.__cause__)
        with pytest.raises(CryptoAlphaError, match="item 4 is bad") as hinted:
            workers.map(tasks.hinted, [4])
        assert hinted.value.hint == "take another"
        with pytest.raises(CryptoAlphaError, match="Needy: what cannot travel"):
            workers.map(tasks.needy, [0])
        with pytest.raises((AttributeError, TypeError), match=r"lambda|pickle"):  # the answer cannot travel
            workers.map(tasks.unsendable, [0])
        assert workers.map(operator.truediv, [1, 2, 3]) == [6.0, 3.0, 2.0]
    assert no_child_is_left()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_of_several_errors_the_first_items_is_raised_as_with_one_worker(count):
    items = [1, 2, 3, "text", 0, 0, 0]
    with pytest.raises(TypeError):
        InProcess(functools.partial(int, 6)).map(operator.truediv, items)
    with LocalProcesses(count, functools.partial(int, 6)) as workers, pytest.raises(TypeError):
        workers.map(operator.truediv, items)


def test_a_killed_worker_ends_the_call_and_names_the_item():
    with LocalProcesses(2, os.getpid) as workers:
        began = time.monotonic()
        with pytest.raises(WorkerDiedError, match=r"ended by SIGKILL working on item 2, <Signals.SIGKILL: 9>"):
            workers.map(os.kill, [0, 0, signal.SIGKILL, 0, 0])
        assert time.monotonic() - began < 5.0
        assert no_child_is_left()
        with pytest.raises(ConfigError, match="stopped and take no more"):
            workers.map(os.kill, [0])


def test_a_task_that_ends_its_process_is_reported_with_the_code(tasks):
    with LocalProcesses(2, int) as workers, pytest.raises(WorkerDiedError, match="ended with code 7 working on item 0, 7"):
        workers.map(tasks.leave, [7])


def test_a_worker_that_ends_while_its_own_child_holds_the_pipe_is_noticed_soon(tasks):
    with LocalProcesses(1, int) as workers:
        began = time.monotonic()
        with pytest.raises(WorkerDiedError, match="ended with code 9 working on item 0, 8"):
            workers.map(tasks.die_with_a_child, [8])
        assert time.monotonic() - began < 6.0


def test_a_worker_that_died_between_two_calls_is_found_out():
    with LocalProcesses(2, os.getpid) as workers:
        first = workers.each(os.kill, 0)
        assert first == [None, None]
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            workers.map(os.kill, [0, 0, 0])


def test_a_failed_start_raises_its_own_error_and_leaves_no_process(tasks):
    with pytest.raises(FileNotFoundError, match="the model is not there"):
        LocalProcesses(2, tasks.start_badly)
    with pytest.raises(WorkerDiedError, match="ended with code 3 while it started"):
        LocalProcesses(2, functools.partial(sys.exit, 3))
    assert no_child_is_left()


def test_what_cannot_be_sent_is_refused_before_anything_runs(tasks):
    with pytest.raises(ConfigError, match="at least 1"):
        LocalProcesses(0, int)
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        LocalProcesses(1, lambda: 0)
    with LocalProcesses(1, tasks.Total) as workers:
        with pytest.raises(ConfigError, match="the task cannot be sent"):
            workers.map(lambda total, amount: tasks.add(total, amount), [1])
        with pytest.raises(ConfigError, match="item 1 cannot be sent"):
            workers.map(tasks.add, [1, lambda: 0, 1])
        assert workers.map(tasks.add, [0]) == [1]  # item 0 was worked on, item 2 never started


PARENT = """
import os, signal, sys, time
from cryptoalpha.learn.workers import LocalProcesses

def begin():
    return os.getpid()

def sleep(state, item):
    os.write(1, f"{os.getpid()}\\n".encode())  # at once: print() may put the other worker's line into the middle of this one
    time.sleep(60)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored
    with LocalProcesses(2, begin) as workers:
        workers.map(sleep, [1, 2])
"""


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, {-signal.SIGINT, 1, 130}), (signal.SIGKILL, {-signal.SIGKILL})])
def test_ctrl_c_or_the_end_of_the_parent_ends_the_workers_in_the_middle_of_an_item(tmp_path, how, code):
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(is_running(worker) for worker in workers)
        parent.send_signal(how)
        parent.communicate(timeout=60)
        assert parent.returncode in code
    deadline = time.monotonic() + 10
    while any(is_running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_running(worker) for worker in workers)
