"""Value at risk and expected shortfall of one return series, by the method that is asked for.

Losses, VaR and ES are positive fractions: `0.03` reads "three percent lost". Returns are simple and per period. What cannot be told is NaN
with a reason, never an exception; NaN in the data is refused.

| method | what it assumes |
|---|---|
| `historical` | tomorrow is one of the past days |
| `normal`, `cornish_fisher` | independent days of a normal law, or of one with skew and kurtosis |
| `ewma` | a normal law without drift at present volatility |
| `filtered` | a past day in units of the volatility expected of it, at present volatility (Barone-Adesi et al., 1999) |
| `garch`, `garch_t` | GARCH(1,1) with normal or Student shocks; needs the extra `garch` |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.daily import checked_returns
from cryptoalpha.monitoring.ratios import deviation
from cryptoalpha.risk.tail.garch import fit_garch
from cryptoalpha.risk.tail.laws import cornish_fisher_tail, moments, normal_tail, why_not_monotone
from cryptoalpha.risk.tail.losses import Floats, checked_level, tail_of_losses, why_beyond
from cryptoalpha.risk.tail.volatility import DECAY, START, ewma_variances, simulated_paths

Method = Literal["historical", "normal", "cornish_fisher", "ewma", "filtered", "garch", "garch_t"]
METHODS: tuple[Method, ...] = ("historical", "normal", "cornish_fisher", "ewma", "filtered", "garch", "garch_t")

PATHS = 20_000


@dataclass(frozen=True)
class TailRisk:
    """How bad it may get. `value_at_risk` and `expected_shortfall` are positive losses, NaN exactly where `reason` says why."""

    value_at_risk: float
    expected_shortfall: float
    level: float
    horizon: int
    method: str
    reason: str | None = None


def tail_risk(
    returns: ArrayLike,
    *,
    level: float = 0.99,
    method: Method = "historical",
    horizon: int = 1,
    decay: float = DECAY,
    seed: int = 0,
    paths: int = PATHS,
) -> TailRisk:
    """VaR and ES over the next `horizon` periods.

    A quantile of outcomes is told only where they reach that far: 99 % asks for a hundred past days or simulated paths.

    Args:
        returns: `[n]`, simple, oldest first.
        level: confidence, inside (0, 1).
        method: see the module header.
        horizon: periods ahead. `normal`, `cornish_fisher` and `ewma` scale their moments as independent days do; `filtered` and `garch`
            simulate `paths` paths, compounded; `historical` knows one period only.
        decay: of the volatility of `ewma` and `filtered`, inside (0, 1).
        seed: of the paths.
        paths: how many are simulated.

    Raises:
        DataError: for NaN or infinite returns.
        ConfigError: for an unknown method, a level or decay outside (0, 1), no paths, or a horizon that the method does not know.
    """
    _check_request(level, method, horizon, decay, paths)
    r = checked_returns(returns)
    reason = _why_not(r, method) or _why_too_few(r.size, level, method, horizon, paths)
    if reason is None:
        if method in ("garch", "garch_t"):
            fit = fit_garch(r, shocks="normal" if method == "garch" else "student")
            reason = fit.reason
            var, es = fit.tail(level) if horizon == 1 else tail_of_losses(-fit.simulate(horizon, paths=paths, seed=seed), level)
        elif method == "filtered":
            var, es = tail_of_losses(_filtered_losses(r, horizon, decay, seed, paths), level)
        elif method == "historical":
            var, es = tail_of_losses(-r, level)
        elif method == "ewma":
            var, es = normal_tail(0.0, math.sqrt(horizon * float(ewma_variances(r, decay)[-1])), level)
        else:
            mean, spread, skew, kurtosis = (float(x) for x in moments(r))
            mean, spread, skew, kurtosis = mean * horizon, spread * math.sqrt(horizon), skew / math.sqrt(horizon), kurtosis / horizon
            if method == "normal":
                var, es = normal_tail(mean, spread, level)
            else:
                reason = why_not_monotone(skew, kurtosis)
                var, es = cornish_fisher_tail(mean, spread, skew, kurtosis, level)
    if reason is not None:
        var, es = math.nan, math.nan
    return TailRisk(var, es, level, horizon, method, reason)


def value_at_risk(returns: ArrayLike, *, level: float = 0.99, method: Method = "historical", horizon: int = 1) -> float:
    """The loss that is not exceeded with probability `level`; NaN where undefined (`tail_risk` says why)."""
    return tail_risk(returns, level=level, method=method, horizon=horizon).value_at_risk


def expected_shortfall(returns: ArrayLike, *, level: float = 0.99, method: Method = "historical", horizon: int = 1) -> float:
    """The mean loss in the worst `1 − level` of cases; NaN where undefined (`tail_risk` says why)."""
    return tail_risk(returns, level=level, method=method, horizon=horizon).expected_shortfall


def _check_request(level: float, method: str, horizon: int, decay: float, paths: int) -> None:
    checked_level(level)
    if method not in METHODS:
        raise ConfigError(f"no method of value at risk is called {method!r}", hint=f"known: {', '.join(METHODS)}")
    if not _is_count(horizon) or (method == "historical" and horizon != 1):
        raise ConfigError(
            f"method {method!r} does not know a horizon of {horizon} periods",
            hint="a whole number of periods; use `filtered`, which simulates paths, or pass returns of that length",
        )
    if not _is_count(paths) or not 0.0 < decay < 1.0:
        raise ConfigError(f"paths {paths} and decay {decay}: expected a whole number of at least 1, and a decay inside (0, 1)")


def _why_not(r: Floats, method: Method) -> str | None:
    least = {"historical": 1, "normal": 2, "cornish_fisher": 4, "ewma": START, "filtered": START, "garch": 100, "garch_t": 100}[method]
    if r.size < least:
        return f"{r.size} returns, fewer than the {least} that {method} needs"
    if method in ("cornish_fisher", "garch", "garch_t") and deviation(r) == 0.0:
        return "the returns have no volatility"
    if method == "filtered" and not bool(np.all(ewma_variances(r)[:-1] > 0.0)):
        return "the returns begin without volatility"
    return None


def _why_too_few(count: int, level: float, method: Method, horizon: int, paths: int) -> str | None:
    if method in ("historical", "filtered") and horizon == 1:
        return why_beyond(count, level)
    return why_beyond(paths, level) if method in ("filtered", "garch", "garch_t") and horizon > 1 else None


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 1)


def _filtered_losses(r: Floats, horizon: int, decay: float, seed: int, paths: int) -> Floats:
    variances = ewma_variances(r, decay)
    scores = r / np.sqrt(variances[:-1])
    present = float(variances[-1])
    if horizon == 1:
        return -math.sqrt(present) * scores
    drawn = stream(seed, "risk", "tail", "filtered", horizon).choice(scores, (paths, horizon))
    return -simulated_paths(drawn, present, omega=0.0, reaction=1.0 - decay, memory=decay)
