"""How much each source knew: the rank correlation of its opinions with the returns they were about, after the fact.

The label is the one the audit knows (`signals.labels`): from the open after the opinion to the open a horizon later, in volatility units.
Nothing here feeds back into a run.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.app.report.content import SourceSkill
from cryptoalpha.core.time import interval_name
from cryptoalpha.monitoring.accuracy import information_coefficient
from cryptoalpha.signals.labels import forward_return
from cryptoalpha.signals.tape import SignalTape


def source_skill(tape: SignalTape, mean_weights: dict[str, float]) -> tuple[SourceSkill, ...]:
    """IC of every source over its own horizon, with Newey–West t. Across assets where five or more are observed, else along time.

    Args:
        mean_weights: average weight of each source in the run; 0 where it had none.
    """
    found = []
    for source in tape.sources:
        horizon = max(1, round(source.horizon / tape.panel.interval))
        realised = forward_return(tape.panel, horizon, tape.sigma).value
        seen = np.isfinite(source.value) & np.isfinite(realised)
        skill = information_coefficient(np.where(seen, source.value, 0.0), np.where(seen, realised, 0.0), horizon=horizon, observed=seen)
        found.append(
            SourceSkill(
                name=source.source,
                ic=skill.mean,
                t_statistic=skill.t_statistic,
                observations=skill.observations,
                mean_weight=mean_weights.get(source.source, 0.0),
                horizon=interval_name(source.horizon),
            )
        )
    return tuple(found)
