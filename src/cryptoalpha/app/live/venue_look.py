"""A look at the account from outside a run: what the venue says of clock, key, money and open orders. It reads, and changes nothing.

Only asked for by name (`status --venue`, `check --venue`): without it both verbs stay offline and instant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptoalpha.app.live.gates import fingerprint
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.venues import Keys, account_venue
from cryptoalpha.core.time import SECOND
from cryptoalpha.execution.venue import Balance, OrderReport, Position, Venue

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class OpenOrder:
    """An order that waits at the venue."""

    report: OrderReport
    is_ours: bool
    """Whether a run of this store knows it; a foreign one is shown and never touched."""

    def as_dict(self) -> dict[str, object]:
        found = self.report
        return {
            "instrument": found.instrument, "client_id": found.client_id, "venue_id": found.venue_id, "side": found.side,
            "quantity": str(found.quantity), "filled": str(found.filled), "state": found.state, "ours": self.is_ours,
        }  # fmt: skip


@dataclass(frozen=True)
class VenueLook:
    """What the venue said. `offset_seconds`: its clock less ours."""

    venue: str
    account: str
    offset_seconds: float
    may_trade: bool
    may_withdraw: bool
    balances: tuple[Balance, ...]
    positions: tuple[Position, ...]
    orders: tuple[OpenOrder, ...]

    def as_dict(self) -> dict[str, object]:
        return {
            "venue": self.venue,
            "account": self.account,
            "clock_offset_seconds": self.offset_seconds,
            "may_trade": self.may_trade,
            "may_withdraw": self.may_withdraw,
            "balances": {each.asset: {"free": str(each.free), "used": str(each.used)} for each in self.balances},
            "positions": {each.instrument: {"quantity": str(each.quantity), "entry": str(each.entry_price)} for each in self.positions},
            "open_orders": [each.as_dict() for each in self.orders],
        }

    def lines(self) -> list[str]:
        """The look for people."""
        rights = f"may {'' if self.may_trade else 'not '}trade, may {'' if self.may_withdraw else 'not '}withdraw"
        found = [f"{self.venue}, account {self.account}: the key {rights}; its clock is {self.offset_seconds:+.3f} s from ours"]
        held = [f"{each.total} {each.asset}" + (f" ({each.used} reserved)" if each.used else "") for each in self.balances]
        found.append(f"it holds {', '.join(held) or 'nothing'}")
        found += [f"position {each.quantity} {each.instrument}, entered at {each.entry_price}" for each in self.positions]
        for each in self.orders:
            order = each.report
            whose = f"ours, {order.client_id}" if each.is_ours else "foreign: shown, never touched"
            found.append(f"open: {order.side} {order.quantity} {order.instrument}, {order.filled} filled ({whose})")
        return found


def look_at_venue(settings: Settings, keys: Keys, instruments: Sequence[str], *, is_ours: Callable[[str], bool]) -> VenueLook:
    """Ask the configured venue about the account.

    Args:
        instruments: whose open orders are asked for.
        is_ours: whether a client id is one of this store's runs.

    Raises:
        UnclearError: if the venue gives no answer that can be believed.
        ConfigError: if the venue is unknown, refuses the key, or an instrument is not listed.
    """
    account = fingerprint(keys, settings.execution.live.account)

    async def look() -> VenueLook:
        venue = account_venue(settings.data.exchange, settings.execution.live, keys, seed=settings.engine.seed)
        try:
            return await asyncio.wait_for(_look(venue, account, instruments, is_ours), PATIENCE_SECONDS)
        finally:
            await venue.close()

    return asyncio.run(look())


async def _look(venue: Venue, account: str, instruments: Sequence[str], is_ours: Callable[[str], bool]) -> VenueLook:
    await venue.open()
    offset = await venue.clock_offset()
    rights = await venue.rights()
    balances = await venue.balances()
    positions: Mapping[str, Position] = await venue.positions() if venue.is_futures else {}
    orders = [order for name in instruments for order in await venue.open_orders(name)]
    return VenueLook(
        venue=venue.name,
        account=account,
        offset_seconds=offset / SECOND,
        may_trade=rights.may_trade,
        may_withdraw=rights.may_withdraw,
        balances=tuple(balances[asset] for asset in sorted(balances) if balances[asset].total),
        positions=tuple(positions[name] for name in sorted(positions) if positions[name].quantity),
        orders=tuple(OpenOrder(order, is_ours(order.client_id)) for order in orders),
    )
