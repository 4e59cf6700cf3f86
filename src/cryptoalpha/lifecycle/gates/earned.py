"""The gates that look at what would have been earned: after costs, out of sample, less what luck and picking explain.

All bounds are one-sided at `confidence`: the lower end of a two-sided interval that holds 2 · confidence − 1. Every gate must hold at once,
so nothing is gained by asking many of them and no level is divided (an intersection-union test: the share of worthless candidates that
pass is at most that of the strictest gate).

Sources: Bailey & López de Prado (2012, 2014); Bailey et al. (2017); López de Prado (2018), chapters 7, 11 and 12; Berger (1982) for
intersection-union tests. Measures: `monitoring.significance`, `.overfitting`, `.bootstrap`.
"""

from __future__ import annotations

from math import nan, sqrt

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR, iso
from cryptoalpha.lifecycle.gates.evidence import Floats, TrackRecord
from cryptoalpha.lifecycle.gates.hearing import Finding, Hearing, compared
from cryptoalpha.monitoring.bootstrap import Interval, sharpe_difference, sharpe_interval
from cryptoalpha.monitoring.overfitting import probability_of_backtest_overfitting
from cryptoalpha.monitoring.ratios import deviation, sharpe_ratio
from cryptoalpha.monitoring.significance import (
    deflated_sharpe_ratio,
    expected_max_sharpe,
    min_track_record_length,
    probabilistic_sharpe_ratio,
)

YEAR = float(DAYS_PER_YEAR)
ENOUGH_SPREAD = 5
"""Trials whose Sharpe ratios are known from which their spread is believed; fewer say little about it."""


def walk_forward(hearing: Hearing) -> Finding:
    """Days that no model had seen, enough of them, and a Sharpe ratio after costs above zero at its lower end, dependence counted."""
    record = hearing.record
    refuse_seen_days(record)
    level = 2.0 * hearing.config.confidence - 1.0
    least = hearing.config.minimum_days
    if record.days.size < least:
        return compared(record.days.size, "≥", least, f"{record.days.size} judged days, of which {least} are asked")
    found = sharpe_interval(
        record.returns, periods_per_year=YEAR, seed=hearing.seed, resamples=hearing.config.resamples, level=level
    )  # fmt: skip
    folds = f"{len(record.stretches)} folds purged" if record.stretches else "nothing was trained"
    return compared(
        found.low, ">", 0.0, f"Sharpe ratio after costs {_said(found)} a year over {record.days.size} days never learned from ({folds})"
    )


def refuse_seen_days(record: TrackRecord) -> None:
    """Nothing, if no judged day precedes the first answer of a model: only what folds say from their own moment on is out of sample.

    Raises:
        DataError: naming the model.
    """
    firsts: dict[str, int] = {}
    for one in record.stretches:
        firsts[one.model] = min(one.usable_from, firsts.get(one.model, one.usable_from))
    for model, first in firsts.items():
        # The day in which a model begins to answer is the first that is its own; a whole day before it is not.
        if record.days.size and int(record.days[0]) + DAY <= first:
            raise DataError(
                f"judged from {iso(int(record.days[0]))} on, but {model} may answer only from {iso(first)}", hint="judge later days"
            )


def paths(hearing: Hearing) -> Finding:
    """The distribution over the paths of combinatorial purged cross-validation: a low quantile of their Sharpe ratios must earn."""
    config, found = hearing.config, hearing.checks.paths(hearing.candidate)
    if found.returns.ndim != 2 or found.returns.shape[0] < 2:
        raise DataError(f"paths of shape {found.returns.shape}, expected [paths, days] with two paths or more")
    ratios = np.array([_sharpe(row) for row in found.returns])
    if not np.isfinite(ratios).all():
        return compared(nan, ">", 0.0, f"{int(np.sum(~np.isfinite(ratios)))} of {ratios.size} paths never traded")
    # The quantile that is one of the paths: between two of five there is nothing.
    low = float(np.quantile(ratios, config.path_quantile, method="lower"))
    spread = ", ".join(f"{ratio:+.2f}" for ratio in np.sort(ratios))
    words = f"Sharpe ratios of {ratios.size} paths from {found.splits} purged trainings: {spread}; quantile {config.path_quantile:.2f}"
    return compared(low, ">", 0.0, f"{words} is {low:+.2f}")


def deflated_sharpe(hearing: Hearing) -> Finding:
    """Probability that the Sharpe ratio exceeds what the best of all counted trials reaches by luck."""
    record, trials, least = hearing.record, hearing.trials, hearing.config.deflated_sharpe
    if trials.count < 1:
        raise DataError(f"{trials.count} trials were counted, but the candidate is one", hint="enter it in the trial ledger")
    worthless = 1.0 / sqrt(record.days.size - 1) if record.days.size > 1 else nan
    spread, source = worthless, "that of worthless trials"
    if trials.sharpes is not None and trials.sharpes.size >= ENOUGH_SPREAD:
        # Trials that all failed alike would deflate by nothing; luck spreads at least as far as worthless trials do.
        spread, source = max(worthless, deviation(trials.sharpes)), f"that of {trials.sharpes.size} known ones, or of worthless ones"
    found = deflated_sharpe_ratio(record.returns, trials=trials.count, spread=spread)
    bar = expected_max_sharpe(trials.count, spread=spread) * sqrt(YEAR) if trials.count > 1 else 0.0
    words = (
        f"probability {found:.3f} that Sharpe {_sharpe(record.returns):+.2f} is more than the {bar:.2f} which the best of {trials.count}"
    )
    return compared(found, "≥", least, f"{words} trials reaches by luck (spread: {source})")


def track_record(hearing: Hearing) -> Finding:
    """Are there as many days as a positive Sharpe ratio of this size, skewness and kurtosis needs?"""
    record, confidence = hearing.record, hearing.config.confidence
    needed = min_track_record_length(record.returns, probability=confidence)
    if not np.isfinite(needed):
        return compared(nan, "≤", record.days.size, "no track record is long enough: the Sharpe ratio is not positive")
    words = f"{needed:.0f} days would show a positive Sharpe ratio at {confidence:.0%}; there are {record.days.size}"
    return compared(needed, "≤", record.days.size, words)


def overfitting(hearing: Hearing) -> Finding:
    """Was the candidate picked for its luck? Asked of all trials' returns; where nothing was picked there is nothing to ask."""
    trials, config = hearing.trials, hearing.config
    if trials.count == 1:
        return Finding(True, 0.0, "≤", config.overfitting, "one trial: nothing was picked")
    kept = 0 if trials.returns is None else trials.returns.shape[1]
    if trials.returns is None or kept < 2:
        raise DataError(
            f"{trials.count} trials were counted, but returns are kept of {kept}: whether the pick was luck cannot be told",
            hint="backtest the others over these days (runs are kept), or give --trial runs",
        )
    found = probability_of_backtest_overfitting(trials.returns, blocks=config.overfitting_blocks)
    if found.reason is not None and not np.isfinite(found.probability):
        return Finding(True, 0.0, "≤", config.overfitting, found.reason)
    words = f"the best of one half ranks below the middle in the other in {found.probability:.0%} of {found.logits.size} halvings"
    missing = f"; of {trials.count - kept} further trials no returns are kept" if trials.count > kept else ""
    return compared(found.probability, "≤", config.overfitting, f"{words} ({kept} trials over {found.rows} days{missing})")


def champion(hearing: Hearing) -> Finding:
    """The paired difference to the champion lies above zero."""
    theirs = hearing.champions_record
    if theirs is None:
        return Finding(True, nan, ">", 0.0, "there is no champion to beat")
    gap = _gap(hearing, theirs.returns, "champion")
    return compared(gap.low, ">", 0.0, f"Sharpe ratio less the champion's: {_said(gap)} a year, paired over {theirs.days.size} days")


def baselines(hearing: Hearing) -> Finding:
    """The same to each baseline: the nearest one decides."""
    record = hearing.record
    if not record.baselines:
        raise DataError("there are no baselines to beat", hint="evaluate with the baselines over the same days (`backtest` has them)")
    gaps = {name: _gap(hearing, returns, name) for name, returns in record.baselines.items()}
    low = {name: gap.low if np.isfinite(gap.low) else -np.inf for name, gap in gaps.items()}
    nearest = min(low, key=lambda name: low[name])
    lost = [name for name, bound in low.items() if not bound > 0.0]
    words = f"does not beat {', '.join(lost)} beyond chance" if lost else f"beats all {len(gaps)} baselines"
    return compared(low[nearest], ">", 0.0, f"{words}; nearest is {nearest}, Sharpe difference {_said(gaps[nearest])} a year")


def holdout(hearing: Hearing) -> Finding:
    """One look at days that nobody had looked at: not a proof of skill, but the last place where a broken version shows."""
    look, least = hearing.checks.holdout(hearing.candidate), hearing.config.holdout_probability
    if look.touches != 1:
        return compared(look.touches, "=", 1, f"this was look {look.touches} at the holdout: what was chosen by it proves nothing on it")
    found = probabilistic_sharpe_ratio(look.returns)
    if not np.isfinite(found):
        return compared(nan, "≥", least, f"no Sharpe ratio over {look.returns.size} held out days: it did not trade")
    words = f"probability {found:.2f} of a positive Sharpe ratio over {look.returns.size} held out days"
    return compared(found, "≥", least, f"{words} (Sharpe {_sharpe(look.returns):+.2f}), looked at once")


def _gap(hearing: Hearing, others: Floats, name: str) -> Interval:
    config = hearing.config
    return sharpe_difference(
        hearing.record.returns, others, periods_per_year=YEAR, seed=hearing.seed, name=f"gate {name}", resamples=config.resamples,
        level=2.0 * config.confidence - 1.0,
    )  # fmt: skip


def _sharpe(returns: Floats) -> float:
    return float(sharpe_ratio(returns, periods_per_year=YEAR))


def _said(found: Interval) -> str:
    return f"{found.estimate:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
