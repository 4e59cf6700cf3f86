"""The alert rules as a rule file for Prometheus (`rule_files:` in its configuration). One metric name, one rule: see `alerts`.

One rule more than the process judges itself: that the process is gone. A dead process has no metrics, so all its other alerts are over.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptoalpha.monitoring.alerts import AlertRule

GROUP = "cryptoalpha"
PROCESS_GONE = "process_gone"
GONE_SECONDS = 60.0
"""How long scrapes must have failed: a restart takes less."""


def prometheus_rule_file(rules: Sequence[AlertRule], *, job: str | None = None) -> str:
    """YAML that `promtool check rules` accepts.

    Args:
        job: `job_name` under which Prometheus scrapes `trade`; with it, a page where none of the job's targets answers or one does not.
    """
    import yaml

    entries = [
        _entry(rule.name, rule.condition.expression(), rule.hold_seconds, rule.severity, rule.summary, rule.action) for rule in rules
    ]
    if job is not None:
        entries.append(
            _entry(
                PROCESS_GONE,
                f'up{{job="{job}"}} == 0 or absent(up{{job="{job}"}})',
                GONE_SECONDS,
                "page",
                "no metrics can be had: the process is dead, or its port is not scraped",
                "start it again with `cryptoalpha trade --run NAME`: it goes on where it stopped",
            )
        )
    return yaml.safe_dump({"groups": [{"name": GROUP, "rules": entries}]}, sort_keys=False, allow_unicode=True, width=140)


def _entry(name: str, expression: str, hold_seconds: float, severity: str, summary: str, action: str) -> dict[str, object]:
    return {
        "alert": name,
        "expr": expression,
        **({"for": prometheus_duration(hold_seconds)} if hold_seconds else {}),
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "action": action},
    }


def prometheus_duration(seconds: float) -> str:
    """`300` → `300s`; Prometheus takes whole milliseconds."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"
