"""A traffic split by an HTTPRoute of the Gateway API: the gateway sends each request to one of two Services by weight.

The share of a backend is its weight over the sum of the rule's; weights are thousandths here, and they are never all zero, because a rule
without a backend that counts answers every request with an error. In shadow the rule has a filter that mirrors requests to the canary,
whose answers the gateway drops. A change writes all rules back as they were found but for these weights and this filter, and names the
`resourceVersion` it was made for. What each arm did is counted by whoever scrapes the pods (`prometheus_counts`).

Gateways are not sticky: a key's request may meet the other arm next time.

Source: Gateway API v1, HTTPRoute; design facts §10.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.kubernetes.api import Cluster, Object
from cryptoalpha.lifecycle.kubernetes.marks import Marks, Moments, annotated, worded, written_as
from cryptoalpha.lifecycle.kubernetes.prometheus_counts import paired
from cryptoalpha.lifecycle.kubernetes.workloads import Workloads
from cryptoalpha.lifecycle.rollout.split import ARMS, CANARY, STABLE, Counts, Split, SplitConflictError, checked_weights

Count = Callable[[int], Awaitable[Counts]]
KIND = "HTTPRoute"
PARTS = 1000
_TRIES = 5
"""How often a change is made again that lost to a write of somebody who left the split alone, such as the gateway's of its status."""


class HttpRouteSplit:
    """As `TrafficSplit`.

    Args:
        name: of the route; its services are NAME-stable and NAME-canary.
        count: what each arm did since a moment.
        now: UTC ns.
    """

    def __init__(self, cluster: Cluster, name: str, *, workloads: Workloads, count: Count, now: Callable[[], int]) -> None:
        self._cluster, self._name, self._workloads, self._count, self._now = cluster, name, workloads, count, now
        self._moments = Moments()

    async def ensure(self, stable: str, canary: str) -> Split:
        """As `TrafficSplit.ensure`. Waits till pods of both versions are ready."""
        if stable == canary:
            raise ConfigError(f"version {stable} cannot be its own canary", hint="name another version")
        marks = Marks.of(await self._cluster.get(KIND, self._name))
        if (marks.stable, marks.canary) != (stable, canary):
            await self._change({STABLE: 1.0}, shadow=False, stable="", canary="")
        await self._workloads.serve(STABLE, stable)
        await self._workloads.serve(CANARY, canary)
        if (marks.stable, marks.canary) != (stable, canary):
            return await self._change({STABLE: 1.0}, shadow=False, stable=stable, canary=canary)
        return await self.read()

    async def read(self) -> Split:
        """As `TrafficSplit.read`."""
        return self._split(await self._cluster.get(KIND, self._name))

    async def write(self, weights: Mapping[str, float], *, expected_version: str, shadow: bool = False) -> Split:
        """As `TrafficSplit.write`."""
        return await self._change(checked_weights(weights, shadow=shadow), shadow=shadow, expected=expected_version)

    async def counts(self, since: int) -> Counts:
        """As `TrafficSplit.counts`. The moment is told by clocks: what began a second before it may be counted with it."""
        counted = await self._count(since)
        return {**counted, CANARY: paired(counted[STABLE], counted[CANARY])} if (await self.read()).shadow else counted

    async def finish(self, winner: str) -> None:
        """As `TrafficSplit.finish`. A canary that won serves everything until stable's pods have its version."""
        if winner not in ARMS:
            raise ConfigError(f"{winner!r} is no arm", hint=f"{STABLE} or {CANARY}")
        marks = Marks.of(await self._cluster.get(KIND, self._name))
        if not marks.canary:
            return
        version = marks.canary if winner == CANARY else marks.stable
        if winner == CANARY:
            await self._change({CANARY: 1.0}, shadow=False)
            await self._workloads.serve(STABLE, version)
        await self._change({STABLE: 1.0}, shadow=False)
        await self._workloads.rest()
        await self._change({STABLE: 1.0}, shadow=False, stable=version, canary="")

    async def _change(
        self, weights: Mapping[str, float], *, shadow: bool, expected: str = "", stable: str | None = None, canary: str | None = None
    ) -> Split:
        """Write weights, if the split is still the expected one; versions where they are given."""
        shares = checked_weights(weights, shadow=shadow)
        for attempt in range(_TRIES):
            found = await self._cluster.get(KIND, self._name)
            before, marks = self._split(found), Marks.of(found)
            if expected and before.version != expected:
                raise SplitConflictError(
                    f"the split of {self._name} is at version {before.version}, not {expected}", hint="read it again; another hand wrote it"
                )
            if not marks.canary and canary is None and (shadow or shares[CANARY] > 0.0):
                raise ConfigError("there is no canary to send requests to", hint="`ensure` names both versions")
            after = Marks(
                stable=marks.stable if stable is None else stable, canary=marks.canary if canary is None else canary,
                since=max(self._now(), before.since + 1), wrote=worded(shares, shadow=shadow),
            )  # fmt: skip
            rules = divided(found["spec"].get("rules") or [], self._name, shares, shadow=shadow)
            change: dict[str, Any] = {"metadata": annotated(after), "spec": {"rules": rules}}
            try:
                return self._split(await self._cluster.patch(KIND, self._name, change, version=written_as(found)))
            except SplitConflictError:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _split(self, found: Object) -> Split:
        weights, shadow = shares_of(found["spec"].get("rules") or [], self._name)
        return self._moments.split(found, weights, shadow=shadow, now=self._now())


def shares_of(rules: list[Object], name: str) -> tuple[dict[str, float], bool]:
    """Share of each arm, and whether the canary is mirrored to, by the first rule that sends requests to either.

    Raises:
        ConfigError: if there is no such rule, or it has other backends.
        SplitConflictError: if every weight is zero, which only another hand can have written.
    """
    rule = next((rule for rule in rules if _backends(rule, name)), None)
    if rule is None:
        raise ConfigError(f"no rule of the HTTPRoute {name} sends requests to {name}-{STABLE}", hint="install the chart with route.enabled")
    backends = _backends(rule, name)
    if len(backends) != len(rule.get("backendRefs") or []):
        raise ConfigError(f"a rule of the HTTPRoute {name} has backends besides stable and canary", hint="give them a rule of their own")
    weights = {arm: int(backends[arm].get("weight", 1)) if arm in backends else 0 for arm in ARMS}
    total = sum(weights.values())
    if total == 0:
        raise SplitConflictError(f"all weights of the HTTPRoute {name} are zero: nobody is answered", hint=f"give {name}-{STABLE} one")
    return {arm: weights[arm] / total for arm in ARMS}, any(_is_mirror(each, name) for each in rule.get("filters") or [])


def divided(rules: list[Object], name: str, shares: Mapping[str, float], *, shadow: bool) -> list[Object]:
    """The rules with other weights: each that sends requests to either arm, and nothing else of any."""
    canary = min(PARTS, max(0, round(PARTS * shares[CANARY])))
    parts = {STABLE: PARTS - canary, CANARY: canary}
    changed = copy.deepcopy(rules)
    for rule in changed:
        backends = _backends(rule, name)
        if not backends:
            continue
        port = next(iter(backends.values())).get("port")
        for arm in ARMS:
            if arm not in backends:
                rule["backendRefs"].append({"name": f"{name}-{arm}", "port": port})
        for arm, backend in _backends(rule, name).items():
            backend["weight"] = parts[arm]
        filters = [each for each in rule.get("filters") or [] if not _is_mirror(each, name)]
        if shadow:
            mirror = {"name": f"{name}-{CANARY}", "port": port}
            filters.append({"type": "RequestMirror", "requestMirror": {"backendRef": mirror}})
        if filters or "filters" in rule:
            rule["filters"] = filters
    return changed


def _backends(rule: Object, name: str) -> dict[str, Object]:
    arms = {f"{name}-{arm}": arm for arm in ARMS}
    return {arms[each["name"]]: each for each in rule.get("backendRefs") or [] if each["name"] in arms}


def _is_mirror(each: Object, name: str) -> bool:
    return each.get("type") == "RequestMirror" and each["requestMirror"]["backendRef"]["name"] == f"{name}-{CANARY}"
