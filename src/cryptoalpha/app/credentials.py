"""Secrets: what may be configured, and how a reference becomes the secret it names. Nothing here prints.

Sources: 12-factor environment names; files as Docker and Kubernetes mount them; the system keyring (extra `keyring`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import SecretStr

from cryptoalpha.app.origins import REFERENCES
from cryptoalpha.core.config import Section
from cryptoalpha.core.errors import ConfigError

Hide = Callable[[Iterable[str]], None]
"""Is told every secret before anybody sees it, so that no output shows one."""


class CredentialsConfig(Section):
    """[credentials] Keys of the exchange account, and where alerts go. Set them in the environment (CRYPTOALPHA_CREDENTIALS__API_KEY), in
    files (CRYPTOALPHA_CREDENTIALS__API_KEY_FILE), or write a reference here: keyring:SERVICE/NAME, env:NAME or file:PATH.
    Never the secret itself."""

    api_key: SecretStr | None = None
    """Public half of the exchange's key. Public candles need none; give it no right to withdraw."""

    api_secret: SecretStr | None = None
    """Private half of the exchange's key."""

    api_passphrase: SecretStr | None = None
    """Third part that some exchanges ask for."""

    serving_token: SecretStr | None = None
    """Bearer token that whoever changes what `serve` answers with must show (swap, split). Without one nobody may change it."""

    alert_urls: SecretStr | None = None
    """Where alerts go besides stderr: addresses as the package apprise reads them, separated by blanks. They hold passwords, so they are
    kept like keys."""


def reveal(secret: SecretStr, name: str, hide: Hide) -> str:
    """The secret itself, looked up where a reference points; `hide` is told it before anyone sees it.

    Raises:
        ConfigError: if the reference leads nowhere; the message names the reference's kind, not its content.
    """
    text = secret.get_secret_value()
    kind = next((prefix for prefix in REFERENCES if text.startswith(prefix)), "")
    found = _LOOKUPS[kind](text.removeprefix(kind), name)
    hide([found])
    return found


def _from_environment(variable: str, name: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(
            f"credentials.{name} points to an environment variable that is not set", hint="export it, or correct the reference"
        )
    return value


def _from_file(path: str, name: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"credentials.{name} points to a file that cannot be read: {reason}", hint="correct the reference") from None


def _from_keyring(place: str, name: str) -> str:
    service, slash, user = place.partition("/")
    if not slash:
        raise ConfigError(f"credentials.{name}: a keyring reference is keyring:SERVICE/NAME", hint="add the part after the slash")
    try:
        import keyring
    except ImportError:
        raise ConfigError(f"credentials.{name} lies in the keyring, which is not installed", hint="pip install keyring") from None
    value = keyring.get_password(service, user)
    if not value:
        raise ConfigError(f"credentials.{name}: the keyring holds nothing under that reference", hint=f"keyring set {service} {user}")
    return str(value)


_LOOKUPS: dict[str, Callable[[str, str], str]] = {
    "": lambda text, name: text,
    "env:": _from_environment,
    "file:": _from_file,
    "keyring:": _from_keyring,
}
