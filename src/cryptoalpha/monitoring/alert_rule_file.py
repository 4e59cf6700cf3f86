"""The alert rules as a rule file for Prometheus (`rule_files:` in its configuration). One metric name, one rule: see `alerts`."""

from __future__ import annotations

from collections.abc import Sequence

from cryptoalpha.monitoring.alerts import AlertRule

GROUP = "cryptoalpha"


def prometheus_rule_file(rules: Sequence[AlertRule]) -> str:
    """YAML that `promtool check rules` accepts."""
    import yaml

    entries = [
        {
            "alert": rule.name,
            "expr": rule.condition.expression(),
            **({"for": prometheus_duration(rule.hold_seconds)} if rule.hold_seconds else {}),
            "labels": {"severity": rule.severity},
            "annotations": {"summary": rule.summary, "action": rule.action},
        }
        for rule in rules
    ]
    return yaml.safe_dump({"groups": [{"name": GROUP, "rules": entries}]}, sort_keys=False, allow_unicode=True, width=140)


def prometheus_duration(seconds: float) -> str:
    """`300` → `300s`; Prometheus takes whole milliseconds."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"
