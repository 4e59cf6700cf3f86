"""What runs inside Ray for a split on Ray Serve (`ray_serve`): the replicas of versions and router, and the book they agree by.

Nothing here imports ray at its top; these are plain classes that Ray and Serve run.
"""

from __future__ import annotations

import asyncio
import importlib
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from cryptoalpha.lifecycle.rollout.router import Router
from cryptoalpha.lifecycle.rollout.split import ARMS, CANARY, STABLE, ArmCounts, Split, checked_weights, summed

SYNC_SECONDS = 0.25
"""How often a router replica asks what the split is, and tells what it counted."""


class SplitBook:
    """The split, and what every router replica counted under each of its states. One actor."""

    def __init__(self, stable: str, now: int) -> None:
        self._born, self._writes, self._since = uuid.uuid4().hex[:8], 0, 0
        self._split = self._next({STABLE: 1.0}, stable=stable, canary="", shadow=False, now=now)
        self._counts: dict[tuple[int, str], dict[str, ArmCounts]] = {}
        self._known: dict[str, tuple[str, float]] = {}

    def read(self) -> Split:
        """The split as it is."""
        return self._split

    def ensure(self, stable: str, canary: str, now: int) -> Split:
        """These two versions; a pair that is there stays as it is."""
        if (self._split.stable, self._split.canary) != (stable, canary):
            self._split = self._next({STABLE: 1.0}, stable=stable, canary=canary, shadow=False, now=now)
        return self._split

    def write(self, weights: Mapping[str, float], expected: str, shadow: bool, now: int) -> Split | str:
        """Compare and set; words where it is another split."""
        shares = checked_weights(weights, shadow=shadow)
        if expected != self._split.version:
            return f"the split is at version {self._split.version}, not {expected}"
        self._split = self._next(shares, stable=self._split.stable, canary=self._split.canary, shadow=shadow, now=now)
        return self._split

    def settle(self, stable: str, now: int) -> Split:
        """All requests to one version, and no canary."""
        self._split = self._next({STABLE: 1.0}, stable=stable, canary="", shadow=False, now=now)
        return self._split

    def sync(self, replica: str, version: str, counted: dict[int, dict[str, ArmCounts]]) -> Split:
        """A router replica says which split it divides by and what it counted, by the `since` of each split; it is told what holds."""
        self._known[replica] = (version, time.monotonic())
        for since, counts in counted.items():
            self._counts[since, replica] = counts
        return self._split

    def is_known(self, version: str, replicas: int, silent_seconds: float) -> bool:
        """Whether so many replicas are heard of and all of them divide by this version."""
        heard = [known for known, at in self._known.values() if time.monotonic() - at <= silent_seconds]
        return len(heard) >= replicas and all(known == version for known in heard)

    def counts(self, since: int) -> dict[str, ArmCounts]:
        """Of all replicas, under splits that began at or after `since`."""
        first: dict[str, int] = {}
        for began, replica in sorted(self._counts):
            if began >= since:
                first.setdefault(replica, began)  # what it says of a split holds the later ones too
        found = [self._counts[began, replica] for replica, began in first.items()]
        return {arm: summed([counts[arm] for counts in found]) if found else ArmCounts() for arm in ARMS}

    def _next(self, weights: Mapping[str, float], *, stable: str, canary: str, shadow: bool, now: int) -> Split:
        self._writes += 1
        self._since = max(now, self._since + 1)
        shares = checked_weights(weights, shadow=shadow)
        version = f"{self._born}-{self._writes}"
        return Split(weights=shares, shadow=shadow, version=version, since=self._since, stable=stable, canary=canary)


class VersionReplica:
    """A model of one version, loaded where it runs."""

    def __init__(self, version: str, load: Callable[[str], Callable[[Any], Any]]) -> None:
        self.version, self._model = version, load(version)

    async def forecast(self, request: Any) -> Any:
        """The model's answer; in a thread, so that Serve's health checks are answered meanwhile."""
        return await asyncio.to_thread(self._model, request)


class SplitRouter:
    """One router replica: the house's router, told by the book how to divide."""

    def __init__(self, name: str, stable: str, late_seconds: float, timeout_seconds: float) -> None:
        self._name, self._replica = name, uuid.uuid4().hex
        self._limits = (late_seconds, timeout_seconds)
        self._router = self._made(stable)
        self._taken = ""
        self._since: dict[int, int] = {}
        """`since` of the book's splits → that of this router's own."""
        self._serve, self._ray = importlib.import_module("ray.serve"), importlib.import_module("ray")
        self._handles: dict[str, Any] = {}
        self._stepping = asyncio.get_running_loop().create_task(self._keep_in_step())

    def _made(self, stable: str) -> Router[Any]:
        late, timeout = self._limits
        return Router(stable=stable, salt=self._name, now=time.time_ns, late_seconds=late, timeout_seconds=timeout)

    async def answer(self, key: str, request: Any) -> tuple[Any, str, str]:
        """The answer, its version, its arm."""

        async def ask(version: str) -> Any:
            handle = self._handles.get(version)
            if handle is None:
                handle = self._handles[version] = self._serve.get_app_handle(f"{self._name}-{version}")
            return await handle.forecast.remote(request)

        routed = await self._router.answer(key, ask)
        return routed.answer, routed.version, routed.arm

    async def _keep_in_step(self) -> None:
        book: Any = None
        while True:
            try:
                if book is None:
                    book = self._ray.get_actor(f"{self._name}-split", namespace=self._name)
                split = await book.sync.remote(self._replica, self._taken, await self._counted())
                if split.version != self._taken:
                    await self._take(split)
                    continue  # say at once that it is taken over
            except (self._ray.exceptions.RayActorError, ValueError):  # the book is away or begins anew: what holds goes on holding
                book = None
            await asyncio.sleep(SYNC_SECONDS)

    async def _counted(self) -> dict[int, dict[str, ArmCounts]]:
        """What was counted under each split and those after it."""
        return {theirs: dict(await self._router.counts(own)) for theirs, own in self._since.items()}

    async def _take(self, split: Split) -> None:
        if split.canary:
            own = await self._router.ensure(split.stable, split.canary)
            own = await self._router.write(split.weights, expected_version=own.version, shadow=split.shadow)
        else:
            before = self._router.split
            if before.canary:
                await self._router.finish(CANARY if before.canary == split.stable else STABLE)
            if self._router.split.stable != split.stable:
                self._router, self._since = self._made(split.stable), {}
            own = self._router.split
        self._since[split.since] = own.since
        self._taken = split.version
        self._handles = {version: handle for version, handle in self._handles.items() if version in (split.stable, split.canary)}
