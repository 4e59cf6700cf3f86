"""The tone of texts by whatever the configuration names: the trained head, the encoder's own classes, or the lexicon.

A tone lies in [−1, 1]. With `signals.text.sentiment_model` it is the head's expected polarity on the vectors of `signals.text.encoder`;
else that of an `hf:` classifier; else the lexicon's. The encoder is opened at the first text, so that building a book loads no network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cryptoalpha.signals.config import TextConfig
from cryptoalpha.signals.text.cache import CachedEncoder
from cryptoalpha.signals.text.encoder import PolarEncoder, TextEncoder
from cryptoalpha.signals.text.lexicon import tone_of
from cryptoalpha.signals.text.sentiment import SentimentModel
from cryptoalpha.signals.text.tiers import open_encoder
from cryptoalpha.store.home import Home
from cryptoalpha.store.tables import Floats

Tone = Callable[[Sequence[str]], Floats]
"""`n` texts → `[n]` in [−1, 1]."""

REMEMBERED = 1 << 16
"""Tones kept by the lexicon; the oldest leaves first."""

_tones: dict[str, float] = {}


def remember_tone(text: str, tone: float) -> None:
    """Keep the lexicon's tone of a text that was read elsewhere (`relevance.appraise`)."""
    _tones[text] = tone
    if len(_tones) > REMEMBERED:
        _tones.pop(next(iter(_tones)), None)


def lexicon_tone(texts: Sequence[str]) -> Floats:
    """The lexicon's tone of each text, remembered."""
    out = np.empty(len(texts))
    for i, text in enumerate(texts):
        tone = _tones.get(text)
        if tone is None:
            remember_tone(text, tone := tone_of(text))
        out[i] = tone
    return out


def open_tone(config: TextConfig | None = None, *, home: Home | None = None) -> Tone:
    """The reader of tones that the configuration names.

    Raises:
        DataMissingError, StoreError: if the head's file is missing or damaged.
    """
    config = config or TextConfig()
    if config.sentiment_model:
        return HeadTone(config, home)
    return EncoderTone(config, home) if config.encoder.startswith("hf:") else lexicon_tone


class HeadTone:
    """The trained head's tone.

    Raises:
        DataMissingError, StoreError: if its file is missing or damaged.
        ModelError: at the first text, if it was trained on another encoder than the configured one.
    """

    def __init__(self, config: TextConfig, home: Home | None = None) -> None:
        self._config, self._home = config, home
        self._path = Path(config.sentiment_model).expanduser()
        self.model = SentimentModel.load(self._path)
        self._encoder: TextEncoder | None = None

    def __call__(self, texts: Sequence[str]) -> Floats:
        encoder = self._encoder
        if encoder is None:
            encoder = open_encoder(self._config, home=self._home)
            self.model = SentimentModel.load(self._path, encoder=encoder)
            self._encoder = encoder
        if not isinstance(encoder, CachedEncoder):
            return self.model.polarity(encoder.encode(texts))
        reader = f"{encoder.name}@{encoder.revision} head {self.model.digest}"
        within, model = encoder, self.model
        answers = encoder.cache.answers(reader, 1, texts, lambda some: model.polarity(within.encode(some)).astype(np.float32)[:, None])
        return answers[:, 0].astype(np.float64)


class EncoderTone:
    """The tone by an `hf:` model's own classes; the lexicon's where the model has none."""

    def __init__(self, config: TextConfig, home: Home | None = None) -> None:
        self._config, self._home = config, home
        self._tone: Tone | None = None

    def __call__(self, texts: Sequence[str]) -> Floats:
        if self._tone is None:
            encoder = open_encoder(self._config, home=self._home)
            within = encoder.within if isinstance(encoder, CachedEncoder) else encoder
            speaks = isinstance(within, PolarEncoder) and getattr(within, "classifies", True)
            self._tone = encoder.polarity if speaks and isinstance(encoder, PolarEncoder) else lexicon_tone
        return self._tone(texts)
