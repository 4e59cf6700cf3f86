"""Reading texts: what a text concerns, and how it sounds, for a batch at a time.

What is read of a text depends on the text and the assets alone, so it may be read anywhere: here, in other processes, on a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cryptoalpha.signals.text.lexicon import mentions
from cryptoalpha.signals.text.relevance import relevance
from cryptoalpha.signals.text.tone import lexicon_tone
from cryptoalpha.store.tables import Floats


@dataclass(frozen=True, eq=False)
class Readings:
    """What was read of `n` texts. Shapes: `relevance`, `tone` `[n]`; `named` `n` tuples of assets."""

    relevance: Floats
    tone: Floats
    named: tuple[tuple[str, ...], ...]


class Reader(Protocol):
    """Reads texts."""

    async def read(self, texts: Sequence[str]) -> Readings:
        """In the order of the texts."""
        ...


def read_texts(assets: tuple[str, ...], texts: Sequence[str]) -> Readings:
    """Relevance, tone and assets of each text."""
    return Readings(
        relevance=np.array([relevance(text, assets) for text in texts], np.float64),
        tone=lexicon_tone(texts),
        named=tuple(mentions(text, assets) for text in texts),
    )


class ReadHere:
    """Reads in this process."""

    def __init__(self, assets: tuple[str, ...]) -> None:
        self._assets = assets

    async def read(self, texts: Sequence[str]) -> Readings:
        return read_texts(self._assets, texts)
