"""The versions that answer, and who answers what: models in their processes behind one router.

Loading and letting go never touch a request: a version is loaded and warm before the first request reaches it, and one that is let go
answers those who wait for it first. So a swap under load loses nothing.

What counts against a version is decided here: a full line, a deadline the client set, or a request that no model could answer is nobody's
failure. A window that the canary refuses and stable answers is the canary's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.lifecycle.rollout.router import Routed, Router
from cryptoalpha.lifecycle.rollout.split import CANARY, Split
from cryptoalpha.lifecycle.serving.config import ServingConfig
from cryptoalpha.lifecycle.serving.faults import BusyError, NoAnswerError, UnavailableError, UnfitWindowError
from cryptoalpha.lifecycle.serving.messages import ForecastAnswer
from cryptoalpha.lifecycle.serving.served_model import Reply, ServedModel
from cryptoalpha.lifecycle.serving.versions import Find
from cryptoalpha.lifecycle.serving.wire import Ask, Opening


class ChangeUnderWayError(ConfigError):
    """Versions are being changed by another request already."""


@dataclass(frozen=True)
class FleetLimits:
    """What the router needs to know. `late_seconds`, `slower_ratio`: see `tally.Epoch`."""

    late_seconds: float = 0.1
    slower_ratio: float = 3.0


class Fleet:
    """Use: `fleet = Fleet(…); await fleet.open("champion"); … ; await fleet.close()`.

    Args:
        find: versions by name.
        text: `signals.text` of this host, for the models' processes.
        now: UTC ns.
        say: told, in a line, what went wrong.
    """

    def __init__(
        self, find: Find, config: ServingConfig, *, text: Mapping[str, object], now: Callable[[], int], limits: FleetLimits = FleetLimits(),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self._find, self._config, self._text, self._now, self._limits, self._say = find, config, dict(text), now, limits, say
        self._models: dict[str, ServedModel] = {}
        self._changing = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self.router: Router[Reply] | None = None

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What is loaded, by id."""
        return self._models

    @property
    def split(self) -> Split:
        """Who answers which share.

        Raises:
            UnavailableError: before `open` is through.
        """
        return self.routing().split

    @property
    def stable(self) -> str:
        """Id of the version that answers as stable; empty while nothing is loaded."""
        return "" if self.router is None else self.router.split.stable

    @property
    def is_ready(self) -> bool:
        """Whether stable answers now."""
        return self.router is not None and (model := self._models.get(self.stable)) is not None and model.is_ready

    @property
    def waiting(self) -> int:
        """Requests in line, of all models."""
        return sum(model.waiting for model in self._models.values())

    async def open(self, stable: str, canary: str = "") -> None:
        """Load the version that answers, and one beside it that answers nothing until the split says so.

        Raises:
            ConfigError: if there is no such version.
            ModelError: if one cannot be loaded.
        """
        found = await asyncio.to_thread(self._find, stable)
        await self._prepare(found.id)
        self.router = Router(
            stable=found.id, salt=found.id, now=self._now, check=lambda reply: reply.fault, differ=contradict, prepare=self._prepare,
            release=self._release, late_seconds=self._limits.late_seconds, slower_ratio=self._limits.slower_ratio,
            timeout_seconds=self._config.deadline_seconds, canary_seconds=self._config.deadline_seconds / 2.0,
            once_per_seconds=60.0, uncounted=(NoAnswerError,),
        )  # fmt: skip
        if canary:
            await self.ensure(found.id, canary)

    async def answer(self, key: str, question: Ask) -> Routed[Reply]:
        """Have a request answered by the version its key belongs to.

        Raises:
            NoAnswerError: if nobody could; see `faults`.
            ModelError: if stable failed.
        """
        router = self.routing()

        async def call(version: str) -> Reply:
            return await self._ask(version, question)

        try:
            return await router.answer(key, call)
        except BusyError:
            split = router.split
            if router.assign(key) != CANARY or split.shadow:
                raise
            return Routed(await call(split.stable), split.stable, "stable", fell_back=True, cause="busy")

    async def ensure(self, stable: str, canary: str) -> Split:
        """Have both versions loaded; all requests go to stable unless this very pair is being rolled out. As `TrafficSplit.ensure`.

        Raises:
            ChangeUnderWayError: if versions are being changed.
            ConfigError, ModelError: if one cannot be found or loaded; nothing has changed then.
        """
        ids = [(await asyncio.to_thread(self._find, name)).id for name in (stable, canary)]
        async with self._change():
            try:
                return await self.routing().ensure(*ids)
            finally:
                self._let_go()

    async def finish(self, winner: str) -> Split:
        """End a rollout. As `TrafficSplit.finish`."""
        async with self._change():
            await self.routing().finish(winner)
            self._let_go()
            return self.split

    async def swap(self, version: str) -> Split:
        """Let another version answer as stable: loaded, warm, then at once for every request that comes; the old one answers who waits.

        Raises:
            ChangeUnderWayError: if a rollout or another change is under way.
            ConfigError, ModelError: if it cannot be found or loaded; nothing has changed then.
        """
        found = await asyncio.to_thread(self._find, version)
        async with self._change():
            router = self.routing()
            if router.split.canary:
                raise ChangeUnderWayError(
                    f"version {router.split.canary} is being rolled out", hint="finish that first: POST /v1/split/finish"
                )
            if found.id != router.split.stable:
                try:
                    await router.ensure(router.split.stable, found.id)
                    await router.finish(CANARY)
                finally:
                    self._let_go()
            return self.split

    async def close(self) -> None:
        """Answer who waits, then end every process."""
        if self.router is not None:
            await self.router.drain()
        for version in list(self._models):
            await self._release(version)
        while self._ending:
            await asyncio.wait(self._ending)

    def routing(self) -> Router[Reply]:
        """Who answers what.

        Raises:
            UnavailableError: before `open` is through.
        """
        if self.router is None:
            raise UnavailableError("the first version is being loaded", hint="ask again when /readyz says so")
        return self.router

    def _change(self) -> asyncio.Lock:
        if self._changing.locked():
            raise ChangeUnderWayError("versions are being changed already", hint="ask again when that is through")
        return self._changing

    async def _ask(self, version: str, question: Ask) -> Reply:
        """One version's reply; stable's where that version was let go meanwhile. The canary may not refuse what stable answers."""
        model = self._models.get(version) or self._models.get(self.stable)
        if model is None:
            raise UnavailableError(f"version {version} is not loaded", hint="see /v1/versions")
        try:
            return await model.ask(question)
        except UnavailableError as error:
            if version == self.stable:
                raise
            raise ModelError(str(error)) from error
        except UnfitWindowError as error:
            if version == self.stable or (stable := self._models.get(self.stable)) is None:
                raise
            await stable.ask(question)
            raise ModelError(f"the canary refuses a window that stable answers: {error}", hint=error.hint) from error

    async def _prepare(self, version: str) -> None:
        if version not in self._models:
            found = await asyncio.to_thread(self._find, version)
            opening = Opening(folder=str(found.folder), version=found.id, text=self._text)
            self._models[version] = await ServedModel.start(opening, self._config, self._say)

    async def _release(self, version: str) -> None:
        """Let a version go: no new request reaches it, those who wait are answered; nobody waits for that here."""
        model = self._models.pop(version, None)
        if model is not None:
            task = asyncio.create_task(model.retire())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _let_go(self) -> None:
        """Release what the split does not name: after a failed or superseded change."""
        named = {self.split.stable, self.split.canary}
        for version in [each for each in self._models if each not in named]:
            model = self._models.pop(version)
            task = asyncio.create_task(model.retire())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def contradict(stable: Reply, canary: Reply) -> bool:
    """Whether two answers to one request point opposite ways over all, or are not about the same assets."""
    one, other = stable.answer, canary.answer
    if one is None or other is None:
        return one is not other
    signals, others = _signals(one), _signals(other)
    if signals.keys() != others.keys():
        return True
    return sum(value * others[name] for name, value in signals.items()) < 0.0


def _signals(answer: ForecastAnswer) -> dict[str, float]:
    return {each.instrument: each.signal for each in answer.forecasts}
