"""What is done about an alert: serving is given replicas, retraining is proposed. Every notice is told to `AlertActions.take`.

- **scale** (`high_prediction_latency`, `memory_usage_high`): one replica more than run now, up to `most_replicas`, at most once in
  `cooldown_seconds`, whichever alert asks. One that goes on firing asks again each time it is told. After `RELAX_SECONDS` in which nothing
  asked, one less (`relax`), down to `least_replicas`.
- **retrain** (`low_prediction_accuracy`, `drift_retrain`): proposed once for each episode of the alert, and not again within
  `retrain_cooldown_hours`. Whether anything is trained is decided elsewhere (`lifecycle.retrain`).

The same notice told again changes nothing (fingerprint and begin name the episode; the cooldown counts from what was done). What is decided
is written down first (`book`): a process that was killed does it again after its restart (`resume`). An alert never trades and never stops
trading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, VenueError
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.lifecycle.alerts.book import AlertBook, Deed, Kind
from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.lifecycle.alerts.notices import Notice
from cryptoalpha.lifecycle.alerts.rules import HIGH_LATENCY, HIGH_MEMORY, LOW_ACCURACY
from cryptoalpha.monitoring.alert_rules import DRIFT_RETRAIN

ACTIONS: dict[str, Kind] = {HIGH_LATENCY: "scale", HIGH_MEMORY: "scale", LOW_ACCURACY: "retrain", DRIFT_RETRAIN: "retrain"}
"""What is done about which alert; about all others nothing."""
RELAX_SECONDS = 1800.0
"""Quiet time after which serving gives a replica back: half an hour, six cooldowns."""
FORGET_SECONDS = 6 * 3600.0
"""An alert that nobody has told again for so long no longer stands: Alertmanager repeats what fires each four hours, or more often."""
Propose = Callable[[str, str, int, str], object]
"""Called with a cause (`drift` or `accuracy`), the alert's name, when it began (UTC ns) and words."""


class Scaler(Protocol):
    """Something whose replicas can be counted and set. Raises `VenueError` where that cannot be reached."""

    async def replicas(self) -> int:
        """How many there are now."""
        ...

    async def scale(self, replicas: int) -> int:
        """Have so many from now on; returns how many it was given, which its own limits may bound. Repeating it changes nothing."""
        ...


class AlertActions:
    """Takes notices, decides, acts. One at a time.

    Args:
        now: UTC ns.
        scaler: None only says what would be done.
        propose: how retraining is proposed; called from the event loop, so it must take milliseconds.
    """

    def __init__(
        self, book: AlertBook, config: AlertConfig, *, now: Callable[[], int], propose: Propose, scaler: Scaler | None = None
    ) -> None:
        self.book, self.config, self._now, self._propose, self._scaler = book, config, now, propose, scaler
        self._turn = asyncio.Lock()

    async def take(self, notices: Iterable[Notice]) -> tuple[Deed, ...]:
        """Hear these and do what is due; what failed is among the deeds, and is tried again when the alert is told again."""
        done = []
        async with self._turn:
            for notice in notices:
                self.book.hear(notice, self._now())
                kind = ACTIONS.get(notice.alert)
                if kind is None or notice.state != "firing":
                    continue
                deed = (
                    await self._decide_scale(notice) if kind == "scale" else decide_retraining(self.book, self.config, notice, self._now())
                )
                if deed is not None:
                    done.append(await self._do(deed))
        return tuple(done)

    async def resume(self) -> tuple[Deed, ...]:
        """Do again what was begun when the process ended."""
        async with self._turn:
            return tuple([await self._do(deed) for deed in self.book.unfinished()])

    async def relax(self) -> Deed | None:
        """Give a replica back if nothing has asked for one in a while. Call it now and then."""
        async with self._turn:
            asking = [name for name in self.book.standing(self._now() - round(FORGET_SECONDS * SECOND)) if ACTIONS.get(name) == "scale"]
            if self._scaler is None or asking:
                return None
            at = self._now()
            with self.book.transaction() as connection:
                last = self.book.newest(connection, ("scale", "relax"))
            if last is None or at - last.at < RELAX_SECONDS * SECOND:
                return None
            have = await self._scaler.replicas()
            if have <= self.config.least_replicas:
                return None
            quiet = Notice(last.alert, {}, "resolved", last.begun_at, last.fingerprint)
            with self.book.transaction() as connection:
                deed = self.book.begin(
                    connection, "relax", quiet, at, have - 1, f"quiet for {RELAX_SECONDS / 60:.0f} min: {have} → {have - 1}"
                )
            return await self._do(deed)

    async def _decide_scale(self, notice: Notice) -> Deed | None:
        """What is due, written down; None while it is not."""
        if self._scaler is None:
            have = self.config.least_replicas
        else:
            try:
                have = await self._scaler.replicas()
            except CryptoAlphaError as error:
                return self._failed(notice, error)
        at = self._now()
        with self.book.transaction() as connection:
            last = self.book.newest(connection, ("scale", "relax"))
            if last is not None and at - last.at < self.config.cooldown_seconds * SECOND:
                return None
            target = min(max(have, self.config.least_replicas) + 1, self.config.most_replicas)
            if target <= have:
                return None
            return self.book.begin(connection, "scale", notice, at, target, f"{notice.alert}: {have} → {target} replicas")

    def _failed(self, notice: Notice, error: CryptoAlphaError) -> Deed:
        """What could not even be decided is a deed that failed."""
        with self.book.transaction() as connection:
            deed = self.book.begin(connection, "scale", notice, self._now(), None, "replicas could not be counted")
        return self.book.end(deed, "failed", self._now(), str(error))

    async def _do(self, deed: Deed) -> Deed:
        if deed.state == "failed":
            return deed
        try:
            words = await self._scaled(deed) if deed.kind in ("scale", "relax") else propose_retraining(self._propose, deed)
        except (VenueError, ConfigError) as error:
            return self.book.end(deed, "failed", self._now(), f"{deed.words}: {error}")
        return self.book.end(deed, "done", self._now(), words)

    async def _scaled(self, deed: Deed) -> str:
        if deed.target is None:
            return deed.words
        if self._scaler is None:
            return f"{deed.words} (said only: lifecycle.alerts.scale is none)"
        given = await self._scaler.scale(deed.target)
        return deed.words if given == deed.target else f"{deed.words}; {given} is all that its own limits allow"


def decide_retraining(book: AlertBook, config: AlertConfig, notice: Notice, at: int) -> Deed | None:
    """A proposal that is due, written down; None for an episode that has its proposal, or within the cooldown of the alert's last."""
    with book.transaction() as connection:
        last = book.newest(connection, ("retrain",), notice.alert)
        if last is not None and (
            (last.fingerprint, last.begun_at) == (notice.fingerprint, notice.begun_at)
            or at - last.at < config.retrain_cooldown_hours * HOUR
        ):
            return None
        return book.begin(connection, "retrain", notice, at, None, notice.summary or f"{notice.alert} fires")


def propose_retraining(propose: Propose, deed: Deed) -> str:
    """Do what `decide_retraining` decided; in words."""
    propose("drift" if deed.alert == DRIFT_RETRAIN else "accuracy", deed.alert, deed.begun_at, deed.words)
    return f"retraining proposed: {deed.words}"
