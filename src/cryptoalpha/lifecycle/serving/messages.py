"""What is asked and what is answered over HTTP, as frozen structs: their types are the checks, and the source of `/openapi.json`.

Numbers of an answer are those of `signals.forecast.ForecastSource` to the last bit (float32 kept as double), except for the three
probabilities of direction, which are the softmax of its logits in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

MOST_ASSETS = 64
MOST_ROWS = 8_192
MOST_POSTS = 5_000
MOST_READINGS = 1_000
LATEST = 2**62

Time = Annotated[int, Meta(ge=0, le=LATEST, description="UTC, nanoseconds since 1970.")]
Name = Annotated[str, Meta(min_length=1, max_length=40, pattern="^[!-~]+$")]
Instrument = Annotated[str, Meta(min_length=1, max_length=40, pattern="^[!-~]+$", description="Such as BTC/USDT.")]
Column = Annotated[list[float], Meta(min_length=1, max_length=MOST_ROWS)]
Times = Annotated[list[Time], Meta(min_length=1, max_length=MOST_ROWS)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class BarColumns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bars of one instrument, oldest first, one number per bar in every column. A bar is stamped by its open."""

    open_time: Times
    open: Column
    high: Column
    low: Column
    close: Column
    volume: Column
    taker_buy_volume: Annotated[list[float | None], Meta(max_length=MOST_ROWS)] | None = None
    """Base units bought by takers; null where unknown."""


class PostText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text that was published."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    source: Name
    happened_at: Time
    known_at: Time
    text: Annotated[str, Meta(max_length=10_000)]
    weight: Share = 1.0


class ReadingColumns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Readings of one on-chain or market metric, in the order in which they became known; `*` is the whole market."""

    asset: Name
    metric: Name
    happened_at: Times
    known_at: Times
    value: Column


class ForecastRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A window of bars that ends with the bar to be answered, and what was known beside them."""

    interval: Annotated[str, Meta(pattern="^[1-9][0-9]{0,4}[smhdw]$", description="Length of a bar: 1m, 1h, 1d.")]
    bars: Annotated[dict[Instrument, BarColumns], Meta(min_length=1, max_length=MOST_ASSETS)]
    posts: Annotated[list[PostText], Meta(max_length=MOST_POSTS)] = []
    readings: Annotated[list[ReadingColumns], Meta(max_length=MOST_READINGS)] = []


class BesideBars(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a binary request says in its header (metadata `request`, as JSON): a `ForecastRequest` whose bars are arrays."""

    interval: Annotated[str, Meta(pattern="^[1-9][0-9]{0,4}[smhdw]$")]
    instruments: Annotated[list[Instrument], Meta(min_length=1, max_length=MOST_ASSETS)]
    posts: Annotated[list[PostText], Meta(max_length=MOST_POSTS)] = []
    readings: Annotated[list[ReadingColumns], Meta(max_length=MOST_READINGS)] = []


class HorizonForecast(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is expected of the next `bars` bars. Moves are log returns in units of `unit`: multiply to get fractions."""

    bars: Annotated[int, Meta(ge=1)]
    unit: float
    """σ_t √h: the volatility over this horizon as the asset's own past has it."""
    up: Share
    down: Share
    sideways: Share
    expected_move: float
    volatility: float
    """Expected volatility, in the same unit."""
    confidence: Share
    """Calibrated chance that the call of direction is right."""
    quantiles: list[float]
    """Of the move, at the answer's `levels`, rising."""


class AssetForecast(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One asset's answer. `signal` and `confidence` are those of the source `forecast`, for the longest horizon."""

    instrument: str
    signal: Annotated[float, Meta(ge=-1.0, le=1.0)]
    confidence: Share
    horizons: list[HorizonForecast]


class ForecastAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model says about the newest bar of a window."""

    known_at: Time
    """When the answered bar was known; the model's fold is the newest that was usable then."""
    fold: Annotated[int, Meta(ge=0)]
    levels: list[float]
    forecasts: list[AssetForecast]
    unanswered: list[str]
    """Instruments without a newest bar, or with too short a past to know their volatility."""


class ForecastResponse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `ForecastAnswer` and whose it is."""

    version: str
    arm: str
    """`stable` or `canary`."""
    fell_back: bool
    """Whether the canary was asked first and failed."""
    request_id: str
    known_at: Time
    fold: Annotated[int, Meta(ge=0)]
    levels: list[float]
    forecasts: list[AssetForecast]
    unanswered: list[str]


class ModelAbout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a loaded model is and needs."""

    version: str
    interval: str
    rows_needed: int
    """Bars a window needs at least, the answered one included; more are passed over."""
    horizon_bars: list[int]
    levels: list[float]
    usable_from: list[int]
    """Since when each fold may answer, UTC ns, oldest first."""
    encoder: str
    """The text encoder it was trained with."""


class LoadedVersion(ModelAbout, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A loaded model, and how it fares."""

    arm: str
    ready: bool
    waiting: int
    memory_bytes: int
    replaced: int
    """How often its process was replaced: it had died, was stuck, or had grown."""


class VersionsResponse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is loaded."""

    stable: str
    canary: str
    """Empty if there is none."""
    versions: list[LoadedVersion]


class Status(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the server is: `ok`, `ready`, `loading`, `draining`."""

    status: str
    version: str
    """Of stable; empty while it is being loaded."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What went wrong (RFC 9457, `application/problem+json`), and what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    hint: str
    request_id: str
    version: str


def fault_of(answer: ForecastAnswer) -> str | None:
    """Why an answer cannot be used: `nan`, `out_of_range` or `schema` (causes of `rollout.split`); None if it can.

    Types and ranges are checked on decoding already, where the answer comes from another process; this holds for any.
    """
    if not all(map(math.isfinite, _numbers(answer))):
        return "nan"
    if not answer.forecasts and not answer.unanswered:
        return "schema"
    shapes = {tuple((each.bars, len(each.quantiles)) for each in asset.horizons) for asset in answer.forecasts}
    if len(shapes) > 1 or any(not shape or any(count != len(answer.levels) for _, count in shape) for shape in shapes):
        return "schema"
    return None if all(map(_is_possible, answer.forecasts)) else "out_of_range"


def _is_possible(asset: AssetForecast) -> bool:
    """Whether probabilities are some and quantiles rise."""
    if not (-1.0 <= asset.signal <= 1.0 and 0.0 <= asset.confidence <= 1.0):
        return False
    for one in asset.horizons:
        shares = (one.up, one.down, one.sideways, one.confidence)
        if any(not 0.0 <= share <= 1.0 for share in shares) or abs(sum(shares[:3]) - 1.0) > 1e-6:
            return False
        if one.unit <= 0.0 or one.volatility <= 0.0 or any(b < a for a, b in zip(one.quantiles, one.quantiles[1:], strict=False)):
            return False
    return True


def _numbers(answer: ForecastAnswer) -> Iterator[float]:
    yield from answer.levels
    for asset in answer.forecasts:
        yield from (asset.signal, asset.confidence)
        for one in asset.horizons:
            yield from (one.unit, one.up, one.down, one.sideways, one.expected_move, one.volatility, one.confidence, *one.quantiles)
