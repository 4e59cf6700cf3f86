"""The in-process router: which version answers this request, and what came of it.

Consistent hashing: u = blake2b(salt, key) in [0, 1) and the canary answers where u < its weight, so a key stays where it is (sticky) and a
higher weight only adds keys. Another salt picks other keys.

A request is never lost to the canary: what it fails at (an exception, no answer in time, NaN, a wrong field) stable answers, and the
failure counts. In shadow stable answers everything at once and the canary is asked beside it.

    router = Router(stable="7f3c…", salt="rollout-12", check=fault_of, now=clock.now)
    routed = await router.answer(request_id, lambda version: models[version].forecast(windows))
    routed.answer, routed.version

It is a `TrafficSplit` of its own. One event loop owns it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Generic, TypeVar

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, ModelError
from cryptoalpha.lifecycle.rollout.split import ARMS, CANARY, STABLE, Counts, Split, SplitConflictError, checked_weights
from cryptoalpha.lifecycle.rollout.tally import Epoch, Tally

A = TypeVar("A")
MAY_RAISE = (
    CryptoAlphaError, ArithmeticError, AssertionError, AttributeError, LookupError,
    MemoryError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What a model may raise that counts as its failure. Whatever else is raised (cancelling, the end of the program) passes through."""
_REMEMBERED_KEYS = 10_000
Prepare = Callable[[str], Awaitable[None]]


def share_of(salt: str, key: str) -> float:
    """Where a key lies in [0, 1): the first 53 bits of blake2b over salt and key, so no pair of them is taken for another."""
    digest = hashlib.blake2b(f"{len(salt)}:{salt}:{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def assigned(salt: str, key: str, canary_share: float) -> str:
    """The arm that answers this key: the canary's where its place lies below the share."""
    return CANARY if share_of(salt, key) < canary_share else STABLE


@dataclass(frozen=True)
class Routed(Generic[A]):
    """An answer and whose it is. `fell_back`: the canary was asked first and failed, with `cause`."""

    answer: A
    version: str
    arm: str
    fell_back: bool = False
    cause: str = ""


@dataclass(frozen=True)
class _Attempt(Generic[A]):
    answer: A | None
    cause: str | None
    error: BaseException | None
    seconds: float


async def _nothing(version: str) -> None:
    """A version that needs no preparation."""


class Router(Generic[A]):
    """Divide requests between two versions.

    Args:
        stable: version id that answers until a rollout begins.
        salt: what the hash of keys begins with. Another one for each rollout, or the same keys are always first.
        now: UTC ns, for stamps of splits and labels; durations are measured by `stopwatch`.
        check: why an answer is unusable (`split.CAUSES`), or None.
        differ: whether two sound answers to one request differ by more than they may; None counts no disagreement.
        prepare, release: load a version so that it can answer, and let it go. `prepare` raises if it cannot.
        late_seconds, slower_ratio: see `tally.Epoch`.
        timeout_seconds: how long an arm is waited for.
        canary_seconds: how long the canary is, who is answered for by stable after that; None as long as stable.
        shadow_limit: shadow requests under way at a time; further ones are dropped and counted.
        once_per_seconds: failures of one key within that time count once (sticky keys that are asked over and over); 0 counts all.
        uncounted: exceptions that are nobody's failure (a full queue, a client's mistake); they go through to the caller.
    """

    def __init__(
        self, *, stable: str, salt: str, now: Callable[[], int], check: Callable[[A], str | None] = lambda answer: None,
        differ: Callable[[A, A], bool] | None = None, prepare: Prepare = _nothing, release: Prepare = _nothing,
        late_seconds: float = 0.1, slower_ratio: float = 3.0, timeout_seconds: float = 5.0, canary_seconds: float | None = None,
        shadow_limit: int = 64,
        once_per_seconds: float = 0.0, uncounted: tuple[type[BaseException], ...] = (), stopwatch: Callable[[], float] = perf_counter,
    ) -> None:  # fmt: skip
        self.salt = salt
        self._now, self._check, self._differ, self._stopwatch = now, check, differ, stopwatch
        self._prepare, self._release = prepare, release
        self._late, self._shadow_limit, self._timeout = late_seconds, shadow_limit, timeout_seconds
        self._canary_timeout = timeout_seconds if canary_seconds is None else canary_seconds
        self._once_ns, self._uncounted = int(once_per_seconds * 1e9), uncounted
        self._last_failure: dict[tuple[str, str], int] = {}
        self._shadows: set[asyncio.Task[None]] = set()
        self._born, self._writes = now(), 0
        self._tally = Tally(self._born, late_seconds=late_seconds, slower_ratio=slower_ratio)
        self._split = Split(
            weights=checked_weights({STABLE: 1.0}), version=self._next_version(), since=self._born, stable=stable, salt=salt
        )

    # --- the traffic split ---

    @property
    def split(self) -> Split:
        """The split as it is."""
        return self._split

    async def ensure(self, stable: str, canary: str) -> Split:
        """As `TrafficSplit.ensure`.

        Raises:
            ConfigError: if a version is its own canary.
        """
        if stable == canary:
            raise ConfigError(f"version {stable} cannot be its own canary", hint="name another version")
        if (self._split.stable, self._split.canary) != (stable, canary):
            for version in (stable, canary):
                await self._prepare(version)
            self._set({STABLE: 1.0}, shadow=False, stable=stable, canary=canary)
        return self._split

    async def read(self) -> Split:
        """As `TrafficSplit.read`."""
        return self._split

    async def write(self, weights: Mapping[str, float], *, expected_version: str, shadow: bool = False) -> Split:
        """As `TrafficSplit.write`."""
        shares = checked_weights(weights, shadow=shadow)
        if expected_version != self._split.version:
            raise SplitConflictError(
                f"the split is at version {self._split.version}, not {expected_version}", hint="read it again; another hand wrote it"
            )
        if not self._split.canary and (shadow or shares[CANARY] > 0.0):
            raise ConfigError("there is no canary to send requests to", hint="`ensure` names both versions")
        return self._set(shares, shadow=shadow, stable=self._split.stable, canary=self._split.canary)

    async def counts(self, since: int) -> Counts:
        """As `TrafficSplit.counts`."""
        return self._tally.counts(since)

    async def finish(self, winner: str) -> None:
        """As `TrafficSplit.finish`."""
        if winner not in ARMS:
            raise ConfigError(f"{winner!r} is no arm", hint=f"{STABLE} or {CANARY}")
        before = self._split
        if not before.canary:
            return
        version, loser = (before.canary, before.stable) if winner == CANARY else (before.stable, before.canary)
        self._set({STABLE: 1.0}, shadow=False, stable=version, canary="")
        await self.drain()
        await self._release(loser)

    def _set(self, weights: Mapping[str, float], *, shadow: bool, stable: str, canary: str) -> Split:
        since = self._tally.begin(self._now())
        self._split = Split(
            weights=checked_weights(weights),
            shadow=shadow,
            version=self._next_version(),
            since=since,
            stable=stable,
            canary=canary,
            salt=self.salt,
        )
        return self._split

    def _next_version(self) -> str:
        """Never one of an earlier life of this process: a restart is a change of the split."""
        self._writes += 1
        return f"{self._born:x}-{self._writes}"

    # --- requests ---

    def assign(self, key: str) -> str:
        """The arm that answers this key now."""
        return assigned(self.salt, key, self._split.canary_share)

    async def answer(self, key: str, call: Callable[[str], Awaitable[A]]) -> Routed[A]:
        """Have a request answered.

        Args:
            key: of the request; a unique one spreads requests, a client's own keeps it with one arm.
            call: asks the version of that id.

        Raises:
            ModelError: if stable's answer is unusable, or none came in time; what its model raised otherwise.
        """
        split, epoch = self._split, self._tally.epoch
        if split.shadow:
            return await self._with_shadow(split, epoch, call)
        arm = assigned(self.salt, key, split.canary_share)
        if arm == CANARY:
            tried = await self._attempt(CANARY, epoch, split, split.canary, call)
            epoch.record(CANARY, tried.cause, tried.seconds, repeated=self._is_repeated(CANARY, key, tried.cause))
            if tried.cause is None:
                return Routed(_answer(tried), split.canary, CANARY)
            begun = self._stopwatch()
            try:
                rescue = await self._attempt(None, epoch, split, split.stable, call)
            except asyncio.CancelledError:
                if self._stopwatch() - begun > self._late:  # both hang: that is an outage, and must not look like the canary's alone
                    epoch.record_fallback(failed=True)
                raise
            epoch.record_fallback(failed=rescue.cause is not None)
            return Routed(self._sound(rescue, split.stable), split.stable, STABLE, fell_back=True, cause=tried.cause)
        tried = await self._attempt(STABLE, epoch, split, split.stable, call)
        epoch.record(STABLE, tried.cause, tried.seconds, repeated=self._is_repeated(STABLE, key, tried.cause))
        return Routed(self._sound(tried, split.stable), split.stable, STABLE)

    def record_brier(self, stable: float, canary: float) -> None:
        """A label became known that both had forecast: their Brier scores, 0–1. Charged to the split of now."""
        self._tally.epoch.record_brier(self._now(), stable, canary)

    async def drain(self) -> None:
        """Wait for the shadow requests under way."""
        while self._shadows:
            await asyncio.wait(self._shadows)

    async def _with_shadow(self, split: Split, epoch: Epoch, call: Callable[[str], Awaitable[A]]) -> Routed[A]:
        """Stable answers; the canary is asked beside it and its answer only compared."""
        asked: asyncio.Future[_Attempt[A]] = asyncio.get_running_loop().create_future()
        if len(self._shadows) < self._shadow_limit:
            task = asyncio.create_task(self._shadow(split, epoch, call, asked))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)
        else:
            epoch.record_dropped()
            asked.add_done_callback(partial(_record_alone, epoch))
        begun = self._stopwatch()
        try:
            tried = await self._attempt(None, epoch, split, split.stable, call)
        except asyncio.CancelledError:
            seconds = self._stopwatch() - begun
            if seconds > self._late:
                asked.set_result(_Attempt(None, "timeout", None, seconds))
            else:
                asked.cancel()
            raise
        except BaseException:
            asked.cancel()
            raise
        asked.set_result(tried)
        return Routed(self._sound(tried, split.stable), split.stable, STABLE)

    async def _shadow(self, split: Split, epoch: Epoch, call: Callable[[str], Awaitable[A]], asked: asyncio.Future[_Attempt[A]]) -> None:
        """Ask the canary, wait for stable's answer, count the pair."""
        try:
            canary = await self._attempt(None, epoch, split, split.canary, call)
        except self._uncounted:
            epoch.record_dropped()
            asked.add_done_callback(partial(_record_alone, epoch))
            return
        await asyncio.wait({asked})
        if asked.cancelled():
            epoch.record(CANARY, canary.cause, canary.seconds)
            return
        stable = asked.result()
        both = stable.cause is None and canary.cause is None
        disagreed = both and self._differ is not None and self._differ(_answer(stable), _answer(canary))
        epoch.record_pair(stable.cause, canary.cause, stable.seconds, canary.seconds, disagreed=disagreed)

    async def _attempt(self, arm: str | None, epoch: Epoch, split: Split, version: str, call: Callable[[str], Awaitable[A]]) -> _Attempt[A]:
        """Ask one version. With an `arm`, a caller who gives up on a late answer leaves a timeout behind: slowness must not hide by it."""
        begun, limit = self._stopwatch(), self._timeout if version == split.stable else self._canary_timeout
        try:
            async with asyncio.timeout(limit):
                answer = await call(version)
            cause = self._check(answer)
        except asyncio.CancelledError:
            seconds = self._stopwatch() - begun
            if arm is not None and seconds > self._late:
                epoch.record(arm, "timeout", seconds)
            raise
        except self._uncounted:
            raise
        except TimeoutError as error:
            return _Attempt(None, "timeout", error, self._stopwatch() - begun)
        except MAY_RAISE as error:
            return _Attempt(None, "error", error, self._stopwatch() - begun)
        return _Attempt(answer, cause, None, self._stopwatch() - begun)

    def _sound(self, tried: _Attempt[A], version: str) -> A:
        """Stable's answer, or why there is none."""
        if tried.cause is None:
            return _answer(tried)
        if tried.cause == "error" and tried.error is not None:
            raise tried.error
        late = f"no answer within {self._timeout} s" if tried.cause == "timeout" else f"an unusable answer ({tried.cause})"
        raise ModelError(f"version {version} gave {late}", hint="see its failures by cause in the counts") from tried.error

    def _is_repeated(self, arm: str, key: str, cause: str | None) -> bool:
        """Whether this failure of this key was counted just now; see `once_per_seconds`."""
        if cause is None or not self._once_ns:
            return False
        now, place = self._now(), (arm, key)
        before = self._last_failure.get(place)
        if before is not None and now - before < self._once_ns:
            return True
        if len(self._last_failure) >= _REMEMBERED_KEYS:
            self._last_failure = {where: at for where, at in self._last_failure.items() if now - at < self._once_ns}
        self._last_failure[place] = now
        return False


def _record_alone(epoch: Epoch, asked: asyncio.Future[_Attempt[A]]) -> None:
    """Stable's part of a pair that the canary has no part in."""
    if not asked.cancelled():
        epoch.record(STABLE, asked.result().cause, asked.result().seconds)


def _answer(tried: _Attempt[A]) -> A:
    answer: A = tried.answer  # type: ignore[assignment]  # there is one where there is no cause
    return answer
