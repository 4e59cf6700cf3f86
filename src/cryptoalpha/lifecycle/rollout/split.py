"""What a traffic split is: who answers which share of the requests, what came of it, and what every back end must be able to do.

A back end (in-process router, Ray Serve, Gateway API HTTPRoute, Argo Rollouts) is a `TrafficSplit`. The controller knows nothing else.

    arm        `stable` or `canary`; never a version: versions change, arms do not
    weights    share of requests per arm, 0–1, sum 1. In shadow the weights are (1, 0) and the canary sees every request, but answers none
    version    names this very state of the split; it changes with every write, by whomever. Compare-and-set goes by it
    since      when this state began, UTC ns by the back end's clock; strictly rising. What an arm did is charged to the state in which the
               request was assigned, so `counts(split.since)` holds nothing of an earlier weight

Source: design facts §9; compare-and-set as `resourceVersion` of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, VenueError

STABLE, CANARY = "stable", "canary"
ARMS = (STABLE, CANARY)
CAUSES = ("error", "timeout", "nan", "out_of_range", "schema")
"""Why an answer counts as failed: an exception, none in time, NaN or infinity in it, a probability outside 0–1, a wrong shape or field."""
EDGES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper edges of the latency buckets, seconds, as Prometheus' `le`; one more bucket holds what is slower."""
_SUM_TOLERANCE = 1e-6


class SplitConflictError(CryptoAlphaError):
    """The split is no longer the one that was read (409): another hand wrote it. Nothing was changed."""


class SplitUnreachableError(VenueError):
    """The back end did not answer. A write may or may not have happened; read before writing again."""


class SplitRefusedError(ConfigError):
    """The back end does not let this caller change anything (401, 403): no word about any version. Nothing was changed."""


class Split(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One state of the split.

    Raises:
        ConfigError: if weights are of other arms, outside 0–1, do not add up to 1, or the canary answers in shadow.
    """

    weights: dict[str, float]
    shadow: bool = False
    version: str
    since: int
    stable: str = ""
    """Version id that answers as stable; empty where the back end does not know it."""
    canary: str = ""
    """Version id of the canary; empty if there is none."""
    salt: str = ""
    """What the hash of keys begins with (`router.assigned`); empty where the back end does not divide by keys, or does not say."""

    def __post_init__(self) -> None:
        checked_weights(self.weights, shadow=self.shadow)

    @property
    def canary_share(self) -> float:
        """Share of requests that the canary answers, 0–1."""
        return self.weights.get(CANARY, 0.0)

    def is_set(self, weights: Mapping[str, float], *, shadow: bool) -> bool:
        """Whether requests are divided like this, up to what integer weights of a back end can express (a thousandth)."""
        return self.shadow == shadow and all(abs(self.weights.get(arm, 0.0) - weights.get(arm, 0.0)) < 1e-3 for arm in ARMS)


def checked_weights(weights: Mapping[str, float], *, shadow: bool = False) -> dict[str, float]:
    """The weights with every arm named.

    Raises:
        ConfigError: as `Split`.
    """
    foreign = sorted(set(weights) - set(ARMS))
    shares = {arm: float(weights.get(arm, 0.0)) for arm in ARMS}
    sound = all(0.0 <= share <= 1.0 for share in shares.values()) and abs(sum(shares.values()) - 1.0) <= _SUM_TOLERANCE
    if foreign or not sound:
        raise ConfigError(
            f"traffic weights {dict(weights)} cannot be set", hint=f"shares of {STABLE} and {CANARY}, each 0–1, that add up to 1"
        )
    if shadow and shares[CANARY] != 0.0:
        raise ConfigError(f"in shadow the canary answers nothing, but its weight is {shares[CANARY]}", hint="a weight of 0, or no shadow")
    return shares


class Pairs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests that both arms answered (shadow), counted by what differed. The tests use what is discordant."""

    both_fine: int = 0
    canary_failed: int = 0
    """The canary alone failed."""
    stable_failed: int = 0
    """Stable alone failed."""
    both_failed: int = 0
    canary_late: int = 0
    """Both answered, the canary alone slower than the limit."""
    stable_late: int = 0
    canary_slower: int = 0
    """Both answered, the canary slower than stable by more than the ratio allowed (and not merely by a trifle)."""
    stable_slower: int = 0
    disagreed: int = 0
    """Of `both_fine`: the answers differ by more than they may (what that is, the caller says)."""

    @property
    def requests(self) -> int:
        return self.both_fine + self.canary_failed + self.stable_failed + self.both_failed


class ArmCounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one arm did. In shadow the canary's `requests` are those it scored; what stable does for it afterwards counts as `fallbacks`."""

    requests: int = 0
    failures: dict[str, int] = {}
    """Failed requests by cause (`CAUSES`)."""
    late: int = 0
    """Answered without failure, but slower than the limit."""
    latencies: tuple[int, ...] = (0,) * (len(EDGES) + 1)
    """Requests per bucket of `EDGES`, not cumulative; the last one holds what is slower than the last edge."""
    fallbacks: int = 0
    """The canary's failures that stable was asked to answer."""
    fallback_failures: int = 0
    """Those on which stable failed too."""
    dropped: int = 0
    """Shadow requests the canary was not asked, because too many were under way."""
    pairs: Pairs = Pairs()
    brier: tuple[tuple[int, float], ...] = ()
    """(moment, Brier score of the canary − of stable) for each label that both had forecast, in order; −1 to 1. Labels must not overlap."""

    def __post_init__(self) -> None:
        if len(self.latencies) != len(EDGES) + 1:
            raise ConfigError(f"{len(self.latencies)} latency buckets", hint=f"there are {len(EDGES) + 1}")

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    def quantile(self, share: float) -> float:
        """Upper edge of the bucket in which that share of latencies is reached, seconds; infinite in the last one, 0 without requests."""
        total, reached = sum(self.latencies), 0
        for edge, count in zip((*EDGES, float("inf")), self.latencies, strict=True):
            reached += count
            if total and reached >= share * total:
                return edge
        return 0.0


Counts = Mapping[str, ArmCounts]


def summed(many: Iterable[ArmCounts]) -> ArmCounts:
    """The counts of several replicas, or of several states of the split, as one."""
    parts = list(many)
    pairs = {name: sum(getattr(part.pairs, name) for part in parts) for name in Pairs.__struct_fields__}
    causes = sorted({cause for part in parts for cause in part.failures})
    return ArmCounts(
        requests=sum(part.requests for part in parts),
        failures={cause: sum(part.failures.get(cause, 0) for part in parts) for cause in causes},
        late=sum(part.late for part in parts),
        latencies=tuple(sum(column) for column in zip(*(part.latencies for part in parts), strict=True)) or ArmCounts().latencies,
        fallbacks=sum(part.fallbacks for part in parts),
        fallback_failures=sum(part.fallback_failures for part in parts),
        dropped=sum(part.dropped for part in parts),
        pairs=Pairs(**pairs),
        brier=tuple(sorted(pair for part in parts for pair in part.brier)),
    )


class TrafficSplit(Protocol):
    """A back end that divides requests between two versions.

    Raises (all of them): SplitUnreachableError where nobody answers.
    """

    async def ensure(self, stable: str, canary: str) -> Split:
        """Have both versions ready. All requests go to stable, unless exactly this pair is being rolled out: then nothing changes."""
        ...

    async def read(self) -> Split:
        """The split as it is, whoever wrote it."""
        ...

    async def write(self, weights: Mapping[str, float], *, expected_version: str, shadow: bool = False) -> Split:
        """Divide requests anew, if the split is still the expected one. Counting starts afresh under the split given back.

        Raises:
            SplitConflictError: if it is another one.
            ConfigError: for weights that cannot be; see `checked_weights`.
        """
        ...

    async def counts(self, since: int) -> Counts:
        """What each arm did under splits that began at or after `since` (UTC ns, a `Split.since`). Both arms are always named."""
        ...

    async def finish(self, winner: str) -> None:
        """End the rollout: all requests to the winning arm, whose version is stable from now on; the other may be unloaded. Repeating it
        changes nothing."""
        ...
