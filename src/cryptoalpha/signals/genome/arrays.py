"""What the market genome is made of, as arrays over the rows of a frame: tokens of all time frames, prices, and what tells two bars apart.

Of two bars i and j two things are known, both taken at the later one: whether their prices lie within half an ATR of each other
(*contact*), and whether they open in the same hour of the week. Their relative position is the network's own knowledge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.frames import FrameTokens, frame_tokens
from cryptoalpha.signals.genome.token_memory import TokenMemory
from cryptoalpha.signals.genome.tokens import Flags
from cryptoalpha.signals.price_bars import asset_bars
from cryptoalpha.store.tables import Floats, Times

PAIR_FEATURES = ("contact", "same_hour_of_week")
"""What is known of two bars, in the order of the last axis of `GenomeInputs.pair`."""

CONTACT_ATR = 0.5
"""Distance of two prices, in ATR of the later bar, within which they touch."""

PRICE_REACH = 640
"""Rows before t beyond which nothing changes σ, ATR, or bounded highs and lows of row t."""


@dataclass(frozen=True, eq=False)
class GenomeArrays:
    """Rows of a frame for the genome. Axes: `T` rows of the frame, `A` instruments.

    `first_bar` is the place of row 0 among all bars since 1970; rows before `begin` are empty. Prices `[T, A]`, NaN where there is no bar:
    `close`, `log_close`, bounded `high` and `low`, `atr` in price units, `sigma` per bar.
    """

    instruments: tuple[str, ...]
    interval: int
    first_bar: int
    begin: int
    open_time: Times
    known_at: Times
    sets: FrameTokens
    close: Floats
    log_close: Floats
    high: Floats
    low: Floats
    atr: Floats
    sigma: Floats

    def __len__(self) -> int:
        return len(self.open_time)

    @property
    def hour_of_week(self) -> Times:
        """Hour of the week in which each row opens, counted from a Thursday (the epoch was one). `[T]`."""
        return self.open_time % (7 * DAY) // HOUR

    def fingerprint(self) -> str:
        """Hash of everything the arrays hold."""
        digest = hashlib.blake2b(f"{self.instruments} {self.sets.intervals} {self.begin}".encode(), digest_size=16)
        tokens = (self.sets.tokens, self.sets.missing, self.sets.present)
        for array in (self.open_time, self.known_at, *tokens, self.close, self.high, self.low, self.atr, self.sigma):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def genome_arrays(frame: Frame, frames: Sequence[str], *, begin: int = 0, memory: TokenMemory | None = None) -> GenomeArrays:
    """The arrays of a frame from row `begin` on; what lies before is computed as far as it is needed.

    Args:
        frames: names of the time frames (`signals.genome.frames`).
        memory: tokens of the frames before (`frame_tokens`).

    Raises:
        ConfigError: if a time frame cannot be made of the bars at hand.
    """
    panel = frame.panel
    prices = {name: np.full(frame.shape, np.nan) for name in ("close", "log_close", "high", "low", "atr", "sigma")}
    start = max(0, begin - PRICE_REACH)
    for a in range(len(panel.instruments)):
        bars = frame.bars[a] if start == 0 else asset_bars(panel.rows(start, len(panel)), a)
        for name, column in prices.items():
            column[begin:, a] = getattr(bars, name)[begin - start :]
    return GenomeArrays(
        instruments=panel.instruments,
        interval=panel.interval,
        first_bar=int(panel.open_time[0]) // panel.interval,
        begin=begin,
        open_time=panel.open_time,
        known_at=np.maximum.accumulate(panel.known_at),
        sets=frame_tokens(frame, frames, begin=begin, memory=memory),
        **prices,
    )


def pair_features(log_price: Floats, contact_within: Floats, hour: Times) -> Floats:
    """What is known of every two bars of a window. `[N]` each → `[N, N, 2]` of 0 and 1, symmetric.

    Args:
        log_price: ln close, NaN where there is no bar.
        contact_within: relative distance within which another price touches this bar's, NaN where unknown.
        hour: hour of the week.
    """
    place = np.arange(len(log_price))
    later = np.maximum(place[:, None], place[None, :])
    with np.errstate(invalid="ignore"):
        contact = np.abs(log_price[:, None] - log_price[None, :]) < contact_within[later]
    there = np.isfinite(log_price)
    same_hour = (hour[:, None] == hour[None, :]) & there[:, None] & there[None, :]
    return np.stack((contact, same_hour), axis=-1).astype(np.float64)


def contact_within(arrays: GenomeArrays, rows: Times, instrument: int) -> Floats:
    """Half an ATR relative to the price, at some rows. `[n]` → `[n]`."""
    return np.asarray(CONTACT_ATR * arrays.atr[rows, instrument] / arrays.close[rows, instrument], np.float64)


def flags_of(sets: FrameTokens, rows: Times, instrument: int) -> tuple[Flags, Flags, Flags]:
    """Tokens, missing and present of one instrument, time frames first. `[N]` rows → `[S, N, 16]`, `[S, N, 16]`, `[S, N]`."""
    tokens, missing = (np.ascontiguousarray(part[rows, instrument].transpose(1, 0, 2)) for part in (sets.tokens, sets.missing))
    return tokens, missing, np.ascontiguousarray(sets.present[rows, instrument].T)
