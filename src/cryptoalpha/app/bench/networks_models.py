"""The networks of the loop in the shapes of the loop: how long a block takes, live and in a replay, and what the two designs cost.

Weights are drawn, inputs are drawn, all is observed: the time does not depend on the numbers. A replay reads every block once and takes the
answered part of it. A live bar of the forecaster is the group of rows that holds it; of the genome, here, the whole window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

import torch
from torch import Tensor, nn

from cryptoalpha.app.bench.networks_workload import SEED
from cryptoalpha.nets.config import EvoformerConfig, HeadsConfig, NetsConfig
from cryptoalpha.nets.evoformer import Evoformer
from cryptoalpha.nets.forecaster.by_row import ForecasterByRow
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.nets.forecaster.values import ForecastInputs
from cryptoalpha.nets.genome import GenomeInputs, MarketGenome
from cryptoalpha.nets.presets import forecaster_sizes, genome_sizes
from cryptoalpha.signals.config import ForecastConfig, GenomeSignalConfig, TextConfig
from cryptoalpha.signals.forecast.pairs import pair_feature_names
from cryptoalpha.signals.text import open_encoder

ASSETS = 8
GENOME_PAIR_FEATURES = 2
"""Prices within half an ATR, same hour of the week."""
Step = Callable[[], object]


def forecaster_block() -> tuple[Step, Step, int]:
    """One block of the forecaster `small` with eight assets, one live bar of it, and the bars that the block answers."""
    signal, nets = ForecastConfig(), NetsConfig(preset="small")
    rows, text = signal.context_bars + signal.block_bars, open_encoder(TextConfig()).width
    price, chain, pair = nets.embedding.price, nets.embedding.chain, len(pair_feature_names(signal.correlation_bars))
    net = Forecaster(
        forecaster_sizes(nets), HeadsConfig(), horizons=len(signal.horizon_bars), price=price, chain=chain, text=text, pair=pair, seed=SEED
    ).eval()
    cells = (1, rows, ASSETS)
    inputs = ForecastInputs(
        price=torch.randn(*cells, price),
        price_seen=_seen(*cells, price),
        chain=torch.randn(*cells, chain),
        chain_seen=_seen(*cells, chain),
        text=torch.randn(*cells, text),
        text_weight=torch.ones(cells),
        pair=torch.randn(*cells, ASSETS, pair),
        pair_seen=_seen(*cells, ASSETS, pair),
        present=_seen(*cells),
    )
    return *_by_row(net, inputs, signal), signal.block_bars


def _by_row(net: Forecaster, inputs: ForecastInputs, signal: ForecastConfig) -> tuple[Step, Step]:
    """Read a block from the first row on; read one bar more, whose group is the last: by turns the last bar and the one before it."""

    def reader() -> ForecasterByRow:
        return ForecasterByRow(net, assets=ASSETS, context=signal.context_bars, answered=signal.block_bars)

    rows, live = signal.context_bars + signal.block_bars, reader()
    before = ForecastInputs(*(torch.cat((part[:, :-1], torch.zeros_like(part[:, -1:])), 1) for part in inputs))
    known = cycle((before, inputs))
    live.read(inputs, rows)
    return lambda: reader().read(inputs, rows), lambda: live.read(next(known), rows)


def genome_window() -> tuple[Step, Step, int]:
    """One window of the genome `small` of one market, twice, and the bars it answers."""
    signal, sizes = GenomeSignalConfig(), genome_sizes(NetsConfig(preset="small"))
    net = MarketGenome(sizes, frames=len(signal.frames), pair=GENOME_PAIR_FEATURES, horizon=signal.horizon_bars, seed=SEED).eval()
    inputs = _genome_inputs(len(signal.frames), sizes.window_bars, sizes.vocabulary)
    step = _inference(net, inputs)
    return step, step, round(sizes.window_bars * (1.0 - signal.context_share))


def genome_step(bars: int) -> tuple[Step, bool]:
    """One forward and backward pass of the genome `seed` at so many bars; False: it is not worth doing twice."""
    frames, sizes = len(GenomeSignalConfig().frames), genome_sizes(NetsConfig(preset="seed"))
    net = MarketGenome(sizes, frames=frames, pair=GENOME_PAIR_FEATURES, seed=SEED, checkpoint_blocks=True)

    def step(bars: int = bars) -> None:
        reading = net(_genome_inputs(frames, bars, sizes.vocabulary))
        sum((answer.square().mean() for answer in reading), torch.zeros(())).backward()

    step(8)
    return step, False


def designs() -> dict[str, tuple[Step, Step, int]]:
    """The forecaster's two designs at the widths each can afford: forward pass, training step, and the bars supervised by that step."""
    rows = {"window": 41, "per step": 48}
    narrow = forecaster_sizes(NetsConfig(preset="small"))
    wide = EvoformerConfig(sequence_width=128, pair_width=64, heads=4, blocks=narrow.blocks)
    window = Evoformer(wide, causal="rows", pairs="shared", seed=SEED)
    steps = Evoformer(narrow, causal="rows", pairs="per_step", seed=SEED)
    bars = ForecastConfig().block_bars
    found = {}
    for name, net, z in (
        ("window", window, torch.randn(1, ASSETS, ASSETS, wide.pair_width)),
        ("per step", steps, torch.randn(1, rows["per step"], ASSETS, ASSETS, narrow.pair_width)),
    ):
        m = torch.randn(1, rows[name], ASSETS, 128)
        answered = 1 if name == "window" else bars
        found[name] = (_inference(net, (m, z)), _training(net, m, z, answered), answered)
    return found


def _training(net: nn.Module, m: Tensor, z: Tensor, answered: int) -> Step:
    def step() -> None:
        net.zero_grad(set_to_none=True)
        found = net(m, z)[0][:, -answered:]
        found.square().mean().backward()

    return step


def _inference(net: nn.Module, inputs: Sequence[Tensor]) -> Step:
    """The modules of the loop take one named tuple, the trunk takes its tensors one by one."""
    named = hasattr(inputs, "_fields")

    def step() -> object:
        with torch.inference_mode():
            return net(inputs) if named else net(*inputs)

    return step


def _genome_inputs(frames: int, bars: int, vocabulary: int) -> GenomeInputs:
    tokens = torch.rand(1, frames, bars, vocabulary) < 0.1
    return GenomeInputs(
        tokens=tokens,
        missing=torch.zeros_like(tokens),
        hidden=torch.zeros(1, bars, dtype=torch.bool),
        pair=torch.randn(1, bars, bars, GENOME_PAIR_FEATURES),
        present=_seen(1, frames, bars),
    )


def _seen(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)
