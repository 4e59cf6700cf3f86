"""A traffic split on Ray Serve: every version an application of its own, and a router of any number of replicas in front of them.

    version application   `NAME-VERSION`: a model behind `forecast(request) -> answer`, scaled by Serve itself between `least` and `most`
    router                `NAME`: each replica holds the house's `Router`, so keys are sticky, a canary's failure is answered by stable, and
                          the counts are those of every other back end
    split book            a named actor: what the split is, and what the replicas counted

Serve knows no weights, so a replica asks the book every `SYNC_SECONDS`, tells what it counted, and takes over what was written. `write`
returns when all replicas that are heard of have taken it over. A book that died begins anew with all requests to the version it was first
made with and under another version of the split: the controller sees one that it did not write, and holds.

Needs the extra `ray`, imported when it is first needed. Ray's ports are open to whoever reaches the machine: see docs/ray.md.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.ray_router import SYNC_SECONDS, SplitBook, SplitRouter, VersionReplica
from cryptoalpha.lifecycle.rollout.split import ARMS, CANARY, STABLE, Counts, Split, SplitConflictError, SplitUnreachableError

if TYPE_CHECKING:
    from cryptoalpha.lifecycle.rollout.backends import BackendOptions

SILENT_SECONDS = 5.0
"""A router replica that was not heard of for so long is not waited for."""
_NAME = "cryptoalpha"


def load_serve() -> tuple[Any, Any]:
    """`ray` and `ray.serve`.

    Raises:
        ConfigError: if they are not installed.
    """
    try:
        return importlib.import_module("ray"), importlib.import_module("ray.serve")
    except ImportError as error:
        raise ConfigError(f"a split on Ray Serve needs Ray: {error}", hint='pip install "cryptoalpha[ray]"') from None


class RayServeSplit:
    """A `TrafficSplit` on the Ray cluster that this process is connected to.

    Args:
        load: makes a version's model where it runs: called with the version id, returns what is called with a request. Must be importable
            there; it may raise what a model raises.
        stable: version that answers until a rollout begins.
        name: of the applications and the book; two splits of one cluster need two names.
        routers: replicas of the router.
        least, most: replicas of each version, between which Serve scales by the requests under way.
        cpus: CPU set aside for each replica.

    Raises:
        ConfigError: if Ray is not installed.
    """

    def __init__(
        self, load: Callable[[str], Callable[[Any], Any]], *, stable: str, name: str = _NAME, routers: int = 1, least: int = 1,
        most: int = 4, cpus: float = 0.1, late_seconds: float = 0.1, timeout_seconds: float = 5.0,
    ) -> None:  # fmt: skip
        self._ray, self._serve = load_serve()
        self._load, self._name, self._routers, self._cpus = load, name, routers, cpus
        self._scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": 2}
        self._limits = (late_seconds, timeout_seconds)
        self._first = stable
        self._book: Any = None

    async def start(self) -> None:
        """Deploy stable, the book and the router, where they are not there yet."""
        self._book = (
            self._ray.remote(SplitBook)
            .options(name=f"{self._name}-split", namespace=self._name, lifetime="detached", get_if_exists=True, max_restarts=-1, num_cpus=0)
            .remote(self._first, time.time_ns())
        )
        split = await self.read()
        await self._deploy(split.stable)
        if split.canary:
            await self._deploy(split.canary)
        router = self._serve.deployment(SplitRouter).options(
            name="Router", num_replicas=self._routers, max_ongoing_requests=1000, ray_actor_options={"num_cpus": self._cpus}
        )
        app = router.bind(self._name, split.stable, *self._limits)
        await asyncio.to_thread(self._serve.run, app, name=self._name, route_prefix=None)
        await self._taken_over(split.version)

    async def answer(self, key: str, request: Any) -> tuple[Any, str, str]:
        """Have a request answered: the answer, the version and the arm it is from."""
        found: tuple[Any, str, str] = await self._serve.get_app_handle(self._name).answer.remote(key, request)
        return found

    async def ensure(self, stable: str, canary: str) -> Split:
        """As `TrafficSplit.ensure`.

        Raises:
            ConfigError: if a version is its own canary.
        """
        if stable == canary:
            raise ConfigError(f"version {stable} cannot be its own canary", hint="name another version")
        for version in (stable, canary):
            await self._deploy(version)
        split: Split = await self._ask(self._book.ensure.remote(stable, canary, time.time_ns()))
        await self._taken_over(split.version)
        return split

    async def read(self) -> Split:
        """As `TrafficSplit.read`."""
        found: Split = await self._ask(self._book.read.remote())
        return found

    async def write(self, weights: Mapping[str, float], *, expected_version: str, shadow: bool = False) -> Split:
        """As `TrafficSplit.write`; every router that is heard of divides requests so when it returns."""
        found = await self._ask(self._book.write.remote(dict(weights), expected_version, shadow, time.time_ns()))
        if isinstance(found, str):
            raise SplitConflictError(found, hint="read it again; another hand wrote it")
        await self._taken_over(found.version)
        return found  # type: ignore[no-any-return]  # Ray's answers have no type

    async def counts(self, since: int) -> Counts:
        """As `TrafficSplit.counts`; what was counted in the last `SYNC_SECONDS` may be missing."""
        found: Counts = await self._ask(self._book.counts.remote(since))
        return found

    async def finish(self, winner: str) -> None:
        """As `TrafficSplit.finish`: the loser's application is deleted."""
        if winner not in ARMS:
            raise ConfigError(f"{winner!r} is no arm", hint=f"{STABLE} or {CANARY}")
        before = await self.read()
        if not before.canary:
            return
        kept, loser = (before.canary, before.stable) if winner == CANARY else (before.stable, before.canary)
        split = await self._ask(self._book.settle.remote(kept, time.time_ns()))
        await self._taken_over(split.version)
        await asyncio.to_thread(self._serve.delete, self._app(loser))

    async def close(self) -> None:
        """Take everything down again: applications, router, book."""
        split = await self.read()
        for app in (self._name, *(self._app(version) for version in (split.stable, split.canary) if version)):
            await asyncio.to_thread(self._serve.delete, app)
        self._ray.kill(self._book)

    def _app(self, version: str) -> str:
        return f"{self._name}-{version}"

    async def _deploy(self, version: str) -> None:
        """Have a version answer; nothing happens to one that does."""
        status = await asyncio.to_thread(self._serve.status)
        found = status.applications.get(self._app(version))
        if found is not None and found.status == "RUNNING":
            return
        model = self._serve.deployment(VersionReplica).options(
            name="Model", autoscaling_config=self._scaling, max_ongoing_requests=8, ray_actor_options={"num_cpus": self._cpus}
        )
        await asyncio.to_thread(self._serve.run, model.bind(version, self._load), name=self._app(version), route_prefix=None)

    async def _taken_over(self, version: str) -> None:
        """Wait until all routers that are heard of divide requests by this version of the split."""
        end = time.monotonic() + SILENT_SECONDS + 4 * SYNC_SECONDS
        while not await self._ask(self._book.is_known.remote(version, self._routers, SILENT_SECONDS)):
            if time.monotonic() > end:
                raise SplitUnreachableError(f"no router took over version {version} of the split", hint="`serve status` says how they are")
            await asyncio.sleep(SYNC_SECONDS / 2)

    async def _ask(self, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(30.0):
                return await call
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError, TimeoutError) as error:
            raise SplitUnreachableError(f"the split book of {self._name} does not answer: {error}", hint="is the Ray cluster up?") from None


def open_split(asked: BackendOptions) -> RayServeSplit:
    """Of `deploy canary --backend rayserve`.

    Raises:
        ConfigError: always: what a version's model is, a program says. Ray Serve is driven from Python.
    """
    raise ConfigError(
        "a split on Ray Serve is opened by the program that deploys the models, not by a command",
        hint="from cryptoalpha.lifecycle.rollout.ray_serve import RayServeSplit; docs/rollout.md shows how",
    )
