"""Days on which crypto markets broke, to be replayed on a book from the user's own stored returns.

Only dates are written down here, not returns: what a crisis did to an instrument is in the store or it is not known. First and last day
are UTC days, both included, and hold the run-up and the worst day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.time import DAY, SECOND


@dataclass(frozen=True)
class Crisis:
    """A name, its days, and what happened."""

    name: str
    first: date
    last: date
    what: str

    def covers(self, days: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these days (their 00:00 UTC, ns) belong to it."""
        return np.asarray((days >= _start(self.first)) & (days < _start(self.last) + DAY))


CRISES = (
    Crisis("china_2017", date(2017, 9, 2), date(2017, 9, 15), "China bans coin offerings, then its exchanges close"),
    Crisis("bubble_2018", date(2018, 1, 6), date(2018, 2, 5), "the bubble of 2017 bursts"),
    Crisis("hash_war_2018", date(2018, 11, 14), date(2018, 11, 25), "Bitcoin Cash splits, the market falls through 6,000"),
    Crisis("covid_2020", date(2020, 3, 7), date(2020, 3, 13), "every market falls at once, the worst day is 12 March"),
    Crisis(
        "leverage_2021",
        date(2021, 5, 12),
        date(2021, 5, 23),
        "China forbids its banks to serve crypto, leveraged longs are liquidated on 19 May",
    ),
    Crisis("terra_2022", date(2022, 5, 5), date(2022, 5, 13), "the stablecoin UST and Luna collapse"),
    Crisis("lenders_2022", date(2022, 6, 10), date(2022, 6, 18), "Celsius stops withdrawals, Three Arrows cannot pay"),
    Crisis("ftx_2022", date(2022, 11, 6), date(2022, 11, 21), "FTX fails, the worst days are 8 and 9 November"),
    Crisis("svb_2023", date(2023, 3, 7), date(2023, 3, 11), "Silvergate and Silicon Valley Bank fail, USDC leaves its peg"),
)


def _start(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * SECOND
