"""Settings of `lifecycle.kubernetes`: where on a cluster the house stands."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cryptoalpha.core.config import Positive, Section

DnsName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]


class KubernetesConfig(Section):
    """[lifecycle.kubernetes] Where on a cluster `deploy canary` shifts traffic, and who counts there."""

    name: DnsName = "cryptoalpha"
    """Name of the release: the chart calls its route so, and its services NAME-stable and NAME-canary."""

    namespace: str = ""
    """Namespace of the release. Empty: that of the pod it runs in, or of the kubeconfig's context."""

    prometheus: Annotated[str, Field(pattern=r"^https?://[^\s/]+")] = "http://prometheus-operated.monitoring:9090"
    """Address of the Prometheus that scrapes the inference pods: gateways do not count failures, and pods come and go."""

    answer_seconds: Positive = 10.0
    """Longest wait for one answer of the API server or of Prometheus."""

    ready_seconds: Positive = 600.0
    """Longest wait for pods of a version to be ready, which includes pulling an image."""
