"""How much to bet: the Kelly fraction of a bet and of a book, shrunk and in parts, and the volatility target.

Full Kelly maximises mean log growth if the edge is known exactly, which it never is; so a book's expected returns are shrunk by their
standard errors, a quarter of Kelly is the default, and a probability that was not shown to be calibrated is refused. All sizes are signed
fractions of equity; nothing here is a limit, the gate's caps stand beside it.

Sources: Kelly (1956); Thorp (2006), "The Kelly criterion in blackjack, sports betting and the stock market".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError, ModelError
from cryptoalpha.monitoring.daily import as_floats
from cryptoalpha.risk.matrices import Floats, checked_square, checked_variances, refuse_indefinite

QUARTER = 0.25
ALLOWED_CALIBRATION_ERROR = 0.02
"""Expected calibration error up to which a probability is believed. At p = 0.53 an error of 0.07 turns growth of 0.0018 a bet into a loss
of 0.0082."""


def kelly_binary(
    p: float,
    *,
    calibration_error: float,
    win: float = 1.0,
    loss: float = 1.0,
    allowed_error: float = ALLOWED_CALIBRATION_ERROR,
) -> float:
    """Full Kelly fraction of a bet that wins or loses: `f = p / a − q / b`. Negative: the other side is the better bet.

    Args:
        p: probability of winning, from a calibrated model.
        calibration_error: that model's expected calibration error, on out-of-fold predictions (`monitoring.calibration`).
        win: gained per unit staked, b (> 0).
        loss: lost per unit staked, a (> 0).
        allowed_error: calibration error beyond which p is refused.

    Raises:
        ModelError: if the calibration error is unknown (NaN) or too large.
        ConfigError: for p outside 0–1, a negative calibration error, or win or loss not positive.
    """
    if not 0.0 <= p <= 1.0 or not 0.0 < win < math.inf or not 0.0 < loss < math.inf:
        raise ConfigError(f"p {p}, win {win}, loss {loss}: expected a probability and two positive amounts")
    if calibration_error < 0.0:
        raise ConfigError(f"calibration_error is {calibration_error}, expected 0 or more")
    if not calibration_error <= allowed_error:
        raise ModelError(
            f"the model behind this probability has a calibration error of {calibration_error:.4g}, allowed is {allowed_error:.4g}",
            hint="calibrate it on out-of-fold predictions first; softmax confidence is not a probability of winning",
        )
    return p / loss - (1.0 - p) / win


def binary_growth(fraction: float, p: float, *, win: float = 1.0, loss: float = 1.0) -> float:
    """Mean log growth per bet at this fraction, `p ln(1 + b f) + q ln(1 − a f)`; −inf where one bet can ruin."""
    up, down = 1.0 + win * fraction, 1.0 - loss * fraction
    if (up <= 0.0 and p > 0.0) or (down <= 0.0 and p < 1.0):
        return -math.inf
    return (p * math.log(up) if p > 0.0 else 0.0) + ((1.0 - p) * math.log(down) if p < 1.0 else 0.0)


def kelly_continuous(
    mu: ArrayLike,
    covariance: ArrayLike,
    *,
    rf: float | ArrayLike = 0.0,
    scale: float = QUARTER,
    standard_errors: ArrayLike | None = None,
    prior_deviation: float | None = None,
) -> Floats:
    """Weights `[A]` of `scale` times full Kelly, `C⁻¹ (μ − rf)`.

    Args:
        mu: expected return per period, `[A]` or one number for all.
        covariance: of the same periods, `[A, A]` or a variance; for many assets a shrunk one (`ledoit_wolf`).
        rf: risk-free return per period, one number or `[A]`.
        scale: share of full Kelly (0–1].
        standard_errors: of mu, `[A]`: each excess return is multiplied by `τ² / (τ² + se²)`. None = known exactly.
        prior_deviation: τ, how far true excess returns spread about zero. None = what the estimates spread beyond their errors,
            `τ² = max(0, mean(excess²) − mean(se²))`; where that is nothing, nothing is bet.

    Raises:
        DataError: for shapes that do not fit, values that are not finite, or a matrix that is no covariance or (almost) singular.
        ConfigError: for a scale outside (0, 1] or a negative prior deviation.
    """
    if not 0.0 < scale <= 1.0:
        raise ConfigError(f"scale is {scale}, expected more than 0 and at most 1", hint="more than full Kelly grows less and risks more")
    c = checked_square(np.atleast_2d(as_floats(covariance, name="covariance")))
    sd = np.sqrt(checked_variances(c))
    refuse_indefinite(c)
    excess = _per_asset(mu, len(c), "mu") - _per_asset(rf, len(c), "rf")
    if standard_errors is not None:
        excess = shrunk_towards_zero(excess, standard_errors, prior_deviation)
    unit = c / (sd[:, None] * sd[None, :])
    if np.linalg.eigvalsh(unit)[0] < 1e-10:
        raise DataError("the covariance is singular: some portfolio seems to be without risk", hint="shrink it (ledoit_wolf)")
    return np.asarray(scale * np.linalg.solve(unit, excess / sd) / sd)


def _per_asset(values: ArrayLike, assets: int, name: str) -> Floats:
    """`[assets]`, finite; one number stands for all."""
    x = as_floats(values, name=name)
    if x.shape not in ((), (assets,)) or not np.isfinite(x).all():
        raise DataError(f"{name} of shape {x.shape} must be one finite number, or {assets}: one for each asset of the covariance")
    return np.broadcast_to(x, (assets,))


def shrunk_towards_zero(excess: ArrayLike, standard_errors: ArrayLike, prior_deviation: float | None = None) -> Floats:
    """Excess returns as `kelly_continuous` believes them, `[A]`; see there."""
    x, se = np.atleast_1d(as_floats(excess, name="excess")), np.atleast_1d(as_floats(standard_errors, name="standard_errors"))
    if se.shape != x.shape or not bool(np.all(se >= 0.0)) or not np.isfinite(se).all():
        raise DataError(f"standard errors of shape {se.shape} must be {len(x)} finite numbers of 0 or more")
    if prior_deviation is not None and not 0.0 <= prior_deviation < math.inf:
        raise ConfigError(f"prior_deviation is {prior_deviation}, expected 0 or more")
    prior = max(0.0, float(np.mean(x * x) - np.mean(se * se))) if prior_deviation is None else prior_deviation**2
    if prior == 0.0:
        return np.where(se == 0.0, x, 0.0)
    return np.asarray(x * (prior / (prior + se * se)))


def drawdown_probability(remaining: float, scale: float) -> float:
    """Chance that equity ever falls to this share of its start, betting `scale` of full Kelly with known parameters: `x^(2/c − 1)`.

    Args:
        remaining: x, share of equity left (0–1].
        scale: c, share of full Kelly (> 0); from 2 on, ruin to any depth is certain.

    Raises:
        ConfigError: outside these ranges.
    """
    if not 0.0 < remaining <= 1.0 or not scale > 0.0:
        raise ConfigError(f"remaining {remaining} and scale {scale}: expected within (0, 1] and above 0")
    return float(min(1.0, remaining ** (2.0 / scale - 1.0)))


def volatility_target(
    wanted: float,
    volatility: float,
    *,
    target: float,
    cap: float = 1.0,
    floor: float = 0.05,
    current: float | None = None,
    band: float = 0.0,
) -> float:
    """The wanted weight, at most `min(cap, σ* / max(σ, floor))`, sign kept; or the current one where the change is not worth a trade.

    Args:
        wanted: signed weight; ±inf for as much as the target allows.
        volatility: annual (365 days), from data before the decision.
        target: σ*, annual volatility the position may have (> 0).
        cap: largest weight (≥ 0).
        floor: volatility counted at least (> 0), so that a market that stood still is not taken for one without risk.
        current: weight now held, where there is one.
        band: changes smaller than this are left out, closing excepted (≥ 0).

    Raises:
        DataError: if the volatility is not a number of 0 or more, or `wanted` is NaN.
        ConfigError: for a target or floor not above 0, a negative cap or band.
    """
    if not target > 0.0 or not floor > 0.0 or not cap >= 0.0 or not band >= 0.0:
        raise ConfigError(f"target {target}, floor {floor}, cap {cap}, band {band}: expected the first two above 0, the others 0 or more")
    if not volatility >= 0.0 or math.isnan(wanted):
        raise DataError(f"volatility {volatility}, wanted weight {wanted}: nothing is sized on a number that is not known")
    weight = math.copysign(min(abs(wanted), cap, target / max(volatility, floor)), wanted)
    if current is not None and weight != 0.0 and abs(weight - current) < band:
        return current
    return weight
