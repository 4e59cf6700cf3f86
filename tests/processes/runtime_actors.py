"""Actors that tests start in other processes: what is run there is named, not copied."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path


class Tally:
    def __init__(self, start=0):
        self.total, self.seen, self.thread = start, [], threading.get_ident()


def tally(start=0):
    return Tally(start)


def add(state, amount):
    state.total += amount
    state.seen.append(amount)
    return state.total


def seen(state, _):
    return list(state.seen)


def same_thread(state, _):
    return state.thread == threading.get_ident()


def pid(state, _):
    return os.getpid()


def slow(state, item):
    time.sleep(item[0])
    state.seen.append(item[1])
    return item[1]


def bad(state, item):
    from cryptoalpha.core.errors import ModelError

    state.total += 1
    raise ModelError(f"{item} is bad", hint="take another")


def die(state, item):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(state, item):
    path, amount = item
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return add(state, amount)


def leave(state, code):
    sys.exit(code)


def leave_once(state, item):
    path, amount = item
    if not Path(path).exists():
        Path(path).touch()
        sys.exit(4)
    return add(state, amount)


async def later(state, amount):
    import asyncio

    state.loop = getattr(state, "loop", None) or asyncio.get_running_loop()
    assert state.loop is asyncio.get_running_loop()
    await asyncio.sleep(0.01)
    return add(state, amount)


def bad_start():
    raise FileNotFoundError("the model is not there")


def bad_after(path):
    if Path(path).exists():
        raise FileNotFoundError("the model has gone")
    return Tally()


def divided(state, item):
    return 6 / item


def too_much():
    from cryptoalpha.learn.runtime import Resources

    return Resources(cpus=100.0)


def node(state, _):
    import ray

    return ray.get_runtime_context().get_node_id()
