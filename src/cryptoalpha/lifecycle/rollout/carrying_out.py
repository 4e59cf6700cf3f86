"""Carrying out what a controller decided: the split is written as intended, or found so, and the book says that it happened.

Who was killed is followed by one who finds an open intention here and looks at the split to see how far it was carried out. The lease is
checked right before the back end is changed, so a controller whose lease a person took writes nothing more.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from cryptoalpha.core.errors import ConfigError, DataError, ModelError
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, Split, SplitConflictError, SplitRefusedError, TrafficSplit
from cryptoalpha.lifecycle.rollout.state import Carried, Intent, RolloutState, Stage, Target, target_of


class Carrier:
    """The hands of a controller: see `CanaryController` for what it is given."""

    def __init__(
        self,
        split: TrafficSplit,
        book: RolloutBook,
        config: CanaryConfig,
        *,
        now: Callable[[], int],
        holder: str,
        say: Callable[[str], None],
    ) -> None:
        self._split, self._book, self._config, self._now, self._say = split, book, config, now, say
        self._holder = holder or f"{socket.gethostname()}-{os.getpid()}-{now():x}"
        self.trouble = ""
        """Why the last step could do nothing, if so."""

    def _intent(
        self, stage: Stage, step: int, reason: str, *, now: int, evidence: Mapping[str, float] | None = None, prepares: bool = False
    ) -> Intent:
        target = target_of(stage, step, self._config.steps)
        return Intent(
            stage=stage, step=step, target=target, reason=reason, evidence=dict(evidence or {}), decided_at=now, prepares=prepares
        )

    async def _carry_out(self, state: RolloutState, intent: Intent) -> RolloutState:
        """Do what is written down, or find that it was done; then write down that it was."""
        if intent.stage == "hold":
            return self._settled(state, intent, None)
        if intent.prepares:
            self._book.check(state.id, self._holder)
            try:
                split = await self._split.ensure(state.stable, state.canary)
                state = replace(state, stable=split.stable or state.stable, canary=split.canary or state.canary)  # prefixes become ids
            except SplitRefusedError:
                raise
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
            return self._book.read(state.id)[0]
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
                    return self._book.read(state.id)[0]
            self._book.check(state.id, self._holder)
            await self._split.finish(winner)
        return self._settled(state, intent, None)

    async def _placed(self, state: RolloutState, intent: Intent, split: Split) -> Split | None:
        """The split as intended: written now, or found so. None: not yet, or held; the book says which."""
        target = intent.target
        if split.is_set(target.weights, shadow=target.shadow) and split.version != state.version and not intent.prepares:
            return split  # written by one who was killed before it could say so
        if not (is_ours(split, state) or intent.prepares or intent.stage == "rolled_back"):
            self._held(replace(state, held_by_hand=True), f"another hand set the split to {in_words(split)}")
            return None
        self._book.check(state.id, self._holder)  # after the split was read: whoever takes the lease from here on changes its version
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
        self.trouble = f"{why}; the split is {in_words(found)}, not {in_words(intent.target)}"
        if intent.stage == "rolled_back" or (is_ours(found, state) and intent.attempts < self._config.write_attempts):
            self._book.intend(state, intent, holder=self._holder)
        else:
            self._held(replace(state, held_by_hand=not is_ours(found, state)), self.trouble)

    def _held(self, state: RolloutState, reason: str) -> None:
        """Hold instead of what was intended."""
        held = hold(state, reason, self._now())
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


def is_ours(split: Split, state: RolloutState) -> bool:
    """Whether requests are divided as this rollout set it, between its versions."""
    same_pair = split.canary in ("", state.canary) and split.stable in ("", state.stable)
    return same_pair and split.is_set(state.target.weights, shadow=state.target.shadow)


def in_words(split: Split | Target) -> str:
    return f"{split.weights.get(CANARY, 0.0):.1%} to the canary{' and shadow' if split.shadow else ''}"


def _place(state: RolloutState) -> str:
    return f"{state.target.weights.get(CANARY, 0.0):.0%}" if state.stage == "step" else state.stage


def hold(state: RolloutState, reason: str, now: int) -> Intent:
    """To keep what there is, and wait for a person."""
    return Intent(stage="hold", step=state.step, target=state.target, reason=reason, evidence=state.evidence, decided_at=now)
