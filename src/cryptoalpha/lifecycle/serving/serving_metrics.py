"""What serving tells Prometheus, brought up to date when somebody looks."""

from __future__ import annotations

from cryptoalpha.lifecycle.rollout.split import ARMS, CANARY
from cryptoalpha.lifecycle.serving.config import ServingConfig
from cryptoalpha.lifecycle.serving.fleet import Fleet
from cryptoalpha.monitoring.metrics import Metrics
from cryptoalpha.monitoring.process import memory_allowed, memory_used

SHADOW = "shadow"


class ServingMeter:
    """Counts requests as they end; `refresh` adds what is so now."""

    def __init__(self, config: ServingConfig) -> None:
        self.metrics = Metrics()
        self._config = config
        self._shadowed: dict[str, int] = {}

    def answered(self, arm: str, seconds: float) -> None:
        """A request got an answer."""
        self.metrics.observe("cryptoalpha_prediction_seconds", seconds, arm)
        self.metrics.add("cryptoalpha_predictions_total", 1.0, arm, "ok")

    def failed(self, arm: str, cause: str) -> None:
        """An arm failed at a request, whoever answered it then."""
        self.metrics.add("cryptoalpha_predictions_total", 1.0, arm, cause)

    def refused(self, reason: str) -> None:
        """A request that nobody computed."""
        self.metrics.add("cryptoalpha_serving_refused_total", 1.0, reason)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Requests so far by arm and what came of them."""
        return {(arm, outcome): int(count) for (arm, outcome), count in self.metrics.labelled("cryptoalpha_predictions_total")}

    async def refresh(self, fleet: Fleet) -> Metrics:
        """All figures as they are now."""
        metrics = self.metrics
        metrics.set("cryptoalpha_serving_waiting", fleet.waiting)
        own = memory_used() or 0
        models = [model.memory for model in fleet.models.values()]
        used, allowed = own + sum(models), memory_allowed()
        metrics.set("cryptoalpha_memory_bytes", used)
        of_budget = max(models, default=0) / (self._config.memory_megabytes * 1e6)
        if allowed is not None:
            metrics.set("cryptoalpha_memory_ratio", used / allowed)
        metrics.set("cryptoalpha_serving_memory_ratio", max(of_budget, 0.0 if allowed is None else used / allowed))
        if fleet.router is not None:
            split = fleet.split
            for arm in ARMS:
                metrics.set("cryptoalpha_serving_weight_ratio", split.weights.get(arm, 0.0), arm)
            if split.shadow:
                await self._shadow(fleet)
        return metrics

    async def _shadow(self, fleet: Fleet) -> None:
        """The canary's shadow requests since the last look, by what came of them."""
        assert fleet.router is not None
        counts = (await fleet.router.counts(fleet.split.since))[CANARY]
        now = {"ok": counts.requests - counts.failed, **counts.failures}
        for outcome, count in now.items():
            key = f"{fleet.split.version} {outcome}"
            more = count - self._shadowed.get(key, 0)
            if more > 0:
                self.metrics.add("cryptoalpha_predictions_total", float(more), SHADOW, outcome)
            self._shadowed[key] = count
