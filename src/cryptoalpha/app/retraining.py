"""Campaigns of retraining, put together: which steps there are, what each needs, and the runner of `lifecycle.retrain` that does them.

    unseen                                         are there days left that no judgement has looked at? Else it ends here
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

from cryptoalpha.app.champion import code_commit, series_of_champions
from cryptoalpha.app.locked_days import locked_days, market_of
from cryptoalpha.app.period import Period
from cryptoalpha.app.registering import told_by
from cryptoalpha.app.retraining_child import Open, end_of, opened, planned_settings
from cryptoalpha.app.rolling_out import any_kill, rolling
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.train_all import STEPS
from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, DataMissingError, StoreLockedError
from cryptoalpha.core.time import SECOND, day_of, parse_time
from cryptoalpha.lifecycle.registry.registry import PLACE, ModelRegistry
from cryptoalpha.lifecycle.retrain.book import BOOK
from cryptoalpha.lifecycle.retrain.campaign import Campaign
from cryptoalpha.lifecycle.retrain.child import ChildStep
from cryptoalpha.lifecycle.retrain.runner import CampaignRunner
from cryptoalpha.lifecycle.retrain.step import Kind, Outcome, Step, Work
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.split import TrafficSplit
from cryptoalpha.lifecycle.rollout.state import RolloutState

LINE = "loop"
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
            self.book, self.steps(), plan=self.plan, config=self.settings.lifecycle.retrain, now=self.now, born=self.born,
            failing=self.take_back, tell=self.tell,
        )  # fmt: skip

    def steps(self) -> Mapping[Kind, Sequence[Step]]:
        """By kind of campaign, in order."""

        def apart(name: str) -> Step:
            return ChildStep(name, self.child, self.settings.lifecycle.retrain, self.stopped)

        usual = [
            *(apart(name) for name in STEPS), Named("register", self.register), apart("gates"), Named("canary", self.canary),
            Named("promote", self.promote),
        ]  # fmt: skip
        unseen = Named("unseen", self.unseen)
        return {"retrain": [unseen, *usual], "tune": [unseen, apart("tune"), *usual]}

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
            "commit": code_commit(),
            "settings": self.settings.model_dump(mode="json", exclude={"credentials"}),
        }
        dataset = self.open_data(self.settings, words)
        end = end_of(dataset)
        words["until"] = min(end, parse_time(source.until)) if source.until else end
        words["fingerprint"] = dataset.fingerprint
        known = dataset.known_until(words["until"])
        locked = locked_days(known, self.settings.lifecycle.gates.holdout_days, source.instruments)
        words["locked"] = {"market": market_of(dataset), "since": locked.since, "until": locked.until}
        return words

    def born(self) -> int | None:
        """When the champion was made."""
        champion = self.registry.champion(LINE)
        return None if champion is None else champion.created_at

    def unseen(self, work: Work) -> Outcome:
        """Refuse before hours of training what the last gate would refuse after them: its days were looked at already."""
        if "holdout" not in planned_settings(work).lifecycle.gates.required:
            return Outcome("done", "the gates ask for no unseen days")
        locked = work.plan["locked"]
        since, until = int(locked["since"]), int(locked["until"])
        look = self.registry.holdout_look(str(locked["market"]), since, until)
        if look is None:
            return Outcome("done", f"nobody has looked at {Period(since, until)}")
        free = look.until + (until - since) // 2  # not more than half of the days are shared then
        return Outcome(
            "refused",
            f"the days that would judge it, {Period(since, until)}, were looked at for version {look.by[:12]}; "
            f"with bars up to {day_of(free)} most of them are new",
        )

    def register(self, work: Work) -> Outcome:
        """The trained folder becomes a version; done twice it is the same one."""
        registry = self.registry
        parent = registry.champion_id(LINE)
        config = {key: value for key, value in work.plan.items() if key not in ("home", "data", "commit")}
        version = registry.register(
            work.folder / "models", line=LINE, data=str(work.plan["fingerprint"]) or "unknown", commit=str(work.plan["commit"]),
            config=config, seed=int(work.plan["seed"]), metrics=told_by(work.folder / "models", LINE).metrics, parent=parent,
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
        try:
            state, trouble = asyncio.run(self._look(self.split, str(registered["champion"]), version, by, work.begun_at))
        except StoreLockedError as error:
            return self._wait(str(error))
        if state.canary != version:
            return self._wait(f"rollout {state.id} of {state.canary} is under way; this one begins when it is over")
        if state.is_over:
            self.registry.unpin(version, by)
        if state.stage == "promoted":
            return _passed(state.reason)
        if state.stage == "rolled_back":
            return Outcome("refused", f"rolled back: {state.reason}")
        return self._wait(f"{state.stage} {state.step + 1}: {trouble or state.reason}")

    async def _look(self, split: TrafficSplit, stable: str, canary: str, holder: str, since: int) -> tuple[RolloutState, str]:
        """The rollout after one look at it, begun if there is none; that of another version if it is under way."""
        async with rolling(self.settings, self.home, split, say=self.tell, now=self.now, holder=holder) as controller:
            standing = _newest(controller)
            if standing is not None and _is_of(standing, canary, since):
                return await controller.step(), controller.trouble
            if standing is not None and not standing.is_over:
                return standing, ""
            return await controller.begin(stable, canary), controller.trouble

    def take_back(self, campaign: Campaign) -> None:
        """Nothing of a campaign that failed goes on: its rollout is taken back, its version is held no longer. Stands being done twice."""
        registered = campaign.results.get("register")
        if registered is None:
            return
        by, version = f"campaign {campaign.number}", str(registered["version"])

        async def abort(split: TrafficSplit) -> None:
            async with rolling(self.settings, self.home, split, say=self.tell, now=self.now, holder=by) as controller:
                standing = _newest(controller)
                if standing is not None and not standing.is_over and _is_of(standing, version, campaign.begun_at):
                    await controller.abort(f"{by} failed")
                    if controller.trouble:
                        self.tell(f"`deploy canary` goes on with taking it back: {controller.trouble}")

        if self.split is not None:
            try:
                asyncio.run(abort(self.split))
            except CryptoAlphaError as error:
                self.tell(f"its canary could not be taken back, `deploy canary --abort` does it by hand: {error}")
        self.registry.unpin(version, by)

    def _wait(self, words: str) -> Outcome:
        return Outcome("wait", words, again_at=self._next_look())

    def _next_look(self) -> int:
        return self.now() + round(self.settings.lifecycle.canary.look_seconds * SECOND)

    def promote(self, work: Work) -> Outcome:
        """Champion, unless somebody else became it meanwhile. No new model takes over while a kill stands."""
        registered = work.results["register"]
        if any_kill(self.home):
            return self._wait("a kill stands: no new model takes over before `cryptoalpha resume`")
        reason = f"campaign {work.campaign} ({work.cause}): the gates let it pass; canary: {work.results['canary']['words']}"
        try:
            version = self.registry.promote(LINE, str(registered["version"]), expected=str(registered["champion"]) or None, reason=reason)
        except ConfigError as error:
            return Outcome("refused", str(error))
        if self.settings.lifecycle.registry.follow:
            series_of_champions(self.home, now=self.now)
        return Outcome("done", f"version {version.short} is champion", {"version": version.id})


def _newest(controller: CanaryController) -> RolloutState | None:
    try:
        return controller.state
    except DataMissingError:
        return None


def _is_of(state: RolloutState, canary: str, since: int) -> bool:
    """Whether a campaign that began then, with this version, began this rollout."""
    return state.canary == canary and state.started_at >= since


def _passed(words: str) -> Outcome:
    """Done, its words kept for the reason of the promotion."""
    return Outcome("done", words, {"words": words})
