"""A controller of a rollout in a process of its own, killed for good before or after a chosen call of the book or of the split.

    python roll_out.py FOLDER MODE POINT SIDE COUNT

The split lies in a file, so that it outlives the process as a real back end does. `COUNT` is how often `POINT` is reached before the kill;
0 never kills. Prints the story as JSON when the rollout is over.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, ArmCounts, Pairs, Split, SplitConflictError
from cryptoalpha.store.whole_file import write_whole

SECOND = 1_000_000_000


class FileSplit:
    """A back end whose state is one file, and whose counts follow from how long the split has stood: 100 requests a second."""

    def __init__(self, path: Path, clock: Path, canary_fails: float) -> None:
        self._path, self._clock, self._fails = path, clock, canary_fails
        if not path.exists():
            self._put(Split(weights={STABLE: 1.0}, version="1", since=self.now(), stable="old"))

    def now(self) -> int:
        return int(self._clock.read_text())

    def _put(self, split: Split) -> Split:
        write_whole(self._path, msgspec.json.encode(split))
        return split

    def _get(self) -> Split:
        return msgspec.json.decode(self._path.read_bytes(), type=Split)

    def _next(self, split: Split, **changes: object) -> Split:
        number = str(int(split.version) + 1)
        return self._put(msgspec.structs.replace(split, version=number, since=max(self.now(), split.since + 1), **changes))

    async def ensure(self, stable: str, canary: str) -> Split:
        split = self._get()
        if (split.stable, split.canary) == (stable, canary):
            return split
        return self._next(split, weights={STABLE: 1.0}, shadow=False, stable=stable, canary=canary)

    async def read(self) -> Split:
        return self._get()

    async def write(self, weights: Mapping[str, float], *, expected_version: str, shadow: bool = False) -> Split:
        split = self._get()
        if split.version != expected_version:
            raise SplitConflictError(f"at {split.version}")
        return self._next(split, weights=dict(weights), shadow=shadow)

    async def counts(self, since: int) -> dict[str, ArmCounts]:
        split = self._get()
        requests = 100 * max(0, self.now() - max(since, split.since)) // SECOND
        canary = requests if split.shadow else int(requests * split.canary_share)
        failed = int(canary * self._fails)
        pairs = Pairs(both_fine=canary - failed, canary_failed=failed) if split.shadow else Pairs()
        failures = {"error": failed} if failed else {}
        return {
            STABLE: ArmCounts(requests=requests if split.shadow else requests - canary),
            CANARY: ArmCounts(requests=canary, failures=failures, pairs=pairs),
        }

    async def finish(self, winner: str) -> None:
        split = self._get()
        if split.canary:
            version = split.canary if winner == CANARY else split.stable
            self._next(split, weights={STABLE: 1.0}, shadow=False, stable=version, canary="")


def killing(subject: object, point: str, side: str, count: int) -> None:
    """Let the `count`-th call of `subject.point` be the last thing this process does, before it or after it."""
    name = point.partition(".")[2]
    inner, calls = getattr(subject, name), [0]

    def reached() -> bool:
        calls[0] += 1
        return calls[0] == count

    def around(*given: object, **named: object) -> object:
        last = reached()
        if last and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = inner(*given, **named)
        if last and side == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    async def around_async(*given: object, **named: object) -> object:
        last = reached()
        if last and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await inner(*given, **named)
        if last and side == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(subject, name, around_async if asyncio.iscoroutinefunction(inner) else around)


async def main(folder: Path, mode: str, point: str, side: str, count: int) -> None:
    clock = folder / "clock"
    if not clock.exists():
        clock.write_text(str(1_000 * SECOND))
    split = FileSplit(folder / "split.json", clock, 0.4 if mode == "bad" else 0.0)
    book = RolloutBook(folder / "rollout.sqlite")
    if count:
        killing(book if point.startswith("book") else split, point, side, count)
    config = CanaryConfig(minimum_seconds=10.0, bake_seconds=20.0, lease_seconds=5.0)
    controller = CanaryController(split, book, config, now=split.now, holder=str(os.getpid()))
    if book.newest("inference") is None:
        await controller.begin("old", "new")
    while not controller.state.is_over or book.read(controller.state.id)[1] is not None:
        clock.write_text(str(split.now() + 6 * SECOND))  # the lease of one who was killed has lapsed
        await controller.step()
    state, final = controller.state, await split.read()
    story = [(line.before, line.stage, line.step, line.settled_at is not None) for line in book.story(state.id)]
    print(json.dumps({"stage": state.stage, "story": story, "split": msgspec.to_builtins(final), "rollouts": state.id}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
