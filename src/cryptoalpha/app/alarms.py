"""Tells people: on stderr, and where `credentials.alert_urls` says. Nothing that trades ever waits for it.

An alarm comes from a breaker or the kill switch of `risk`, from an alert rule of `monitoring`, from the courier (an order of unknown fate,
a key that the venue refuses) or from the watch over silent feeds. Each is said once, where it begins.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cryptoalpha.app.credentials import Hide, reveal
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import SystemClock
from cryptoalpha.core.time import iso_second
from cryptoalpha.core.values import RiskEvent
from cryptoalpha.monitoring.alerts import AlertChange

if TYPE_CHECKING:
    from cryptoalpha.monitoring.notify import Notifier

CALM = frozenset({"closed", "half_open", "normal", "armed", "0"})
"""States of a breaker, of the day's loss, of the kill switch and of the drawdown ladder that are no news to be woken for."""


class Alarms:
    """Call it with a name and a text, from any thread; a context manager that lets what is on its way go out.

    Args:
        say: told in any case.
        hide: told the addresses before anybody sees them.

    Raises:
        ConfigError: if the addresses cannot be used.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None], hide: Hide) -> None:
        self._say, self._clock = say, SystemClock()
        self._notifier: Notifier | None = None
        secret = settings.credentials.alert_urls
        if secret is not None:
            from cryptoalpha.monitoring.notify import Notifier

            urls = reveal(secret, "alert_urls", hide).split()
            hide(urls)
            self._notifier = Notifier(urls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._notifier is not None:
            self._notifier.close()
            if lost := self._notifier.undelivered:
                self._say(f"{lost} alerts could not be sent on: they were only said here")

    def __call__(self, name: str, text: str) -> None:
        """Say it and send it."""
        self._say(f"{iso_second(self._clock.now())}  ALERT {name}: {text}")
        self._send(name, text)

    def of_risk(self, event: RiskEvent) -> None:
        """Send on that a breaker opened, a limit stands or the run was killed."""
        if event.state not in CALM:
            about = f" of {event.instrument}" if event.instrument else ""
            self._send(f"{event.rule}{about} is {event.state}", event.message)

    def of_rule(self, change: AlertChange) -> None:
        """Send on that an alert rule fires, or that this is over."""
        if self._notifier is not None:
            self._notifier.tell_change(change)

    def _send(self, name: str, text: str) -> None:
        if self._notifier is not None:
            self._notifier.tell(f"cryptoalpha: {name}", text)
