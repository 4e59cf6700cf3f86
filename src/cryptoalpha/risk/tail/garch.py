"""GARCH(1,1) with a constant mean, its shocks normal or Student: `h' = ω + α e² + β h`, fitted by maximum likelihood.

The variance of the first day is `ω + (α + β) · backcast`, the backcast being the mean of the first 75 squared residuals at most, weighted
by .94ⁱ; with this start the likelihood equals that of the package `arch`. Needs SciPy: `pip install "cryptoalpha[garch]"`.

Sources: Bollerslev (1986), "Generalized autoregressive conditional heteroskedasticity"; Bollerslev (1987) for Student shocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.risk.tail.laws import normal_factors
from cryptoalpha.risk.tail.losses import Floats, checked_level
from cryptoalpha.risk.tail.volatility import simulated_paths

Shocks = Literal["normal", "student"]

BACKCAST_DAYS, BACKCAST_DECAY = 75, 0.94
LARGEST_PERSISTENCE = 1.0 - 1e-6
LEAST_DEGREES, MOST_DEGREES = 2.05, 500.0


@dataclass(frozen=True)
class GarchFit:
    """Parameters in the units of the returns they were fitted to, and where the last of those left the variance.

    `degrees` is infinite for normal shocks. NaN everywhere where `reason` says why there is no fit.
    """

    mean: float
    omega: float
    alpha: float
    beta: float
    degrees: float
    log_likelihood: float
    backcast: float
    next_variance: float
    reason: str | None = None

    def variances(self, returns: Floats) -> Floats:
        """`h [n + 1]` of returns `[n]` that begin where the fitted ones began: `h[t]` is the variance expected of day t."""
        return _variances(returns - self.mean, self.omega, self.alpha, self.beta, self.backcast)

    def tail(self, level: float, variance: float | None = None) -> tuple[float, float]:
        """VaR and ES of the next day, or of one with this variance."""
        var, es = self.factors(level)
        spread = math.sqrt(self.next_variance if variance is None else variance)
        return -self.mean + spread * var, -self.mean + spread * es

    def factors(self, level: float) -> tuple[float, float]:
        """VaR and ES of a shock of variance one."""
        if math.isinf(self.degrees):
            return normal_factors(level)
        return student_factors(self.degrees, level)

    def simulate(self, horizon: int, *, paths: int, seed: int) -> Floats:
        """Compounded simple returns `[paths]` of the next `horizon` days."""
        rng = stream(seed, "risk", "tail", "garch", horizon)
        if math.isinf(self.degrees):
            shocks = rng.standard_normal((paths, horizon))
        else:
            shocks = rng.standard_t(self.degrees, (paths, horizon)) * math.sqrt((self.degrees - 2.0) / self.degrees)
        return simulated_paths(shocks, self.next_variance, omega=self.omega, reaction=self.alpha, memory=self.beta, mean=self.mean)


def student_factors(degrees: float, level: float) -> tuple[float, float]:
    """VaR and ES of a Student law scaled to variance one; `degrees` > 2."""
    special = _scipy("special")
    q = float(special.stdtrit(degrees, checked_level(level)))
    scale = math.sqrt((degrees - 2.0) / degrees)
    log_density = (
        math.lgamma((degrees + 1.0) / 2.0)
        - math.lgamma(degrees / 2.0)
        - 0.5 * math.log(degrees * math.pi)
        - (degrees + 1.0) / 2.0 * math.log1p(q * q / degrees)
    )
    return scale * q, scale * math.exp(log_density) / (1.0 - level) * (degrees + q * q) / (degrees - 1.0)


def fit_garch(returns: Floats, *, shocks: Shocks = "student", start: GarchFit | None = None) -> GarchFit:
    """Fit by maximum likelihood.

    Args:
        returns: `[n]`, in any unit: they are scaled to variance one inside.
        shocks: law of the standardised residuals.
        start: an earlier fit to begin from, which saves the search for a beginning.

    Raises:
        ConfigError: if SciPy is not installed.
    """
    optimise = _scipy("optimize")
    unit = float(np.std(returns))
    if not unit > 0.0:
        return _failed("the returns have no volatility")
    scaled = returns / unit
    student = shocks == "student"
    backcast = _backcast(scaled - scaled.mean())

    def cost(parameters: Floats) -> float:
        mean, omega, alpha, beta = parameters[:4]
        residuals = scaled - mean
        h = _variances(residuals, omega, alpha, beta, backcast)[:-1]
        if not np.all(h > 0.0):
            return 1e10
        return -_log_likelihood(residuals, h, 1.0 / float(parameters[4]) if student else math.inf) / len(scaled)

    # 1 / degrees: near the normal law the likelihood is flat in the degrees themselves, and the optimiser stops too early
    bounds = [(-1.0, 1.0), (1e-8, 10.0), (0.0, 1.0), (0.0, 1.0)] + ([(1.0 / MOST_DEGREES, 1.0 / LEAST_DEGREES)] if student else [])
    stationary = {"type": "ineq", "fun": lambda x: LARGEST_PERSISTENCE - x[2] - x[3]}
    begin = _beginning(scaled, student, cost) if start is None or start.reason else _rescaled(start, unit, student)
    found = optimise.minimize(cost, begin, method="SLSQP", bounds=bounds, constraints=[stationary], options={"maxiter": 500, "ftol": 1e-10})
    if not found.success and not found.fun < cost(begin):
        return _failed(f"the optimiser gave up: {found.message}")
    mean, omega, alpha, beta = (float(x) for x in found.x[:4])
    square = unit * unit
    degrees = 1.0 / float(found.x[4]) if student else math.inf
    following = float(_variances(scaled - mean, omega, alpha, beta, backcast)[-1])
    likelihood = -float(found.fun) * len(scaled) - len(scaled) * math.log(unit)
    return GarchFit(mean * unit, omega * square, alpha, beta, degrees, likelihood, backcast * square, following * square)


def _scipy(part: str) -> ModuleType:
    try:
        import scipy.optimize
        import scipy.signal
        import scipy.special
    except ImportError as missing:
        raise ConfigError("GARCH needs SciPy, which is not installed", hint='pip install "cryptoalpha[garch]"') from missing
    parts: dict[str, ModuleType] = {"optimize": scipy.optimize, "signal": scipy.signal, "special": scipy.special}
    return parts[part]


def _backcast(residuals: Floats) -> float:
    count = min(BACKCAST_DAYS, len(residuals))
    weights = BACKCAST_DECAY ** np.arange(count)
    return float(np.sum(weights / weights.sum() * np.square(residuals[:count])))


def _variances(residuals: Floats, omega: float, alpha: float, beta: float, backcast: float) -> Floats:
    """`h [n + 1]`: a linear filter of `ω + α e²`, run in compiled code."""
    driven = np.empty(len(residuals) + 1)
    driven[0] = omega + (alpha + beta) * backcast
    driven[1:] = omega + alpha * np.square(residuals)
    filtered: Floats = _scipy("signal").lfilter([1.0], [1.0, -beta], driven)
    return filtered


def _log_likelihood(residuals: Floats, h: Floats, degrees: float) -> float:
    squares = np.square(residuals) / h
    if math.isinf(degrees):
        return -0.5 * float(np.sum(np.log(2.0 * math.pi * h) + squares))
    constant = math.lgamma((degrees + 1.0) / 2.0) - math.lgamma(degrees / 2.0) - 0.5 * math.log(math.pi * (degrees - 2.0))
    tails = (degrees + 1.0) / 2.0 * np.log1p(squares / (degrees - 2.0))
    return len(residuals) * constant - float(np.sum(0.5 * np.log(h) + tails))


def _beginning(scaled: Floats, student: bool, cost: Callable[[Floats], float]) -> Floats:
    """The best of a few usual parameters with the sample's mean and variance."""
    mean = float(scaled.mean())
    grid = [
        np.array([mean, 1.0 - persistence, alpha, persistence - alpha, *([1.0 / 8.0] if student else [])])
        for alpha in (0.02, 0.05, 0.1, 0.2)
        for persistence in (0.7, 0.9, 0.95, 0.98, 0.995)
    ]
    return min(grid, key=cost)


def _rescaled(start: GarchFit, unit: float, student: bool) -> Floats:
    inverse = [1.0 / min(max(start.degrees, LEAST_DEGREES), MOST_DEGREES)] if student else []
    return np.array([start.mean / unit, max(start.omega / unit**2, 1e-8), start.alpha, start.beta, *inverse])


def _failed(reason: str) -> GarchFit:
    nan = math.nan
    return GarchFit(nan, nan, nan, nan, nan, nan, nan, nan, reason)
