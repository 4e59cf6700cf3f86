"""Fit a regime model: one chain per axis, pooled over all instruments, on the rows of a training stretch.

EM begins where the data are cut into equal parts by the mean of an axis' features, so there is nothing random, and states keep their
meaning from fold to fold. They are then named by it: trends in the order of the mean standardised return, volatilities in the order of the
mean volatility.

The temper of each axis is that under which, fitted on the earlier half of the rows, the later half was foretold best: the mean log density
that the filter's belief gives to the features a day and a week ahead. A belief that is surer than the future warrants loses there, one that
is timid, too. Half, because a choice on the newest half year alone changes from fold to fold (1, .01 and .1 in three folds of hourly bars);
of near equals the smallest.
The model is then fitted again on all rows; features have no label, so all of them were known before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import TRENDS, VOLATILITIES
from cryptoalpha.signals.regime.features import TREND, VOLATILITY
from cryptoalpha.signals.regime.filter import causal_filter
from cryptoalpha.signals.regime.hmm import GaussianHmm, HmmFit, fit_hmm
from cryptoalpha.signals.regime.model import RegimeDesign, RegimeModel
from cryptoalpha.signals.scaler import fit_scaler
from cryptoalpha.store.tables import Floats

TEMPERS = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Exponents that are tried."""

TIE = 0.03
"""Nats per bar within which scores count as equal, and the smaller exponent is taken: the more cautious belief, and the same in fold after
fold where a maximum among near equals would jump. Block-bootstrap intervals of such differences are wider than that."""

AHEAD_DAYS = (1, 7)
"""Days ahead at which the later half is foretold."""

NAMED_BY = 5
"""The first so many features of an axis name its states: the five returns; four volatilities and a range."""

_AXES = (("trend", TRENDS, TREND), ("volatility", VOLATILITIES, VOLATILITY))


@dataclass(frozen=True, eq=False)
class AxisFit:
    """How one axis was fitted: mean log density ahead on the later half per temper, the temper chosen, EM's steps of the last fit."""

    scores: Mapping[float, float]
    temper: float
    steps: int
    converged: bool


def fit_regime(
    features: Floats, design: RegimeDesign, *, begin: int, end: int, usable_from: int, fitted_until: int
) -> tuple[RegimeModel, dict[str, AxisFit]]:
    """Fit on rows [`begin`, `end`) of `[T, A, 20]`.

    Args:
        usable_from: the moment from which bars may be answered, UTC ns.
        fitted_until: when the newest of the rows became known, UTC ns.

    Raises:
        ConfigError: if a stretch has too few rows with all features.
    """
    width = features.shape[2]
    first = int(np.argmax(np.isfinite(features[begin:end].sum(axis=2)).any(axis=1)))  # where the features begin
    half = first + (end - begin - first) // 2
    chains, fits = {}, {}
    for name, names, axis in _AXES:
        early = fit_scaler(features[begin : begin + half].reshape(-1, width), fitted_until=fitted_until)
        judged = RegimeModel.scale(features[begin:end], early)[:, :, axis]
        tries = {temper: _fit(judged[:half], len(names), temper, design).model for temper in TEMPERS}
        scores = {temper: foretold(hmm, judged, half, design.interval) for temper, hmm in tries.items()}
        temper = min(one for one, score in scores.items() if score >= max(scores.values()) - TIE)
        scaler = fit_scaler(features[begin:end].reshape(-1, width), fitted_until=fitted_until)
        last = _fit(RegimeModel.scale(features[begin:end], scaler)[:, :, axis], len(names), temper, design)
        chains[name], fits[name] = named(last.model), AxisFit(scores, temper, len(last.objective), last.converged)
    return RegimeModel(design, scaler, chains["trend"], chains["volatility"], usable_from), fits


def named(hmm: GaussianHmm) -> GaussianHmm:
    """The same model with its states in the order of what names them, falling to rising, calm to stormy."""
    return hmm.in_order(np.argsort(hmm.mean[:, :NAMED_BY].mean(axis=1), kind="stable").astype(np.int64))


def foretold(hmm: GaussianHmm, scaled: Floats, first: int, interval: int) -> float:
    """Mean log density that the belief at a bar from row `first` on gives to the bars `AHEAD_DAYS` later. `[T, A, D]`.

    Raises:
        ConfigError: if there is no such bar.
    """
    means = []
    for days in AHEAD_DAYS:
        ahead = max(1, round(days * DAY / interval))
        parts = [density_ahead(hmm, np.ascontiguousarray(scaled[:, a]), ahead)[first:] for a in range(scaled.shape[1])]
        found = np.concatenate(parts)
        means.append(float(np.mean(found[np.isfinite(found)])) if np.isfinite(found).any() else np.nan)
    if not np.isfinite(means).all():
        raise ConfigError("no later bar has all regime features", hint="give a longer history")
    return float(np.mean(means))


def density_ahead(hmm: GaussianHmm, scaled: Floats, ahead: int) -> Floats:
    """Log density that the filter's belief at row t gave to row t + `ahead`; NaN where that has a gap. `[n, D]` → `[n − ahead]`."""
    logs = hmm.log_density(scaled)
    belief = causal_filter(hmm.temper * logs, hmm.stationary(), hmm.transition)
    return mixture_density(belief[:-ahead] @ np.linalg.matrix_power(hmm.transition, ahead), logs[ahead:], scaled[ahead:])


def mixture_density(weight: Floats, logs: Floats, scaled: Floats) -> Floats:
    """ln Σ weight · density per row; NaN where `scaled` has a gap. `[n, K]`, `[n, K]`, `[n, D]` → `[n]`."""
    top = logs.max(axis=1)
    found = np.log((weight * np.exp(logs - top[:, None])).sum(axis=1)) + top
    return np.where(np.isfinite(scaled).all(axis=1), found, np.nan)


def _fit(scaled: Floats, states: int, temper: float, design: RegimeDesign) -> HmmFit:
    """One chain over `[T, A, D]`."""
    spell = max(2.0, design.config.spell_days * DAY / design.interval)
    rows = np.ascontiguousarray(scaled.transpose(1, 0, 2)).reshape(-1, scaled.shape[2])
    first = begin_at(rows, states, spell, temper)
    lengths = np.full(scaled.shape[1], len(scaled), np.int64)
    return fit_hmm(rows, lengths, first, spell_bars=spell, prior_spells=design.config.prior_spells, tolerance=1e-5)


def begin_at(rows: Floats, states: int, spell_bars: float, temper: float) -> GaussianHmm:
    """Where EM begins: rows cut into equal parts by the mean of their features. `[n, D]`, gaps left out.

    Raises:
        ConfigError: if there are too few whole rows.
    """
    whole = rows[np.isfinite(rows).all(axis=1)]
    if len(whole) < 10 * rows.shape[1] * states:
        raise ConfigError(
            f"{len(whole)} bars with all regime features are too few to fit {states} states",
            hint="the features need ten weeks of bars before the first; give a longer history",
        )
    part = np.minimum(np.argsort(np.argsort(whole.mean(axis=1), kind="stable"), kind="stable") * states // len(whole), states - 1)
    mean = np.stack([whole[part == k].mean(axis=0) for k in range(states)])
    off = whole - mean[part]
    covariance = off.T @ off / len(whole) + 1e-3 * np.eye(rows.shape[1])
    transition = np.full((states, states), 1.0 / spell_bars / max(1, states - 1))
    np.fill_diagonal(transition, 1.0 - 1.0 / spell_bars)
    return GaussianHmm(np.full(states, 1.0 / states), transition, mean, np.repeat(covariance[None], states, axis=0), temper)


def fit_mixture(rows: Floats, states: int, *, steps: int = 60) -> GaussianHmm:
    """A Gaussian mixture of as many parts, as a chain that forgets at once: what states are worth without persistence. `[n, D]`."""
    whole = rows[np.isfinite(rows).all(axis=1)]
    model = begin_at(rows, states, 2.0, 1.0)
    weight = np.full(states, 1.0 / states)
    for _ in range(steps):
        logs = model.log_density(whole) + np.log(weight)
        share = np.exp(logs - logs.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        total = share.sum(axis=0)
        weight, mean = total / len(whole), (share.T @ whole) / total[:, None]
        covariance = [((whole - mean[k]) * share[:, k : k + 1]).T @ (whole - mean[k]) / total[k] for k in range(states)]
        covariances = np.stack(covariance) + 1e-4 * np.eye(rows.shape[1])
        model = GaussianHmm(weight, np.repeat(weight[None], states, axis=0), mean, covariances, 1.0)
    return model
