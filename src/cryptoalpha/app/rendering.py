"""What a cluster is given of a run's settings: those that were chosen, never a secret, and the alert rules that follow from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cryptoalpha.app.leaves import leaves_of
from cryptoalpha.app.settings import Effective, Settings, leaf_values
from cryptoalpha.lifecycle.alerts.rules import every_rule
from cryptoalpha.lifecycle.kubernetes.grafana import grafana_dashboard
from cryptoalpha.monitoring.alert_rule_file import prometheus_rule_file


def chart_values(effective: Effective) -> dict[str, Any]:
    """Values of the chart for these settings.

    Secrets are left out, and so is what names one (`keyring:`, `file:`): on a cluster they come from the Secret that `secret` names.
    """
    leaves, values = leaves_of(Settings), leaf_values(effective.settings)
    chosen: dict[str, Any] = {}
    for key in effective.origins:
        if leaves[key].secret:
            continue
        place = chosen
        for part in key[:-1]:
            place = place.setdefault(part, {})
        place[key[-1]] = values[key]
    return {"settings": chosen, "monitoring": {"rules": {"groups": rule_groups(effective.settings)}}}


def rule_groups(settings: Settings) -> list[dict[str, Any]]:
    """The alert rules with these thresholds, as a PrometheusRule's groups."""
    import yaml

    groups: list[dict[str, Any]] = yaml.safe_load(rule_file(settings))["groups"]
    return groups


def rule_file(settings: Settings) -> str:
    """The same as a rule file; that of the defaults is the chart's own."""
    watched = settings.monitoring.alerts
    return prometheus_rule_file(every_rule(watched, settings.lifecycle.alerts), job=watched.job)


def chart_files() -> dict[str, str]:
    """What the chart's folder `files` holds: alert rules of the defaults, and the dashboard."""
    return {"alerts.yaml": rule_file(Settings()), "grafana.json": grafana_dashboard()}


if __name__ == "__main__":  # make chart
    for name, text in chart_files().items():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
