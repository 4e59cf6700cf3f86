"""The forecaster as a source of opinions.

Each block that holds an asked-for bar is read alone, group of rows after group (`nets.forecaster.by_row`), in fixed shapes, in one thread:
the bars before the frame, after the newest bar or never printed are padding. So a bar's opinion is the same to the last bit live, in a
replay, after a restart, and when later data are removed or poisoned. What was read stays for the next call as long as its inputs are the
same: a live bar costs its group of rows; the context of the next block is read ahead. A network without pair representation, or one too
large to be kept, is computed whole. Every bar is answered by the newest fold that may be used at the moment the bar is known; before the
first there is no opinion. A block in which folds change is read once per fold.

Value = tanh(location / (2 · strength)), location being the expected move over the longest horizon and strength its root mean square on
validation bars. Confidence = the calibrated chance that the call of direction over that horizon is right. Impact = location. Quantiles are
those of the shortest horizon, in units of σ_t √h.

The trace `forecast/sentiment` holds logits of very negative … very positive where an asset had texts. It is NaN where there were none, and
everywhere if no labelled texts taught the head (`train forecaster --labelled`): then sentiment is unavailable. No opinion is made of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import interval_name
from cryptoalpha.nets.forecaster.by_row import ForecasterByRow, read_block
from cryptoalpha.nets.forecaster.values import Forecast
from cryptoalpha.signals.config import ForecastConfig, NewsConfig, TextConfig
from cryptoalpha.signals.forecast.arrays import forecast_arrays
from cryptoalpha.signals.forecast.blocks import Blocks
from cryptoalpha.signals.forecast.model import ForecastModel, open_forecaster
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.price_bars import LONGEST_GAP
from cryptoalpha.signals.price_features import WARMUP_BARS
from cryptoalpha.signals.single_thread import single_thread
from cryptoalpha.signals.text import open_encoder
from cryptoalpha.signals.text.encoder import TextEncoder, require_encoder

READERS_KEPT = 3
"""Blocks that stay read: the one that answers, the next one's context, and one more while folds change."""

Floats32 = npt.NDArray[np.float32]
Answers = dict[str, Floats32]


class ForecastSource:
    """Opinions of a trained forecaster.

    Args:
        config: names the folder of models; the rest must be what they were trained with.
        text: names the text encoder, which must be the one they were trained with.
        news: how texts count, likewise.

    Raises:
        ConfigError: if no model is named or there is none.
        ModelError: if it does not fit these settings.
    """

    source = "forecast"
    type = "model"

    def __init__(self, config: ForecastConfig, *, text: TextConfig | None = None, news: NewsConfig | None = None) -> None:
        self._news, self._text = news or NewsConfig(), text or TextConfig()
        self._folder, self._design = open_forecaster(config, self._news)
        self._config = config
        self.horizon = config.horizon_bars[-1] * self._design.interval
        self._encoder: TextEncoder | None = None
        self._models: dict[int, ForecastModel] = {}
        self._readers: dict[tuple[int, int], ForecasterByRow] = {}

    def reach(self, interval: int) -> int:
        warm_up = max(WARMUP_BARS, max(self._config.correlation_bars) + LONGEST_GAP + 2)
        return warm_up + self._config.context_bars + self._config.block_bars

    def compute(self, frame: Frame) -> Opinions:
        """Opinions, quantiles and traces of every row from `frame.first` on.

        Raises:
            ModelError: if the bars have another length than those the model was trained on, the encoder is another one, or the network
                answers with numbers that are not finite.
        """
        if frame.panel.interval != self._design.interval:
            raise ModelError(
                f"{self._folder.path} was trained on bars of {interval_name(self._design.interval)}, "
                f"these have {interval_name(frame.panel.interval)}",
                hint="ask for the bars it was trained on with --interval, or train it on these",
            )
        answers, fold = self._answers(frame)
        there = frame.usable & (fold >= 0)[:, None]
        there[frame.first :] &= np.isfinite(frame.sigma_from(frame.first))
        for values in answers.values():
            values[~there] = np.nan
        answers["correlation"][~(there[:, :, None] & there[:, None, :])] = np.nan
        return opinions(
            frame,
            answers["value"].astype(np.float64),
            answers["chance"].astype(np.float64)[:, :, -1],
            answers["location"].astype(np.float64)[:, :, -1],
            quantiles=answers["quantiles"].astype(np.float64)[:, :, 0],
            traces={**{f"forecast/{name}": values for name, values in answers.items()}, "weights/forecast": fold},
        )

    def _answers(self, frame: Frame) -> tuple[Answers, npt.NDArray[np.int64]]:
        """What the network says at every row, NaN where it is not asked, and the fold that says it (−1 = none). `[T, …]`, `[T]`."""
        self._folder = self._folder.refreshed()
        fold = self._folder.numbers_at(frame.panel.known_at)
        fold[: frame.first] = -1
        answers = self._nothing(frame)
        asked = np.flatnonzero((fold >= 0) & frame.usable.any(axis=1))
        if not asked.size:
            return answers, fold
        arrays = forecast_arrays(frame, self._config, self._open_encoder(), news=self._news, first=int(asked[0]))
        blocks = Blocks(arrays, self._config)
        with single_thread():
            for number in blocks.holding(asked).tolist():
                rows = blocks.rows_of(np.array([number]))[0]
                rows[: self._config.context_bars] = -1
                asked_here = (rows >= 0) & (fold[np.maximum(rows, 0)] >= 0)
                for model in np.unique(fold[rows[asked_here]]).tolist():
                    places = np.flatnonzero(asked_here & (fold[np.maximum(rows, 0)] == model))
                    for name, values in self._ask(model, blocks, number, places).items():
                        answers[name][rows[places]] = values
            self._read_ahead(int(fold[-1]), blocks)
        return answers, fold

    def _ask(self, model_number: int, blocks: Blocks, number: int, places: npt.NDArray[np.int64]) -> Answers:
        """One fold's answers at some places of one block, `[n, …]` each."""
        model = self._model(model_number)
        inputs = blocks.inputs(np.array([number]), model.scaler)
        if self._by_row(model, blocks.arrays.assets):
            said = self._reader(model_number, number, blocks.arrays.assets).read(inputs, int(places[-1]) + 1)
        else:
            said = read_block(model.net, inputs, context=self._config.context_bars)
        parts = []
        for first, forecast in said:
            here = places[(places >= first) & (places < first + forecast.location.shape[1])] - first
            if here.size:
                parts.append({name: values[0].numpy()[here] for name, values in _called(forecast, model.strength).items()})
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        there = inputs.present[0].numpy()[places]
        for name, values in found.items():
            if not np.isfinite(values[there]).all():
                raise ModelError(
                    f"fold {model_number} of {self._folder.path} answered {name} with a number that is not finite",
                    hint="train it anew: cryptoalpha train forecaster",
                )
        read = inputs.text_weight[0].numpy()[places] > 0.0 if self._design.sentiment else np.zeros(there.shape, np.bool_)
        found["sentiment"] = np.where(read[..., None], found["sentiment"], np.float32(np.nan))
        return found

    def _by_row(self, model: ForecastModel, assets: int) -> bool:
        return ForecasterByRow.pays(model.net, assets=assets, context=self._config.context_bars, answered=self._config.block_bars)

    def _reader(self, model_number: int, number: int, assets: int) -> ForecasterByRow:
        """What a fold has read of a block; the blocks asked for last are kept."""
        key = (model_number, number)
        reader = self._readers.pop(key, None)
        if reader is None or reader.assets != assets:
            net = self._model(model_number).net
            reader = ForecasterByRow(net, assets=assets, context=self._config.context_bars, answered=self._config.block_bars)
        self._readers[key] = reader
        for old in list(self._readers)[:-READERS_KEPT]:
            del self._readers[old]
        return reader

    def _read_ahead(self, model_number: int, blocks: Blocks) -> None:
        """Read the next group of the next block's context if all its bars are known: else that block's first bar has to wait for them."""
        arrays = blocks.arrays
        if model_number < 0 or not self._by_row(self._model(model_number), arrays.assets):
            return
        number = (arrays.first_bar + len(arrays) - 1) // self._config.block_bars + 1
        rows = blocks.rows_of(np.array([number]))[0]
        known = int(np.max(np.flatnonzero(rows >= 0), initial=-1)) + 1
        reader = self._reader(model_number, number, arrays.assets)
        if reader.next_stop <= known:
            reader.read(blocks.inputs(np.array([number]), self._model(model_number).scaler), reader.next_stop)

    def _nothing(self, frame: Frame) -> Answers:
        """NaN for every answer, in its shape."""
        heads, horizons = self._design.heads, len(self._config.horizon_bars)
        rows, assets = frame.shape
        shapes: dict[str, tuple[int, ...]] = {
            "value": (),
            "chance": (horizons,),
            "location": (horizons,),
            "direction": (horizons, heads.direction_classes),
            "volatility": (horizons,),
            "sentiment": (heads.sentiment_classes,),
            "quantiles": (horizons, len(heads.quantiles)),
            "correlation": (assets,),
        }
        return {name: np.full((rows, assets, *shape), np.nan, np.float32) for name, shape in shapes.items()}

    def _model(self, number: int) -> ForecastModel:
        if number not in self._models:
            self._models[number] = ForecastModel.load(self._folder, number, self._design)
        return self._models[number]

    def _open_encoder(self) -> TextEncoder:
        if self._encoder is None:
            encoder = open_encoder(self._text)
            require_encoder(self._design.encoder, encoder, where=str(self._folder.path))
            self._encoder = encoder
        return self._encoder


def _called(said: Forecast, strength: float) -> dict[str, torch.Tensor]:
    """What the network says as answers, `[1, R, …]` each; of one reading at a time, whose shape is always the same."""
    return {
        "value": torch.tanh(said.location[..., -1] / (2.0 * strength)),
        "chance": torch.sigmoid(said.confidence),
        "correlation": _mean_of_bins(said.correlation),
        **{name: getattr(said, name) for name in ("location", "direction", "volatility", "sentiment", "quantiles")},
    }


def _mean_of_bins(logits: torch.Tensor) -> torch.Tensor:
    """Expected correlation of every pair. `[…, bins]` → `[…]`."""
    bins = logits.shape[-1]
    centres = (torch.arange(bins, dtype=logits.dtype) + 0.5) * (2.0 / bins) - 1.0
    return (logits.softmax(dim=-1) * centres).sum(dim=-1)
