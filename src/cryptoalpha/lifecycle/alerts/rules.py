"""The alert rules about serving and accuracy, which something acts on, and all the rules of the house in one list.

Each names the metric that is exported and by whom: `serve` tells latency and memory, `trade` tells accuracy. What is done is in `actions`.
"""

from __future__ import annotations

from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.monitoring.alert_rules import alert_rules
from cryptoalpha.monitoring.alerts import AlertRule
from cryptoalpha.monitoring.conditions import Condition, QuantileCondition
from cryptoalpha.monitoring.config import AlertsConfig

HIGH_LATENCY = "high_prediction_latency"
LOW_ACCURACY = "low_prediction_accuracy"
HIGH_MEMORY = "memory_usage_high"


def serving_rules(config: AlertConfig) -> tuple[AlertRule, ...]:
    """Latency, accuracy and memory."""
    window = config.latency_window_seconds
    return (
        AlertRule(
            HIGH_LATENCY, "warning",
            QuantileCondition("cryptoalpha_prediction_seconds", 0.99, ">", config.latency_seconds, window),
            "predictions are late: the slowest hundredth takes longer than it may",
            "inference is given more replicas; if it stays, `cryptoalpha bench serving` shows what one can answer",
            window,
        ),
        AlertRule(
            LOW_ACCURACY, "warning",
            Condition("cryptoalpha_accuracy_alarm_age_seconds", "<", config.accuracy_alarm_days * 86_400.0),
            "directions come true less often than was promised, by a sequential test",
            "retraining is proposed; `cryptoalpha retrain --status` shows what became of it",
        ),
        AlertRule(
            HIGH_MEMORY, "warning", Condition("cryptoalpha_serving_memory_ratio", ">", config.memory),
            "a serving process uses nearly all the memory it may",
            "inference is given more replicas; if it stays, give each more memory or a smaller model",
            config.memory_hold_minutes * 60.0,
        ),
    )  # fmt: skip


def every_rule(watched: AlertsConfig, served: AlertConfig) -> tuple[AlertRule, ...]:
    """What `trade` and `serve` are watched by, in one list for Prometheus; each process judges by it what it exports itself."""
    return (*alert_rules(watched), *serving_rules(served))
