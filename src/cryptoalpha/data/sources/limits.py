"""What a source may ask and what it may cost: a token bucket for its pace, a daily budget in units and money for its bill.

The day is that of UTC. What was spent is added up in the `StateStore` under `spend/SOURCE/DAY/…`, so a restart, or a second process with
the same state, goes on from the same sum; where the store cannot be read nothing is asked, because nobody knows what may be spent. At the
whole of a budget the source pauses until the next day, says so in its health and alerts a person once a day; at a part of it
(`budget_alert`) it alerts too.

`ask` reserves nothing: two questions asked at the same time may exceed a budget by one of them. Ask with the most units an answer can
bring, then the bound holds.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.core.time import DAY, MINUTE, SECOND, day_of, iso_second
from cryptoalpha.data.sources.contract import Health
from cryptoalpha.data.sources.reconnect import Wait, until_either
from cryptoalpha.data.sources.section import SourceSection
from cryptoalpha.store.state.contract import StateStore

Alert = Callable[[str, str], None]
"""Told a subject and a text for people."""

_KEPT_SECONDS: Final = 40 * 86_400.0
"""How long a day's sums stay; a month's bill can be compared with them."""
_SLICE_SECONDS: Final = 60.0
"""Longest wait at a time: the machine may sleep, or its clock be set, meanwhile."""
_EXACT: Final = 1e-9
"""Relative slack of sums of decimal prices in binary numbers: 2,000 times 0.005 is the whole of 10."""


class Bucket:
    """A token bucket: `burst` requests at once, `per_minute` in the long run.

    The clock may be set: back gives nothing, forward at most a full bucket.
    """

    def __init__(self, per_minute: float, burst: float, *, clock: Clock) -> None:
        if not (0.0 < per_minute < math.inf and 1.0 <= burst < math.inf):
            raise ConfigError(f"{per_minute} requests a minute with a burst of {burst}", hint="both positive, the burst at least 1")
        self._rate, self._size, self._clock = per_minute / MINUTE, burst, clock
        self._tokens, self._seen, self._held_until = burst, clock.now(), 0

    def take(self, requests: float = 1.0) -> float:
        """0.0 if they may be sent, which spends them; else nothing is spent, and it is the seconds after which to ask again."""
        now = self._clock.now()
        self._tokens = min(self._size, self._tokens + max(0, now - self._seen) * self._rate)
        self._seen = now
        if now < self._held_until:
            return (self._held_until - now) / SECOND
        requests = min(requests, self._size)  # more than fits: it takes the whole bucket
        if self._tokens >= requests * (1.0 - _EXACT):
            self._tokens -= requests
            return 0.0
        return max(math.ceil((requests - self._tokens) / self._rate), 1) / SECOND

    def hold(self, seconds: float) -> None:
        """Nothing is sent for so long."""
        self._held_until = max(self._held_until, self._clock.now() + round(seconds * SECOND))


@dataclass(frozen=True)
class Budget:
    """What may be spent in a day. None: without limit."""

    units: float | None = None
    money: float | None = None
    """Dollars."""
    unit_price: float = 0.0
    alert_share: float = 0.8

    @classmethod
    def of(cls, section: SourceSection, *, alert_share: float = 0.8) -> Budget:
        return cls(section.daily_units, section.daily_money, section.unit_price, alert_share)


class Limiter:
    """Pace and bill of one source.

    Args:
        name: of the source; sums lie under it.
        health: told why it pauses, and what was spent today.
        alert: told once a day when a part, and when the whole, of a budget is spent.
        end: `Line.end` of the source, which ends waits.
    """

    def __init__(
        self,
        name: str,
        bucket: Bucket,
        budget: Budget,
        state: StateStore,
        health: Health,
        *,
        clock: Clock | None = None,
        wait: Wait = asyncio.sleep,
        alert: Alert = lambda subject, text: None,
        end: asyncio.Event | None = None,
    ) -> None:
        self._name, self._bucket, self._budget, self._state, self._health = name, bucket, budget, state, health
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._wait, self._alert = wait, alert
        self._end = end if end is not None else asyncio.Event()
        self._day = ""
        self._spent = {"units": 0.0, "money": 0.0}
        self._told: set[tuple[str, str]] = set()
        self.exhausted = ""
        """Why nothing more may be read today; empty while something may."""

    async def ask(self, requests: float = 1.0, units: float = 0.0) -> None:
        """Wait until so many requests may be sent whose answers bring at most so many units.

        Raises:
            StoreError: if what was spent cannot be read.
            VenueError: if the source is closed meanwhile.
            ConfigError: if an answer may cost more than a whole day's budget.
        """
        await self._wait_for_budget(units)
        while (seconds := self._bucket.take(requests)) > 0.0:
            await self._pass(seconds)

    async def spend(self, units: float, money: float | None = None) -> None:
        """Note what was read and what it cost (None: units times their price).

        Raises:
            StoreError: if it cannot be written; it counts in this process all the same.
        """
        self._turn_day()
        cost = units * self._budget.unit_price if money is None else money
        for what, amount in (("units", units), ("money", cost)):
            if amount:
                self._spent[what] += amount
                self._spent[what] = await self._state.add(self._key(what), amount, expires_seconds=_KEPT_SECONDS)
        self._judge()

    async def look(self) -> Mapping[str, float]:
        """What was spent today, from the store."""
        self._turn_day()
        kinds = tuple(self._spent)
        found = await self._state.get([self._key(what) for what in kinds])
        for what, value in zip(kinds, found, strict=True):
            self._spent[what] = max(float(value) if value is not None else 0.0, 0.0)
        self._judge()
        return dict(self._spent)

    def units_left(self) -> float:
        """Units that may still be read today, by what this process knows; infinite without a budget."""
        left = math.inf if self._budget.units is None else self._budget.units - self._spent["units"]
        if self._budget.money is not None and self._budget.unit_price > 0.0:
            left = min(left, (self._budget.money - self._spent["money"]) / self._budget.unit_price)
        return max(left + _EXACT, 0.0) if math.isfinite(left) else left

    def _whole(self) -> float:
        """Units of a whole day."""
        whole = math.inf if self._budget.units is None else self._budget.units
        if self._budget.money is not None and self._budget.unit_price > 0.0:
            whole = min(whole, self._budget.money / self._budget.unit_price)
        return whole + _EXACT

    async def _pass(self, seconds: float) -> None:
        await until_either(self._wait(min(seconds, _SLICE_SECONDS)), self._end)
        if self._end.is_set():
            raise VenueError(f"{self._name} is closed")

    def hold(self, seconds: float) -> None:
        """The publisher asked to wait: nothing is sent for so long."""
        self._bucket.hold(seconds)

    async def _wait_for_budget(self, units: float) -> None:
        state = self._health.state
        if units > self._whole():
            raise ConfigError(
                f"{self._name} asks for {units:g} units at once, a day's budget is {self._whole():g}",
                hint="raise daily_units or daily_money",
            )
        while True:
            await self.look()
            if not self.exhausted and units <= self.units_left():
                break
            now = self._clock.now()
            next_day = (now // DAY + 1) * DAY
            why = self.exhausted or f"{self._health_words()}; {units:g} more would exceed it"
            self._health.state, self._health.reason = "paused", f"{why}; goes on at {iso_second(next_day)}"
            self._tell("whole", f"{self._name} pauses: {self._health.reason}")
            await self._pass((next_day - now) / SECOND)
        if self._health.state == "paused":
            self._health.state, self._health.reason = ("starting" if state == "paused" else state), ""

    def _judge(self) -> None:
        limits = {"units": self._budget.units, "money": self._budget.money}
        self._health.spent.update(self._spent)
        self.exhausted = ""
        for what, limit in limits.items():
            if limit is None:
                continue
            if self._spent[what] >= limit * (1.0 - _EXACT):
                self.exhausted = f"the day's budget is spent ({self._health_words()})"
                self._tell("whole", f"{self._name}: {self.exhausted}")
            elif self._spent[what] >= limit * self._budget.alert_share:
                self._tell(what, f"{self._name} has spent {self._spent[what] / limit:.0%} of the day's {what} ({self._health_words()})")

    def _health_words(self) -> str:
        units = "" if self._budget.units is None else f" of {self._budget.units:g}"
        money = "" if self._budget.money is None else f" of {self._budget.money:.2f}"
        return f"{self._spent['units']:g}{units} units, {self._spent['money']:.2f}{money} dollars on {self._day}"

    def _tell(self, what: str, text: str) -> None:
        if (self._day, what) not in self._told:
            self._told = {told for told in self._told if told[0] == self._day} | {(self._day, what)}
            self._alert(f"budget of {self._name}", text)

    def _turn_day(self) -> None:
        today = day_of(self._clock.now())
        if today != self._day:
            self._day, self._spent = today, dict.fromkeys(self._spent, 0.0)

    def _key(self, what: str) -> str:
        return f"spend/{self._name}/{self._day}/{what}"
