"""Runs campaigns: begins one when something asks for it and time allows, does its steps one after the other, and survives being killed.

Every call of `tick` does at most one step and says when there is something to do again. Nothing sleeps here and no clock is read but the
one that is handed in: `cryptoalpha retrain --watch` is this in a loop with a pause.

What waits is answered by one campaign: several alarms, one training. A person's wish overrules the cooldown. A judgement that refuses a
retrained candidate asks for a search of settings (cause `gate`), whose campaign trains what was found best and is judged as any other;
refused again, it asks for nothing: there is a cooldown between searches, and a budget for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptoalpha.core.errors import CryptoAlphaError, ModelError
from cryptoalpha.core.time import DAY, MINUTE
from cryptoalpha.lifecycle.retrain.campaign import (
    Campaign,
    begin_campaign,
    begin_step,
    campaigns,
    close_campaign,
    end_step,
    fail_step,
    open_campaign,
)
from cryptoalpha.lifecycle.retrain.config import RetrainConfig
from cryptoalpha.lifecycle.retrain.flight import single_flight
from cryptoalpha.lifecycle.retrain.step import Kind, Outcome, Result, Step, Work
from cryptoalpha.lifecycle.retrain.triggers import Trigger, propose, waiting

MOST_BEGUN = 50
"""Times a step is begun without ever answering before it counts as failed: whoever runs it is killed by it."""

TUNE_CAUSE = "gate"
Did = Literal["nothing", "began", "step", "waits", "failed", "ended"]


@dataclass(frozen=True)
class Standing:
    """What a tick did, in a word and in words; `again_at` (UTC ns) is when the next may find something to do, None: when something asks."""

    did: Did
    words: str
    campaign: Campaign | None = None
    again_at: int | None = None


class CampaignRunner:
    """One for each process that may run campaigns.

    Args:
        path: the book.
        steps: by kind of campaign, in order; their names are kept in the book.
        plan: what a new campaign is to do, JSON values, fixed when it begins.
        config: cooldowns, attempts.
        now: UTC ns.
        judges: names of the steps whose refusal asks for a search of settings.
        born: when the champion was made, UTC ns; None if there is none. Asked only where campaigns are due by schedule.
        failing: told of a campaign before it is closed as failed, again after a kill: takes back what its steps had begun.
    """

    def __init__(
        self,
        path: Path,
        steps: Mapping[Kind, Sequence[Step]],
        *,
        plan: Callable[[Kind, str, int], Result],
        config: RetrainConfig,
        now: Callable[[], int],
        judges: Sequence[str] = ("gates",),
        born: Callable[[], int | None] = lambda: None,
        failing: Callable[[Campaign], None] = lambda campaign: None,
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.path, self._steps, self._plan, self._config = path, steps, plan, config
        self._now, self._judges, self._born, self._tell = now, frozenset(judges), born, tell
        self._failing = failing

    @property
    def lock(self) -> Path:
        """The file that single flight is about."""
        return self.path.with_suffix(".lock")

    def tick(self) -> Standing:
        """Go one step on.

        Raises:
            StoreLockedError: if another process runs a campaign.
            StoreError: if the book cannot be written.
        """
        with single_flight(self.lock) as flight:
            campaign = open_campaign(self.path)
            if campaign is None:
                return self._begin()
            return self._go_on(campaign, flight)

    def run(self) -> Standing:
        """Tick until the campaign is over, must wait, or there was none to begin."""
        while True:
            standing = self.tick()
            if standing.did not in ("began", "step") and (
                standing.did != "failed" or standing.again_at is None or standing.again_at > self._now()
            ):
                return standing

    def _begin(self) -> Standing:
        now = self._now()
        self._by_schedule(now)
        asked = waiting(self.path)
        kind, causes, again_at = self._due(asked, now)
        if kind is None:
            words = "nothing asks for retraining" if not asked else f"{len(asked)} reasons to retrain wait for the cooldown"
            return Standing("nothing", words, again_at=again_at)
        first = next(one for one in asked if one.cause in causes)
        plan, names = self._plan(kind, first.cause, now), [step.name for step in self._steps[kind]]
        campaign = begin_campaign(self.path, kind, first.cause, now, plan, names, answers=causes)
        words = f"campaign {campaign.number} ({kind}) begins: {first.cause} {first.subject} {first.detail}".strip()
        self._tell(words)
        return Standing("began", words, campaign, now)

    def _due(self, asked: Sequence[Trigger], now: int) -> tuple[Kind | None, tuple[str, ...], int | None]:
        """What kind of campaign may begin now, and which causes it answers; else when one may."""
        past = campaigns(self.path)
        searched = _last(past, lambda one: one.kind == "tune")
        ended = _last(past, lambda one: True)
        search = [one for one in asked if one.cause == TUNE_CAUSE]
        usual = tuple(sorted({one.cause for one in asked if one.cause != TUNE_CAUSE}))
        free_at = now if ended is None or "hand" in usual else max(now, ended + round(self._config.cooldown_days * DAY))
        search_at = now if searched is None else max(now, searched + round(self._config.tune_cooldown_days * DAY))
        if usual and free_at <= now:
            return "retrain", usual, now
        if search and search_at <= now:  # it is the answer to a campaign's end, so that end does not hold it back
            return "tune", (TUNE_CAUSE,), now
        later = [at for at, is_asked in ((free_at, usual), (search_at, search)) if is_asked]
        return None, (), min(later, default=None)

    def _by_schedule(self, now: int) -> None:
        """Ask for retraining when the champion is of age."""
        days = self._config.every_days
        if not days:
            return
        past = campaigns(self.path, last=1)
        since = past[0].begun_at if past else self._born()
        if since is None or now - since >= days * DAY:
            propose(self.path, "schedule", now, f"every {days:g} days")

    def _go_on(self, campaign: Campaign, flight: int) -> Standing:
        now, row = self._now(), campaign.next_step
        if row is None:
            return self._end(campaign, "promoted", campaign.steps[-1].words if campaign.steps else "")
        if row.again_at is not None and row.again_at > now:
            return Standing("waits", f"{row.name}: {row.words}", campaign, row.again_at)
        step = next((one for one in self._steps.get(_kind(campaign.kind), ()) if one.name == row.name), None)
        if step is None or row.begun >= MOST_BEGUN:
            why = "there is no such step in this version" if step is None else f"begun {row.begun} times and never ended"
            return self._end(campaign, "failed", f"{row.name}: {why}")
        begin_step(self.path, campaign.number, row.name, now)
        work = Work(
            campaign.number, campaign.kind, campaign.cause, campaign.begun_at, self.folder(campaign.number), campaign.plan,
            campaign.results, flight,
        )  # fmt: skip
        self._tell(f"campaign {campaign.number}: {row.name}")
        try:
            outcome = step(work)
        except CryptoAlphaError as error:
            return self._failed(campaign, row.name, row.failed, f"{type(error).__name__}: {error}")
        return self._ended(campaign, row.name, outcome)

    def folder(self, campaign: int) -> Path:
        """Where the files of a campaign lie."""
        return self.path.parent / "campaigns" / f"{campaign:04d}"

    def _failed(self, campaign: Campaign, name: str, before: int, words: str) -> Standing:
        again_at = self._now() + round(self._config.retry_minutes * 2**before * MINUTE)
        failed = fail_step(self.path, campaign.number, name, words, again_at=again_at)
        if failed >= self._config.attempts:
            return self._end(campaign, "failed", f"{name} failed {failed} times, at last: {words}")
        return Standing("failed", f"{name}: {words}", open_campaign(self.path), again_at)

    def _ended(self, campaign: Campaign, name: str, outcome: Outcome) -> Standing:
        now = self._now()
        if outcome.verdict == "wait" and outcome.again_at is None:
            raise ModelError(f"step {name} waits and does not say until when", hint="give Outcome.again_at, UTC ns")
        asks = name in self._judges and campaign.kind == "retrain" and self._config.tune_trials > 0 and outcome.asks
        end_step(self.path, campaign.number, name, now, outcome, asks=TUNE_CAUSE if asks else "")
        if outcome.verdict == "refused":
            return Standing("ended", f"refused by {name}: {outcome.words}", campaigns(self.path, last=1)[0], now)
        standing = open_campaign(self.path)
        if outcome.verdict == "wait":
            return Standing("waits", f"{name}: {outcome.words}", standing, outcome.again_at)
        return Standing("step", f"{name}: {outcome.words}", standing, now)

    def _end(self, campaign: Campaign, outcome: Literal["promoted", "failed"], words: str) -> Standing:
        if outcome == "failed":
            self._failing(campaign)
        close_campaign(self.path, campaign.number, self._now(), outcome, words)
        return Standing("ended", f"{outcome}: {words}", campaigns(self.path, last=1)[0], self._now())


def _last(past: Sequence[Campaign], of: Callable[[Campaign], bool]) -> int | None:
    """When the newest campaign of some sort ended, UTC ns."""
    return max((one.ended_at for one in past if one.ended_at is not None and of(one)), default=None)


def _kind(kind: str) -> Kind:
    return "tune" if kind == "tune" else "retrain"
