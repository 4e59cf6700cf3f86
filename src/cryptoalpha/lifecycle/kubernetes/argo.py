"""A traffic split by Argo Rollouts, which shifts traffic only as the steps of its `Rollout` say: the weights are written as steps.

One step that sets the weight and one that waits for ever. Argo goes back to the first step when the steps change, so new steps are a new
weight. A new version is a change of the pods' template, which Argo answers with a canary; winning is its own full promotion, losing the old
template, which it goes back to at once.

Unverified beside a real controller of Argo, which was not to be had: written after its documentation, and tested against an API that keeps
what is written.

Source: Argo Rollouts, "Canary strategy" and "kubectl argo rollouts promote"; design facts §10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.kubernetes.api import Cluster, Object
from cryptoalpha.lifecycle.kubernetes.httproute import Count
from cryptoalpha.lifecycle.kubernetes.marks import VERSION, Marks, Moments, annotated, worded, written_as
from cryptoalpha.lifecycle.rollout.split import ARMS, CANARY, STABLE, Counts, Split, SplitConflictError, checked_weights

KIND = "Rollout"
PERCENT = 100
_TRIES = 5


class ArgoSplit:
    """As `TrafficSplit`. There is no shadow: Argo mirrors by few gateways only.

    Args:
        name: of the Rollout; its services are NAME-stable and NAME-canary.
        count: what each arm did since a moment.
        now: UTC ns.
    """

    def __init__(self, cluster: Cluster, name: str, *, count: Count, now: Callable[[], int]) -> None:
        self._cluster, self._name, self._count, self._now = cluster, name, count, now
        self._moments = Moments()

    async def ensure(self, stable: str, canary: str) -> Split:
        """As `TrafficSplit.ensure`. Argo itself sends no request to pods that are not ready."""
        if stable == canary:
            raise ConfigError(f"version {stable} cannot be its own canary", hint="name another version")
        found = await self._cluster.get(KIND, self._name)
        marks = Marks.of(found)
        if (marks.stable, marks.canary) == (stable, canary):
            return self._split(found)
        serving = _version(found)
        if serving not in (stable, canary) and (marks.stable, marks.canary) != (stable, serving):  # the latter: an older canary beside it
            raise ConfigError(
                f"the Rollout {self._name} serves {serving or 'no version'}, neither {stable} nor {canary}",
                hint=f"install the chart with inference.stable.version={stable}",
            )
        return await self._change({STABLE: 1.0}, stable=stable, canary=canary, serve=canary)

    async def read(self) -> Split:
        """As `TrafficSplit.read`."""
        return self._split(await self._cluster.get(KIND, self._name))

    async def write(self, weights: Mapping[str, float], *, expected_version: str, shadow: bool = False) -> Split:
        """As `TrafficSplit.write`. Weights are whole percent.

        Raises:
            ConfigError: besides, for shadow.
        """
        shares = checked_weights(weights, shadow=shadow)
        if shadow:
            raise ConfigError("Argo Rollouts has no shadow here", hint="lifecycle.canary.shadow=false begins with the first step")
        return await self._change(shares, expected=expected_version)

    async def counts(self, since: int) -> Counts:
        """As `TrafficSplit.counts`; by the clock, as with an HTTPRoute."""
        return await self._count(since)

    async def finish(self, winner: str) -> None:
        """As `TrafficSplit.finish`."""
        if winner not in ARMS:
            raise ConfigError(f"{winner!r} is no arm", hint=f"{STABLE} or {CANARY}")
        marks = Marks.of(await self._cluster.get(KIND, self._name))
        if not marks.canary:
            return
        version = marks.canary if winner == CANARY else marks.stable
        if winner == CANARY:
            await self._change({CANARY: 1.0})
            await self._cluster.patch(KIND, self._name, {"status": {"promoteFull": True}}, status=True)
        await self._change({STABLE: 1.0}, stable=version, canary="", serve=version)

    async def _change(
        self, weights: Mapping[str, float], *, expected: str = "", stable: str | None = None, canary: str | None = None, serve: str = ""
    ) -> Split:
        shares = checked_weights(weights)
        for attempt in range(_TRIES):
            found = await self._cluster.get(KIND, self._name)
            before, marks = self._split(found), Marks.of(found)
            if expected and before.version != expected:
                raise SplitConflictError(
                    f"the split of {self._name} is at version {before.version}, not {expected}", hint="read it again; another hand wrote it"
                )
            if not marks.canary and canary is None and shares[CANARY] > 0.0:
                raise ConfigError("there is no canary to send requests to", hint="`ensure` names both versions")
            percent = round(PERCENT * shares[CANARY])
            after = Marks(
                stable=marks.stable if stable is None else stable, canary=marks.canary if canary is None else canary,
                since=max(self._now(), before.since + 1),
                wrote=worded({STABLE: 1 - percent / PERCENT, CANARY: percent / PERCENT}, shadow=False),
            )  # fmt: skip
            spec: dict[str, Any] = {"strategy": {"canary": {"steps": [{"setWeight": percent}, {"pause": {}}]}}}
            if serve:
                spec["template"] = {"metadata": {"annotations": {VERSION: serve}}}
            change = {"metadata": annotated(after), "spec": spec}
            try:
                return self._split(await self._cluster.patch(KIND, self._name, change, version=written_as(found)))
            except SplitConflictError:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _split(self, found: Object) -> Split:
        aborted = bool((found.get("status") or {}).get("abort"))
        canary = 0.0 if aborted else _weight(found) / PERCENT
        return self._moments.split(
            found, {STABLE: 1.0 - canary, CANARY: canary}, shadow=False, now=self._now(), suffix="-aborted" if aborted else ""
        )


def _weight(found: Object) -> int:
    """Percent of the first step that sets a weight; none without such a step."""
    steps = found["spec"]["strategy"]["canary"].get("steps") or []
    return next((int(step["setWeight"]) for step in steps if "setWeight" in step), 0)


def _version(found: Object) -> str:
    return str((found["spec"]["template"]["metadata"].get("annotations") or {}).get(VERSION, ""))
