"""Settings of drift detection: how often it may be wrong, and how much past it compares with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cryptoalpha.core.config import Count, NonNegative, Positive, Section

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]


class DriftConfig(Section):
    """[monitoring.drift] When something counts as no longer what it was. Alarms propose; they never trade."""

    enabled: bool = True
    """Whether features, predictions, outcomes and returns are watched."""

    reference_days: Count = 90
    """Days that say what normal is, at the start and for predictions and information coefficients after each of their alarms (≥ 1). 90: of
    daily values the mean is then known to a tenth of a standard deviation, which the threshold pays for. What changes within these days
    counts as normal."""

    retrain_run_length_days: Positive = 365.0
    """Mean days between false alarms of each thing that proposes retraining (> 0): the features together, the predictions, the calibration
    of each subject. A year: a false alarm costs one needless training."""

    champion_run_length_days: Positive = 730.0
    """Mean days between false alarms of what questions the champion: its returns and its information coefficient (> 0). Two years: a real
    fall from the Sharpe ratio that is expected, 1, to 0 is then found in about 340 days, from 2, where that is expected, in about 200."""

    false_discovery_rate: Probability = 0.1
    """Benjamini–Hochberg rate over the features of one look (0–1). Looks are this share of `retrain_run_length_days` apart, 36 days at
    the defaults, so that a look that is wrong one time in ten is wrong once a year."""

    expected_sharpe: NonNegative = 1.0
    """Annual Sharpe ratio (≥ 0) that the champion is supposed to have; its returns alarm when it looks like 0 instead. 0 watches no
    returns: nothing can fall from there."""

    shift: Positive = 0.5
    """Shift, in standard deviations of the whitened series (> 0), that the watch over predictions and information coefficients is quickest
    to find."""

    accuracy_margin: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.01
    """How far the share of hits may lie below what was claimed before it counts (0–0.5). 0.01: a claim is an estimate too."""

    bet: Probability = 0.2
    """Stake of the e-detector on each outcome (0–1). 0.2 finds .53 → .50 in about 1,200 outcomes and .53 → .47 in 550, with a mean run
    length of 8,760."""

    cooldown_days: NonNegative = 14.0
    """Days after an alarm in which the same detector says nothing (≥ 0). Predictions and information coefficients are silent for
    `reference_days` at least, while they learn anew."""

    simulated_runs: Annotated[int, Field(ge=50)] = 200
    """Runs simulated to find a threshold (≥ 50). 200 leave the mean run length uncertain by 9 %."""
