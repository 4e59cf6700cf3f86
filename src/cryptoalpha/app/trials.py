"""The trial ledger of a home, and how a backtest is entered in it: by all that its journal's header says decides it, its seed excepted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptoalpha.core.clock import SystemClock
from cryptoalpha.lifecycle.tune.ledger import Look, TrialLedger


def trial_ledger(home: Path) -> TrialLedger:
    """The one ledger that counts every look at data: backtests and trials of searches alike."""
    return TrialLedger(home / "trials.sqlite", now=SystemClock().now)


def backtest_look(identity: Mapping[str, str]) -> Look:
    """What a run looks at.

    Args:
        identity: the header of the run's journal (`backtest.run_identity`).
    """
    config = " ".join(identity[name] for name in ("config", "interval", "instruments", "version"))
    return Look(identity["data"], int(identity["since"]), int(identity["until"]), config)
