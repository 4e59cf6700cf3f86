"""How much each source knew: the rank correlation of its opinions with the returns they were about, after the fact, and its quality.

The label is the one the audit knows (`signals.labels`): from the open after the opinion to the open a horizon later, in volatility units.
Nothing here feeds back into a run.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.app.recorder import Recorder
from cryptoalpha.app.report.content import SourceSkill
from cryptoalpha.core.time import interval_name
from cryptoalpha.monitoring.accuracy import information_coefficient
from cryptoalpha.monitoring.signal_quality import SourceRecord, signal_quality
from cryptoalpha.signals.labels import forward_return
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.tables import Floats


def source_skill(tape: SignalTape, mean_weights: dict[str, float], *, seed: int = 0) -> tuple[SourceSkill, ...]:
    """IC of every source over its own horizon, with Newey–West t, and IC × coverage × freshness with its bootstrap interval. Across assets
    where five or more are observed, else along time.

    Args:
        mean_weights: average weight of each source in the run; 0 where it had none.
        seed: of the resamples.
    """
    found = []
    for source in tape.sources:
        horizon = max(1, round(source.horizon / tape.panel.interval))
        realised = forward_return(tape.panel, horizon, tape.sigma).value
        spoke, known = np.isfinite(source.value), np.isfinite(realised)
        said, came = np.where(spoke, source.value, 0.0), np.where(known, realised, 0.0)
        skill = information_coefficient(said, came, horizon=horizon, observed=spoke & known)
        record = SourceRecord(source.source, said, came, spoke=spoke, known=known, age=opinion_age(source.value), horizon=horizon)
        quality = signal_quality(record, seed=seed)
        found.append(
            SourceSkill(
                name=source.source,
                ic=skill.mean,
                t_statistic=skill.t_statistic,
                observations=skill.observations,
                mean_weight=mean_weights.get(source.source, 0.0),
                horizon=interval_name(source.horizon),
                quality=quality.quality,
                coverage=quality.coverage,
                freshness=quality.freshness,
                reason=quality.reason or "",
            )
        )
    return tuple(found)


def opinion_age(value: Floats) -> Floats:
    """Bars since each opinion was first held, `[T, A]`: 0 where it differs from the bar before. Repeating it makes it no fresher."""
    bars = np.arange(len(value))[:, None]
    changed = np.ones(value.shape, dtype=bool)
    changed[1:] = value[1:] != value[:-1]  # NaN differs from everything
    return np.asarray(bars - np.maximum.accumulate(np.where(changed, bars, 0), axis=0), dtype=np.float64)


def mean_source_weights(recorder: Recorder) -> dict[str, float]:
    """Average weight of each source over the run."""
    history = recorder.source_weights
    names = {name for _, weights in history for name in weights}
    return {name: sum(weights.get(name, 0.0) for _, weights in history) / len(history) for name in names}
