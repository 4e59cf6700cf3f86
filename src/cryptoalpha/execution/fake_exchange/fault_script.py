"""What can go wrong, written down: a list of faults, each saying which request or message it hits, how, and how often.

A script is a JSON or YAML list; an entry needs only its `action`:

    - {action: drop_after, route: "POST /api/v3/order", instrument: BTCUSDT, nth: 2, times: 1}
    - {action: skew, seconds: -3600}

`route` is a shell pattern over `METHOD /path` of a request without the host (`POST */order`), or over `WS subject` of a message that a
stream is about to send (`WS account TRADE`, `WS btcusdt@kline_1m`). Where it is left away the action's usual place stands in
(`ACTIONS`); an action that changes a state of the exchange (its clock, its fee asset, its being there at all) then begins at once.
`schedule` draws such a list from a seed; what it drew is itself a script, so every accident can be written down and repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from cryptoalpha.core.errors import ConfigError

ORDERS: Final = "POST */order"
QUERIES: Final = "GET */order"
CANCELS: Final = "DELETE */order"
KLINES: Final = "GET */klines"
ACCOUNT: Final = "GET */account"
FILLS: Final = "WS account TRADE"
ACKS: Final = "WS account NEW"
DEPTH: Final = "WS *@depth*"

Phase = Literal["before", "after", "around", "state", "stream"]


class Action(NamedTuple):
    """How a fault works: when it acts, where it strikes unless told otherwise, its usual duration and what it does."""

    phase: Phase
    route: str
    seconds: float
    text: str


ACTIONS: Final[Mapping[str, Action]] = {
    # The request is answered without the exchange ever having seen it.
    "drop_before": Action("before", ORDERS, 0.0, "connection closed, request never reached the exchange"),
    "reset_before": Action("before", ORDERS, 0.0, "connection reset (RST), request never reached the exchange"),
    "timeout_before": Action("before", ORDERS, 30.0, "no answer, request never reached the exchange"),
    "error_before": Action("before", ORDERS, 0.0, "5xx page, request never reached the exchange"),
    "delay_before": Action("before", ORDERS, 0.5, "request reaches the exchange late"),
    "rate_limit": Action("before", ORDERS, 1.0, "429 with code -1003 and Retry-After"),
    "banned": Action("before", ORDERS, 2.0, "418 with code -1003 and Retry-After"),
    "not_found": Action("before", QUERIES, 0.0, "-2013 (cancel: -2011) for an order that exists"),
    "revoked": Action("before", "* *", 0.0, "401 with code -2015 for requests with a key"),
    "overloaded": Action("before", ORDERS, 0.0, "503 with code -1008: refused for overload"),
    # The exchange has acted; its answer is lost or spoilt.
    "timeout_after": Action("after", ORDERS, 30.0, "accepted, then no answer"),
    "drop_after": Action("after", ORDERS, 0.0, "accepted, then connection closed"),
    "reset_after": Action("after", ORDERS, 0.0, "accepted, then connection reset (RST)"),
    "error_after": Action("after", ORDERS, 0.0, "accepted, then a 5xx page"),
    "unknown_after": Action("after", ORDERS, 0.0, "accepted, then 504 with code -1007: execution status unknown"),
    "delay_after": Action("after", ORDERS, 0.5, "accepted, answered late"),
    "garbage": Action("after", ORDERS, 0.0, "accepted, answered 200 with an HTML page"),
    "empty_object": Action("after", ORDERS, 0.0, "accepted, answered 200 with {}"),
    "empty_list": Action("after", ORDERS, 0.0, "accepted, answered 200 with []"),
    "null": Action("after", ORDERS, 0.0, "accepted, answered 200 with null"),
    "empty_body": Action("after", ORDERS, 0.0, "accepted, answered 200 with nothing"),
    "cut_json": Action("after", ORDERS, 0.0, "accepted, answered 200 with half the JSON"),
    "truncated": Action("after", ORDERS, 0.0, "accepted, body shorter than its Content-Length"),
    "stale": Action("after", ACCOUNT, 0.0, "answered as the last time: balances lag"),
    "feed_stall": Action("after", KLINES, 0.0, "answered with the candles of the last time"),
    "feed_gap": Action("after", KLINES, 0.0, "a candle in the middle is missing"),
    "feed_duplicate": Action("after", KLINES, 0.0, "the last candle comes twice"),
    "feed_forming": Action("after", KLINES, 0.0, "a candle that has only begun comes last"),
    "feed_nan": Action("after", KLINES, 0.0, "the last candle closes at NaN"),
    # The exchange acts, and more happens at the same time.
    "hold": Action("around", ORDERS, 60.0, "accepted, answer held until released"),
    "fill_before_ack": Action("around", ORDERS, 0.05, "the stream tells a fill; only then the order is answered, as new"),
    "cancel_race": Action("around", CANCELS, 0.0, "the order fills before the cancel reaches it"),
    "late_fill": Action("around", CANCELS, 0.0, "the order is cancelled, and a fill from before comes to light after that"),
    "overfill": Action("around", ORDERS, 0.0, "accepted, then filled by more than was ordered"),
    # The exchange is different for a while (0 seconds: until cleared).
    "skew": Action("state", "", 5.0, "the exchange's clock is this many seconds ahead (behind where negative)"),
    "outage": Action("state", "", 1.0, "every connection is cut and none is answered"),
    "maintenance": Action("state", "", 1.0, "503 for everything"),
    "fee_asset": Action("state", "", 0.0, "fees are paid in `asset`"),
    # Messages of the streams.
    "lose": Action("stream", FILLS, 0.0, "message never sent; on depth: a sequence gap"),
    "duplicate": Action("stream", FILLS, 0.0, "message sent twice"),
    "late": Action("stream", FILLS, 0.3, "message sent late"),
    "swap": Action("stream", ACKS, 0.3, "message sent after the next one"),
    "disconnect": Action("stream", FILLS, 0.0, "connection closed instead of the message"),
    "stall": Action("stream", "WS *", 1.0, "stream silent from this message on"),
    "spoil": Action("stream", FILLS, 0.0, "message cut in half"),
    "nan": Action("stream", "WS *@kline_*", 0.0, "candle closes at NaN"),
}
"""Every fault there is."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a script."""

    action: str
    route: str = ""
    """Shell pattern; empty for the action's own."""
    instrument: str = ""
    """Symbol at the venue (`BTCUSDT`); empty for any."""
    nth: int = 1
    """First match that is hit, from 1."""
    times: int = 1
    """How many matches in a row are hit; 0 for all."""
    seconds: float | None = None
    """Delay, duration, skew or Retry-After; the action's own where left away."""
    status: int = 503
    """HTTP status of `error_before` and `error_after`."""
    asset: str = "BNB"
    """Of `fee_asset`."""
    quantity: str = ""
    """Of `fill_before_ack`, `cancel_race`, `late_fill` and `overfill`: how much fills; else what is left, or half the order too much."""

    @property
    def rule(self) -> Action:
        return ACTIONS[self.action]

    @property
    def duration(self) -> float:
        return self.rule.seconds if self.seconds is None else self.seconds


def parse(entries: object, *, source: str = "fault script") -> list[Fault]:
    """Check a list of entries.

    Raises:
        ConfigError: an entry is no fault, names an unknown action or an impossible count.
    """
    try:
        faults = msgspec.convert(entries, list[Fault])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}", hint="a list of mappings, each with an `action`; see docs/fake_exchange.md") from error
    for place, fault in enumerate(faults):
        if fault.action not in ACTIONS:
            raise ConfigError(f"{source}, entry {place}: no action {fault.action!r}", hint="one of " + ", ".join(ACTIONS))
        if fault.nth < 1 or fault.times < 0:
            raise ConfigError(f"{source}, entry {place}: nth {fault.nth} and times {fault.times} must be ≥ 1 and ≥ 0")
        if fault.duration < 0.0 and fault.action != "skew":
            raise ConfigError(f"{source}, entry {place}: only a clock can be {fault.duration} seconds off", hint="give seconds ≥ 0")
    return faults


def read_script(path: Path) -> list[Fault]:
    """A script from a JSON or YAML file (JSON is YAML).

    Raises:
        ConfigError: as `parse`, or the file cannot be read.
    """
    import yaml

    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"fault script {path}: {error.strerror}", hint="name a JSON or YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"fault script {path} is neither JSON nor YAML: {error}") from error
    return parse(entries, source=str(path))


def as_entries(faults: Sequence[Fault]) -> list[dict[str, object]]:
    """The script as plain values, without what stands at its default."""
    blank = {field.name: field.default for field in msgspec.structs.fields(Fault)}
    entries: list[dict[str, object]] = []
    for fault in faults:
        values = msgspec.structs.asdict(fault)
        entries.append({name: value for name, value in values.items() if name == "action" or value != blank[name]})
    return entries
