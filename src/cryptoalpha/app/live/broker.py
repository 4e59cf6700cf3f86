"""Puts a live broker together: the account's client, the order ledger, the courier between them, and the broker before them.

Only a live run comes here; nothing else builds a client that can send.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.venues import Keys, account_venue
from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.execution.live.broker import LiveBroker
from cryptoalpha.execution.live.budget import Budget
from cryptoalpha.execution.live.courier import Courier
from cryptoalpha.execution.live.intake import Alert
from cryptoalpha.execution.live.points import Reached, nobody
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import OrderLedger


def live_broker(
    settings: Settings,
    rules: Mapping[str, InstrumentRules],
    journal: Journal,
    path: Path,
    keys: Keys,
    *,
    alert: Alert,
    clock: Clock | None = None,
    budget: Budget | None = None,
    reached: Reached = nobody,
) -> LiveBroker:
    """A broker that has not been started: nothing is asked of the venue yet.

    Args:
        journal, path: of the run; the ledger lies in the same file.
        clock: by which an order comes too late; the machine's by default.
        budget: of requests to the venue, where others ask it too.
        reached: told of the numbered points of an order's path.
    """

    def make() -> Courier:
        venue = account_venue(settings.data.exchange, settings.execution.live, keys, budget=budget, seed=settings.engine.seed)
        ledger = OrderLedger(path)
        return Courier(venue, ledger, rules, settings.execution, clock=clock or SystemClock(), alert=alert, reached=reached)

    return LiveBroker(make, journal, rules, settings.execution, reached=reached)
