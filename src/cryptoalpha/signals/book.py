"""The signal book: every source asked at every bar of a period, in one causal batch ahead of the loop.

`prepare` builds one frame that begins as many rows before the period as the farthest-seeing source needs. Because each row of each source
is a pure function of at most that many rows before it and of what was known at its time, a row is the same to the last bit whichever
period it was prepared in, and whatever became known later: preparing the newest bar alone, live, equals the backtest's batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError
from cryptoalpha.core.time import interval_name, iso
from cryptoalpha.signals.config import SignalsConfig, SourceName
from cryptoalpha.signals.feature_ridge import FeatureRidge
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.funding import Funding
from cryptoalpha.signals.history import History
from cryptoalpha.signals.model import Opinions, SignalModel
from cryptoalpha.signals.momentum import Momentum
from cryptoalpha.signals.mood import FearGreed
from cryptoalpha.signals.news import NewsTone
from cryptoalpha.signals.price_features import WARMUP_BARS
from cryptoalpha.signals.regime.source import RegimeSource
from cryptoalpha.signals.tape import SignalTape, SourceTape
from cryptoalpha.signals.text.tone import open_tone
from cryptoalpha.signals.trend import Trend
from cryptoalpha.signals.volatility import VolatilityState
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

Progress = Callable[[int, int], None]
"""Called with (sources done, sources in all)."""


def build_model(source: SourceName, config: SignalsConfig) -> SignalModel:
    """The model behind a source's name."""
    ic, momentum = config.typical_ic, config.momentum
    match source:
        case "momentum":
            return Momentum(source, look_back_days=momentum.look_back_days, horizon_days=momentum.horizon_days, typical_ic=ic)
        case "momentum_short":
            days, ahead = momentum.short_look_back_days, momentum.short_horizon_days
            return Momentum(source, look_back_days=days, horizon_days=ahead, typical_ic=ic)
        case "trend":
            return Trend(typical_ic=ic, **dict(config.trend))
        case "volatility":
            return VolatilityState(typical_ic=ic, **dict(config.volatility))
        case "funding":
            return Funding(typical_ic=ic, **dict(config.funding))
        case "fear_greed":
            return FearGreed(typical_ic=ic, **dict(config.mood))
        case "news_tone":
            return NewsTone(typical_ic=ic, tones=open_tone(config.text), **dict(config.news))
        case "features":
            return FeatureRidge(config.ridge)
        case "forecast":
            from cryptoalpha.signals.forecast.source import ForecastSource  # torch, for those alone who name it

            return ForecastSource(config.forecast, text=config.text, news=config.news)
        case "genome":
            from cryptoalpha.signals.genome.source import GenomeSource

            return GenomeSource(config.genome)


class SignalBook:
    """All sources of a configuration, ready to be asked.

    Args:
        config: which sources, over which windows.
        models: ask these instead of the configured sources (tests, new sources).

    Raises:
        ConfigError: if two sources share a name.
    """

    def __init__(self, config: SignalsConfig | None = None, models: Sequence[SignalModel] | None = None) -> None:
        self._config = config or SignalsConfig()
        chosen = [build_model(source, self._config) for source in self._config.sources] if models is None else list(models)
        names = [model.source for model in chosen]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"signal sources named twice: {', '.join(doubled)}", hint="list each once in signals.sources")
        self._models = tuple(chosen)
        self._history = History()
        self._regime = RegimeSource(self._config.regime) if self._config.regime.model else None

    def reach(self, interval: int) -> int:
        """Rows before a bar that its signals may depend on."""
        features = WARMUP_BARS if self._config.keep_features else 0
        regime = 0 if self._regime is None else self._regime.reach(interval)
        return max([features, regime, *(model.reach(interval) for model in self._models)])

    def prepare(
        self, dataset: Dataset, *, since: int, until: int, instruments: Sequence[str] | None = None, progress: Progress | None = None
    ) -> SignalTape:
        """Signals, states and references of every bar that opens in [`since`, `until`).

        Raises:
            DataMissingError: if there is no bar in the period.
            DataError: if the bars do not share one length.
        """
        frame = self._frame(dataset, since, until, instruments)
        with_features = self._config.keep_features
        price = frame.price_from(frame.first) if with_features else None  # before the sources, which then need not compute them
        chain = frame.chain_from(frame.first) if with_features else None
        sources = []
        for done, model in enumerate(self._models):
            seen = frame.cut(model.reach(frame.panel.interval))
            sources.append(_source_tape(model, model.compute(seen), seen))
            if progress is not None:
                progress(done + 1, len(self._models))
        return SignalTape(
            panel=frame.panel.rows(frame.first, len(frame.panel)),
            dataset=dataset,
            assets=frame.assets,
            sigma=frame.sigma_from(frame.first),
            sources=tuple(sources),
            price=price,
            chain=chain,
            act_at=self._config.act_at,
            act_strongly_at=self._config.act_strongly_at,
            regime=None if self._regime is None else self._regime.compute(frame).rows(frame.first),
        )

    def _frame(self, dataset: Dataset, since: int, until: int, instruments: Sequence[str] | None) -> Frame:
        """The window of the period and its warm-up, its first row being the first with a bar in the period."""
        names = tuple(sorted(dataset.bars)) if instruments is None else tuple(instruments)
        intervals = {dataset.bars[name].interval for name in names if name in dataset.bars}
        if len(intervals) > 1:
            lengths = ", ".join(map(interval_name, sorted(intervals)))
            raise DataError(f"bars of different lengths in one book: {lengths}", hint="choose one with --interval")
        warm_up = max((self.reach(interval) * interval for interval in intervals), default=0)
        panel = build_panel(dataset, since=since - warm_up, until=until, instruments=names)
        in_period = np.flatnonzero((panel.open_time >= since) & panel.present.any(axis=1))
        if not in_period.size:
            raise DataMissingError(
                f"no bars between {iso(since)} and {iso(until)}", hint="`cryptoalpha data list` prints what each source covers"
            )
        # A bar that came late delays the rows after it too: what they build on was not known earlier.
        panel = replace(panel, known_at=np.maximum.accumulate(panel.known_at))
        return Frame(panel, dataset, int(in_period[0]), self._history.mark(panel, dataset))


def _source_tape(model: SignalModel, formed: Opinions, frame: Frame) -> SourceTape:
    """A model's opinions of the period, without the warm-up.

    Raises:
        ConfigError: if the model returned arrays of another shape than the frame.
    """
    shapes = {array.shape for array in (formed.value, formed.confidence, formed.impact)}
    if formed.quantiles is not None:
        shapes.add(formed.quantiles.shape[:2])
    if shapes != {frame.shape}:
        raise ConfigError(f"signal source {model.source!r} returned {shapes}, expected {frame.shape}", hint="return [T, A] for all three")
    kept = slice(frame.first, None)
    return SourceTape(
        source=model.source,
        type=model.type,
        horizon=model.horizon,
        value=formed.value[kept],
        confidence=formed.confidence[kept],
        impact=formed.impact[kept],
        reference=None if formed.reference is None else formed.reference[kept],
        references=formed.references,
        traces={name: trace[kept] for name, trace in formed.traces.items()},
        quantiles=None if formed.quantiles is None else formed.quantiles[kept],
    )
