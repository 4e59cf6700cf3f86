"""The pods of either arm: which version they serve, how many there are, and whether they are ready.

The version is an annotation of the pods, which their container reads; changing it makes the Deployment roll them over, never fewer ready
than before. A Deployment that a rollout has written says so, and `helm upgrade` leaves version and number alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cryptoalpha.lifecycle.kubernetes.api import Cluster, Object
from cryptoalpha.lifecycle.kubernetes.marks import SET_BY, VERSION
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, SplitUnreachableError

Pause = Callable[[float], Awaitable[None]]
_LOOK_SECONDS = 2.0


class Workloads:
    """Deployments NAME-stable and NAME-canary.

    Args:
        ready_seconds: longest wait for pods.
        pause: waits; a test's clock goes on by itself.
    """

    def __init__(self, cluster: Cluster, name: str, *, ready_seconds: float = 600.0, pause: Pause = asyncio.sleep) -> None:
        self._cluster, self._name, self._ready_seconds, self._pause = cluster, name, ready_seconds, pause

    async def serve(self, arm: str, version: str) -> None:
        """Have an arm's pods serve a version, at least one of them; comes back when they are ready.

        Raises:
            SplitUnreachableError: if they are not in time. Asking again waits again.
        """
        found = await self._get(arm)
        change: dict[str, Any] = {}
        if _version(found) != version:
            change["template"] = {"metadata": {"annotations": {VERSION: version}}}
        if arm == CANARY and not found["spec"].get("replicas", 1):
            change["replicas"] = 1
        if change:
            await self._write(arm, change)
        waited = 0.0
        while not _is_ready(found := await self._get(arm), version):
            if waited >= self._ready_seconds:
                raise SplitUnreachableError(
                    f"pods of {self._name}-{arm} are not ready with version {version} after {waited:.0f} s: {_standing(found)}",
                    hint=f"kubectl describe pods -l cryptoalpha.io/arm={arm}; it is waited for again at the next try",
                )
            await self._pause(_LOOK_SECONDS)
            waited += _LOOK_SECONDS

    async def rest(self) -> None:
        """Let the canary's pods go."""
        if (await self._get(CANARY))["spec"].get("replicas", 1):
            await self._write(CANARY, {"replicas": 0})

    async def version(self, arm: str = STABLE) -> str:
        """What an arm's pods serve, or will when they have rolled over."""
        return _version(await self._get(arm))

    async def _write(self, arm: str, spec: dict[str, Any]) -> None:
        change = {"metadata": {"annotations": {SET_BY: "rollout"}}, "spec": spec}
        await self._cluster.patch("Deployment", f"{self._name}-{arm}", change)

    async def _get(self, arm: str) -> Object:
        return await self._cluster.get("Deployment", f"{self._name}-{arm}")


def _version(found: Object) -> str:
    return str((found["spec"]["template"]["metadata"].get("annotations") or {}).get(VERSION, ""))


def _is_ready(found: Object, version: str) -> bool:
    """Whether all pods are of the newest template and ready, and the Deployment's own controller has seen it."""
    status, wanted = found.get("status") or {}, found["spec"].get("replicas", 1)
    return (
        _version(found) == version
        and status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) >= wanted > 0
        and status.get("availableReplicas", 0) >= wanted
        and status.get("replicas", 0) == status.get("updatedReplicas", 0)
    )


def _standing(found: Object) -> str:
    status = found.get("status") or {}
    counts = ", ".join(f"{status.get(f'{name}Replicas', 0)} {name}" for name in ("updated", "available"))
    return f"{found['spec'].get('replicas', 1)} wanted, {counts}"
