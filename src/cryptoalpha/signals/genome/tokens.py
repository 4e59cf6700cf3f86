"""Market data → named tokens: exactly one set per closed bar, and which tokens could not be told because a source was missing.

Every token of bar t is a pure function of what was known when bar t closed and of at most `token_reach` rows before it, to the last bit:
nothing here looks at a whole sample. A token whose inputs are missing is off and marked missing; an absent bar has neither.

Source: the rules are those of the design of the genome (`vocabulary`, docs/genome.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.chain_tokens import ChainEvidence, any_of, chain_evidence, dear_leverage, event, heavy_buying, whale_token
from cryptoalpha.signals.genome.price_tokens import PriceEvidence, holds, memory_of, price_tokens
from cryptoalpha.signals.genome.text_tokens import TextEvidence, chatter, news_tokens, text_evidence, texts_of_bars
from cryptoalpha.signals.price_bars import AssetBars
from cryptoalpha.store.tables import Times

Flags = npt.NDArray[np.bool_]

BOUNDED_WICK_REACH = 360
"""Base bars beyond which nothing changes a bounded high or low: eight half-lives of σ, and twice the longest gap."""


@dataclass(frozen=True, eq=False)
class TokenSets:
    """Tokens and missing sources, one set per bar. Shapes: `tokens`, `missing` `[..., 16]`; never both."""

    tokens: Flags
    missing: Flags


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known beside the bars of a frame, gathered once for all time frames."""

    frame: Frame
    texts_from: int = 0
    """Row from which on texts are read."""

    @cached_property
    def texts(self) -> TextEvidence:
        """Texts of the frame."""
        return text_evidence(self.frame, self.texts_from)

    @cached_property
    def chains(self) -> tuple[ChainEvidence, ...]:
        """Readings of each asset of the frame."""
        return tuple(chain_evidence(self.frame.dataset, asset) for asset in self.frame.assets)


def asset_tokens(evidence: Evidence, asset: int, bars: AssetBars, opens: Times, interval: int, first: int = 0) -> TokenSets:
    """Tokens of bars of `interval` ns of one asset. `[n]` rows that open at `opens` → `[n, 16]`; rows before `first` are nobody's."""
    ends = opens + interval
    prices = PriceEvidence(bars, memory_of(interval), first)
    texts = texts_of_bars(evidence.texts, asset, opens, ends)
    chain = evidence.chains[asset]
    good, bad, regulatory = news_tokens(texts)
    whales = whale_token(chain, opens, ends)
    move, usual = prices.day_move
    crowd = any_of(chatter(texts, first), dear_leverage(chain, ends))
    fomo = holds((move > usual) & (crowd == 1.0), move, usual, crowd)
    institutions = any_of(heavy_buying(prices), event(chain.hoarding, opens, ends))
    columns = np.stack((*price_tokens(prices), good, bad, whales, fomo, institutions, regulatory), axis=1)  # [n, 16]
    there = np.isfinite(bars.close)[:, None]
    return TokenSets(tokens=(columns == 1.0) & there, missing=np.isnan(columns) & there)


def genome_tokens(frame: Frame) -> TokenSets:
    """Tokens of every bar of the frame. `[T, A, 16]` each."""
    evidence = Evidence(frame)
    panel = frame.panel
    sets = [asset_tokens(evidence, a, bars, panel.open_time, panel.interval) for a, bars in enumerate(frame.bars)]
    return TokenSets(*(np.stack([getattr(one, part) for one in sets], axis=1) for part in ("tokens", "missing")))


def token_reach(interval: int, base: int) -> int:
    """Rows of `base` ns before t that the tokens of the newest closed bar of `interval` ns can depend on."""
    parts = interval // base
    return memory_of(interval).reach * parts + (BOUNDED_WICK_REACH + 2 * parts if parts > 1 else 0)
