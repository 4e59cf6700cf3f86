"""How the live runs of a store stand with their venue, read from the store alone: the order ledger, and the sign of life beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.app.live.heartbeat import read_heartbeat
from cryptoalpha.app.runs import JOURNAL
from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Order
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.order_ledger import LedgerSummary, read_summary

MODE_MARK, VENUE_MARK, ACCOUNT_MARK = "mode", "venue", "account"
"""Header keys that only journals of live runs have."""
LIVE = "live"
"""Its value under `MODE_MARK`."""

SILENT_SECONDS = 30.0
"""Age of the last sign of life from which a process no longer counts as running; it gives one every five seconds."""


@dataclass(frozen=True)
class LiveStatus:
    """One live run. `beat_seconds`: how long ago its process last said that it lives, None where it never did; `ledger`: None where
    nothing was ever sent."""

    run: str
    venue: str
    account: str
    instruments: tuple[str, ...]
    beat_seconds: float | None
    has_ended: bool
    standing: dict[str, object]
    ledger: LedgerSummary | None
    now: int

    @property
    def oldest_unknown_seconds(self) -> float | None:
        """How long the fate of an order has been unknown; None where that of all is known."""
        if self.ledger is None or not self.ledger.unknown:
            return None
        return max(self.now - self.ledger.unknown[0].since, 0) / SECOND

    @property
    def is_alive(self) -> bool:
        """Whether its process said lately that it lives, and did not close its session."""
        return not self.has_ended and self.beat_seconds is not None and self.beat_seconds <= SILENT_SECONDS

    def _comparison(self) -> str:
        """What the last comparison with the venue's books came to."""
        at = self.standing.get("compared_at")
        when = f"{max(self.now - at, 0) / SECOND:.0f} s ago" if isinstance(at, int) and at else "never yet"
        doubt = "; the venue gave no answer since" if self.standing.get("is_in_doubt") else ""
        if not self.is_alive:  # nobody listens any more, and who trades beside it is not looked at
            return f"books compared {when}{doubt}; what the venue holds now: `cryptoalpha status --venue`"
        stream = "listening to the account's stream" if self.standing.get("is_listening") else "asking by REST alone"
        return f"books compared {when}{doubt}; {stream}; {self.standing.get('foreign_orders', 0)} open orders of others"

    def as_dict(self) -> dict[str, object]:
        ledger = self.ledger
        return {
            "run": self.run,
            "venue": self.venue,
            "account": self.account,
            "heartbeat_seconds": self.beat_seconds,
            "ended": self.has_ended,
            "alive": self.is_alive,
            "standing": self.standing,
            "orders": dict(ledger.states) if ledger else {},
            "unknown": [{"client_id": each.client_id, "instrument": each.instrument, "since": each.since} for each in ledger.unknown]
            if ledger
            else [],
            "oldest_unknown_seconds": self.oldest_unknown_seconds,
            "flagged_trades": ledger.flagged if ledger else 0,
            "waiting_outcomes": ledger.waiting if ledger else 0,
            "foreign": ledger.foreign if ledger else 0,
        }

    def lines(self) -> list[str]:
        """For people."""
        life = "it never said that it lives" if self.beat_seconds is None else f"last sign of life {self.beat_seconds:.0f} s ago"
        if self.has_ended:
            life = "its session was closed"
        elif self.beat_seconds is not None and not self.is_alive:
            life += ", every few seconds while it runs: it hangs, or was killed"
        found = [f"run {self.run} sends real orders to {self.venue}, account {self.account}; {life}"]
        if self.ledger is not None:
            counted = ", ".join(f"{count} {state}" for state, count in sorted(self.ledger.states.items()) if count) or "none"
            found.append(
                f"its orders: {counted}; {self.ledger.waiting} outcomes wait for the next step; {self.ledger.foreign} of others seen"
            )
        age = self.oldest_unknown_seconds
        if age is not None and self.ledger is not None:
            first = self.ledger.unknown[0]
            found.append(f"UNKNOWN for {age:.0f} s: order {first.client_id} for {first.instrument}; its instrument takes no entries")
        if self.beat_seconds is not None:
            found.append(self._comparison())
        halted = self.standing.get("halted")
        if isinstance(halted, dict):
            found += [f"entries are stopped: {why}" for why in halted.values()]
        return found


def live_statuses(home: Path, *, now: int) -> list[LiveStatus]:
    """All live runs of a store.

    Raises:
        StoreError: if a journal cannot be read.
    """
    return [_status(path, now) for path in _journals(home)]


def known_orders(home: Path) -> Callable[[str], bool]:
    """Whether a client id belongs to an order of one of the store's live runs."""
    paths = _journals(home)

    def is_ours(client_id: str) -> bool:
        for path in paths:
            with JournalReader(path) as journal:
                if any(True for _ in journal.find(Order, client_id=client_id)):
                    return True
        return False

    return is_ours


def _journals(home: Path) -> list[Path]:
    found = sorted(path for path in (home / "runs").glob("*/" + JOURNAL) if not path.parent.name.startswith("."))
    return [path for path in found if _is_real(path)]


def _is_real(path: Path) -> bool:
    """Whether it is the journal of a run that sends real orders; one that cannot be read is told elsewhere (`run_status`)."""
    try:
        with JournalReader(path) as journal:
            return journal.header.get(MODE_MARK) == LIVE
    except StoreError:
        return False


def _status(path: Path, now: int) -> LiveStatus:
    with JournalReader(path) as journal:
        header = journal.header
    beat = read_heartbeat(path.parent) or {}
    at, standing = beat.get("at"), beat.get("standing")
    return LiveStatus(
        run=path.parent.name,
        venue=header.get(VENUE_MARK, ""),
        account=header.get(ACCOUNT_MARK, ""),
        instruments=tuple(name for name in header.get("instruments", "").split(",") if name),
        beat_seconds=max(now - at, 0) / SECOND if isinstance(at, int) else None,
        has_ended=bool(beat.get("ended", False)),
        standing=standing if isinstance(standing, dict) else {},
        ledger=read_summary(path),
        now=now,
    )
