"""A Grafana dashboard of the figures that `trade` and `serve` export, as JSON: rows of questions, not of metrics.

Unverified beside a real Grafana, which was not to be had; a test holds every metric it asks for against those that exist.
"""

from __future__ import annotations

import json
from typing import Any

_ROWS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "What does it earn, and what may it lose?",
        (
            ("Equity", "cryptoalpha_equity_quote", "short"),
            ("Drawdown of the allowed", "cryptoalpha_drawdown_ratio / cryptoalpha_drawdown_allowed_ratio", "percentunit"),
            ("Limits used", "cryptoalpha_limit_used / cryptoalpha_limit_allowed", "percentunit"),
            ("Kill switch", "cryptoalpha_kill_switch", "bool_on_off"),
        ),
    ),
    (
        "Does it see, and does it keep up?",
        (
            ("Age of the newest bar", "cryptoalpha_bar_age_seconds", "s"),
            ("Steps, 99th percentile", "cryptoalpha_step_p99_seconds", "s"),
            ("Live sources up", "cryptoalpha_source_up", "bool_on_off"),
            ("Memory of the allowed", "cryptoalpha_memory_ratio", "percentunit"),
        ),
    ),
    (
        "Are the models what they were?",
        (
            ("Accuracy", "cryptoalpha_accuracy_ratio", "percentunit"),
            ("Evidence that it fell", "cryptoalpha_accuracy_evidence_ratio", "percentunit"),
            ("Drift alarms", "increase(cryptoalpha_alarms_total[1d])", "short"),
            ("Retraining proposed", "cryptoalpha_retraining_proposed", "bool_on_off"),
        ),
    ),
    (
        "Who answers, how fast, and how often not?",
        (
            (
                "Latency, 99th percentile",
                "histogram_quantile(0.99, sum by (service, le) (rate(cryptoalpha_prediction_seconds_bucket[5m])))",
                "s",
            ),
            (
                "Failed",
                'sum by (service) (rate(cryptoalpha_predictions_total{outcome!="ok"}[5m]))'
                " / sum by (service) (rate(cryptoalpha_predictions_total[5m]))",
                "percentunit",
            ),
            ("Requests a second", "sum by (service, outcome) (rate(cryptoalpha_predictions_total[5m]))", "reqps"),
            ("Share of an arm", "cryptoalpha_serving_weight_ratio", "percentunit"),
        ),
    ),
)


def grafana_dashboard() -> str:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    for row, (question, figures) in enumerate(_ROWS):
        y = 9 * row
        panels.append({"type": "row", "title": question, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "collapsed": False, "panels": []})
        panels += [_panel(title, asked, unit, x=6 * place, y=y + 1) for place, (title, asked, unit) in enumerate(figures)]
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    board = {
        "uid": "cryptoalpha",
        "title": "cryptoalpha",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "utc",
        "templating": {"list": [source]},
        "panels": panels,
    }
    return json.dumps(board, indent=1) + "\n"


def _panel(title: str, asked: str, unit: str, *, x: int, y: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {"h": 8, "w": 6, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [{"refId": "A", "expr": asked, "datasource": source}],
    }
