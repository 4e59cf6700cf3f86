"""Replicas of serving that an alert can add to: a workload of Kubernetes, or whatever two functions count and set.

`KubernetesScaler` speaks to the API server of the cluster this runs in. Of a HorizontalPodAutoscaler it moves `minReplicas` and leaves the
rest to it: what it measures itself may ask for more, and its `maxReplicas` bounds what an alert can get. Of a Deployment it sets the scale
itself; one that an autoscaler governs must be scaled by that. It needs the rights to get and patch that one object, and no others.

lightkube is imported when it is first needed (extra `kubernetes`). It has been run against kmock's stateful API, not against a real server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.lifecycle.alerts.actions import Scaler
from cryptoalpha.lifecycle.alerts.config import AlertConfig

if TYPE_CHECKING:
    from lightkube import AsyncClient


class CallScaler:
    """Workers that two functions count and set: those of this process, or of a Ray Serve application."""

    def __init__(self, count: Callable[[], Awaitable[int]], change: Callable[[int], Awaitable[int]]) -> None:
        self._count, self._change = count, change

    async def replicas(self) -> int:
        """As `Scaler`."""
        return await self._count()

    async def scale(self, replicas: int) -> int:
        """As `Scaler`."""
        return await self._change(replicas)


class KubernetesScaler:
    """One HorizontalPodAutoscaler or Deployment.

    Args:
        kind: which of the two.
        name, namespace: where it is.
        client: of the cluster; None takes that of the pod's service account, else of the kubeconfig.

    Raises:
        ConfigError: if lightkube is not installed or knows of no cluster.
        VenueError: from its calls, if the API server refuses, or does not answer.
    """

    def __init__(self, kind: Literal["hpa", "deployment"], name: str, namespace: str, *, client: AsyncClient | None = None) -> None:
        self._kind, self._name, self._namespace = kind, name, namespace
        self._client = _client() if client is None else client

    async def replicas(self) -> int:
        """As `Scaler`: of an autoscaler how many run, or the least it keeps if that is more (they are being started)."""
        found = await self._ask(lambda: self._client.get(self._resource(), self._name, namespace=self._namespace))
        if self._kind == "deployment":
            return int((found.spec.replicas if found.spec is not None else None) or 0)
        running = (found.status.currentReplicas if found.status is not None else None) or 0
        return max(int(running), int(found.spec.minReplicas or 1))

    async def scale(self, replicas: int) -> int:
        """As `Scaler`."""
        if self._kind == "deployment":
            await self._patch({"spec": {"replicas": replicas}})
            return replicas
        found = await self._ask(lambda: self._client.get(self._resource(), self._name, namespace=self._namespace))
        given = min(replicas, int(found.spec.maxReplicas))
        await self._patch({"spec": {"minReplicas": given}})
        return given

    async def _patch(self, change: dict[str, Any]) -> None:
        from lightkube.types import PatchType

        await self._ask(
            lambda: self._client.patch(self._resource(), self._name, change, namespace=self._namespace, patch_type=PatchType.MERGE)
        )

    def _resource(self) -> Any:
        if self._kind == "hpa":
            from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler

            return HorizontalPodAutoscaler
        from lightkube.resources.apps_v1 import Deployment

        return Deployment.Scale

    async def _ask(self, call: Callable[[], Any]) -> Any:
        from lightkube.core import exceptions

        client: Any = exceptions.httpx  # type: ignore[attr-defined]  # the HTTP client it was built with, by whatever name
        what = f"{self._kind} {self._namespace}/{self._name}"
        try:
            return await call()
        except (exceptions.ApiError, client.HTTPStatusError) as error:
            why = error.status.message if isinstance(error, exceptions.ApiError) else f"status {error.response.status_code}"
            hint = "is it there, and may this service account get and patch it?"
            raise VenueError(f"the Kubernetes API refused {what}: {why}", hint=hint) from None
        except (client.HTTPError, OSError) as error:
            hint = "it is asked again with the next alert"
            raise VenueError(f"the Kubernetes API did not answer about {what}: {error}", hint=hint) from None


def _client() -> AsyncClient:
    try:
        from lightkube import AsyncClient
        from lightkube.core.exceptions import ConfigError as NoCluster
    except ImportError:
        raise ConfigError("scaling in Kubernetes needs lightkube", hint="pip install 'cryptoalpha[kubernetes]'") from None
    try:
        return AsyncClient(trust_env=False)
    except NoCluster as error:
        raise ConfigError(f"lifecycle.alerts.scale speaks to Kubernetes, but {error}", hint="run it in the cluster, or set none") from None


def scaler_of(config: AlertConfig) -> Scaler | None:
    """What the settings name; None where nothing is scaled."""
    if config.scale == "none":
        return None
    kind: Literal["hpa", "deployment"] = "hpa" if config.scale == "hpa" else "deployment"
    return KubernetesScaler(kind, config.workload, config.namespace)
