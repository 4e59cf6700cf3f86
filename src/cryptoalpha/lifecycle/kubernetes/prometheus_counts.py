"""What each arm did since a moment, asked of the Prometheus that scrapes the pods: gateways count no failures, and pods come and go.

A counter's rise is its last value less its value at that moment, series by series, in whole requests; a counter that fell began anew with
its process, and what it had counted before is lost. `increase()` would be easier and extrapolates: 7 failures must be 7. What happened
since the last scrape is not known yet.

In shadow the gateway sends every request to both arms and nobody sees which answers belong together. Failures of either arm alone are the
most pairs that can differ: a request at which both failed then counts once for each arm, which multiplies the relative test's evidence by
4r/(1+r)² ≤ 1 for every r. So the evidence is never more than that of the pairs themselves. Whether answers agree is not known.

Source: Prometheus HTTP API v1, instant queries; design facts §9.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.split import ARMS, CAUSES, EDGES, ArmCounts, Counts, Pairs, SplitUnreachableError

REQUESTS, SECONDS = "cryptoalpha_predictions_total", "cryptoalpha_prediction_seconds_bucket"
Series = tuple[tuple[str, str], ...]


class PrometheusCounts:
    """`counts` of a release's two services.

    Args:
        url: of Prometheus, without a path.
        name: of the release; its services are NAME-stable and NAME-canary.
        now: UTC ns, by a clock that agrees with Prometheus' own.
        late_seconds: latency above which an answer is late; the histogram's bucket that holds it decides.
    """

    def __init__(
        self, url: str, *, namespace: str, name: str, now: Callable[[], int], late_seconds: float = 0.1, timeout_seconds: float = 10.0
    ) -> None:
        self._url, self._namespace, self._name = url.rstrip("/"), namespace, name
        self._now, self._late, self._timeout = now, late_seconds, timeout_seconds

    async def __call__(self, since: int) -> Counts:
        """Counts of both arms from a moment on (UTC ns).

        Raises:
            SplitUnreachableError: if Prometheus does not answer.
        """
        return {arm: self._counts(await self._rises(REQUESTS, arm, since), await self._rises(SECONDS, arm, since)) for arm in ARMS}

    async def _rises(self, metric: str, arm: str, since: int) -> dict[Series, float]:
        """Rise of every series of an arm."""
        now = self._now()
        where = f'{metric}{{namespace="{self._namespace}", service="{self._name}-{arm}", arm!="shadow"}}'
        span = max(1, round((now - since) / 1e9))
        ends = await self._query(f"last_over_time({where}[{span}s])", now)
        begins = await self._query(where, since)
        return {key: value - begins.get(key, 0.0) if value >= begins.get(key, 0.0) else value for key, value in ends.items()}

    async def _query(self, query: str, at: int) -> dict[Series, float]:
        import aiohttp

        address = f"{self._url}/api/v1/query"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout)) as session,
                session.post(address, data={"query": query, "time": f"{at / 1e9:.3f}"}) as answer,
            ):
                found = json.loads(await answer.text())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise SplitUnreachableError(
                f"Prometheus at {self._url} did not answer: {type(error).__name__}", hint="set lifecycle.kubernetes.prometheus"
            ) from None
        if found.get("status") != "success":
            raise ConfigError(f"Prometheus at {self._url} refuses {query!r}: {found.get('error', 'no reason given')}")
        return {_series(each["metric"]): float(each["value"][1]) for each in found["data"]["result"]}

    def _counts(self, requests: dict[Series, float], seconds: dict[Series, float]) -> ArmCounts:
        by_outcome: dict[str, int] = {}
        for series, rise in requests.items():
            outcome = dict(series).get("outcome", "")
            by_outcome[outcome] = by_outcome.get(outcome, 0) + round(rise)
        cumulative: dict[float, int] = {}
        for series, rise in seconds.items():
            edge = float(dict(series)["le"])
            cumulative[edge] = cumulative.get(edge, 0) + round(rise)
        latencies, late, below = [0] * (len(EDGES) + 1), 0, 0
        for edge in sorted(cumulative):
            within = max(0, cumulative[edge] - below)
            latencies[bisect_left(EDGES, edge)] += within
            late += within if edge > self._late else 0
            below = max(below, cumulative[edge])
        return ArmCounts(
            requests=sum(by_outcome.values()),
            failures={cause: by_outcome[cause] for cause in CAUSES if by_outcome.get(cause)},
            late=late,
            latencies=tuple(latencies),
        )


def _series(labels: dict[str, Any]) -> Series:
    return tuple(sorted((name, str(value)) for name, value in labels.items() if name != "__name__"))


def paired(stable: ArmCounts, canary: ArmCounts) -> ArmCounts:
    """The canary's counts in shadow, with the pairs that can be said of requests which both were asked; see the module."""
    fine = max(0, min(stable.requests, canary.requests) - stable.failed - canary.failed)
    pairs = Pairs(
        both_fine=fine, canary_failed=canary.failed, stable_failed=stable.failed, canary_late=canary.late, stable_late=stable.late
    )  # fmt: skip
    return ArmCounts(requests=canary.requests, failures=canary.failures, late=canary.late, latencies=canary.latencies, pairs=pairs)
