"""The gates that look at the version itself: honest, calibrated, fast and small enough, and the same one at a time as in a batch."""

from __future__ import annotations

from math import nan

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.gates.evidence import Floats, Forecasts, Times
from cryptoalpha.lifecycle.gates.hearing import Finding, Hearing, compared
from cryptoalpha.monitoring.bootstrap import block_length, resample_indices
from cryptoalpha.monitoring.calibration import brier_score, classwise_calibration_error

MIB = 2.0**20


def look_ahead(hearing: Hearing) -> Finding:
    """Nothing changes at or before a moment when what became known after it is removed or poisoned."""
    found = hearing.checks.audit(hearing.candidate)
    if found.compared < 1:
        raise DataError("the audit compared nothing", hint="audit a longer window, or more of the recipes")
    if found.leaks:
        more = f" (and {len(found.leaks) - 1} more)" if len(found.leaks) > 1 else ""
        return compared(len(found.leaks), "=", 0, f"a leak: {found.leaks[0]}{more}")
    return compared(0, "=", 0, f"{found.compared:,} values unchanged by a removed or a poisoned future")


def calibration(hearing: Hearing) -> Finding:
    """Probabilities no worse than the champion's on the same moments; without a champion, than always saying the shares that came true.

    The Brier score is compared, which a constant cannot win by being sure of nothing; the calibration error is told beside it. Moments are
    resampled in blocks with all their assets together.
    """
    own, config = hearing.record.forecasts, hearing.config
    theirs = hearing.champions_record
    if own is None:
        if theirs is not None and theirs.forecasts is not None:
            raise DataError("the champion says probabilities, the candidate none", hint="switch its forecaster on")
        return Finding(True, nan, "≤", config.calibration_margin, "it says no probabilities: there is nothing to calibrate")
    other, against = (shares(own), "the shares that came true")
    if theirs is not None and theirs.forecasts is not None:
        own, other = shared(own, theirs.forecasts)
        against = "the champion"
    gap = _losses(own) - _losses(other)
    low, high = _bounds(gap, own.moments, hearing)
    errors = [classwise_calibration_error(one.probabilities, one.outcomes) for one in (own, other)]
    words = f"Brier score {brier_score(own.probabilities, own.outcomes):.4f}, {gap.mean():+.4f} ({low:+.4f} to {high:+.4f}) to {against}"
    return compared(high, "≤", config.calibration_margin, f"{words}, calibration error {errors[0]:.3f} to {errors[1]:.3f}, n {gap.size:,}")


def shares(said: Forecasts) -> Forecasts:
    """Always the shares of the classes that came true: what nobody could know, so the hardest of constants."""
    counts = np.bincount(said.outcomes, minlength=said.probabilities.shape[1])
    return Forecasts(said.moments, np.tile(counts / counts.sum(), (said.outcomes.size, 1)), said.outcomes)


def shared(own: Forecasts, other: Forecasts) -> tuple[Forecasts, Forecasts]:
    """Both, if they spoke of the very same outcomes.

    Raises:
        DataError: if not; a difference over different questions means nothing.
    """
    if not (np.array_equal(own.moments, other.moments) and np.array_equal(own.outcomes, other.outcomes)):
        raise DataError(
            f"candidate and champion said {own.outcomes.size} and {other.outcomes.size} probabilities, of other outcomes",
            hint="judge forecasters of the same instruments and horizons over the same days",
        )
    return own, other


def latency(hearing: Hearing) -> Finding:
    """99th percentile of the time of one answer."""
    return _within(hearing.footprint.seconds, hearing, "answers")


def memory(hearing: Hearing) -> Finding:
    """The most memory the answering process held."""
    peak = hearing.footprint.peak_bytes / MIB
    return compared(peak, "≤", hearing.config.memory_mib, f"{peak:,.0f} MiB resident at most, of {hearing.config.memory_mib:,.0f}")


def shadow_parity(hearing: Hearing) -> Finding:
    """Decided one bar at a time, the way it would trade, it decides what its backtest says it does, and it never fails."""
    found, least = hearing.shadow, hearing.config.shadow_decisions
    if found.failures:
        return compared(found.failures, "=", 0, f"failed at {found.failures} bars: {found.first_mismatch or 'no usable answer'}")
    if found.decisions < least:
        return compared(found.decisions, "≥", least, f"{found.decisions} decisions in the shadow run, {least} are asked")
    aside = f"; champion and candidate differ in {found.disagreements}" if hearing.champion is not None else ""
    first = f": {found.first_mismatch}" if found.first_mismatch else ""
    words = f"{found.mismatches} of {found.decisions} decisions differ from the batch of the same bars{first}{aside}"
    return compared(found.mismatches, "=", 0, words)


def shadow_latency(hearing: Hearing) -> Finding:
    """The same budget for a whole decision, features included."""
    return _within(hearing.shadow.seconds, hearing, "bars")


def _within(seconds: Floats, hearing: Hearing, what: str) -> Finding:
    limit, least = hearing.config.latency_seconds, hearing.config.latency_answers
    if seconds.size < least:
        raise DataError(f"{seconds.size} {what} were timed, {least} are asked for a 99th percentile", hint="time more of them")
    if not np.isfinite(seconds).all():
        return compared(nan, "≤", limit, f"{int(np.sum(~np.isfinite(seconds)))} of {seconds.size} {what} never came")
    p99 = float(np.quantile(seconds, 0.99, method="higher"))
    return compared(p99, "≤", limit, f"p99 {p99 * 1e3:.1f} ms, median {np.median(seconds) * 1e3:.1f} ms of {seconds.size} {what}")


def _losses(said: Forecasts) -> Floats:
    """Brier score of each answer `[n]`."""
    happened = np.eye(said.probabilities.shape[1])[said.outcomes]
    return np.asarray(((said.probabilities - happened) ** 2).sum(axis=1), np.float64)


def _bounds(gap: Floats, moments: Times, hearing: Hearing) -> tuple[float, float]:
    """One-sided bounds of the mean difference, whole moments resampled in blocks."""
    _, place = np.unique(moments, return_inverse=True)
    sums, counts = np.bincount(place, weights=gap), np.bincount(place).astype(np.float64)
    if sums.size < 2:
        raise DataError(f"{sums.size} moments with probabilities cannot be judged")
    mean_block = block_length(sums / counts)
    rng = stream(hearing.seed, "lifecycle", "gates", "calibration")
    draws = []
    for _ in range(0, hearing.config.resamples, 100):
        drawn = resample_indices(sums.size, 100, mean_block, rng)
        draws.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(draws), [1.0 - hearing.config.confidence, hearing.config.confidence])
    return float(low), float(high)
