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
from collections.abc import Mapping

from cryptoalpha.app.credentials import Hide
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.venues import Keys, account_keys
from cryptoalpha.core.errors import ConfigError

VARIABLE = "CRYPTOALPHA_LIVE"
NEEDED_KEYS = ("api_key", "api_secret")


def fingerprint(keys: Keys, label: str = "") -> str:
    """Which account it is, in a word that gives nothing away: the owner's own name for it (`execution.live.account`), else 12 hex digits of
    the key's hash."""
    return label or hashlib.blake2b(keys.api_key.encode(), digest_size=6, person=b"account").hexdigest()


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


def keys_for_live(settings: Settings, *, flag: bool, environment: Mapping[str, str], hide: Hide) -> Keys:
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
    keys = account_keys(settings.credentials, hide)
    for name, part in (("api_key", keys.api_key), ("api_secret", keys.secret)):
        if not part.strip():
            raise ConfigError(f"credentials.{name} is empty", hint="correct the file or the variable that it is read from")
    return keys
