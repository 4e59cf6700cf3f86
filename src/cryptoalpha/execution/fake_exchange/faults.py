"""The faults of a running exchange: which request or message is hit next, what happens to it, and what has happened so far.

Requests pass through `around`, messages of the streams ask `message`. Several faults may hit one request: states begin first, then what
happens before the exchange, then the exchange, then what happens to its answer; the first fault that ends the exchange of words wins.
Nothing here writes the exchange's books, but for fills that it is asked to make for real (`fill_now`): the books stay the judge.
`counts` holds only what was really done: a candle fault on an empty list is not counted, and strikes the next time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar

from aiohttp import web

from cryptoalpha.execution.fake_exchange.fault_replies import Answer, cut, page, raw, refusal, silence, spoilt_candles, truncated
from cryptoalpha.execution.fake_exchange.fault_schedule import schedule
from cryptoalpha.execution.fake_exchange.fault_script import Fault, as_entries, parse

SPOILT_BODIES: Mapping[str, bytes] = {"empty_object": b"{}", "empty_list": b"[]", "null": b"null", "empty_body": b""}


class Call(Protocol):
    """A request to the exchange, its path without the host."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def params(self) -> Mapping[str, str]: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def http(self) -> web.Request: ...


C = TypeVar("C", bound=Call)
R = TypeVar("R", bound=Answer)


class FillNow(Protocol):
    """Let an order trade at once at the last known price; None for all that rests. False where there is nothing to fill."""

    def __call__(self, *, futures: bool, symbol: str, client_id: str, order_id: str, quantity: Decimal | None) -> bool: ...


@dataclass(kw_only=True, slots=True)
class Plan:
    """What happens to one message of a stream."""

    copies: int = 1
    delay: float = 0.0
    swap: float = 0.0
    """Seconds it waits at most for the next message to overtake it; 0 for no swap."""
    disconnect: bool = False
    spoil: bool = False
    nan: bool = False


@dataclass(kw_only=True, slots=True)
class _Loaded:
    """A fault of the script and how often it met its kind of request."""

    fault: Fault
    route: str
    matched: int = 0
    struck: int = 0

    def hits(self, subject: str, instrument: str) -> bool:
        """Count a match; whether this one is hit."""
        fault = self.fault
        if (fault.instrument and fault.instrument != instrument) or not fnmatchcase(subject, self.route):
            return False
        self.matched += 1
        return self.matched >= fault.nth and (fault.times == 0 or self.struck < fault.times)


@dataclass(kw_only=True, slots=True)
class _State:
    """How the exchange stands for the moment. Ends are monotonic seconds; infinity until cleared."""

    skew_seconds: float = 0.0
    out_until: float = 0.0
    closed_until: float = 0.0
    stalled_until: float = 0.0
    fee_asset: str | None = None


@dataclass(slots=True)
class Faults:
    """All faults of one exchange; one loop, no locks."""

    fill_now: FillNow | None = None
    on_change: Callable[[], None] | None = None
    """Called when clock or fee asset changed."""
    on_outage: list[Callable[[], None]] = field(default_factory=list)
    """Called when the exchange goes away: streams cut their connections."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often each action was really done."""
    _loaded: list[_Loaded] = field(default_factory=list)
    _state: _State = field(default_factory=_State)
    _last: dict[tuple[str, ...], bytes] = field(default_factory=dict)
    """The latest true answer of each question that can lag."""
    _held: list[asyncio.Future[None]] = field(default_factory=list)

    def load(self, entries: object) -> list[dict[str, object]]:
        """Add faults to those that stand. Raises `ConfigError` for what is no script."""
        faults = parse(entries)
        for fault in faults:
            rule = fault.rule
            if rule.phase == "state" and not fault.route:
                self._begin(fault)
            else:
                self._loaded.append(_Loaded(fault=fault, route=fault.route or rule.route))
        return as_entries(faults)

    def load_seed(self, seed: int, *, faults: int = 8, reach: int = 12) -> list[dict[str, object]]:
        """Add what this seed draws."""
        return self.load(as_entries(schedule(seed, faults=faults, reach=reach)))

    def clear(self) -> None:
        """No more faults; the clock is right and held answers go out. Counts stay."""
        self._loaded.clear()
        self._state = _State()
        if self.on_change is not None:
            self.on_change()
        self.release()

    def release(self, number: int | None = None) -> int:
        """Let the oldest held answers go, all of them unless told otherwise; how many went."""
        waiting = [one for one in self._held if not one.done()][:number]
        for one in waiting:
            one.set_result(None)
        return len(waiting)

    def state(self) -> dict[str, object]:
        """For `/control/state`: what was done, what stands, what is to come."""
        now = time.monotonic()
        return {
            "counts": dict(sorted(self.counts.items())),
            "rules": [
                {**as_entries([one.fault])[0], "route": one.route, "matched": one.matched, "struck": one.struck} for one in self._loaded
            ],
            "skew_seconds": self._state.skew_seconds,
            "fee_asset": self._state.fee_asset,
            "is_out": now < self._state.out_until,
            "in_maintenance": now < self._state.closed_until,
            "held": sum(not one.done() for one in self._held),
        }

    def skew_ms(self) -> int:
        """What the exchange's clock adds to the true time."""
        return round(self._state.skew_seconds * 1000)

    def fee_asset(self) -> str | None:
        """In what fees are paid now; None for what the account has set."""
        return self._state.fee_asset

    @property
    def is_out(self) -> bool:
        return time.monotonic() < self._state.out_until

    async def around(self, call: C, handler: Callable[[C], Awaitable[R]]) -> R | web.StreamResponse:
        """Pass one request on, with what is to go wrong."""
        hits = self._hits(f"{call.method} {call.path}", call.params.get("symbol", ""))
        if self.is_out:
            return cut(call.http, reset=True)
        if time.monotonic() < self._state.closed_until:
            return page(503, retry_after=1.0)
        for hit in hits:
            early = await self._before(hit, call)
            if early is not None:
                return early
        for hit in hits:
            if hit.fault.action == "cancel_race":
                self._fill(hit, call, call.params.get("origClientOrderId", ""))
        reply = await handler(call)
        previous = self._remember(call, reply)
        for hit in hits:
            await self._meanwhile(hit, call, reply)
        for hit in hits:
            late = await self._after(hit, call, reply, previous)
            if late is not None:
                return late
        return reply

    def message(self, subject: str, instrument: str) -> Plan:
        """What happens to a message that a stream is about to send; `subject` without `WS`."""
        plan = Plan()
        for hit in self._hits(f"WS {subject}", instrument):
            action, seconds = hit.fault.action, hit.fault.duration
            if action == "lose":
                plan.copies = 0
            elif action == "duplicate":
                plan.copies *= 2
            elif action == "late":
                plan.delay = max(plan.delay, seconds)
            elif action == "swap":
                plan.swap = seconds
            elif action == "stall":
                self._state.stalled_until = _end(seconds)
            elif action == "nan" and "@kline_" not in subject:
                continue
            elif action in ("disconnect", "spoil", "nan"):
                setattr(plan, action, True)
            else:
                continue
            self._done(hit)
        if time.monotonic() < self._state.stalled_until or self.is_out:
            plan.copies = 0
        return plan

    def _hits(self, subject: str, instrument: str) -> list[_Loaded]:
        hit = [one for one in self._loaded if one.hits(subject, instrument)]
        for one in hit:
            if one.fault.rule.phase == "state":
                self._begin(one.fault)
                one.struck += 1
        return [one for one in hit if one.fault.rule.phase != "state"]

    def _done(self, hit: _Loaded) -> None:
        hit.struck += 1
        self.counts[hit.fault.action] += 1

    def _begin(self, fault: Fault) -> None:
        if fault.action == "skew":
            self._state.skew_seconds = fault.duration
        elif fault.action == "outage":
            self._state.out_until = _end(fault.duration)
            for cut_all in self.on_outage:
                cut_all()
        elif fault.action == "maintenance":
            self._state.closed_until = _end(fault.duration)
        else:
            self._state.fee_asset = fault.asset or None
        self.counts[fault.action] += 1
        if self.on_change is not None:
            self.on_change()

    async def _before(self, hit: _Loaded, call: Call) -> web.StreamResponse | None:
        """The answer where the exchange is not to see the request, else None."""
        fault = hit.fault
        if fault.rule.phase != "before" or (fault.action == "revoked" and not call.headers.get("X-MBX-APIKEY")):
            return None
        self._done(hit)
        match fault.action:
            case "drop_before" | "reset_before":
                return cut(call.http, reset=fault.action == "reset_before")
            case "timeout_before":
                return await silence(call.http, fault.duration)
            case "error_before":
                return page(fault.status)
            case "rate_limit":
                return refusal(
                    429, -1003, "Too many requests; current limit is 6000 request weight per 1 MINUTE.", retry_after=fault.duration
                )
            case "banned":
                return refusal(418, -1003, "Way too much request weight used; IP banned.", retry_after=fault.duration)
            case "overloaded":
                return refusal(503, -1008, "Server is currently overloaded with other requests. Please try again in a few minutes.")
            case "revoked":
                return refusal(401, -2015, "Invalid API-key, IP, or permissions for action.")
            case "not_found":
                return _unknown(call)
        await asyncio.sleep(fault.duration)  # delay_before
        return None

    async def _meanwhile(self, hit: _Loaded, call: Call, reply: Answer) -> None:
        """What happens between the exchange's act and its answer."""
        if reply.status >= 400:
            return
        client_id = call.params.get("newClientOrderId", "")
        if hit.fault.action == "overfill":
            self._fill(hit, call, client_id)
        elif hit.fault.action == "late_fill":
            self._fill(hit, call, call.params.get("origClientOrderId", ""))
        elif hit.fault.action == "fill_before_ack":
            self._fill(hit, call, client_id)
            await asyncio.sleep(hit.fault.duration)
        elif hit.fault.action == "hold":
            self._done(hit)
            held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held.append(held)
            await asyncio.wait([held], timeout=hit.fault.duration)
            self._held.remove(held)

    async def _after(self, hit: _Loaded, call: Call, reply: Answer, previous: bytes | None) -> web.StreamResponse | None:
        """The spoilt answer, None where the true one goes out."""
        fault = hit.fault
        if fault.rule.phase != "after":
            return None
        body, can_act = _spoilt(fault.action, reply, previous)
        if not can_act:
            return None
        self._done(hit)
        match fault.action:
            case "drop_after" | "reset_after":
                return cut(call.http, reset=fault.action == "reset_after")
            case "timeout_after":
                return await silence(call.http, fault.duration)
            case "error_after":
                return page(fault.status)
            case "unknown_after":
                return refusal(
                    504, -1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown."
                )
            case "garbage":
                return page(200)
            case "cut_json":
                return raw(reply.body[: max(1, len(reply.body) // 2)])
            case "truncated":
                return await truncated(call.http, reply)
        if body is not None:
            return raw(body)
        await asyncio.sleep(fault.duration)  # delay_after
        return None

    def _fill(self, hit: _Loaded, call: Call, client_id: str) -> None:
        order_id = call.params.get("orderId", "")
        if self.fill_now is None or not (client_id or order_id):
            return
        text = hit.fault.quantity
        if not text and hit.fault.action == "overfill":
            text = str(Decimal(call.params.get("quantity", "0")) * Decimal("1.5"))
        if self.fill_now(
            futures=call.path.startswith("/fapi"), symbol=call.params.get("symbol", ""), client_id=client_id, order_id=order_id,
            quantity=Decimal(text) if text else None,
        ):  # fmt: skip
            self._done(hit)

    def _remember(self, call: Call, reply: Answer) -> bytes | None:
        """Keep this true answer, give the one before; only questions, whose answers can lag."""
        if call.method != "GET" or reply.status != 200:
            return None
        params = call.params
        key = (call.path, params.get("symbol", ""), params.get("interval", ""), call.headers.get("X-MBX-APIKEY", ""))
        previous = self._last.get(key)
        self._last[key] = reply.body
        return previous


def _end(seconds: float) -> float:
    return time.monotonic() + seconds if seconds > 0.0 else float("inf")


def _spoilt(action: str, reply: Answer, previous: bytes | None) -> tuple[bytes | None, bool]:
    """The body that goes out instead, where the action is one of those, and whether the action can be done at all."""
    if action in ("stale", "feed_stall"):
        return previous, previous is not None
    if action.startswith("feed_"):
        body = spoilt_candles(action, reply.body) if reply.status == 200 else None
        return body, body is not None
    return SPOILT_BODIES.get(action), True


def _unknown(call: Call) -> web.Response:
    """What the exchange says of an order it does not find; lists come back empty."""
    if not call.path.endswith("/order"):
        return raw(b"[]")
    if call.method == "DELETE":
        return refusal(400, -2011, "Unknown order sent.")
    return refusal(400, -2013, "Order does not exist.")
