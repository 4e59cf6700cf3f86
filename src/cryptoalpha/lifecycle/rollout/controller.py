"""The canary controller: one look at a time, it moves a rollout from shadow over 5, 10, 25, 50, 100 % to promoted, or back.

`step` is driven by whoever has a clock; it never sleeps. Each transition is in the book before the split is written and after, so a
controller that is killed anywhere is followed by one that finds out from the split what happened, and goes on. Money is not asked: only
failures, latency, parity and labels are; a rollback touches no position.

    nobody answers          nothing changes; the next look tries again (`trouble` says so)
    the write was lost      written again, `write_attempts` times, then held
    409, weights of others  hold: a person decides (`resume`, `abort`). Only a rollback overrules other hands: everything to stable is safe
    two controllers         one has the lease, the other a StoreLockedError

Source: design facts §9. The tests are in `evidence`, what follows from them in `judgement`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError, ModelError
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.judgement import Case, judge
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, Split, SplitConflictError, SplitUnreachableError, TrafficSplit
from cryptoalpha.lifecycle.rollout.state import Carried, Intent, RolloutState, Stage, Target, after, target_of

_SECOND, _HOUR = 1_000_000_000, 3_600_000_000_000


class CanaryController:
    """Moves one rollout at a time.

    Args:
        split: the back end.
        book: where every transition is kept.
        config: steps, error rates, patience.
        now: UTC ns.
        guards: what must hold before a step is left, by name; asked at every look.
        holder: who this controller is, for the lease; every process has another one.
        name: what is rolled out; one rollout per name at a time.
        say: told every transition in one line.
    """

    def __init__(
        self, split: TrafficSplit, book: RolloutBook, config: CanaryConfig, *, now: Callable[[], int],
        guards: Callable[[], Mapping[str, bool]] = dict, holder: str = "", name: str = "inference",
        say: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        self._split, self._book, self._config, self._now, self._guards, self._say = split, book, config, now, guards, say
        self._holder = holder or f"{socket.gethostname()}-{os.getpid()}-{now():x}"
        self._name = name
        self.trouble = ""
        """Why the last step could do nothing, if so."""

    @property
    def state(self) -> RolloutState:
        """The newest rollout of this name.

        Raises:
            DataMissingError: if there never was one.
        """
        found = self._book.newest(self._name)
        if found is None:
            raise DataMissingError(f"nothing of the name {self._name} was ever rolled out", hint="begin with `deploy canary --canary ID`")
        return found

    async def begin(self, stable: str, canary: str) -> RolloutState:
        """Start a rollout and take its first step.

        Raises:
            ConfigError: if one is under way, or both are the same version.
        """
        if stable == canary:
            raise ConfigError(f"version {stable} cannot be its own canary", hint="name another version")
        now = self._now()
        stage, step = after("idle", -1, self._config.steps, shadow=self._config.shadow)
        first = self._intent(stage, step, f"{canary} is tried beside {stable}", now=now, prepares=True)
        self._book.begin(self._name, stable, canary, first, now=now)
        return await self.step()

    async def step(self) -> RolloutState:
        """Look once, and do what follows from it. A rollout that is over stays as it is.

        Raises:
            StoreLockedError: if another controller has the lease.
            DataMissingError: if there is no rollout.
        """
        state, intent = self._take()
        self.trouble = ""
        if intent is None and state.is_over:
            return state
        try:
            if intent is None:
                intent, state = await self._look(state)
                if intent is None:
                    return state
                self._book.intend(state, intent, holder=self._holder)
            return await self._carry_out(state, intent)
        except (SplitUnreachableError, SplitConflictError) as error:  # also: versions are being changed by another hand just now
            self.trouble = str(error)
            return state

    async def abort(self, reason: str) -> RolloutState:
        """A person ends it: everything back to stable.

        Raises:
            ConfigError: if it is over.
        """
        return await self._ordered("rolled_back", -1, f"by hand: {reason}", prepares=False)

    async def resume(self, reason: str) -> RolloutState:
        """A person ends a hold: the stage begins anew, with its weights and fresh counts.

        Raises:
            ConfigError: if it is not on hold.
        """
        state = self.state
        if state.stage != "hold" or state.held_from is None:
            raise ConfigError(f"rollout {state.id} is not on hold but {state.stage}", hint="there is nothing to resume")
        return await self._ordered(state.held_from, state.step, f"by hand: {reason}", prepares=True)

    def release(self) -> None:
        """Let another controller go on at once."""
        self._book.release(self.state.id, self._holder)

    async def _ordered(self, stage: Stage, step: int, reason: str, *, prepares: bool) -> RolloutState:
        state, _ = self._take()
        if state.is_over:
            raise ConfigError(f"rollout {state.id} is over: {state.stage}", hint="begin another one")
        self._book.intend(state, self._intent(stage, step, reason, now=self._now(), prepares=prepares), holder=self._holder)
        return await self.step()

    def _take(self) -> tuple[RolloutState, Intent | None]:
        """The lease, and the rollout as it stands."""
        rollout, now = self.state.id, self._now()
        self._book.lease(rollout, self._holder, now=now, until=now + int(self._config.lease_seconds * _SECOND))
        return self._book.read(rollout)

    def _intent(
        self, stage: Stage, step: int, reason: str, *, now: int, evidence: Mapping[str, float] | None = None, prepares: bool = False
    ) -> Intent:
        target = target_of(stage, step, self._config.steps)
        return Intent(
            stage=stage, step=step, target=target, reason=reason, evidence=dict(evidence or {}), decided_at=now, prepares=prepares
        )

    # --- looking ---

    async def _look(self, state: RolloutState) -> tuple[Intent | None, RolloutState]:
        """What the split and the counts ask for: a transition, or None and the state with what was seen."""
        split, now = await self._split.read(), self._now()
        if not _is_ours(split, state):
            return self._found_foreign(state, split, now)
        if split.version != state.version:  # touched, but divided as before: what was counted since then is what is known
            newer = split.since > state.since
            state = replace(
                state, version=split.version, since=max(split.since, state.since), carried=Carried() if newer else state.carried
            )
        counts = await self._split.counts(state.since)
        if counts[CANARY].requests < state.carried.requests:
            return _hold(state, "counts went backwards: what counts them was restarted", now), state
        labels = (await self._split.counts(state.first_since))[CANARY].brier
        case = Case(
            state=state, counts=counts, brier=[score for _, score in labels], now=now, guards=self._guards(), config=self._config
        )  # fmt: skip
        found = judge(case)
        seen = replace(state, carried=found.carried, evidence=found.evidence, held_by_hand=False)
        if state.stage == "hold":
            too_long = now - state.entered_at > self._config.hold_hours * _HOUR
            if found.action == "back" or too_long:
                reason = found.reason if found.action == "back" else f"held for {self._config.hold_hours:g} hours: {state.reason}"
                return self._intent("rolled_back", state.step, reason, now=now, evidence=found.evidence), seen
        elif found.action == "advance":
            stage, step = after(state.stage, state.step, self._config.steps, shadow=self._config.shadow)
            return self._intent(stage, step, found.reason, now=now, evidence=found.evidence), seen
        elif found.action == "back":
            return self._intent("rolled_back", state.step, found.reason, now=now, evidence=found.evidence), seen
        elif found.action == "hold":
            return _hold(seen, found.reason, now), seen
        else:
            seen = replace(seen, reason=found.reason)
        self._book.keep(seen, holder=self._holder)
        return None, seen

    def _found_foreign(self, state: RolloutState, split: Split, now: int) -> tuple[Intent | None, RolloutState]:
        """The split is not what it was set to."""
        if state.stage == "hold":
            state = replace(state, held_by_hand=True)
            self._book.keep(state, holder=self._holder)
            return None, state
        return _hold(state, f"another hand set the split to {_words(split)}, not {_words(state.target)}", now), replace(
            state, held_by_hand=True
        )

    # --- acting ---

    async def _carry_out(self, state: RolloutState, intent: Intent) -> RolloutState:
        """Do what is written down, or find that it was done; then write down that it was."""
        if intent.stage == "hold":
            return self._settled(state, intent, None)
        if intent.prepares:
            try:
                split = await self._split.ensure(state.stable, state.canary)
                state = replace(state, stable=split.stable or state.stable, canary=split.canary or state.canary)  # prefixes become ids
            except (ModelError, ConfigError, DataError) as error:
                reason = f"not both versions can answer: {error}"
                intent = self._intent("rolled_back", state.step, reason, now=self._now())
                self._book.intend(state, intent, holder=self._holder)
                split = await self._split.read()
        else:
            split = await self._split.read()
        if intent.stage in ("promoted", "rolled_back"):
            return await self._end(state, intent, split)
        placed = await self._placed(state, intent, split)
        if placed is None:
            return self.state
        return self._settled(state, intent, placed)

    async def _end(self, state: RolloutState, intent: Intent, split: Split) -> RolloutState:
        """Everything to the winner, and the other may go."""
        winner, version = (CANARY, state.canary) if intent.stage == "promoted" else (STABLE, state.stable)
        everything_to_stable = split.is_set({STABLE: 1.0}, shadow=False)
        if not (split.stable == version and not split.canary and everything_to_stable):  # else it was finished before a kill
            # where a back end names no versions, everything to stable is what `finish` left behind, and asking again changes nothing
            if not (split.is_set(intent.target.weights, shadow=False) or (everything_to_stable and not split.stable)):
                placed = await self._placed(state, intent, split)
                if placed is None:
                    return self.state
            await self._split.finish(winner)
        return self._settled(state, intent, None)

    async def _placed(self, state: RolloutState, intent: Intent, split: Split) -> Split | None:
        """The split as intended: written now, or found so. None: not yet, or held; the book says which."""
        target = intent.target
        if split.is_set(target.weights, shadow=target.shadow) and split.version != state.version and not intent.prepares:
            return split  # written by one who was killed before it could say so
        if not (_is_ours(split, state) or intent.prepares or intent.stage == "rolled_back"):
            self._held(replace(state, held_by_hand=True), f"another hand set the split to {_words(split)}")
            return None
        try:
            await self._split.write(target.weights, expected_version=split.version, shadow=target.shadow)
            why = "the write was lost"
        except SplitConflictError as error:
            why = str(error)
        found = await self._split.read()
        is_set = found.is_set(target.weights, shadow=target.shadow)
        if is_set and (found.version != split.version or target == state.target):  # some back ends take equal weights for no change
            return found
        self._again(state, replace(intent, attempts=intent.attempts + 1), found, why)
        return None

    def _again(self, state: RolloutState, intent: Intent, found: Split, why: str) -> None:
        """Weights did not stay: leave the intention open for the next step, or hold."""
        self.trouble = f"{why}; the split is {_words(found)}, not {_words(intent.target)}"
        if intent.stage == "rolled_back" or (_is_ours(found, state) and intent.attempts < self._config.write_attempts):
            self._book.intend(state, intent, holder=self._holder)
        else:
            self._held(replace(state, held_by_hand=not _is_ours(found, state)), self.trouble)

    def _held(self, state: RolloutState, reason: str) -> None:
        """Hold instead of what was intended."""
        held = _hold(state, reason, self._now())
        self._book.intend(state, held, holder=self._holder)
        self._settled(state, held, None)

    def _settled(self, state: RolloutState, intent: Intent, split: Split | None) -> RolloutState:
        """The transition has happened."""
        now, holds = self._now(), intent.stage == "hold"
        after_it = replace(
            state, stage=intent.stage, step=intent.step, target=intent.target, reason=intent.reason, entered_at=now,
            version=split.version if split else state.version, since=split.since if split else state.since,
            first_since=state.first_since or (split.since if split else 0), evidence=intent.evidence,
            held_from=(state.held_from or state.stage) if holds else None, held_by_hand=state.held_by_hand and holds,
            carried=state.carried if holds else Carried(),
        )  # fmt: skip
        self._book.settle(after_it, holder=self._holder, now=now)
        self._say(f"{state.canary}: {_place(state)} → {_place(after_it)}: {intent.reason}")
        return after_it


def _is_ours(split: Split, state: RolloutState) -> bool:
    """Whether requests are divided as this rollout set it, between its versions."""
    same_pair = split.canary in ("", state.canary) and split.stable in ("", state.stable)
    return same_pair and split.is_set(state.target.weights, shadow=state.target.shadow)


def _words(split: Split | Target) -> str:
    return f"{split.weights.get(CANARY, 0.0):.1%} to the canary{' and shadow' if split.shadow else ''}"


def _place(state: RolloutState) -> str:
    return f"{state.target.weights.get(CANARY, 0.0):.0%}" if state.stage == "step" else state.stage


def _hold(state: RolloutState, reason: str, now: int) -> Intent:
    """To keep what there is, and wait for a person."""
    return Intent(stage="hold", step=state.step, target=state.target, reason=reason, evidence=state.evidence, decided_at=now)
