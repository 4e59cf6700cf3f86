"""Which function judges which gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptoalpha.lifecycle.gates import earned, fitness
from cryptoalpha.lifecycle.gates.hearing import Finding, Hearing
from cryptoalpha.lifecycle.gates.values import GateName

Judge = Callable[[Hearing], Finding]

JUDGES: Mapping[GateName, Judge] = {
    "look_ahead": fitness.look_ahead,
    "walk_forward": earned.walk_forward,
    "paths": earned.paths,
    "deflated_sharpe": earned.deflated_sharpe,
    "track_record": earned.track_record,
    "overfitting": earned.overfitting,
    "champion": earned.champion,
    "baselines": earned.baselines,
    "calibration": fitness.calibration,
    "latency": fitness.latency,
    "memory": fitness.memory,
    "shadow_parity": fitness.shadow_parity,
    "shadow_latency": fitness.shadow_latency,
    "holdout": earned.holdout,
}
