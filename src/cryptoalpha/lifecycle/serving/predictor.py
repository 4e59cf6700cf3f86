"""A trained forecaster that answers windows: the very code that the trading loop runs, asked for one bar.

Everything it must match (horizons, blocks, features, how texts count) it reads from the folder's own description, so a stable model and a
canary of another design are served side by side. The text encoder alone is the host's and must be the one it was trained with.

Torch and not ONNX Runtime, one thread, group of rows after group: the next bar of a book costs the network little because the block's
context is kept, where a graph computes the whole block every time; answers are the loop's to the last bit, where a graph agrees to 1e-5;
and most of an answer are features, which no runtime of networks touches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import interval_name, iso
from cryptoalpha.lifecycle.serving.faults import UnfitWindowError
from cryptoalpha.lifecycle.serving.messages import AssetForecast, ForecastAnswer, HorizonForecast, ModelAbout
from cryptoalpha.lifecycle.serving.windows import BINARY, JSON, Window, as_json, encode_window, read_window
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import ForecastConfig, NewsConfig, SignalsConfig, TextConfig
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.tables import BarTable, Dataset, Floats

_FORECAST, _NEWS = "signals.forecast.", "signals.news."


class Predictor:
    """One folder of `train forecaster`, ready to answer.

    Args:
        folder: the models.
        version: what to call them.
        text: the host's text encoder.

    Raises:
        ConfigError: if there is no such folder.
        ModelError: if it does not describe a forecaster of this version.
    """

    def __init__(self, folder: Path, version: str, text: TextConfig | None = None) -> None:
        self._held = ModelFolder.open(folder, "forecaster")
        forecast, news = described_settings(self._held)
        self._book = SignalBook(
            SignalsConfig(sources=("forecast",), forecast=forecast, news=news, text=text or TextConfig(), keep_features=False)
        )
        self._horizons, self._interval = forecast.horizon_bars, int(self._held.description["interval_ns"])
        self.about = ModelAbout(
            version=version,
            interval=interval_name(self._interval),
            rows_needed=self._book.reach(self._interval) + 1,
            horizon_bars=list(forecast.horizon_bars),
            levels=[float(level) for level in self._held.description["heads"]["quantiles"]],
            usable_from=[fold.usable_from for fold in self._held.folds],
            encoder=str(self._held.description["encoder"]["name"]),
        )

    def answer(self, window: Window) -> ForecastAnswer:
        """What the newest fold that was usable then says about the window's newest bar.

        Raises:
            UnfitWindowError: if the window does not fit the model.
            ModelError: if the network answers what cannot be used.
        """
        about = self.about
        if window.interval != self._interval:
            raise UnfitWindowError(
                f"the model reads bars of {about.interval}, these have {interval_name(window.interval)}", hint="see /v1/versions"
            )
        if window.rows < about.rows_needed:
            raise UnfitWindowError(
                f"the window has {window.rows:,} bars, the model looks back {about.rows_needed:,}", hint="see rows_needed in /v1/versions"
            )
        tape = self._book.prepare(window.dataset, since=window.newest, until=window.newest + 1)
        traces = tape.source("forecast").traces
        fold, known = int(traces["weights/forecast"][0]), int(tape.panel.known_at[0])
        if fold < 0:
            first = iso(about.usable_from[0])
            raise UnfitWindowError(f"no model may answer a bar known at {iso(known)}; the first one from {first} on", hint="ask later bars")
        return self._answer(tape, traces, fold, known)

    def warm_up(self) -> None:
        """Answer a made-up window in both forms, so that everything is loaded and compiled before anybody waits for it."""
        made_up = self.made_up_window()
        for body, media in ((as_json(made_up.dataset), JSON), (encode_window(made_up.dataset), BINARY)):
            self.answer(read_window(body, media, now=made_up.newest + self._interval))

    def made_up_window(self, assets: int = 8) -> Window:
        """A random walk that ends with the first bar the newest fold may answer."""
        step, rows = self._interval, self.about.rows_needed
        newest = -(-max(self._held.folds[-1].usable_from, (rows + 1) * step) // step) * step
        times = newest + step * np.arange(1 - rows, 1, dtype=np.int64)
        bars = {}
        for place in range(assets):
            random = stream(place, "serving/warm_up")
            close = 100.0 * np.exp(np.cumsum(0.01 * random.standard_normal(rows)))
            before = np.concatenate((close[:1], close[:-1]))
            name = f"WARM{place}/USDT"
            high, low, volume = np.maximum(before, close), np.minimum(before, close), random.uniform(1.0, 2.0, rows)
            bars[name] = BarTable(name, step, times, before, high, low, close, volume)
        return Window(Dataset("made up", bars), step, newest, rows)

    def _answer(self, tape: SignalTape, traces: Any, fold: int, known: int) -> ForecastAnswer:
        """The arrays of the one bar as an answer."""
        names = tape.panel.instruments
        source = tape.source("forecast")
        value, confidence, sigma = source.value[0], source.confidence[0], tape.sigma[0]
        forecasts, unanswered = [], []
        for a, name in enumerate(names):
            if not np.isfinite(value[a]):
                unanswered.append(name)
                continue
            horizons = [self._horizon(traces, a, h, bars, float(sigma[a])) for h, bars in enumerate(self._horizons)]
            forecasts.append(AssetForecast(instrument=name, signal=float(value[a]), confidence=float(confidence[a]), horizons=horizons))
        return ForecastAnswer(known_at=known, fold=fold, levels=self.about.levels, forecasts=forecasts, unanswered=unanswered)

    def _horizon(self, traces: Any, a: int, h: int, bars: int, sigma: float) -> HorizonForecast:
        up, down, sideways = probabilities(traces["forecast/direction"][0, a, h].astype(np.float64)).tolist()
        return HorizonForecast(
            bars=bars,
            unit=float(sigma * np.sqrt(bars)),
            up=up,
            down=down,
            sideways=sideways,
            expected_move=float(traces["forecast/location"][0, a, h]),
            volatility=float(traces["forecast/volatility"][0, a, h]),
            confidence=float(traces["forecast/chance"][0, a, h]),
            quantiles=[float(each) for each in traces["forecast/quantiles"][0, a, h]],
        )


def described_settings(held: ModelFolder) -> tuple[ForecastConfig, NewsConfig]:
    """The settings a folder was trained with, as its description has them.

    Raises:
        ModelError: if it has none, or other ones than this version knows.
    """
    try:
        forecast = {name.removeprefix(_FORECAST): value for name, value in held.description.items() if name.startswith(_FORECAST)}
        news = {name.removeprefix(_NEWS): value for name, value in held.description.items() if name.startswith(_NEWS)}
        return ForecastConfig.model_validate({**forecast, "model": str(held.path)}), NewsConfig.model_validate(news)
    except ValidationError:
        raise ModelError(
            f"{held.path} was trained with settings this version does not know", hint="train it anew: cryptoalpha train forecaster"
        ) from None


def probabilities(logits: Floats) -> Floats:
    """Softmax. `[K]` → `[K]`, rising with the logits, sum 1."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum(), np.float64)
