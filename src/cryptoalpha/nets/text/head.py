"""The head that reads one of five sentiments from a text's vector, and the loss that lets coarser labels teach it.

Labelled sets differ: some know five grades, some three, some only bullish and bearish. One head learns from all of them: a label says which
grades a text may have and among which the labeller chose, and the loss is −log of the share of the former among the latter.

| label | may have | chosen among |
|---|---|---|
| very negative … very positive | that grade | all five |
| negative, neutral, positive of three | both negative grades; neutral; both positive ones | all five |
| bearish, bullish of two | both negative grades; both positive ones | all but neutral: nobody could say neutral |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.text.labels import SENTIMENTS


class SentimentHead(nn.Module):
    """Vector → logits of very negative … very positive.

    Args:
        width: numbers in a vector.
        hidden: width of the layer between; 0 for a linear head.
        dropout: share of the layer between that is left out in training.
        seed: seed of the initial weights; no other random stream is touched.

    Shapes:
        vectors `[n, width]` → logits `[n, 5]`.

    Raises:
        ConfigError: for a width below 1 or a negative layer.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, *, hidden: int = 64, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        if width < 1 or hidden < 0:
            raise ConfigError(f"a sentiment head needs vectors and a layer of whole widths, got {width} and {hidden}")
        self.width, self.hidden = width, hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inner = nn.Linear(width, hidden) if hidden else None
            self.outer = nn.Linear(hidden or width, len(SENTIMENTS))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit_scaler(self, vectors: Tensor) -> None:
        """Centre and scale of each number, from training vectors `[n, width]`; one that never varies is left alone."""
        deviation = vectors.std(dim=0, unbiased=False)
        self.mean.copy_(vectors.mean(dim=0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, vectors: Tensor) -> Tensor:
        x = self.dropout((vectors - self.mean) / self.scale)
        if self.inner is not None:
            x = self.dropout(torch.relu(self.inner(x)))
        logits: Tensor = self.outer(x)
        return logits


def label_set_loss(logits: Tensor, may: Tensor, among: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of −log(Σ p over `may` / Σ p over `among`). Logits `[n, K]`, `may` and `among` bool `[n, K]`, `weight` `[n]` or none."""
    nothing = torch.finfo(logits.dtype).min
    chosen = torch.logsumexp(logits.masked_fill(~may, nothing), dim=-1)
    offered = torch.logsumexp(logits.masked_fill(~among, nothing), dim=-1)
    losses = offered - chosen
    return losses.mean() if weight is None else (losses * weight).sum() / weight.sum()
