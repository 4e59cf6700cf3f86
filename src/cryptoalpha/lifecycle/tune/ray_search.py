"""The same search on a Ray cluster: Ray Tune places the trials, this process draws, hears, prunes, counts and keeps the journal.

Ray's own `OptunaSearch` tells Optuna that a trial which its scheduler stopped was judged whole, by the mean of the folds it had: the
sampler and the median of the others would learn from values that cannot be compared. So the searcher and the scheduler here ask the
study itself. What travels is a point out and one fold's finding back; machines of the cluster need neither the
journal nor the ledger.

Needs the extras `tune` and `ray`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from cryptoalpha.core.errors import WorkerDiedError
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime.ray_cluster import join_cluster, load_ray
from cryptoalpha.lifecycle.tune.trial import WRONG, Begun, Bench, Score, Search

M = TypeVar("M")

METRIC, FOLD, FOUND, FAULT = "value", "fold", "found", "fault"
"""What is reported; what a fold found travels as text, for Ray takes mappings apart."""


def work_on_ray(bench: Bench[M], *, missing: int, at_once: int, config: RuntimeConfig, seconds: float | None = None) -> None:
    """Have so many trials done on the cluster of the settings, some at once.

    Raises:
        ConfigError: if Ray Tune is not installed, or this process is connected to another cluster.
        VenueError: if the cluster cannot be reached or started.
        WorkerDiedError: if trials ended without an answer; the next search begins them again.
    """
    ray_tune = load_ray("ray.tune")
    leave = join_cluster(config)
    try:
        searcher, scheduler = _asking(bench)
        trainable = ray_tune.with_resources(
            ray_tune.with_parameters(_judge_there, search=bench.search, material=bench.material),
            {"cpu": max(config.cpus_per_actor, 1.0), **({"gpu": config.gpus_per_actor} if config.gpus_per_actor else {})},
        )
        with tempfile.TemporaryDirectory(prefix="cryptoalpha-ray-tune-") as folder:
            tuner = ray_tune.Tuner(
                trainable,
                tune_config=ray_tune.TuneConfig(
                    search_alg=searcher, scheduler=scheduler, num_samples=missing, max_concurrent_trials=at_once, time_budget_s=seconds
                ),
                run_config=ray_tune.RunConfig(storage_path=folder, verbose=0),
            )
            found = tuner.fit()
        if found.errors:
            raise WorkerDiedError(
                f"{len(found.errors)} of {missing} trials ended without an answer: {str(found.errors[0]).strip().splitlines()[-1]}",
                hint="search again: what has ended is kept, these are begun anew",
            )
    finally:
        leave()


def _judge_there(point: Mapping[str, Any], *, search: Search[M], material: M) -> None:
    """In a worker of Ray: judge a point fold by fold and say what was found, until nobody wants more."""
    ray_tune = load_ray("ray.tune")
    for fold in range(search.folds):
        try:
            score = search.judge(material, dict(point), fold)
        except WRONG as wrong:
            ray_tune.report({METRIC: float("nan"), FOLD: fold, FAULT: f"{type(wrong).__name__}: {wrong}"})
            return
        found = json.dumps([score.days.tolist(), score.returns.tolist(), dict(score.figures)])
        ray_tune.report({METRIC: score.value, FOLD: fold, FOUND: found, FAULT: ""})


def _asking(bench: Bench[M]) -> tuple[Any, Any]:
    """A searcher and a scheduler of Ray Tune that ask the study."""
    search_module, schedulers = load_ray("ray.tune.search"), load_ray("ray.tune.schedulers")
    begun: dict[str, Begun[M]] = {}
    last: dict[str, bool] = {}
    faults: dict[str, str] = {}

    class Asking(search_module.Searcher):  # type: ignore[misc, name-defined]
        """Draws points, and says how trials ended."""

        def suggest(self, trial_id: str) -> dict[str, Any]:
            begun[trial_id] = Begun.on(bench)
            return dict(begun[trial_id].params)

        def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
            trial = begun.pop(trial_id, None)
            if trial is not None and not error and result is not None:  # one without an answer stays: the next search begins it again
                trial.end(faults.pop(trial_id, ""))

        def save(self, checkpoint_path: str) -> None:
            """Nothing: the journal is what is kept."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing: the journal is what is kept."""

    class Hearing(schedulers.FIFOScheduler):  # type: ignore[misc, name-defined]
        """Hears what each fold found, and stops what is worse than the others were."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
            known = begun.get(trial.trial_id)
            if known is None or last.get(trial.trial_id) is False:
                return str(schedulers.TrialScheduler.STOP)
            if result[FAULT]:
                goes_on, faults[trial.trial_id] = False, str(result[FAULT])
            else:
                days, returns, figures = json.loads(result[FOUND])
                score = Score(float(result[METRIC]), np.array(days, np.int64), np.array(returns, np.float64), figures)
                goes_on, faults[trial.trial_id] = known.hear(int(result[FOLD]), score)
            last[trial.trial_id] = goes_on
            return str(schedulers.TrialScheduler.CONTINUE if goes_on else schedulers.TrialScheduler.STOP)

    return Asking(metric=METRIC, mode="min" if bench.search.direction == "minimize" else "max"), Hearing()
