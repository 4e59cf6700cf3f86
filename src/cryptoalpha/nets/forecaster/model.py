"""The forecaster: a causal Evoformer over assets and bars, with a straight line past it.

Rows are bars, columns are assets, and every bar has its own pair representation, so each bar of a block is answered from that bar and the
earlier ones of its block only. No part knows which asset is which: permuted assets give permuted answers.

The straight line is a linear map from a bar's own features to the expected move. Plain transformers lose to linear regression on returns
(Qlib's tables); with the line they begin where it ends: it starts at zero, learns with the rest, or is set to a ridge solution. A second
one (`peers`) leads from the features of the other assets, by what the pair representation says of each, to the expected move.

Source: Jumper et al. (2021), Suppl. Alg. 6, for the trunk. Departures: markets have a future, so rows are causal; no template, no
recycling, no embedding of identity; the heads are a market's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.config import EvoformerConfig, HeadsConfig
from cryptoalpha.nets.evoformer import Evoformer
from cryptoalpha.nets.forecaster.embedding import CellEmbedding, PairEmbedding
from cryptoalpha.nets.forecaster.heads import AssetHeads, CorrelationHead, SentimentHead, zero_linear
from cryptoalpha.nets.forecaster.peers import PeerLine
from cryptoalpha.nets.forecaster.sequence_trunk import SequenceTrunk
from cryptoalpha.nets.forecaster.values import Forecast, ForecastInputs


class Forecaster(nn.Module):
    """Answers every bar of a block for every asset and horizon.

    Args:
        sizes: widths and depth of the trunk.
        heads: what is answered.
        horizons: number of horizons H.
        price, chain, text, pair: widths of the inputs.
        seed: of the initial weights; no other random stream is touched.
        pair_representation: False leaves out the pair stack (z biases nothing and foretells no correlation): the ablation.

    Shapes:
        see `ForecastInputs` and `Forecast`.

    Raises:
        ConfigError: if a width is below 1.
        ModelError: for inputs of other widths than the net was built for.
    """

    def __init__(
        self,
        sizes: EvoformerConfig,
        heads: HeadsConfig,
        *,
        horizons: int,
        price: int,
        chain: int,
        text: int,
        pair: int,
        seed: int,
        pair_representation: bool = True,
    ) -> None:
        super().__init__()
        if min(horizons, price, chain, text, pair) < 1:
            raise ConfigError(f"a forecaster needs at least 1 of each, got {horizons=} {price=} {chain=} {text=} {pair=}")
        self.sizes, self.horizons, self.widths = sizes, horizons, (price, chain, text, pair)
        self.bins = heads.correlation_bins
        self.pair_representation = pair_representation
        width = sizes.sequence_width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.cells = CellEmbedding(price, chain, text, width)
            self.pairs = PairEmbedding(pair, sizes.pair_width) if pair_representation else None
            self.assets = AssetHeads(width, horizons, heads)
            self.sentiment = SentimentHead(text, heads.sentiment_classes)
            self.correlation = CorrelationHead(sizes.pair_width, heads.correlation_bins) if pair_representation else None
            self.line = zero_linear(price + chain, horizons)
            # Without pairs every peer counts alike: so the ablation lacks what is known of pairs and nothing else.
            self.peers = PeerLine(price + chain, sizes.pair_width if pair_representation else 1, horizons)
        self.trunk_net: nn.Module
        if pair_representation:
            self.trunk_net = Evoformer(sizes, causal="rows", pairs="per_step", seed=seed)
        else:
            self.trunk_net = SequenceTrunk(sizes, seed=seed)

    def forward(self, inputs: ForecastInputs) -> Forecast:
        return self.answer(*self.trunk(inputs), inputs)

    def trunk(self, inputs: ForecastInputs) -> tuple[Tensor, Tensor | None]:
        """m `[B, S, N, C]` and z `[B, S, N, N, Z]` (None without pair representation) after the last block."""
        m, z = self.embedded(inputs)
        if z is None:
            return self.trunk_net(m, inputs.present), None
        m, z = self.trunk_net(m, z, inputs.present, inputs.present)
        return m, z

    def embedded(self, inputs: ForecastInputs, *, first: int = 0) -> tuple[Tensor, Tensor | None]:
        """m and z before the first block, of the rows from `first` of their blocks on."""
        self._check(inputs)
        m: Tensor = self.cells(inputs, first=first)
        if self.pairs is None:
            return m, None
        pair_mask = inputs.present.unsqueeze(-1) & inputs.present.unsqueeze(-2)  # [B, S, N, N]
        return m, torch.where(pair_mask.unsqueeze(-1), self.pairs(inputs.pair, inputs.pair_seen), 0.0)

    def answer(self, m: Tensor, z: Tensor | None, inputs: ForecastInputs) -> Forecast:
        """The heads' answers to a trunk's representations."""
        direction, volatility, confidence, location, quantiles = self.assets(m, self.straight(z, inputs))
        text = torch.where((inputs.text_weight > 0).unsqueeze(-1), inputs.text, 0.0)
        if z is None or self.correlation is None:
            assets = m.shape[-2]
            correlation = m.new_zeros(*m.shape[:-1], assets, self.bins)  # every bin equally likely
        else:
            correlation = self.correlation(z)
        return Forecast(direction, volatility, self.sentiment(text), confidence, location, quantiles, correlation)

    def straight(self, z: Tensor | None, inputs: ForecastInputs) -> Tensor:
        """The straight lines' expected move `[B, S, N, H]`: from the asset's own features and from its peers'.

        Features that are not seen count as 0, the middle of scaled features.
        """
        features = self.features(inputs)
        answered: Tensor = self.line(features) + self.from_peers(z, features, inputs.present)
        return answered

    @staticmethod
    def features(inputs: ForecastInputs) -> Tensor:
        """What the straight lines read of each asset, `[B, S, N, price + chain]`."""
        price = torch.where(inputs.price_seen, inputs.price, 0.0)
        chain = torch.where(inputs.chain_seen, inputs.chain, 0.0)
        return torch.cat((price, chain), dim=-1)

    def from_peers(self, z: Tensor | None, features: Tensor, present: Tensor) -> Tensor:
        """The part of `straight` that the other assets' features give, `[B, S, N, H]`."""
        pairs = features.new_zeros(*features.shape[:3], features.shape[2], 1) if z is None else z
        added: Tensor = self.peers(features, pairs, present)
        return added

    def set_linear(self, weights: Tensor, intercept: Tensor | None = None, *, learn: bool = True) -> None:
        """Set the straight line, for example to a ridge solution.

        Args:
            weights: `[H, price + chain]`, move per unit of scaled feature, price features first.
            intercept: `[H]`; 0 unless given.
            learn: whether it goes on learning with the rest, or stays as it is.

        Raises:
            ModelError: for another shape or a number that is not finite.
        """
        given = torch.zeros(self.horizons) if intercept is None else torch.as_tensor(intercept)
        wanted = torch.as_tensor(weights)
        if wanted.shape != self.line.weight.shape or given.shape != self.line.bias.shape:
            expected = tuple(self.line.weight.shape), tuple(self.line.bias.shape)
            raise ModelError(
                f"the straight line takes weights and intercept of {expected}, not {tuple(wanted.shape)}, {tuple(given.shape)}"
            )
        if not (bool(torch.isfinite(wanted).all()) and bool(torch.isfinite(given).all())):
            raise ModelError("the straight line was given a number that is not finite")
        with torch.no_grad():
            self.line.weight.copy_(wanted)
            self.line.bias.copy_(given)
        self.line.requires_grad_(learn)

    def set_temperature(self, temperature: Tensor | float) -> None:
        """Set the temperature of confidence, one number or one per horizon `[H]`; logits are divided by it.

        Raises:
            ModelError: if it is not finite and above 0.
        """
        wanted = torch.as_tensor(temperature, dtype=self.assets.temperature.dtype)
        if not bool(torch.isfinite(wanted).all()) or bool((wanted <= 0).any()):
            raise ModelError(f"a temperature must be finite and above 0, got {temperature}")
        self.assets.temperature.copy_(wanted)

    def read_sentiment(self, texts: Tensor) -> Tensor:
        """Sentiment logits `[…, classes]` of bare text vectors `[…, D]`. Labelled texts alone teach the head (`nets.text.head`)."""
        logits: Tensor = self.sentiment(texts)
        return logits

    def _check(self, inputs: ForecastInputs) -> None:
        found = tuple(part.shape[-1] for part in (inputs.price, inputs.chain, inputs.text, inputs.pair))
        if found != self.widths:
            raise ModelError(f"inputs have price, chain, text, pair widths {found}, the forecaster was built for {self.widths}")
