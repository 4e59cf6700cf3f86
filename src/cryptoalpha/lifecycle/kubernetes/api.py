"""The few calls of the Kubernetes API that the house makes, by the `lightkube` client, with the house's errors.

A change is a merge patch that names the `resourceVersion` it was made for: the API server refuses it (409) if anybody has written the
object since. A merge patch replaces lists as a whole, so who changes one entry writes all of them back.

Credentials are those of the pod's service account, else of the kubeconfig; nothing here reads or keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.split import SplitConflictError, SplitUnreachableError

if TYPE_CHECKING:
    from lightkube import AsyncClient

Object = dict[str, Any]
"""An object of the API as its JSON."""

KINDS = {
    "HTTPRoute": ("gateway.networking.k8s.io", "v1", "httproutes"),
    "Rollout": ("argoproj.io", "v1alpha1", "rollouts"),
    "Deployment": ("apps", "v1", "deployments"),
    "HorizontalPodAutoscaler": ("autoscaling", "v2", "horizontalpodautoscalers"),
}


class Cluster(Protocol):
    """What is asked of a cluster. `KubernetesApi` does it over HTTP."""

    async def get(self, kind: str, name: str) -> Object: ...

    async def patch(self, kind: str, name: str, change: Mapping[str, Any], *, version: str = "", status: bool = False) -> Object: ...


class KubernetesApi:
    """Objects of one namespace.

    Args:
        namespace: whose objects; empty: the pod's own, or the kubeconfig's.
        timeout_seconds: longest wait for one answer.
        client: a client of another making; otherwise one is made from the pod's service account or the kubeconfig.

    Raises:
        ConfigError: if the package is missing or there is no cluster to speak to.
    """

    def __init__(self, namespace: str = "", *, timeout_seconds: float = 10.0, client: AsyncClient | None = None) -> None:
        self._client = client if client is not None else _client(namespace, timeout_seconds)
        self.namespace = namespace or self._client.namespace

    async def get(self, kind: str, name: str) -> Object:
        """An object as it is.

        Raises:
            ConfigError: if there is none, or it may not be read.
            SplitUnreachableError: if the API server does not answer.
        """
        return await self._ask("GET", kind, name)

    async def patch(self, kind: str, name: str, change: Mapping[str, Any], *, version: str = "", status: bool = False) -> Object:
        """Change an object by a merge patch; gives it back as it is then.

        Args:
            version: the `resourceVersion` it must still have; empty for any.
            status: whether its status is meant, a resource of its own.

        Raises:
            SplitConflictError: if it has another version by now.
            ConfigError, SplitUnreachableError: as `get`.
        """
        body: Object = dict(change)
        if version:
            body["metadata"] = {**body.get("metadata", {}), "resourceVersion": version}
        return await self._ask("PATCH", kind, name, body, status=status)

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, verb: str, kind: str, name: str, body: Object | None = None, *, status: bool = False) -> Object:
        import httpx2
        from lightkube.types import PatchType

        resource = _resource(kind, status=status)
        try:
            if body is None:
                found = await self._client.get(resource, name, namespace=self.namespace)
            else:
                found = await self._client.patch(resource, name, body, namespace=self.namespace, patch_type=PatchType.MERGE)
        except httpx2.HTTPStatusError as error:  # `ApiError` is one; what a proxy answers in its own words is none
            raise _as_ours(error, verb, kind, name, self.namespace) from None
        except httpx2.TransportError as error:
            raise SplitUnreachableError(
                f"the API server did not answer {verb} {kind} {name}: {type(error).__name__}", hint="read before writing again"
            ) from None
        return dict(found.to_dict())


def _client(namespace: str, timeout_seconds: float) -> AsyncClient:
    try:
        import httpx2
        from lightkube import AsyncClient
        from lightkube.core.exceptions import ConfigError as NoCluster
    except ImportError:
        raise ConfigError("lightkube is not installed, which speaks to Kubernetes", hint="pip install 'cryptoalpha[kubernetes]'") from None
    try:
        return AsyncClient(namespace=namespace or None, timeout=httpx2.Timeout(timeout_seconds), field_manager="cryptoalpha-rollout")
    except NoCluster as error:
        raise ConfigError(f"there is no cluster to speak to: {error}", hint="run it in a pod, or set KUBECONFIG") from None


def _resource(kind: str, *, status: bool) -> Any:
    """The client's class for a kind, generic for all of them: what is not looked at is carried along as it came."""
    from lightkube.generic_resource import create_namespaced_resource

    group, version, plural = KINDS[kind]
    resource = create_namespaced_resource(group, version, kind, plural)
    return resource.Status if status else resource


def _as_ours(error: Any, verb: str, kind: str, name: str, namespace: str) -> Exception:
    code = error.response.status_code
    what = f"{verb} {kind} {name} in {namespace}: {error} ({code})"
    if code == 409:
        return SplitConflictError(what, hint="another hand wrote it: read it again")
    if code == 404:
        return ConfigError(what, hint="is the chart installed there? `lifecycle.kubernetes.name` and `.namespace` say where")
    if code in (401, 403):
        return ConfigError(what, hint="the chart's Role NAME-rollout says what a rollout needs")
    if code == 429 or code >= 500:
        return SplitUnreachableError(what, hint="the API server is busy or away; it is asked again")
    return ConfigError(what, hint="the API server found the object wrong")
