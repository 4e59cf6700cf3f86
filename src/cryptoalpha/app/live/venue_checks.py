"""Checks that need the venue: does it answer, is its clock ours, may the key only trade, is the money there, who has open orders."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from cryptoalpha.app.checks import Check
from cryptoalpha.app.credentials import Hide
from cryptoalpha.app.live.gates import fingerprint
from cryptoalpha.app.live.status import known_orders, live_statuses
from cryptoalpha.app.live.venue_look import VenueLook, look_at_venue
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.venues import account_keys
from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, VenueError


def look_for(home: Path, settings: Settings, hide: Hide, *, now: int) -> VenueLook:
    """What the configured venue says of the account; open orders of the instruments that live runs of the store trade there.

    Raises:
        ConfigError: if there is no key, or the venue refuses it.
        VenueError: if the venue gives no answer that can be believed.
    """
    keys = account_keys(settings.credentials, hide)
    account = fingerprint(keys, settings.execution.live.account)
    runs = [each for each in live_statuses(home, now=now) if (each.venue, each.account) == (settings.execution.live.venue, account)]
    names = sorted({name for each in runs for name in each.instruments})
    return look_at_venue(settings, keys, names, is_ours=known_orders(home))


def check_venue(home: Path, settings: Callable[[], Settings], hide: Hide, *, now: int) -> list[Check]:
    """All of them; one fault where nothing could be asked."""
    try:
        read = settings()
        look = look_for(home, read, hide, now=now)
    except ConfigError as error:
        return [Check("venue", "fault", str(error), error.hint, ConfigError)]
    except CryptoAlphaError as error:
        return [Check("venue", "fault", str(error), error.hint, VenueError)]
    return [
        Check("venue", "ok", f"{look.venue} answers, account {look.account}"),
        _clock(look, read),
        _key(look),
        _money(look, read),
        _orders(look),
    ]


def _clock(look: VenueLook, settings: Settings) -> Check:
    found = f"{look.offset_seconds:+.3f} s from ours"
    if abs(look.offset_seconds) > settings.execution.live.clock_skew_seconds:
        return Check("venue clock", "note", found, "set the machine's clock (timedatectl set-ntp true); signatures follow the venue's")
    return Check("venue clock", "ok", found)


def _key(look: VenueLook) -> Check:
    if look.may_withdraw:
        return Check("key", "fault", "may withdraw money", "make a key without that right for trading, and delete this one", ConfigError)
    if not look.may_trade:
        return Check("key", "fault", "may not trade", "give it the right to trade at the venue", ConfigError)
    return Check("key", "ok", "may trade, may not withdraw")


def _money(look: VenueLook, settings: Settings) -> Check:
    quote, wanted = settings.execution.quote, Decimal(repr(settings.execution.initial_cash))
    free = next((each.free for each in look.balances if each.asset == quote), Decimal(0))
    if free < wanted:
        return Check(
            "money", "note", f"{free} {quote} free, a new run begins with {wanted}", "lower execution.initial_cash, or pay in", ConfigError
        )
    return Check("money", "ok", f"{free} {quote} free; a new run begins with {wanted}")


def _orders(look: VenueLook) -> Check:
    ours = sum(each.is_ours for each in look.orders)
    return Check("open orders", "ok", f"{ours} of runs of this store, {len(look.orders) - ours} foreign, which are never touched")
