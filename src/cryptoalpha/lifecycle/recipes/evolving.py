"""The last step of training: the expected move is evolved towards net Sharpe after costs, which has no gradient.

Only what turns the trunk's answer into the expected move is evolved (one linear layer and the asset's own straight line); the trunk's
answers and the part of the peers are computed once, so that a member costs milliseconds. Learned from are the newest training bars; a
generation is kept only if the Sharpe ratio of the accept stretch, which neither gradients nor early stopping have seen, does not fall.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import linear

from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.evolution import Evolution, evolve
from cryptoalpha.lifecycle.recipes.position_rule import Stretch, net_sharpe
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.signals.forecast.blocks import Blocks
from cryptoalpha.signals.forecast.scaling import ForecastScaler

EVOLVED = ("assets.location.*", "line.*")
"""Weights that are evolved."""

FINE = 0.25
"""Share of `learn.evolution.sigma` that is drawn: it starts from a trained optimum, where the full noise does harm."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cached:
    """What evolution leaves alone, at some rows: what evolved weights read, normalised cells `[n, N, C]` and features `[n, N, F]`; the
    peers' part of the longest horizon's expected move `[n, N]`; `present` `[n, N]`."""

    cells: Tensor
    features: Tensor
    peers: Tensor
    present: npt.NDArray[np.bool_]

    def expected(self, net: Forecaster) -> npt.NDArray[np.float64]:
        """Expected move over the longest horizon with the weights as they are, `[n, N]`; NaN without a bar."""
        head = net.assets.location
        with torch.no_grad():
            said = linear(self.cells, head.weight[-1:], head.bias[-1:]) + linear(self.features, net.line.weight[-1:], net.line.bias[-1:])
            said = said[..., 0] + self.peers
        return np.where(self.present, said.numpy().astype(np.float64), np.nan)


def cached(net: Forecaster, blocks: Blocks, rows: Rows, scaler: ForecastScaler) -> Cached:
    """One pass of the trunk over the blocks that hold these rows."""
    parts: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for number in blocks.holding(rows):
            block = np.array([number])
            inputs = blocks.inputs(block, scaler)
            taken = torch.from_numpy(
                np.isin(blocks.rows_of(block)[0], rows) & (np.arange(blocks.rows_per_block) >= blocks.config.context_bars)
            )
            m, z = net.trunk(inputs)
            features = net.features(inputs)
            peers = net.from_peers(z, features, inputs.present)[..., -1]
            parts.append(tuple(part[0, taken] for part in (net.assets.norm(m), features, peers, inputs.present)))
    cells, features, peers, present = (torch.cat(column) for column in zip(*parts, strict=True))
    return Cached(cells, features, peers, present.numpy())


def evolve_moves(
    net: Forecaster,
    teach: tuple[Cached, Stretch],
    accept: tuple[Cached, Stretch],
    config: EvolutionConfig,
    *,
    generations: int,
    seed: int,
    checkpoint: Path,
) -> dict[str, float | int]:
    """Evolve `net` in place; what came of it, for the lineage.

    Where no Sharpe ratio can be measured to begin with (the net expects nothing), nothing is evolved.
    """
    start = net_sharpe(accept[0].expected(net), accept[1])
    if not generations or not isfinite(start):
        return {"generations": 0, "kept": 0, "accept_sharpe_before": start, "accept_sharpe_after": start}

    def goal(of: tuple[Cached, Stretch]) -> float:
        found = net_sharpe(of[0].expected(net), of[1])
        return found if isfinite(found) else -np.inf

    strategy = Evolution(net, config.model_copy(update={"sigma": FINE * config.sigma}), seed=seed, only=EVOLVED)
    done = evolve(strategy, lambda generation: goal(teach), generations=generations, accept=lambda: goal(accept), checkpoint=checkpoint)
    kept = len(done.history) - done.undone
    after = start if done.best_goal is None else done.best_goal
    return {"generations": len(done.history), "kept": kept, "accept_sharpe_before": start, "accept_sharpe_after": after}
