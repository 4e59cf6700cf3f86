"""Alerts that ask for retraining, written into its book (`lifecycle.retrain.triggers`), from the webhook or from a board in the process.

A proposal is one row per cause and alert as long as no campaign answered it; written twice, it counts twice and starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from cryptoalpha.core.errors import StoreError
from cryptoalpha.lifecycle.alerts.actions import ACTIONS, Propose, decide_retraining, propose_retraining
from cryptoalpha.lifecycle.alerts.book import AlertBook, Deed
from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.lifecycle.alerts.notices import Notice, notice_of_change
from cryptoalpha.lifecycle.retrain.book import BOOK
from cryptoalpha.lifecycle.retrain.triggers import propose
from cryptoalpha.monitoring.alerts import AlertChange


def into_the_book_of_retraining(home: Path) -> Propose:
    """Proposals go where `cryptoalpha retrain` of this store looks for them."""

    def write(cause: str, alert: str, at: int, words: str) -> None:
        named: Literal["drift", "accuracy"] = "drift" if cause == "drift" else "accuracy"
        propose(home / BOOK, named, at, words, subject=alert)

    return write


class OwnAlerts:
    """Of a board in this process: proposes retraining where an alert asks for it. Call it with each change; takes milliseconds.

    Scaling is not its business: a process cannot give itself replicas.

    Args:
        only: the alerts it acts on; what else proposes is left to others.
    """

    def __init__(
        self,
        book: AlertBook,
        config: AlertConfig,
        *,
        now: Callable[[], int],
        propose: Propose,
        say: Callable[[str], None],
        only: frozenset[str],
    ) -> None:
        self._book, self._config, self._now, self._propose, self._say, self._only = book, config, now, propose, say, only

    def __call__(self, change: AlertChange) -> None:
        """An alert began or is over. A book that cannot be written is said, not raised: what trades goes on."""
        if change.rule.name not in self._only or ACTIONS.get(change.rule.name) != "retrain":
            return
        try:
            for deed in self._book.unfinished():  # of a process that was killed between deciding and doing
                if deed.alert in self._only:
                    self._finish(deed)
            self._take(notice_of_change(change))
        except StoreError as error:
            self._say(f"alert {change.rule.name}: retraining could not be proposed: {error}")

    def _take(self, notice: Notice) -> None:
        self._book.hear(notice, self._now())
        if notice.state == "firing":
            deed = decide_retraining(self._book, self._config, notice, self._now())
            if deed is not None:
                self._finish(deed)

    def _finish(self, deed: Deed) -> None:
        words = propose_retraining(self._propose, deed)
        self._book.end(deed, "done", self._now(), words)
        self._say(words)
