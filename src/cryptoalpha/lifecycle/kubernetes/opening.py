"""Back ends of traffic on a cluster, built from settings."""

from __future__ import annotations

from collections.abc import Callable

from cryptoalpha.lifecycle.kubernetes.api import KubernetesApi
from cryptoalpha.lifecycle.kubernetes.argo import ArgoSplit
from cryptoalpha.lifecycle.kubernetes.config import KubernetesConfig
from cryptoalpha.lifecycle.kubernetes.httproute import HttpRouteSplit
from cryptoalpha.lifecycle.kubernetes.prometheus_counts import PrometheusCounts
from cryptoalpha.lifecycle.kubernetes.workloads import Workloads
from cryptoalpha.lifecycle.rollout.config import CanaryConfig


def open_httproute(config: KubernetesConfig, canary: CanaryConfig, *, now: Callable[[], int]) -> HttpRouteSplit:
    """The split of a release by its HTTPRoute.

    Raises:
        ConfigError: if the client is not installed or there is no cluster.
    """
    api = KubernetesApi(config.namespace, timeout_seconds=config.answer_seconds)
    workloads = Workloads(api, config.name, ready_seconds=config.ready_seconds)
    return HttpRouteSplit(api, config.name, workloads=workloads, count=_counts(config, canary, api.namespace, now), now=now)


def open_argo(config: KubernetesConfig, canary: CanaryConfig, *, now: Callable[[], int]) -> ArgoSplit:
    """The split of a release by its Argo Rollout.

    Raises:
        ConfigError: as `open_httproute`.
    """
    api = KubernetesApi(config.namespace, timeout_seconds=config.answer_seconds)
    return ArgoSplit(api, config.name, count=_counts(config, canary, api.namespace, now), now=now)


def _counts(config: KubernetesConfig, canary: CanaryConfig, namespace: str, now: Callable[[], int]) -> PrometheusCounts:
    return PrometheusCounts(
        config.prometheus, namespace=namespace, name=config.name, now=now, late_seconds=canary.latency_seconds,
        timeout_seconds=config.answer_seconds,
    )  # fmt: skip
