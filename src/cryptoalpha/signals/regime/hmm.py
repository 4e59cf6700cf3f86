"""A sticky Gaussian hidden Markov model, fitted by expectation–maximisation on past data.

States follow a Markov chain; each draws features from its own normal distribution (`tied`: with one covariance for all, so that states
differ in their means alone and can be named by them). Sticky: the prior of each row of the transition matrix expects spells of a certain
length. Tempered: the log density of every bar counts `temper` (0–1] of itself. Hourly windows overlap, so that neighbouring bars are far
from independent, and an untempered belief would be sure of what a single move says a hundred times over.

EM raises the tempered log likelihood plus the log prior at every step (the M-step is that of the plain model, as the exponent scales all
densities alike).

Sources: Rabiner (1989) for the scaled recursions; Fox et al. (2011) for stickiness, here as a Dirichlet prior; Miller & Dunson (2019),
"Robust Bayesian inference via coarsening", for the exponent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.store.tables import Floats

Integers = npt.NDArray[np.int64]

RIDGE = 1e-4
"""Added to every variance while fitting: features are on a scale of one, and a state must not collapse onto a point."""


@dataclass(frozen=True, eq=False)
class GaussianHmm:
    """Parameters. Shapes: `start` `[K]`, `transition` `[K, K]` (rows sum to 1), `mean` `[K, D]`, `covariance` `[K, D, D]`.

    `temper`: share of its own log density that a bar counts, above 0 to 1.
    """

    start: Floats
    transition: Floats
    mean: Floats
    covariance: Floats
    temper: float = 1.0

    @property
    def states(self) -> int:
        """K."""
        return len(self.start)

    def whitening(self) -> tuple[Floats, Floats]:
        """Lower triangular W with W Σ Wᵀ = 1 per state, and the log density at the mean. `[K, D, D]`, `[K]`.

        Raises:
            ModelError: if a covariance is not positive definite.
        """
        try:
            factors = np.linalg.cholesky(self.covariance)
        except np.linalg.LinAlgError:
            raise ModelError(
                "a covariance of the regime model is not positive definite", hint="train it anew: cryptoalpha train regime"
            ) from None
        width = self.mean.shape[1]
        whiten = np.stack([np.linalg.solve(factor, np.eye(width)) for factor in factors])
        scale = np.array([math.fsum(math.log(factor[d, d]) for d in range(width)) for factor in factors])
        return np.ascontiguousarray(np.tril(whiten)), -0.5 * width * math.log(2.0 * math.pi) - scale

    def log_density(self, x: Floats) -> Floats:
        """Untempered log density of every row in every state; 0 in all for a row with a gap, which says nothing. `[n, D]` → `[n, K]`."""
        whiten, offset = self.whitening()
        return log_densities(np.ascontiguousarray(x, np.float64), self.mean, whiten, offset)

    def stationary(self) -> Floats:
        """The distribution the chain settles in. `[K]`."""
        return stationary(self.transition)

    def in_order(self, order: Integers) -> GaussianHmm:
        """The same model with its states renumbered."""
        return replace(
            self,
            start=self.start[order],
            transition=np.ascontiguousarray(self.transition[np.ix_(order, order)]),
            mean=np.ascontiguousarray(self.mean[order]),
            covariance=np.ascontiguousarray(self.covariance[order]),
        )

    def as_arrays(self, prefix: str) -> dict[str, Floats]:
        """For a file: `PREFIX/start` …; `temper` as an array of one."""
        parts = {name: getattr(self, name) for name in ("start", "transition", "mean", "covariance")}
        return {f"{prefix}/{name}": part for name, part in parts.items()} | {f"{prefix}/temper": np.array([self.temper])}

    @classmethod
    def from_arrays(cls, prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> GaussianHmm:
        """The inverse of `as_arrays`.

        Raises:
            ModelError: if a part is missing, of a wrong shape, not finite, or no distribution.
        """
        try:
            start, transition, mean, covariance, temper = (
                np.ascontiguousarray(arrays[f"{prefix}/{name}"], np.float64)
                for name in ("start", "transition", "mean", "covariance", "temper")
            )
        except KeyError as error:
            raise ModelError(f"the regime model lacks {error}", hint="train it anew: cryptoalpha train regime") from None
        k, d = mean.shape if mean.ndim == 2 else (0, 0)
        shapes = start.shape == (k,) and transition.shape == (k, k) and covariance.shape == (k, d, d) and temper.shape == (1,)
        finite = all(np.isfinite(part).all() for part in (start, transition, mean, covariance, temper))
        if not (
            k and shapes and finite and (transition > 0.0).all() and np.allclose(transition.sum(axis=1), 1.0) and 0.0 < temper[0] <= 1.0
        ):
            raise ModelError(f"the regime model's {prefix} is damaged: its parameters do not fit together")
        return cls(start, transition, mean, covariance, float(temper[0]))


@dataclass(frozen=True, eq=False)
class HmmFit:
    """A fitted model and how it went. `objective`: tempered log likelihood plus log prior after each step, rising."""

    model: GaussianHmm
    objective: Floats
    converged: bool


def fit_hmm(
    x: Floats,
    lengths: Integers,
    first: GaussianHmm,
    *,
    spell_bars: float = 0.0,
    prior_spells: float = 0.0,
    tied: bool = False,
    ridge: float = RIDGE,
    most_steps: int = 100,
    tolerance: float = 1e-6,
) -> HmmFit:
    """Fit by EM from `first` (its `temper` stays).

    Args:
        x: `[n, D]` all sequences, one after the other; a row with a NaN says nothing.
        lengths: `[S]` rows of each sequence.
        first: where EM begins.
        spell_bars: mean length of a spell that the prior expects, bars.
        prior_spells: how many such spells of each state the prior counts as; 0 = no prior.
        tied: one covariance for all states.
        ridge: added to every variance; with 0 the objective rises at every step.
        most_steps, tolerance: EM ends after so many steps, or when the objective per observed row rises by less.

    Raises:
        ConfigError: if the lengths do not add up, or no row is whole.
    """
    x = np.ascontiguousarray(x, np.float64)
    bounds = np.concatenate(([0], np.cumsum(np.asarray(lengths, np.int64))))
    seen = np.isfinite(x).all(axis=1)
    if bounds[-1] != len(x) or not seen.any():
        raise ConfigError(f"{len(x)} rows in sequences of {bounds[-1]}, {int(seen.sum())} of them whole: nothing to fit")
    counts = _prior(first.states, spell_bars, prior_spells)
    rows, model, objective, done = x[seen], first, [], False
    for _ in range(most_steps):
        gamma, pairs, value, _ = smooth(model.temper * model.log_density(x), bounds, model.start, model.transition)
        objective.append(value + float((counts * np.log(model.transition)).sum()))
        if len(objective) > 1 and objective[-1] - objective[-2] < tolerance * len(rows):
            done = True
            break
        model = _maximised(model, rows, gamma[seen], pairs + counts, gamma[bounds[:-1][np.diff(bounds) > 0]], tied, ridge)
    return HmmFit(model, np.array(objective), done)


def _prior(states: int, spell_bars: float, prior_spells: float) -> Floats:
    """Pseudo-counts of transitions: `prior_spells` spells of each state, `spell_bars` long. `[K, K]`."""
    if prior_spells <= 0.0 or spell_bars <= 1.0:
        return np.zeros((states, states))
    counts = np.full((states, states), prior_spells / max(1, states - 1))
    np.fill_diagonal(counts, prior_spells * (spell_bars - 1.0))
    return counts


def _maximised(model: GaussianHmm, rows: Floats, gamma: Floats, pairs: Floats, begins: Floats, tied: bool, ridge: float) -> GaussianHmm:
    """The M-step. `gamma` `[m, K]` of the whole rows, `pairs` `[K, K]` expected transitions, `begins` `[S, K]`."""
    weight = np.maximum(gamma.sum(axis=0), 1e-12)
    mean = (gamma.T @ rows) / weight[:, None]
    scatter = []
    for k in range(model.states):
        off = rows - mean[k]
        scatter.append((off * gamma[:, k : k + 1]).T @ off)
    width = rows.shape[1]
    if tied:
        covariance = np.repeat((sum(scatter) / weight.sum())[None], model.states, axis=0)
    else:
        covariance = np.stack([part / w for part, w in zip(scatter, weight, strict=True)])
    covariance = 0.5 * (covariance + covariance.transpose(0, 2, 1)) + ridge * np.eye(width)
    flow = np.maximum(pairs, 1e-9)
    start = np.maximum(begins.mean(axis=0), 1e-9)  # nothing is impossible: a far row could otherwise leave no state at all
    return GaussianHmm(start / start.sum(), flow / flow.sum(axis=1, keepdims=True), mean, covariance, model.temper)


def stationary(transition: Floats) -> Floats:
    """The distribution a chain settles in. `[K, K]` → `[K]`."""
    states = len(transition)
    equations = np.vstack((transition.T - np.eye(states), np.ones(states)))
    found = np.linalg.lstsq(equations, np.concatenate((np.zeros(states), [1.0])), rcond=None)[0]
    found = np.maximum(found, 0.0)
    return np.asarray(found / found.sum(), np.float64)


@njit(cache=True)
def log_densities(x: Floats, mean: Floats, whiten: Floats, offset: Floats) -> Floats:
    """Log density of each row in each state; 0 for rows with a gap. `[n, D]`, `[K, D]`, `[K, D, D]`, `[K]` → `[n, K]`."""
    n, width = x.shape
    states = offset.size
    out = np.zeros((n, states))
    for t in range(n):
        whole = True
        for d in range(width):
            if not np.isfinite(x[t, d]):
                whole = False
        if not whole:
            continue
        for k in range(states):
            square = 0.0
            for i in range(width):
                z = 0.0
                for j in range(i + 1):
                    z += whiten[k, i, j] * (x[t, j] - mean[k, j])
                square += z * z
            out[t, k] = offset[k] - 0.5 * square
    return out


@njit(cache=True)
def smooth(log_density: Floats, bounds: Integers, start: Floats, transition: Floats) -> tuple[Floats, Floats, float, Floats]:
    """The E-step: chance of each state given ALL data, expected transitions, log likelihood, and per row the chance that its state is that
    of the row before (1 in first rows). `[n, K]` → `[n, K]`, `[K, K]`, scalar, `[n]`.

    Looks ahead by design: for fitting inside a training stretch and as the mutation that the causality tests must catch, never for use.
    """
    n, states = log_density.shape
    gamma = np.zeros((n, states))
    pairs = np.zeros((states, states))
    likely = np.zeros((n, states))
    scale = np.zeros(n)
    stays = np.ones(n)
    total = 0.0
    for s in range(bounds.size - 1):
        begin, end = bounds[s], bounds[s + 1]
        for t in range(begin, end):
            top = log_density[t].max()
            norm = 0.0
            for k in range(states):
                likely[t, k] = math.exp(log_density[t, k] - top)
                prior = start[k]
                if t > begin:
                    prior = 0.0
                    for j in range(states):
                        prior += gamma[t - 1, j] * transition[j, k]
                gamma[t, k] = prior * likely[t, k]
                norm += gamma[t, k]
            scale[t] = norm
            total += math.log(norm) + top
            for k in range(states):
                gamma[t, k] /= norm
        beta = np.ones(states)
        for t in range(end - 2, begin - 1, -1):
            ahead = likely[t + 1] * beta / scale[t + 1]
            beta = np.zeros(states)
            stays[t + 1] = 0.0
            for j in range(states):
                for k in range(states):
                    flow = transition[j, k] * ahead[k]
                    beta[j] += flow
                    pairs[j, k] += gamma[t, j] * flow
                stays[t + 1] += gamma[t, j] * transition[j, j] * ahead[j]
            for j in range(states):
                gamma[t, j] *= beta[j]
    return gamma, pairs, total, stays
