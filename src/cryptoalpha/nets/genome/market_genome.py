"""The market genome: an Evoformer that reads named tokens of a market as if they were a genome.

Rows are time frames, columns are base bars; every answer at a column is made of that column and earlier ones, exactly (`causal="columns"`).
The pair representation holds what two bars have to do with each other; from it the distance head reads how far the price ahead of bar j
will be from that of bar i, as AlphaFold's distogram does for residues.

Source: Jumper et al. (2021) for the trunk, the relative positions, the distogram and the masked-token training. Departures: causal in time;
levels, holding and movement instead of a structure module; rows are averaged rather than the first one read, so that no row is special.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import EvoformerConfig, GenomeConfig
from cryptoalpha.nets.evoformer import Evoformer
from cryptoalpha.nets.genome.embedding import PairEmbedding, TokenEmbedding
from cryptoalpha.nets.genome.heads import MOST_TOKENS, LevelHead, log_odds, quiet_linear
from cryptoalpha.nets.genome.values import ColumnAnswers, GenomeInputs, GenomeReading


class MarketGenome(nn.Module):
    """Tokens of one market over several time frames in; levels, whether they hold, trend and the next movement out.

    Args:
        sizes: widths and depth.
        frames: time frames S, the base bar's among them.
        pair: features F of a pair of bars.
        horizon: bars over which levels must hold; decides where untrained levels stand.
        seed: of the initial weights; no other random stream is touched.
        checkpoint_blocks: keep only what enters each block and compute the rest again in the backward pass: slower by one forward pass,
            but the memory of one block instead of all of them. The window of the `seed` preset asks for it.

    Shapes:
        `GenomeInputs` of B windows with S frames and N bars → `GenomeReading`. N need not be `sizes.window_bars`.

    Raises:
        ConfigError: for a count below 1, or inputs of other frames, tokens or pair features.
    """

    hold_scale: Tensor
    hold_shift: Tensor
    token_prior: Tensor
    token_after: Tensor

    def __init__(
        self, sizes: GenomeConfig, *, frames: int, pair: int, horizon: int = 24, seed: int = 0, checkpoint_blocks: bool = False
    ) -> None:
        super().__init__()
        if min(frames, pair, horizon) < 1:
            raise ConfigError(f"a genome needs frames, pair features and a horizon, got {frames}, {pair} and {horizon}")
        self.sizes, self.frames, self.pair = sizes, frames, pair
        self.trunk = Evoformer(trunk_sizes(sizes), causal="columns", recompute=checkpoint_blocks, seed=seed)
        width, levels = sizes.width, sizes.supports + sizes.resistances
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = TokenEmbedding(sizes.vocabulary, frames, width)
            self.pairs = PairEmbedding(pair, sizes.pair_width)
            self.column_norm = nn.LayerNorm(width)
            self.column = nn.Linear(width, width)
            self.supports = LevelHead(width, sizes.supports, horizon)
            self.resistances = LevelHead(width, sizes.resistances, horizon)
            self.hold = quiet_linear(width, levels)
            self.trend = quiet_linear(width, sizes.trend_classes)
            self.movement = quiet_linear(width, sizes.trend_classes)
            self.cell_norm = nn.LayerNorm(width)
            self.tokens = quiet_linear(width, sizes.vocabulary)
            self.pair_norm = nn.LayerNorm(sizes.pair_width)
            self.distance = quiet_linear(sizes.pair_width, sizes.distance_bins)
        self.register_buffer("hold_scale", torch.ones(levels))
        self.register_buffer("hold_shift", torch.zeros(levels))
        self.register_buffer("token_prior", torch.zeros(frames, sizes.vocabulary))
        self.register_buffer("token_after", torch.zeros(2, frames, sizes.vocabulary))

    def forward(self, inputs: GenomeInputs) -> GenomeReading:
        sequences, pairs = self.read(inputs)
        return self.answer(sequences, pairs, inputs)

    def read(self, inputs: GenomeInputs) -> tuple[Tensor, Tensor]:
        """The trunk's two representations, `[B, S, N, C]` and `[B, N, N, Z]`."""
        self._check(inputs)
        m, z = self.embedding(inputs), self.pairs(inputs)
        m, z = self.trunk(m, z, inputs.present, inputs.present.any(1))
        return m, z

    def answer(self, sequences: Tensor, pairs: Tensor, inputs: GenomeInputs) -> GenomeReading:
        """All heads, from the trunk's representations."""
        present = inputs.present[..., None].to(sequences.dtype)
        mean = (sequences * present).sum(1) / present.sum(1).clamp(min=1.0)  # [B, N, C]
        columns = functional.relu(self.column(self.column_norm(mean)))
        return GenomeReading(
            *self._called(columns),
            tokens=self.tokens(self.cell_norm(sequences)) + self.usual_tokens(inputs),
            distance=self.distance(self.pair_norm(pairs)),
        )

    def answers(self, sequences: Tensor, present: Tensor) -> ColumnAnswers:
        """The answers at one column. Sequences `[B, S, C]`, present `[B, S]` bool → `[B, …]` each."""
        there = present[..., None].to(sequences.dtype)
        mean = (sequences * there).sum(1) / there.sum(1).clamp(min=1.0)
        return ColumnAnswers(*self._called(functional.relu(self.column(self.column_norm(mean)))))

    def _called(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Supports, resistances, whether they hold, trend and movement. `[…, C]` → `[…, K]`, … ."""
        hold = self.hold(columns) * self.hold_scale + self.hold_shift
        return self.supports(columns), self.resistances(columns), hold, self.trend(columns), self.movement(columns)

    def usual_tokens(self, inputs: GenomeInputs) -> Tensor:
        """Log odds of each token given that of the last bar seen before it in its frame, as in the training stretch, `[B, S, N, V]`."""
        bars = torch.arange(inputs.hidden.shape[-1], device=inputs.hidden.device)
        seen = (inputs.present & ~inputs.hidden[:, None])[:, :, None, :] & (bars[None, :] < bars[:, None])  # [B, S, N, N]
        last = ((bars + 1) * seen).amax(-1) - 1  # −1: none
        place = last.clamp(min=0)[..., None].expand(inputs.tokens.shape)
        known = (last >= 0)[..., None] & ~inputs.missing.gather(2, place)
        after_off, after_on = self.token_after[:, :, None, :]
        usual = torch.where(inputs.tokens.gather(2, place), after_on, after_off)
        return torch.where(known, usual, self.token_prior[:, None, :])

    @torch.no_grad()
    def start_from(
        self,
        *,
        below: Tensor | None = None,
        above: Tensor | None = None,
        hold: Tensor | None = None,
        trend: Tensor | None = None,
        movement: Tensor | None = None,
        tokens: Tensor | None = None,
        after_off: Tensor | None = None,
        after_on: Tensor | None = None,
    ) -> None:
        """Answer what is usual wherever nothing is learned yet; the weights stay as they are.

        Args:
            below, above: distances of the levels, ATR, rising, `[K]`.
            hold: how often each level holds, 0–1, `[2K]`.
            trend, movement: share of each class, 0–1, `[3]`.
            tokens: how often each token is on, 0–1, `[S, V]`; also after a bar without it and after one with it, unless those are given.
            after_off, after_on: how often after a bar without it, and with it, `[S, V]`. All three are buffers: nothing teaches them.
        """
        if below is not None:
            self.supports.start_from(below)
        if above is not None:
            self.resistances.start_from(above)
        if hold is not None:
            self.hold.bias.copy_(log_odds(hold))
        for layer, shares in ((self.trend, trend), (self.movement, movement)):
            if shares is not None:
                layer.bias.copy_(shares.clamp(min=1e-3).log())
        if tokens is not None:
            self.token_prior.copy_(log_odds(tokens, MOST_TOKENS))
            self.token_after.copy_(self.token_prior.expand(2, -1, -1))
        for place, rates in enumerate((after_off, after_on)):
            if rates is not None:
                self.token_after[place].copy_(log_odds(rates, MOST_TOKENS))

    @torch.no_grad()
    def calibrate_hold(self, scale: Tensor, shift: Tensor) -> None:
        """Answer `scale · logit + shift` for each level, `[2K]`, where `logit` is what the head itself says."""
        self.hold_scale.copy_(scale)
        self.hold_shift.copy_(shift)

    def _check(self, inputs: GenomeInputs) -> None:
        found = (inputs.tokens.shape[1], inputs.tokens.shape[-1], inputs.pair.shape[-1])
        wanted = (self.frames, self.sizes.vocabulary, self.pair)
        if found != wanted:
            raise ConfigError(f"inputs have (frames, tokens, pair features) {found}, this genome was made for {wanted}")


def trunk_sizes(sizes: GenomeConfig) -> EvoformerConfig:
    """The Evoformer of a genome: its heads share the width among themselves."""
    return EvoformerConfig(
        sequence_width=sizes.width,
        pair_width=sizes.pair_width,
        head_width=sizes.width // sizes.heads,
        heads=sizes.heads,
        pair_heads=sizes.pair_heads,
        pair_head_width=sizes.pair_head_width,
        outer_width=sizes.outer_width,
        blocks=sizes.layers,
    )
