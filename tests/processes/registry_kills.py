"""Kills a process of the registry at its n-th step, for every n: each opened file, rename, folder, and each statement of SQLite is a step.

    python registry_kills.py kill FOLDER      every step of register, promote, rollback and gc; prints kills by action as JSON
    python registry_kills.py race FOLDER      promotions that expect the same champion, at once; prints winners per round

The process forks, the child does the work and kills itself with SIGKILL when Python's audit hook has seen so many steps.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError
from cryptoalpha.lifecycle.registry.registry import ModelRegistry
from cryptoalpha.store.model_folder import write_fold, write_folder

STEPS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "fcntl.flock", "sqlite3.connect")
TOLD = {"data": "d", "commit": "c", "config": {}, "seed": 0, "metrics": {"ic": 0.1}}


def registry_in(root: Path) -> ModelRegistry:
    return ModelRegistry(root, now=lambda: 1_000)


def model(folder: Path, value: float) -> Path:
    fold = write_fold(folder, 0, {"weights": np.full(4, value)}, {"usable_from": 1}, kind="forecaster")
    write_folder(folder, kind="forecaster", description={}, lineage={}, folds=[fold])
    return folder


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that dies at this step; whether it died."""
    child = os.fork()
    if child == 0:
        left = [step]

        def count(*_: object) -> None:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in STEPS:
                count()

        connect = sqlite3.connect

        def watched(*arguments: object, **named: object) -> sqlite3.Connection:
            connection = connect(*arguments, **named)  # type: ignore[call-overload]
            connection.set_trace_callback(count)
            return connection

        sqlite3.connect = watched
        sys.addaudithook(hook)
        try:
            work()
        except CryptoAlphaError as error:
            print(repr(error), file=sys.stderr, flush=True)  # the test reads what went wrong
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def state(root: Path) -> dict[str, object]:
    """All that can be seen; every version that is listed is verified."""
    registry = registry_in(root)
    return {
        "versions": sorted(registry.get(one.id).id for one in registry.versions()),
        "champion": registry.champion_id("forecaster"),
        "history": [(one.version, one.was, one.cause) for one in registry.history("forecaster")],
    }


def kill_everywhere(folder: Path) -> dict[str, int]:
    models = [model(folder / f"model {number}", float(number)) for number in range(4)]
    before = folder / "before"
    ids = [registry_in(before).register(one, line="forecaster", **TOLD).id for one in models[:3]]
    registry_in(before).promote("forecaster", ids[0], expected=None, reason="first")
    registry_in(before).promote("forecaster", ids[1], expected=ids[0], reason="second")
    actions: dict[str, Callable[[ModelRegistry], object]] = {
        "register": lambda at: at.register(models[3], line="forecaster", **TOLD),
        "promote": lambda at: at.promote("forecaster", ids[2], expected=ids[1], reason="third"),
        "rollback": lambda at: at.rollback("forecaster", expected=ids[1], reason="back"),
        "gc": lambda at: at.gc(1, dry_run=False),
    }
    kills = {}
    for name, do in actions.items():
        if name == "gc":  # a version that goes: neither champion, nor the way back, nor the newest
            registry_in(before).register(models[3], line="forecaster", **TOLD)
        old = state(before)
        whole = folder / f"{name} whole"
        shutil.copytree(before, whole)
        do(registry_in(whole))
        new = state(whole)
        assert new != old
        step = 0
        died = True
        while died:
            step += 1
            root = folder / f"{name} {step}"
            shutil.copytree(before, root)
            died = killed_at(step, lambda do=do, root=root: do(registry_in(root)))  # type: ignore[misc]
            assert state(root) in (old, new), (name, step, state(root))
            do(registry_in(root))  # again, as whoever goes on does
            assert state(root) == new, (name, step)
            registry_in(root).gc(10, dry_run=False)
            assert state(root) == new, (name, step)
            assert sorted(path.name for path in (root / "versions").iterdir()) == new["versions"], (name, step)
            assert not any(any((root / place).iterdir()) for place in ("drafts", "trash") if (root / place).is_dir()), (name, step)
            shutil.rmtree(root)
        kills[name] = step - 1
    return kills


def race(folder: Path, rounds: int = 10, runners: int = 6) -> list[int]:
    """How many of the promotions of each round succeeded."""
    root = folder / "race"
    ids = [registry_in(root).register(model(folder / f"model {n}", float(n)), line="forecaster", **TOLD).id for n in range(runners + 1)]
    winners = []
    for _ in range(rounds):
        registry_in(root).promote("forecaster", ids[0], reason="begin")
        start, go = os.pipe()
        children = []
        for identity in ids[1:]:
            child = os.fork()
            if child == 0:
                os.close(go)
                os.read(start, 1)  # ends when the parent lets go
                try:
                    registry_in(root).promote("forecaster", identity, expected=ids[0], reason="race")
                except ConfigError as error:
                    os._exit(2 if registry_in(root).history("forecaster")[-1].version[:12] in str(error) else 3)
                os._exit(0)
            children.append(child)
        os.close(start)
        os.close(go)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert set(codes) <= {0, 2}, codes
        assert registry_in(root).champion_id("forecaster") == ids[1 + codes.index(0)]
        winners.append(codes.count(0))
    return winners


if __name__ == "__main__":
    place = Path(sys.argv[2])
    print(json.dumps(kill_everywhere(place) if sys.argv[1] == "kill" else race(place)))
