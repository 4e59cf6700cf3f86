"""Settings of the alerts that something acts on. The defaults of latency, accuracy and memory are the user's own numbers."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, Section

ConcreteName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]


class AlertConfig(Section):
    """[lifecycle.alerts] When a served model needs more machines or new training."""

    latency_seconds: Positive = 0.1
    """99th percentile of prediction latency above which serving scales up."""

    latency_window_seconds: Annotated[float, Field(ge=10.0)] = 60.0
    """Seconds whose requests that percentile is taken of, and for which it must have been above (≥ 10). A minute: at ten requests a second
    the percentile then rests on six hundred."""

    accuracy_drop: Fraction = 0.05
    """Fall of accuracy below its baseline, as a fraction (0–1), at which retraining is proposed."""

    accuracy_baseline: Fraction = 0.5
    """Share of directions that come true (0–1) by which accuracy is measured. One half, a coin's: set it to what the champion showed out of
    sample when it was promoted."""

    accuracy_hours: Positive = 1.0
    """Hours from a direction to the price that judges it (> 0); bars that are longer are judged by the next bar."""

    accuracy_run_length_days: Positive = 365.0
    """Mean days between false alarms of a model whose accuracy is just fine, at least (> 0). A year: as of all that proposes retraining."""

    accuracy_alarm_days: Positive = 1.0
    """Days for which an alarm about accuracy stands (> 0)."""

    memory: Fraction = 0.8
    """Share of the memory limit (0–1) above which serving scales out."""

    memory_hold_minutes: NonNegative = 5.0
    """Minutes for which it must have been above (≥ 0)."""

    cooldown_seconds: NonNegative = 300.0
    """Seconds between two changes of the number of serving replicas (≥ 0). Five minutes: a new replica loads its model first, and what it
    takes over must show before more are asked for."""

    retrain_cooldown_hours: NonNegative = 24.0
    """Hours between two proposals of retraining for the same alert (≥ 0)."""

    least_replicas: Count = 1
    """Replicas that serving keeps when nothing alerts (≥ 1)."""

    most_replicas: Count = 8
    """Replicas beyond which alerts ask for no more (≥ `least_replicas`)."""

    scale: Annotated[str, Field(pattern=r"^(none|hpa|deployment)$")] = "none"
    """What scaling changes: `hpa` the least replicas of a HorizontalPodAutoscaler, `deployment` the replicas of a Deployment, both by the
    Kubernetes API of the cluster this runs in; `none` says only what it would have done."""

    port: Annotated[int, Field(ge=0, le=65_535)] = 9095
    """TCP port under which `alerts` hears Alertmanager (0–65535; 0 takes a free one)."""

    namespace: ConcreteName = "default"
    """Kubernetes namespace of the serving workload."""

    workload: ConcreteName = "cryptoalpha-inference-stable"
    """Name of the HorizontalPodAutoscaler or Deployment."""

    @model_validator(mode="after")
    def _replicas_leave_room(self) -> Self:
        if self.most_replicas < self.least_replicas:
            raise ValueError("most_replicas must not lie below least_replicas")
        return self
