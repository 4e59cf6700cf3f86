"""What one raw message of a venue turned out to be, and how its fields are read.

Every venue has one parser: bytes and the moment they came (by our clock) in, a `Reading` out. A message that we have no use for (an
acknowledgement, a heartbeat, another channel) is a reading of its kind without content; only what is malformed raises, and always
`DataError`. Numbers come as text or as numbers, whichever the venue likes; infinities, NaN and times beyond the year 2286 are malformed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal, NoReturn, TypeVar

import msgspec

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.streamed import Streamed, Trade
from cryptoalpha.core.time import DAY, MILLISECOND, MINUTE, parse_interval
from cryptoalpha.core.values import Bar, ChainReading

Price = Annotated[float, msgspec.Meta(gt=0.0, le=1e18)]
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=1e18)]
Rate = Annotated[float, msgspec.Meta(ge=-1e3, le=1e3)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=9_000_000_000_000)]
Microseconds = Annotated[int, msgspec.Meta(ge=0, le=9_000_000_000_000_000)]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Level = tuple[Price, Amount]
Message = TypeVar("Message")

_BEYOND = 9_000_000_000 * 1_000_000_000
_STAMP = msgspec.json.Decoder(datetime)


class Change(msgspec.Struct, frozen=True, gc=False):
    """A book, or levels of it that changed: the amount that now rests at a price, 0 where none does any more."""

    instrument: str
    whole: bool
    """The whole book: whatever was known before is forgotten."""
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    happened_at: int
    first: int = -1
    """The venue's number of the first change in here; −1 where it numbers none."""
    last: int = -1
    """Of the last."""
    before: int = -1
    """Of the last change in the message before this one, where the venue says so."""
    checksum: int = -1
    """What the venue's checksum of its best levels is after this; −1 where it gives none."""
    depth: int = 0
    """Levels of each side that the subscription covers; 0: all, or not said."""
    texts: tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] | None = None
    """The levels (bids, asks) as the venue wrote them, where its checksum is made of that."""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What a message was."""

    kind: str
    """`trade`, `quote`, `book`, `bar`, `funding`, `liquidation`; `forming` for a candle that is not closed; `acknowledged`, `refused`,
    `heartbeat`, `status`; `unused:CHANNEL` for what we have no use for."""
    values: tuple[tuple[str, Streamed], ...] = ()
    """(the publisher's own id, value), in the order they happened."""
    changes: tuple[Change, ...] = ()
    forming: tuple[tuple[str, Bar], ...] = ()
    """Candles as they stand, where the venue does not say when one has closed: the next one says it."""
    published: int = 0
    """When the newest of it happened by the venue's clock, not corrected by ours, UTC ns; 0 where it does not say."""
    moments: tuple[int, ...] = ()
    """When each value happened by the venue's clock, not corrected, where the venue is asked for what is missing by its own times."""
    number: int = -1
    """Of the message within its connection, where the venue counts them; −1 where it does not."""
    text: str = ""
    """What was acknowledged or refused, for people."""


Parser = Callable[[bytes, int, str], Reading]
"""(message, when it came in UTC ns, the venue's symbol it is about where the message itself does not say) → what it was.

Raises DataError, and nothing else, where the message is malformed."""


def decoder(shape: type[Message]) -> msgspec.json.Decoder[Message]:
    """Reads a message of that shape; numbers may be written as text."""
    return msgspec.json.Decoder(shape, strict=False)


def decoded(reader: msgspec.json.Decoder[Message], raw: bytes | msgspec.Raw, what: str) -> Message:
    """Raises DataError where `raw` is no such message."""
    try:
        return reader.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{what} is malformed: {error}") from None


def malformed(what: str) -> NoReturn:
    """Raises DataError."""
    raise DataError(f"{what} is malformed")


def milliseconds(moment: int) -> int:
    """UTC ns."""
    return moment * MILLISECOND


def seconds(text: str, what: str) -> int:
    """UTC ns of decimal seconds written as text, to the last digit.

    Raises:
        DataError: if it is none.
    """
    whole, _, part = text.partition(".")
    if not (whole.isascii() and whole.isdecimal() and (not part or (part.isascii() and part.isdecimal()))):
        raise DataError(f"{what} has time {text[:40]!r}, expected decimal seconds")
    moment = int(whole[:20]) * 1_000_000_000 + int((part[:9]).ljust(9, "0"))
    if moment > _BEYOND:
        raise DataError(f"{what} has time {text[:40]!r}, beyond the year 2255")
    return moment


def iso_time(text: str, what: str) -> int:
    """UTC ns of `2023-10-06T17:35:55.440295Z`, to the last digit.

    Raises:
        DataError: if it is none.
    """
    moment, _, part = text.rstrip("Z").partition(".")
    try:
        stamp = _STAMP.decode(b'"' + moment.encode() + b'Z"')
    except (msgspec.MsgspecError, UnicodeEncodeError):
        raise DataError(f"{what} has time {text[:40]!r}, expected one like 2023-10-06T17:35:55.440295Z") from None
    if part and not (part.isascii() and part.isdecimal()):
        raise DataError(f"{what} has time {text[:40]!r}, expected one like 2023-10-06T17:35:55.440295Z")
    found = int(stamp.timestamp())
    if not 0 <= found <= 9_000_000_000:
        raise DataError(f"{what} has time {text[:40]!r}, outside 1970 to 2255")
    return found * 1_000_000_000 + int(part[:9].ljust(9, "0"))


def digest(*parts: object) -> str:
    """A short name made of what a thing is, for what venues give no number."""
    text = "|".join(map(str, parts)).encode()
    return f"{zlib.crc32(text):08x}{zlib.adler32(text):08x}"


def parts(text: str, separator: str, count: int, what: str) -> list[str]:
    """`text` cut into `count` parts that are not empty.

    Raises:
        DataError: if it has not that many.
    """
    cut = text.split(separator)
    if len(cut) != count or not all(cut):
        raise DataError(f"{what} names {text[:60]!r}, expected {count} parts between {separator!r}")
    return cut


def told_trade(
    venue: str,
    instrument: str,
    number: str,
    side: Literal["buy", "sell"],
    price: float,
    amount: float,
    published: int,
    received_at: int,
    family: str = "trade",
) -> tuple[str, Trade]:
    """A trade under the venue's number for it; `side` is the taker's, `amount` in base units."""
    return f"{family}:{instrument}:{number}", Trade(
        happened_at=min(published, received_at),
        known_at=received_at,
        instrument=instrument,
        venue=venue,
        trade_id=number,
        side=side,
        price=price,
        amount=amount,
    )


def told_bar(instrument: str, length: int, opened: int, prices: tuple[float, float, float, float, float], received_at: int) -> Bar:
    """A closed candle: open, high, low, close, volume in base units. It is known when it has come, and never before it ends.

    Raises:
        DataError: if no market prints such a bar.
    """
    first, high, low, last, volume = prices
    return Bar(
        happened_at=opened,
        known_at=max(opened + length, received_at),
        instrument=instrument,
        interval=length,
        open=first,
        high=high,
        low=low,
        close=last,
        volume=volume,
    )


def told_settlement(venue: str, instrument: str, rate: float, settled_at: int, received_at: int) -> tuple[str, ChainReading]:
    """A funding rate that was settled: known when it has come. Its number is the settlement, the same whenever it is asked for.

    Venues stamp a settlement some milliseconds after the full minute. It is told of its minute, as `data.funding_history` stores it: one
    that stood in a series twice would be paid twice.
    """
    base, settled_at = instrument.partition("/")[0], settled_at // MINUTE * MINUTE
    return f"settled:{instrument}:{settled_at}", ChainReading(
        happened_at=min(settled_at, received_at), known_at=received_at, asset=base, metric="funding_rate", value=rate, source=venue
    )


def interval_length(name: str, what: str) -> int:
    """Length of an interval as our configuration writes it (`1m`, `1h`), ns.

    Raises:
        DataError: if it is none.
    """
    try:
        length = parse_interval(name) if len(name) <= 8 else 0
    except ConfigError:
        length = 0
    if not 0 < length <= 366 * DAY:
        raise DataError(f"{what} has interval {name[:40]!r}")
    return length
