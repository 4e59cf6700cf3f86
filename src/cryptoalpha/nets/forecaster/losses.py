"""What the forecaster is taught by. Every part is a mean over what is known (not NaN) at supervised bars; with nothing known it is 0.

Sources: pinball loss, Koenker & Bassett (1978), "Regression quantiles"; QLIKE, Patton (2011), "Volatility forecast comparison using
imperfect volatility proxies"; Huber (1964), "Robust estimation of a location parameter".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, huber_loss

from cryptoalpha.core.errors import ModelError
from cryptoalpha.nets.config import HeadsConfig
from cryptoalpha.nets.forecaster.values import Forecast, ForecastTargets

REALISED_FLOOR = 1e-3
"""Realised volatility below this counts as this: QLIKE takes its logarithm."""

HUBER_AT = 3.0
"""Volatilities from which an error of the location counts linearly: one crash must not choose the weights."""


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts; 0 leaves it out. The first four are the starting weights of the design, untuned."""

    direction: float = 1.0
    volatility: float = 0.5
    confidence: float = 0.2
    correlation: float = 0.3
    quantiles: float = 1.0
    location: float = 1.0


def forecast_loss(
    forecast: Forecast,
    targets: ForecastTargets,
    *,
    sideways: float,
    weights: LossWeights | None = None,
    quantiles: tuple[float, ...] | None = None,
) -> Tensor:
    """Weighted sum of `forecast_loss_parts`: one number with a gradient."""
    weights = weights or LossWeights()
    parts = forecast_loss_parts(forecast, targets, sideways=sideways, quantiles=quantiles)
    return torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()


def forecast_loss_parts(
    forecast: Forecast, targets: ForecastTargets, *, sideways: float, quantiles: tuple[float, ...] | None = None
) -> dict[str, Tensor]:
    """Each part's own mean, unweighted, by the names of `LossWeights`.

    Args:
        sideways: moves within ± this many volatilities are sideways.
        quantiles: shares the quantile head answers for; those of `HeadsConfig()` unless given.

    Raises:
        ModelError: if the forecast has another number of quantiles.
    """
    quantiles = quantiles or HeadsConfig().quantiles
    if forecast.quantiles.shape[-1] != len(quantiles):
        raise ModelError(f"the forecast has {forecast.quantiles.shape[-1]} quantiles, the loss {len(quantiles)}")
    taught = targets.supervised[:, :, None, None]  # [B, S, 1, 1]
    known = taught & torch.isfinite(targets.move)  # [B, S, N, H]
    move = targets.move[known]
    logits, called = forecast.direction[known], direction_class(move, sideways)
    hits = (logits.detach().argmax(dim=-1) == called).to(logits.dtype)
    measured = taught & torch.isfinite(targets.volatility)
    return {
        "direction": _mean(cross_entropy(logits, called, reduction="none")),
        "volatility": _mean(qlike(forecast.volatility[measured], targets.volatility[measured])),
        "confidence": _mean(binary_cross_entropy_with_logits(forecast.confidence[known], hits, reduction="none")),
        "correlation": _correlation(forecast.correlation, targets),
        "quantiles": _mean(pinball(forecast.quantiles[known], move, quantiles)),
        "location": _mean(huber_loss(forecast.location[known], move, reduction="none", delta=HUBER_AT)),
    }


def direction_class(move: Tensor, sideways: float) -> Tensor:
    """0 up, 1 down, 2 sideways (|move| ≤ `sideways`), int64."""
    return torch.where(move > sideways, 0, torch.where(move < -sideways, 1, 2))


def qlike(predicted: Tensor, realised: Tensor) -> Tensor:
    """RV/s² − ln(RV/s²) − 1 of volatilities s (predicted) and √RV (realised); 0 where they agree, more for too low than for too high."""
    ratio = (realised.clamp_min(REALISED_FLOOR) / predicted).square()
    return ratio - ratio.log() - 1.0


def pinball(predicted: Tensor, realised: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Mean over the quantiles of max(q·e, (q − 1)·e), e = realised − predicted: `[n, Q]`, `[n]` → `[n]`."""
    share = torch.tensor(quantiles, dtype=predicted.dtype, device=predicted.device)
    error = realised.unsqueeze(-1) - predicted
    return torch.maximum(share * error, (share - 1.0) * error).mean(dim=-1)


def correlation_bin(correlation: Tensor, bins: int) -> Tensor:
    """Number of the bin, 0 … bins − 1, of equal width over [−1, 1], int64."""
    return ((correlation + 1.0) * (bins / 2.0)).floor().clamp(0, bins - 1).long()


def _correlation(logits: Tensor, targets: ForecastTargets) -> Tensor:
    assets = logits.shape[-2]
    above = torch.ones(assets, assets, dtype=torch.bool, device=logits.device).triu(1)  # each pair once: both are symmetric
    known = targets.supervised[:, :, None, None] & torch.isfinite(targets.correlation) & above
    wanted = correlation_bin(targets.correlation[known], logits.shape[-1])
    return _mean(cross_entropy(logits[known], wanted, reduction="none"))


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()
