"""Alerts to people, through whatever service they read: mail, chat, pager. Needs the package apprise (extra `alerts`).

`Notifier.tell` puts a message into a bounded queue and returns; it never waits and never raises. Each address has a thread of its own, so
a service that hangs delays nobody else. A message that cannot be delivered is tried again with growing, jittered waits, and given up
after some attempts.

What is told of one subject is told at once; what follows within `repeat_seconds` is held back until that time is over, and then only the
newest is told, with how many there were. So a flapping alert neither floods a person nor leaves a wrong last word.

Addresses hold passwords. They are not kept, not shown in errors and not logged: apprise's own log and urllib3's log of requests, which
name them, are silenced from the first `Notifier` on.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal, Protocol

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.alerts import AlertChange, Severity

THREAD_NAME = "alerts to people"
"""Of the threads that deliver."""
REMEMBERED_SUBJECTS = 1000

Mood = Literal["info", "success", "warning", "failure"]
_MOODS: dict[Severity, Mood] = {"page": "failure", "warning": "warning", "notice": "info"}


@dataclass(frozen=True)
class Message:
    """One thing to tell. `about` is its subject: what is told of the same subject soon after is held back."""

    title: str
    body: str
    about: str
    mood: Mood = "warning"
    count: int = 1
    """How many messages it stands for."""

    @property
    def text(self) -> str:
        return self.body if self.count == 1 else f"{self.body}\n({self.count} messages of this subject were held back; this is the last)"


class Service(Protocol):
    """One address."""

    def deliver(self, message: Message) -> bool:
        """Whether it went out. May take seconds; does not raise."""
        ...


class Notifier:
    """Tells people, from threads of its own. Close it: what waits gets a last chance.

    Args:
        urls: addresses as apprise reads them; secrets.
        repeat_seconds: how long a subject that was told is quiet.
        capacity: messages that may wait for one address; beyond that the oldest are dropped, and their number is told.
        attempts: how often one message is tried.
        first_wait_seconds, longest_wait_seconds: waits between attempts.

    Raises:
        ConfigError: if apprise is not installed or does not know an address.
    """

    def __init__(
        self,
        urls: Iterable[str],
        *,
        repeat_seconds: float = 300.0,
        capacity: int = 100,
        attempts: int = 8,
        first_wait_seconds: float = 1.0,
        longest_wait_seconds: float = 60.0,
        seed: int = 0,
    ) -> None:
        services = _services(list(urls))
        self._channels = [
            _Channel(
                service,
                Backoff(first_wait_seconds, longest_wait_seconds, random=stream(seed, "notify", place)),
                repeat_seconds=repeat_seconds,
                capacity=capacity,
                attempts=attempts,
            )
            for place, service in enumerate(services)
        ]

    def tell(self, title: str, body: str, *, about: str = "", mood: Mood = "warning") -> None:
        """Tell people, soon. Never waits, never raises.

        Args:
            about: the subject; empty takes title and body, so that only equal messages are held back.
        """
        message = Message(title, body, about or f"{title}\n{body}", mood)
        for channel in self._channels:
            channel.put(message)

    def tell_change(self, change: AlertChange) -> None:
        """Tell that an alert fires or is over; the alert with its labels is the subject."""
        mood: Mood = "success" if change.state == "resolved" else _MOODS[change.rule.severity]
        self.tell(f"cryptoalpha: {change.rule.name}", change.text, about=" ".join((change.rule.name, *change.labels)), mood=mood)

    @property
    def undelivered(self) -> int:
        """Messages given up or dropped since the start, over all addresses."""
        return sum(channel.lost for channel in self._channels)

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Let what waits go out, at most that long; what is held back goes out now. May be called again."""
        end = monotonic() + timeout_seconds
        for channel in self._channels:
            channel.finish(end)
        for channel in self._channels:
            channel.join(max(0.0, end - monotonic()))


class _Channel:
    """One address: its queue and the thread that empties it."""

    def __init__(self, service: Service, backoff: Backoff, *, repeat_seconds: float, capacity: int, attempts: int) -> None:
        self._service, self._backoff = service, backoff
        self._repeat_seconds, self._capacity, self._attempts = repeat_seconds, capacity, attempts
        self._waiting: deque[Message] = deque()
        self._told: dict[str, float] = {}  # subject: when it may be told again
        self._held: dict[str, Message] = {}
        self._dropped = 0
        self._end: float | None = None  # once closing: until when
        self._changed = threading.Condition()
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)  # a service that hangs holds up no exit
        self._thread.start()

    def put(self, message: Message) -> None:
        with self._changed:
            if self._end is not None:
                self.lost += 1
                return
            if self._told.get(message.about, 0.0) > monotonic():
                before = self._held.get(message.about)
                self._held[message.about] = message if before is None else replace(message, count=before.count + 1)
            else:
                self._note(message.about)
                self._queue(message)
            self._changed.notify()

    def finish(self, end: float) -> None:
        with self._changed:
            self._end = end
            for message in self._held.values():
                self._queue(message)
            self._held.clear()
            self._changed.notify()

    def join(self, timeout_seconds: float) -> None:
        self._thread.join(timeout_seconds)

    def _note(self, about: str) -> None:
        """A subject is told now; forget the oldest if there are too many."""
        self._told.pop(about, None)
        self._told[about] = monotonic() + self._repeat_seconds
        while len(self._told) > REMEMBERED_SUBJECTS:
            oldest = next(iter(self._told))
            del self._told[oldest]
            held = self._held.pop(oldest, None)
            if held is not None:
                self._queue(held)

    def _queue(self, message: Message) -> None:
        if len(self._waiting) >= self._capacity:
            self._waiting.popleft()
            self._dropped += 1
            self.lost += 1
        self._waiting.append(message)

    def _run(self) -> None:
        while (message := self._next()) is not None:
            self._deliver(message)

    def _next(self) -> Message | None:
        """The next message, once there is one; None at the end."""
        with self._changed:
            while True:
                now = monotonic()
                for about in [about for about in self._held if self._told.get(about, 0.0) <= now]:
                    held = self._held.pop(about)
                    self._note(about)
                    self._queue(held)
                if self._waiting:
                    return self._with_dropped(self._waiting.popleft())
                if self._end is not None:
                    return None
                due = min((self._told[about] for about in self._held), default=None)
                self._changed.wait(None if due is None else max(0.0, due - now))

    def _with_dropped(self, message: Message) -> Message:
        if self._dropped:
            message = replace(message, body=f"{message.body}\n({self._dropped} older messages were dropped: too many waited)")
            self._dropped = 0
        return message

    def _deliver(self, message: Message) -> None:
        for attempt in range(1, self._attempts + 1):
            if self._service.deliver(message):
                self._backoff.reset()
                return
            if attempt < self._attempts and not self._pause(self._backoff.wait()):
                break
        self._backoff.reset()
        self.lost += 1

    def _pause(self, seconds: float) -> bool:
        """Wait before another attempt; False if there is no time for one."""
        until = monotonic() + seconds
        with self._changed:
            while (left := until - monotonic()) > 0.0:
                if self._end is not None and until > self._end:
                    return False
                self._changed.wait(left)
        return True


class _ApprisePlace:
    """One address, through apprise. The address itself lives inside apprise's object only."""

    def __init__(self, notify: Callable[..., object]) -> None:
        self._notify = notify

    def deliver(self, message: Message) -> bool:
        return bool(self._notify(body=message.text, title=message.title, notify_type=message.mood))  # apprise itself catches everything


def _services(urls: list[str]) -> list[Service]:
    try:
        import apprise
    except ImportError:
        raise ConfigError("alerts to people need the package apprise", hint="pip install 'cryptoalpha[alerts]'") from None
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    requests = logging.getLogger("urllib3.connectionpool")
    if _no_paths not in requests.filters:
        requests.addFilter(_no_paths)
    services: list[Service] = []
    for place, url in enumerate(urls, 1):
        one = apprise.Apprise()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the first address loads all of its plugins, old imports included
            is_known = one.add(url)
        if not is_known:
            raise ConfigError(
                f"address {place} of {len(urls)} that alerts go to is none that apprise knows",
                hint="`python -m apprise --details` lists the kinds; the address itself is a secret and is not shown",
            )
        services.append(_ApprisePlace(one.notify))
    return services


def _no_paths(record: logging.LogRecord) -> bool:
    """Drop what names the path of a request, whoever made it: apprise delivers in threads of its own, so ours cannot be told apart."""
    return record.levelno >= logging.ERROR
