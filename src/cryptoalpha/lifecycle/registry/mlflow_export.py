"""A version as a run of MLflow: parameters, metrics, tags and files, for those who compare models there. The registry stays the truth.

Needs `mlflow-skinny` (62 MB), which nothing else here needs and no extra names: `pip install mlflow-skinny`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.registry.version import Version

EXPERIMENT = "cryptoalpha"
LONGEST_VALUE = 500
"""Characters of a parameter that every release of MLflow takes."""


def export_mlflow(version: Version, where: str) -> str:
    """Log a verified version and return the run's id; one that is there already is returned as it is.

    Args:
        where: a folder, or the URI of a tracking server.

    Raises:
        ConfigError: if MLflow is not installed, or refuses.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise ConfigError("the export to MLflow needs mlflow-skinny, which is not installed", hint="pip install mlflow-skinny") from None
    uri = where if "://" in where else Path(where).expanduser().resolve().as_uri()
    if uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # asked for by naming a folder; MLflow 3 refuses one otherwise
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
        there = client.search_runs([experiment], f"tags.version = '{version.id}' and attributes.status = 'FINISHED'", max_results=1)
        if there:
            return str(there[0].info.run_id)
        tags = {"version": version.id, "line": version.line, "data": version.data, "commit": version.commit, "parent": version.parent or ""}
        run = str(client.create_run(experiment, start_time=version.created_at // 1_000_000, tags=tags, run_name=version.short).info.run_id)
        for name, value in (("seed", version.seed), *_leaves(version.config)):
            client.log_param(run, name[:250], str(value)[:LONGEST_VALUE])
        for name, number in version.metrics.items():
            client.log_metric(run, name, number)
        client.log_artifacts(run, str(version.path))
        client.set_terminated(run)  # a run that was not finished is not found again
    except MlflowException as error:
        raise ConfigError(f"MLflow at {where} refused: {error.message}", hint="check the folder or URI") from error
    return run


def _leaves(config: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in sorted(config.items()):
        key = "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in f"{above}{name}")
        found += _leaves(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]
    return found
