"""The locked days: the newest whole ones, `lifecycle.gates.holdout_days`, on which the last gate looks at a version once.

Whatever chooses among versions before that, a search of settings above all, ends where they begin.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptoalpha.app.period import Period
from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import DAY, day_of
from cryptoalpha.store.tables import Dataset


def locked_days(dataset: Dataset, days: int, instruments: Sequence[str] | None = None) -> Period:
    """The newest `days` whole days that are known, of these instruments or of all."""
    names = instruments or tuple(dataset.bars)
    end = max(int(dataset.bars[name].known_at[-1]) for name in names if len(dataset.bars[name])) // DAY * DAY
    return Period(end - days * DAY, end)


def before_locked_days(dataset: Dataset, days: int, instruments: Sequence[str] | None = None) -> int:
    """Where a search must end, UTC ns.

    Raises:
        DataMissingError: if there are no bars before the locked days.
    """
    locked = locked_days(dataset, days, instruments)
    first = min(int(table.open_time[0]) for table in dataset.bars.values() if len(table))
    if first >= locked.since:
        raise DataMissingError(
            f"the newest {days} days are kept for the gates, and the history begins only {day_of(first)}",
            hint="bring more history, set lifecycle.gates.holdout_days lower, or say --until: the gates then judge on seen days",
        )
    return locked.since


def market_of(dataset: Dataset) -> str:
    """What a look at locked days is counted for. A day more, other bars or other instruments are the same market."""
    return dataset.origin if dataset.simulated else "recorded"
