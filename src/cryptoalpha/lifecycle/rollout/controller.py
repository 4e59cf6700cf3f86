"""The canary controller: one look at a time, it moves a rollout from shadow over 5, 10, 25, 50, 100 % to promoted, or back.

`step` is driven by whoever has a clock; it never sleeps. Each transition is in the book before the split is written and after, so a
controller that is killed anywhere is followed by one that finds out from the split what happened, and goes on. Money is not asked: only
failures, latency, parity and labels are; a rollback touches no position.

    nobody answers          nothing changes; the next look tries again (`trouble` says so)
    the write was lost      written again, `write_attempts` times, then held
    409, weights of others  hold: a person decides (`resume`, `abort`). Only a rollback overrules other hands: everything to stable is safe
    the token is refused    nothing changes either, and the caller is told: that is no evidence about a version
    two controllers         one has the lease, the other a StoreLockedError
    abort, resume           at once, whoever has the lease: it is taken from that controller, which stops before it writes again

Source: design facts §9. The tests are in `evidence`, what follows from them in `judgement`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.carrying_out import Carrier, hold, in_words, is_ours
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.judgement import Case, judge
from cryptoalpha.lifecycle.rollout.split import (
    CANARY,
    Split,
    SplitConflictError,
    SplitUnreachableError,
    TrafficSplit,
)
from cryptoalpha.lifecycle.rollout.state import Carried, Intent, RolloutState, after

_SECOND, _HOUR = 1_000_000_000, 3_600_000_000_000


class CanaryController(Carrier):
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
        super().__init__(split, book, config, now=now, holder=holder, say=say)
        self._guards, self._name = guards, name

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
            SplitRefusedError: if the back end lets this caller change nothing; what was intended stays open.
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
        """A person ends it: everything back to stable. Where that does not succeed at once (`trouble`), any next step goes on with it.

        Raises:
            ConfigError: if it is over.
        """
        now = self._now()
        state = await self._ordered(lambda found: self._intent("rolled_back", -1, f"by hand: {reason}", now=now))
        for _ in range(self._config.write_attempts):  # the controller that had the lease may have written once more meanwhile
            if state.is_over:
                break
            state = await self.step()
        return state

    async def resume(self, reason: str) -> RolloutState:
        """A person ends a hold: the stage begins anew, with its weights and fresh counts.

        Raises:
            ConfigError: if it is not on hold.
        """
        now = self._now()

        def order(state: RolloutState) -> Intent:
            if state.stage != "hold" or state.held_from is None:
                raise ConfigError(f"rollout {state.id} is not on hold but {state.stage}", hint="there is nothing to resume")
            stage, step = state.held_from, state.step
            if stage == "idle":  # held before the first stage was reached
                stage, step = after("idle", -1, self._config.steps, shadow=self._config.shadow)
            return self._intent(stage, step, f"by hand: {reason}", now=now, prepares=True)

        return await self._ordered(order)

    def release(self) -> None:
        """Let another controller go on at once."""
        self._book.release(self.state.id, self._holder)

    async def _ordered(self, order: Callable[[RolloutState], Intent]) -> RolloutState:
        def checked(state: RolloutState) -> Intent:
            if state.is_over:
                raise ConfigError(f"rollout {state.id} is over: {state.stage}", hint="begin another one")
            return order(state)

        self._book.seize(self._name, self._holder, checked, until=self._until())
        return await self.step()

    def _take(self) -> tuple[RolloutState, Intent | None]:
        """The lease, and the rollout as it stands."""
        rollout = self.state.id
        self._book.lease(rollout, self._holder, now=self._now(), until=self._until())
        return self._book.read(rollout)

    def _until(self) -> int:
        return self._now() + int(self._config.lease_seconds * _SECOND)

    # --- looking ---

    async def _look(self, state: RolloutState) -> tuple[Intent | None, RolloutState]:
        """What the split and the counts ask for: a transition, or None and the state with what was seen."""
        split, now = await self._split.read(), self._now()
        if not is_ours(split, state):
            return self._found_foreign(state, split, now)
        if split.version != state.version:  # touched, but divided as before: what was counted since then is what is known
            newer = split.since > state.since
            state = replace(
                state, version=split.version, since=max(split.since, state.since), carried=Carried() if newer else state.carried
            )
        counts = await self._split.counts(state.since)
        if counts[CANARY].requests < state.carried.requests:
            return hold(state, "counts went backwards: what counts them was restarted", now), state
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
            return hold(seen, found.reason, now), seen
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
        return hold(state, f"another hand set the split to {in_words(split)}, not {in_words(state.target)}", now), replace(
            state, held_by_hand=True
        )
