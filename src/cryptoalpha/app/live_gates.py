"""What must be true before one real order may leave: five conditions, each said by name where it is missing, all at once.

| condition | who gives it |
|---|---|
| `execution.allow_live: true` | the configuration |
| `trade --live` | whoever starts it |
| `CRYPTOALPHA_LIVE=1` | the environment of the process |
| `credentials.api_key` and `credentials.api_secret` | the account's owner |
| the key has no right to withdraw | the venue says so, after the start and before the first order |

The first four are judged here, without the network; the fifth by the venue's client when it opens (`execution.live`). Nothing that can
send is built before they hold, and a run on paper never gets here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cryptoalpha.app.credentials import reveal
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import ConfigError

VARIABLE = "CRYPTOALPHA_LIVE"
NEEDED_KEYS = ("api_key", "api_secret")


@dataclass(frozen=True)
class AccountKeys:
    """What signs requests. It is never printed: its text shows the fingerprint alone."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    passphrase: str = field(default="", repr=False)
    label: str = ""

    @property
    def fingerprint(self) -> str:
        """Which account it is, in a word that gives nothing away: the owner's own name for it, else 12 hex digits of the key's hash."""
        return self.label or hashlib.blake2b(self.key.encode(), digest_size=6, person=b"account").hexdigest()

    def __str__(self) -> str:
        return f"account {self.fingerprint}"


def missing_for_live(settings: Settings, *, flag: bool, environment: Mapping[str, str]) -> list[str]:
    """Which of the first four conditions do not hold, each in words that say how to meet it."""
    missing = []
    if not settings.execution.allow_live:
        missing.append("execution.allow_live is not true")
    if not flag:
        missing.append("the flag --live is not given")
    if environment.get(VARIABLE) != "1":
        missing.append(f"{VARIABLE} is not 1 in the environment")
    missing += [f"credentials.{name} is not set" for name in NEEDED_KEYS if getattr(settings.credentials, name) is None]
    return missing


def keys_for_live(settings: Settings, *, flag: bool, environment: Mapping[str, str], hide: Callable[[Iterable[str]], None]) -> AccountKeys:
    """The account's keys, if real orders may be sent.

    Args:
        flag: whether `--live` was given.
        environment: of the process.
        hide: told every secret before anybody sees it.

    Raises:
        ConfigError: naming every condition that is missing.
    """
    missing = missing_for_live(settings, flag=flag, environment=environment)
    if missing:
        raise ConfigError(
            f"no real order may be sent: {'; '.join(missing)}",
            hint="docs/execution.md tells what each of them protects from; without --live and with engine.mode: paper it trades on paper",
        )
    return account_keys(settings, hide)


def account_keys(settings: Settings, hide: Callable[[Iterable[str]], None]) -> AccountKeys:
    """The configured keys, looked up; for reading an account that needs no other condition.

    Raises:
        ConfigError: if one is not set or its reference leads nowhere.
    """
    found = {}
    for name in (*NEEDED_KEYS, "api_passphrase"):
        secret = getattr(settings.credentials, name)
        if secret is None:
            if name in NEEDED_KEYS:
                raise ConfigError(f"credentials.{name} is not set", hint="`cryptoalpha check` shows which credentials are found")
            continue
        found[name] = reveal(secret, name, hide)
    empty = [name for name in NEEDED_KEYS if not found[name].strip()]
    if empty:
        raise ConfigError(f"credentials.{empty[0]} is empty", hint="correct the file or the variable that it is read from")
    return AccountKeys(found["api_key"], found["api_secret"], found.get("api_passphrase", ""), settings.execution.live.account)


def has_keys(settings: Settings) -> bool:
    """Whether an account is configured at all."""
    return all(getattr(settings.credentials, name) is not None for name in NEEDED_KEYS)
