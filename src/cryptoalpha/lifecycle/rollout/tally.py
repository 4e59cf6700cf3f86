"""Counting what each arm does, in epochs: one for each state of the split.

A request is charged to the epoch in which it was assigned, however long it takes, so no answer under an old weight is taken for one under
the new. Only the newest epochs are kept. One thread (one event loop) owns a tally.
"""

from __future__ import annotations

from bisect import bisect_left

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.split import ARMS, CANARY, CAUSES, EDGES, STABLE, ArmCounts, Pairs, summed

EPOCHS_KEPT = 256
LABELS_KEPT = 20_000
"""Labels compared in one epoch at most; two years of hourly ones."""


class ArmTally:
    """Mutable counts of one arm in one epoch."""

    def __init__(self) -> None:
        self.requests = self.late = self.fallbacks = self.fallback_failures = self.dropped = 0
        self.failures: dict[str, int] = {}
        self.latencies = [0] * (len(EDGES) + 1)
        self.pairs = dict.fromkeys(Pairs.__struct_fields__, 0)
        self.brier: list[tuple[int, float]] = []

    def frozen(self) -> ArmCounts:
        return ArmCounts(
            requests=self.requests, failures=dict(self.failures), late=self.late, latencies=tuple(self.latencies), fallbacks=self.fallbacks,
            fallback_failures=self.fallback_failures, dropped=self.dropped, pairs=Pairs(**self.pairs), brier=tuple(self.brier),
        )  # fmt: skip


class Epoch:
    """Counts under one state of the split.

    Args:
        since: when it began, UTC ns.
        late_seconds: latency above which an answer counts as late.
        slower_ratio: how many times the other's latency counts as slower in a pair; less than a quarter of `late_seconds` never does.
    """

    def __init__(self, since: int, *, late_seconds: float, slower_ratio: float) -> None:
        self.since = since
        self.arms = {arm: ArmTally() for arm in ARMS}
        self._late, self._ratio = late_seconds, slower_ratio

    def record(self, arm: str, cause: str | None, seconds: float, *, repeated: bool = False) -> None:
        """One request that the arm was asked.

        Args:
            cause: why it failed (`CAUSES`), or None.
            seconds: how long it took.
            repeated: the same failure of the same key as just now; the request is not counted again.
        """
        if cause is not None and cause not in CAUSES:
            raise ConfigError(f"{cause!r} is no cause of failure", hint=f"there are: {', '.join(CAUSES)}")
        tally = self.arms[arm]
        if repeated:
            return
        tally.requests += 1
        tally.latencies[bisect_left(EDGES, seconds)] += 1
        if cause is not None:
            tally.failures[cause] = tally.failures.get(cause, 0) + 1
        elif seconds > self._late:
            tally.late += 1

    def record_pair(
        self, stable_cause: str | None, canary_cause: str | None, stable_seconds: float, canary_seconds: float, *, disagreed: bool = False
    ) -> None:
        """One request that both arms were asked; both are recorded singly as well."""
        self.record(STABLE, stable_cause, stable_seconds)
        self.record(CANARY, canary_cause, canary_seconds)
        pairs = self.arms[CANARY].pairs
        if stable_cause is not None or canary_cause is not None:
            name = "both_failed" if stable_cause and canary_cause else "canary_failed" if canary_cause else "stable_failed"
            pairs[name] += 1
            return
        pairs["both_fine"] += 1
        pairs["disagreed"] += disagreed
        pairs["canary_late"] += canary_seconds > self._late >= stable_seconds
        pairs["stable_late"] += stable_seconds > self._late >= canary_seconds
        pairs["canary_slower"] += canary_seconds > max(self._ratio * stable_seconds, self._late / 4)
        pairs["stable_slower"] += stable_seconds > max(self._ratio * canary_seconds, self._late / 4)

    def record_fallback(self, *, failed: bool) -> None:
        """Stable was asked for what the canary failed at."""
        self.arms[CANARY].fallbacks += 1
        self.arms[CANARY].fallback_failures += failed

    def record_dropped(self) -> None:
        """The canary was not asked: too many shadow requests were under way."""
        self.arms[CANARY].dropped += 1

    def record_brier(self, at: int, stable: float, canary: float) -> None:
        """A label became known that both had forecast; scores 0–1.

        Raises:
            ConfigError: for a score that cannot be one.
        """
        if not (0.0 <= stable <= 1.0 and 0.0 <= canary <= 1.0):
            raise ConfigError(f"Brier scores {stable} and {canary}", hint="each lies between 0 and 1")
        if len(self.arms[CANARY].brier) < LABELS_KEPT:
            self.arms[CANARY].brier.append((at, canary - stable))


class Tally:
    """The epochs of one back end; `begin` opens the next."""

    def __init__(self, since: int, *, late_seconds: float = 0.1, slower_ratio: float = 3.0) -> None:
        self._late, self._ratio = late_seconds, slower_ratio
        self._epochs = [Epoch(since, late_seconds=late_seconds, slower_ratio=slower_ratio)]

    @property
    def epoch(self) -> Epoch:
        """The open one. A request keeps the one it began in."""
        return self._epochs[-1]

    def begin(self, now: int) -> int:
        """Open an epoch; its beginning, which is later than that of every other."""
        since = max(now, self.epoch.since + 1)
        self._epochs.append(Epoch(since, late_seconds=self._late, slower_ratio=self._ratio))
        del self._epochs[:-EPOCHS_KEPT]
        return since

    def counts(self, since: int) -> dict[str, ArmCounts]:
        """Counts of all epochs that began at or after `since`."""
        kept = [epoch for epoch in self._epochs if epoch.since >= since]
        return {arm: summed([ArmCounts(), *(epoch.arms[arm].frozen() for epoch in kept)]) for arm in ARMS}
