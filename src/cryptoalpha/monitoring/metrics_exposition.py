"""Metrics as text and over HTTP, in Prometheus' own format, written by its own client library.

The endpoint listens on 127.0.0.1 unless told otherwise and runs in threads of its own that read copies; nothing it does, or fails to do,
reaches the loop. prometheus_client is imported when it is first needed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.metrics import BUCKETS, METRICS, Histogram, Metric, Metrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family

LOOPBACK = "127.0.0.1"


def exposition(metrics: Metrics) -> str:
    """The values in Prometheus' text format. Metrics without a value are left out."""
    from prometheus_client import generate_latest

    return generate_latest(_registry(lambda: metrics)).decode("utf-8")


class MetricsEndpoint:
    """Serves `http://ADDRESS:port/metrics` until closed.

    Args:
        port: where; 0 takes a free port, `port` then says which.
        metrics: asked at every scrape, from another thread.
        address: whom it listens to; an address of this machine, or 0.0.0.0 for all of them.

    Raises:
        ConfigError: if the port cannot be had.
    """

    def __init__(self, port: int, metrics: Callable[[], Metrics], *, address: str = LOOPBACK) -> None:
        from prometheus_client import start_http_server

        self.address = address
        try:
            self._server, self._thread = start_http_server(port, address, registry=_registry(metrics))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise ConfigError(
                f"cannot serve metrics on {address}:{port}: {'the port is taken' if taken else error.strerror}",
                hint="set monitoring.metrics.port to another port, 0 for any free one, or none to serve nothing",
            ) from None
        self.port = self._server.server_port

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop listening; a scrape under way is not waited for."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5.0)


class _Collector:
    """What prometheus_client asks for values."""

    def __init__(self, metrics: Callable[[], Metrics]) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Family]:
        """Nothing, so that registering does not ask for values."""
        return ()

    def collect(self) -> Iterator[Family]:
        now = self._metrics().copy()
        for metric in METRICS.values():
            family = _family(metric, now)
            if family.samples:
                yield family


def _registry(metrics: Callable[[], Metrics]) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)  # never the library's own, which whole processes share
    registry.register(_Collector(metrics))
    return registry


def _family(metric: Metric, now: Metrics) -> Family:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, seen in now.histograms(metric.name):
            histogram.add_metric(labels, list(_cumulative(seen)), seen.total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in now.labelled(metric.name):
        family.add_metric(labels, value)
    return family


def _cumulative(histogram: Histogram) -> Iterator[tuple[str, float]]:
    """Upper edge and how many observations are at most that."""
    seen = 0
    for edge, count in zip([*map(str, BUCKETS), "+Inf"], histogram.counts, strict=True):
        seen += count
        yield edge, float(seen)
