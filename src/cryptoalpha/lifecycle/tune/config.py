"""What is searched, how wide, and on how little data, so that a laptop gets through a search in half an hour."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cryptoalpha.core.config import Count, Positive, Section


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]} is not below the upper bound {bounds[1]}")
    return bounds


def _rising_counts(bounds: tuple[int, int]) -> tuple[int, int]:
    _rising(bounds)
    return bounds


def _rising_shares(bounds: tuple[float, float]) -> tuple[float, float]:
    _rising(bounds)
    if bounds[1] >= 1.0:
        raise ValueError(f"the upper bound {bounds[1]} is not below 1")
    return bounds


Range = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
ShareRange = Annotated[tuple[Positive, Positive], AfterValidator(_rising_shares)]
CountRange = Annotated[tuple[Count, Count], AfterValidator(_rising_counts)]


class TuneConfig(Section):
    """[lifecycle.tune] The space in which training settings are searched; each is [lowest, highest]. And how it is searched."""

    trials: Count = 50
    """Trials of one study. Every one is counted when the winner's Sharpe is deflated."""

    learning_rate: Range = (1e-5, 1e-2)
    """Step size, searched on a log scale."""

    batch: CountRange = (16, 128)
    """Samples of one step. A sample is a bar that is answered; the forecaster takes them by the block (`signals.forecast.block_bars`)."""

    simulations: CountRange = (400, 1600)
    """Simulations of one decision. Part of the space of what plans; the forecaster does not plan, and its search leaves them out."""

    sigma: Range = (0.01, 0.1)
    """Noise of the evolution strategy, on a log scale."""

    dropout: ShareRange = (0.1, 0.5)
    """Dropout, the same for rows and pairs."""

    heads: CountRange = (8, 16)
    """Attention heads. Head width is drawn too and the width is their product, so every point of the space is valid."""

    width: CountRange = (256, 1024)
    """Channels."""

    relative: bool = True
    """Whether `heads` and `width` are meant for the preset `seed` (12 heads, 768 channels) and another preset searches the same shares of
    its own: `small` 3 to 5 heads and 43 to 171 channels. Else they are taken as they stand, which makes a `small` network a large one."""

    objective: Literal["loss", "rank_ic"] = "loss"
    """What is searched for: the least loss, or the highest rank correlation at the longest horizon, on bars behind each fold's embargo.
    The loss, because it says something on every bar and every head; never the best Sharpe ratio, the noisiest of all."""

    folds: Count = 3
    """Folds that judge a trial, oldest first. After each but the last a trial that is worse than the median of those before it is given
    up."""

    train_days: Count = 120
    """Days that one fold of a trial learns from."""

    test_days: Count = 28
    """Days that one fold of a trial is judged on."""

    holdout: bool = True
    """Whether the newest `test_days` are kept from every trial; on them the winner is judged once, beside the settings the search began
    with."""

    epochs: Count = 1
    """Passes over the training blocks of one fold at most."""

    generations: Annotated[int, Field(ge=0)] = 5
    """Generations of evolution that follow the gradients of a trial's fold; 0 leaves them, and `sigma`, out of the search."""

    startup_trials: Count = 10
    """Trials drawn by chance before the sampler learns from them; Optuna's number. The first is the settings as they are."""

    unpruned_trials: Count = 5
    """Trials that must have been judged by all folds before any is given up early; Optuna's number."""

    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial whose process was killed is begun again; one that is killed each time may be what kills it."""

    restarts: Annotated[int, Field(ge=0)] = 3
    """How often processes that died are replaced in one run; the kernel ends them where memory is short."""
