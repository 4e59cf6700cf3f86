"""The step size over a training run: up from zero during the warm-up, then down. A pure function: a resume restores nothing.

Source: cosine, Loshchilov & Hutter (2017), "SGDR", eq. 5 without restarts.
"""

from __future__ import annotations

import math
from typing import Literal


def step_size_factor(step: int, steps: int, warmup: float, schedule: Literal["cosine", "linear", "constant"]) -> float:
    """Share of the peak step size (above 0, at most 1) at `step` (0 … `steps` − 1), where `warmup` is the share of steps that rise.

    With w = round(warmup · steps), step s < w has (s + 1)/w: no step is wasted on a step size of 0, and step w − 1 is at the peak. Later
    steps have progress p = (s − w)/(steps − w), below 1, so the last one still moves.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / (steps - rising)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress if schedule == "linear" else 1.0
