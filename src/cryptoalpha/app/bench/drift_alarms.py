"""False alarms in use: a whole `DriftMonitor` at its default settings lives through years in which nothing changes; alarms are counted.

A threshold is right for the first alarm. What a user sees is all of them: after the first one, from references that were lucky or not, with
the silence in between. So every alarm counts, over the time after the first reference, in run lengths of that watch: 1 is what was stated.
Returns have exactly the Sharpe ratio that was expected and outcomes come true as often as claimed, so both are as close to an alarm as the
settings call unchanged. A look at the features counts once, however many are told.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np

from cryptoalpha.app.bench.drift_world import LEVEL_SPREADS, SLOW, WORLDS
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.monitor import DriftMonitor

FEATURES = 6
CLAIMED = 0.5

Feed = Callable[[DriftMonitor, int, Floats], list[Alarm]]


def _prediction(monitor: DriftMonitor, at: int, values: Floats) -> list[Alarm]:
    return monitor.observe_prediction(at, "book", float(values[0]))


def _information_coefficient(monitor: DriftMonitor, at: int, values: Floats) -> list[Alarm]:
    return monitor.observe_ic(at, float(values[0]))


def _return(monitor: DriftMonitor, at: int, values: Floats) -> list[Alarm]:
    return monitor.observe_return(at, 0.02 * (float(values[0]) + monitor.config.expected_sharpe / sqrt(365.0)))


def _outcome(monitor: DriftMonitor, at: int, values: Floats) -> list[Alarm]:
    return monitor.observe_outcome(at, "book", CLAIMED, bool(values[0] > 0.0), horizon=DAY)


def _features(monitor: DriftMonitor, at: int, values: Floats) -> list[Alarm]:
    return monitor.observe_features(at, {str(place): value for place, value in enumerate(values.tolist())})[:1]


WATCHES: dict[str, Feed] = {
    "predictions": _prediction,
    "information_coefficient": _information_coefficient,
    "returns": _return,
    "outcomes": _outcome,
    "features": _features,
}
CHAMPION = ("information_coefficient", "returns")


def alarms_per_run_length(watch: str, world: str, *, lives: int, days: int, per_day: int = 1, config: DriftConfig | None = None) -> Floats:
    """Alarms of one watch per run length of time after the first reference, in each life `[lives]`.

    Args:
        watch: a name of `WATCHES`.
        world: a name of `drift_world.WORLDS`; nothing ever changes in it.
        lives: number of worlds, each with its own seed, monitor and thresholds.
        days: length of each.
        per_day: values a day.
        config: settings [the defaults].
    """
    c = config if config is not None else DriftConfig()
    run_length = c.champion_run_length_days if watch in CHAMPION else c.retrain_run_length_days
    found = []
    for life in range(lives):
        monitor = DriftMonitor(c, seed=life)
        series = [
            WORLDS[world](stream(life, "bench", "drift", "alarms", watch, world, str(place)), days * per_day)
            for place in range(FEATURES if watch == "features" else 1)
        ]
        told = sum(len(WATCHES[watch](monitor, step * DAY // per_day, row)) for step, row in enumerate(np.array(series).T))
        found.append(told * run_length / (days - c.reference_days))
    return np.array(found)


def believed_shares(
    world: str, *, runs: int, per_day: int = 1, features: int = 8, looks: int = 5, shift: float = 0.0
) -> tuple[float, float]:
    """Looks at features at the default settings: share that believes in a change of any, and share that does so of the first feature.

    The first feature's level moves by `shift` standard deviations of its world when its reference is complete; the others never change.
    """
    c = DriftConfig()
    days = c.reference_days + round(looks * c.false_discovery_rate * c.retrain_run_length_days) + looks + 1
    believed = first = 0
    for run in range(runs):
        watch = DriftMonitor(c, seed=run).features
        rng = stream(run, "bench", "drift", "features", world)
        series = np.array([(WORLDS | SLOW)[world](rng, days * per_day) for _ in range(features)])
        series[0, c.reference_days * per_day :] += shift * LEVEL_SPREADS.get(world, 1.0)
        for step, row in enumerate(series.T.tolist()):
            told = {alarm.subject for alarm in watch.update(step * DAY // per_day, {str(place): x for place, x in enumerate(row)})}
            believed += bool(told)
            first += "0" in told
    return believed / (runs * looks), first / (runs * looks)
