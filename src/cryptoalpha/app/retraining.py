"""Campaigns of retraining, put together: which steps there are, what each needs, and the runner of `lifecycle.retrain` that does them.

    (tune)                                         settings searched, where a judgement refused the campaign before
    regime, forecaster, genome, fusion, agent      `train all`, a process each, in a folder of the campaign
    register                                       a version of the line `loop`, child of the champion
    gates                                          `lifecycle.gates`, the as-of shadow run among them
    canary                                         shadow traffic, then 5, 10, 25, 50, 100 % of the requests that `serve` answers
    promote                                        champion, if the one that it was compared with still is

Where nothing serves there is no traffic to divide; the canary says so and is passed over. The first version of a line has nobody to stand
beside; it is promoted when the gates let it pass.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptoalpha.app.champion import series_of_champions
from cryptoalpha.app.retraining_child import Open, end_of, opened
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.summary import code_version
from cryptoalpha.app.train_all import STEPS
from cryptoalpha.core.errors import ConfigError, StoreLockedError
from cryptoalpha.core.time import SECOND, parse_time
from cryptoalpha.lifecycle.registry.registry import PLACE, ModelRegistry
from cryptoalpha.lifecycle.retrain.book import BOOK
from cryptoalpha.lifecycle.retrain.child import ChildStep
from cryptoalpha.lifecycle.retrain.runner import CampaignRunner
from cryptoalpha.lifecycle.retrain.step import Kind, Outcome, Step, Work
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.split import TrafficSplit

LINE = "loop"
ROLLOUTS = Path("lifecycle") / "rollout.sqlite"
CHILD = (sys.executable, "-m", "cryptoalpha.app.retraining_child")


@dataclass(frozen=True)
class Source:
    """Which data a campaign learns from, as a verb is asked for them. `until` is an ISO date; None: all there is when it begins."""

    data: Path | None = None
    simulated: bool = False
    interval: str = "1h"
    instruments: tuple[str, ...] | None = None
    until: str | None = None


@dataclass(frozen=True)
class Named:
    """A step made of a function."""

    name: str
    do: Callable[[Work], Outcome]

    def __call__(self, work: Work) -> Outcome:
        return self.do(work)


@dataclass(frozen=True)
class Retraining:
    """What campaigns of one home are made of.

    Args:
        split: where requests are divided; None: nothing serves.
        open_data: how data are opened; whoever changes it changes `child` with it.
        now: UTC ns.
        child: what starts a step's process.
        stopped: asked while such a process works.
    """

    settings: Settings
    home: Path
    source: Source
    now: Callable[[], int]
    split: TrafficSplit | None = None
    open_data: Open = opened
    child: Sequence[str] = CHILD
    stopped: Callable[[], bool] = lambda: False
    tell: Callable[[str], None] = lambda words: None

    @property
    def book(self) -> Path:
        return self.home / BOOK

    @property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(self.home / PLACE, now=self.now)

    def runner(self) -> CampaignRunner:
        """Runs them."""
        return CampaignRunner(
            self.book, self.steps(), plan=self.plan, config=self.settings.lifecycle.retrain, now=self.now, born=self.born, tell=self.tell
        )

    def steps(self) -> Mapping[Kind, Sequence[Step]]:
        """By kind of campaign, in order."""

        def apart(name: str) -> Step:
            return ChildStep(name, self.child, self.settings.lifecycle.retrain, self.stopped)

        usual = [
            *(apart(name) for name in STEPS), Named("register", self.register), apart("gates"), Named("canary", self.canary),
            Named("promote", self.promote),
        ]  # fmt: skip
        return {"retrain": usual, "tune": [apart("tune"), *usual]}

    def plan(self, kind: Kind, cause: str, at: int) -> Mapping[str, Any]:
        """All that a campaign depends on, fixed when it begins."""
        source = self.source
        words: dict[str, Any] = {
            "home": str(self.home.resolve()),
            "data": str(source.data.resolve()) if source.data else "",
            "simulated": source.simulated,
            "interval": source.interval,
            "instruments": list(source.instruments) if source.instruments else None,
            "seed": self.settings.engine.seed,
            "commit": code_version(),
            "settings": self.settings.model_dump(mode="json", exclude={"credentials"}),
        }
        dataset = self.open_data(self.settings, words)
        end = end_of(dataset)
        words["until"] = min(end, parse_time(source.until)) if source.until else end
        words["fingerprint"] = dataset.fingerprint
        return words

    def born(self) -> int | None:
        """When the champion was made."""
        champion = self.registry.champion(LINE)
        return None if champion is None else champion.created_at

    def register(self, work: Work) -> Outcome:
        """The trained folder becomes a version; done twice it is the same one."""
        registry = self.registry
        parent = registry.champion_id(LINE)
        config = {key: value for key, value in work.plan.items() if key not in ("home", "data", "commit")}
        version = registry.register(
            work.folder / "models", line=LINE, data=str(work.plan["fingerprint"]) or "unknown", commit=str(work.plan["commit"]),
            config=config, seed=int(work.plan["seed"]), metrics={}, parent=parent,
        )  # fmt: skip
        return Outcome("done", f"version {version.short}", {"version": version.id, "champion": parent or ""})

    def canary(self, work: Work) -> Outcome:
        """Look once at the rollout of the version, and begin it if it has not begun."""
        registered = work.results["register"]
        if not registered["champion"]:
            return _passed("the first of its line: there is nobody to divide requests with")
        if self.split is None:
            return _passed("nothing serves (no --serve): there are no requests to divide")
        by, version = f"campaign {work.campaign}", str(registered["version"])
        self.registry.pin(version, by)
        with RolloutBook(self.home / ROLLOUTS) as book:
            controller = CanaryController(self.split, book, self.settings.lifecycle.canary, now=self.now, say=self.tell)
            try:
                state = asyncio.run(self._look(controller, book, str(registered["champion"]), version, work.begun_at))
            except StoreLockedError as error:
                return Outcome("wait", str(error), again_at=self._next_look())
        if state.is_over:
            self.registry.unpin(version, by)
        if state.stage == "promoted":
            return _passed(state.reason)
        if state.stage == "rolled_back":
            return Outcome("refused", f"rolled back: {state.reason}")
        return Outcome("wait", f"{state.stage} {state.step + 1}: {controller.trouble or state.reason}", again_at=self._next_look())

    async def _look(self, controller: CanaryController, book: RolloutBook, stable: str, canary: str, since: int) -> Any:
        standing = book.newest("inference")
        if standing is None or standing.canary != canary or standing.started_at < since:
            return await controller.begin(stable, canary)
        return await controller.step()

    def _next_look(self) -> int:
        return self.now() + round(self.settings.lifecycle.canary.look_seconds * SECOND)

    def promote(self, work: Work) -> Outcome:
        """Champion, unless somebody else became it meanwhile."""
        registered = work.results["register"]
        reason = f"campaign {work.campaign} ({work.cause}): the gates let it pass; canary: {work.results['canary']['words']}"
        try:
            version = self.registry.promote(LINE, str(registered["version"]), expected=str(registered["champion"]) or None, reason=reason)
        except ConfigError as error:
            return Outcome("refused", str(error))
        if self.settings.lifecycle.registry.follow:
            series_of_champions(self.home, now=self.now)
        return Outcome("done", f"version {version.short} is champion", {"version": version.id})


def _passed(words: str) -> Outcome:
    """Done, its words kept for the reason of the promotion."""
    return Outcome("done", words, {"words": words})
