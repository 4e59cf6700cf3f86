"""Settings of retraining: who may start it, how often, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cryptoalpha.core.config import Count, NonNegative, Positive, Section

Tier = Literal["retrain", "champion"]


class RetrainConfig(Section):
    """[lifecycle.retrain] When models are trained anew, and what that may cost. A retrained model is a challenger, never a champion."""

    automatic: bool = False
    """Whether `trade` runs the campaigns that it proposes, in a process beside itself. Off: it proposes and says so, and
    `cryptoalpha retrain` answers. Off, because a training takes hours of every core it is given."""

    tiers: tuple[Tier, ...] = ("retrain", "champion")
    """Drift alarms that propose retraining: those a year of false alarms apart, and those that question the champion (two years): an
    edge that dies shows in the latter."""

    serve: str = ""
    """Address of the `serve` whose requests a campaign's canary is given, such as http://127.0.0.1:8100; `--serve` overrules it. Empty:
    there are none, and a version that passes the gates is promoted without. Its token is credentials.serving_token."""

    every_days: NonNegative = 0.0
    """Days after the last campaign, or the champion's birth, at which one is due by schedule (≥ 0). 0: none, drift decides."""

    cooldown_days: NonNegative = 7.0
    """Days after a campaign's end before another begins (≥ 0), unless a person asks: a week of new bars changes little of what years teach,
    and each candidate that is looked at makes the next one's Sharpe ratio worth less."""

    tune_cooldown_days: NonNegative = 30.0
    """Days between two searches of settings (≥ 0) that failed judgements ask for: fifty trials are the price of each."""

    tune_trials: Annotated[int, Field(ge=0)] = 50
    """Trials of a search that a failed judgement asks for (≥ 0); 0 asks for none."""

    folds: Count = 3
    """Judged folds of a retraining, as `train all --folds`."""

    earlier: Annotated[int, Field(ge=0)] = 2
    """Folds before them, from which fusion and agents learn, as `train all --earlier`."""

    attempts: Count = 3
    """Times a step may fail before its campaign does (≥ 1)."""

    retry_minutes: NonNegative = 10.0
    """Minutes before a failed step is tried again (≥ 0), doubled each time: what was full or away may not be so then."""

    step_hours: Positive = 12.0
    """Hours that one step's process may take (> 0) before it is ended and counts as failed."""

    memory_gigabytes: Positive = 8.0
    """Resident memory, in 10⁹ bytes, that a step's process and its children may use together (> 0), watched several times a second."""

    nice: Annotated[int, Field(ge=0, le=19)] = 15
    """How much a step's process yields to others (0–19). 15: the loop that trades never waits for a training."""
