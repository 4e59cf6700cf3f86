"""Signal agents over a made-up market, for processes of their own; one of them dies on purpose."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.time import HOUR
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.replay import messages_of, without_taker_volume
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import NewsConfig, SignalsConfig
from cryptoalpha.store.tables import Dataset

BARS, ASKED = 1_500, 12
SOURCES = {
    "texts": ("news_tone",),
    "prices": ("volatility",),
    "chain": ("funding",),
    "all": ("news_tone", "volatility"),
}
NEWS = NewsConfig(history_days=1.0, window_hours=6.0, repeat_days=0.5)


@cache
def market() -> Dataset:
    """Two instruments with posts, funding and chain readings."""
    return without_taker_volume(simulate(SimulatedConfig(assets=2, bars=BARS, start="2021-01-01", posts_per_day=40.0), seed=3).dataset)


def since() -> int:
    """The moment at which agents begin."""
    return int(next(iter(market().bars.values())).open_time[-ASKED])


def hours() -> list[tuple[int, list[Envelope]]]:
    """Messages hour by hour, with the end of the hour."""
    begin = since()
    ends = [begin + HOUR * number for number in range(1, ASKED + 1)]
    return [(end, list(messages_of(market(), after=end - HOUR, until=end))) for end in ends]


class Mortal(SignalAgent):
    """Dies when it is called while a file is there, which it takes away; after it has read, before it answers."""

    fatal: str = ""

    async def __call__(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        said = await super().__call__(envelopes)
        if envelopes and self.fatal and Path(self.fatal).exists():
            Path(self.fatal).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return said


def agent(kind: str, clock: Clock, *, fatal: str = "") -> SignalAgent:
    """The agent of that kind."""
    config = SignalsConfig(sources=SOURCES[kind], keep_features=False, news=NEWS)
    made = Mortal(kind, SignalBook(config), market().known_until(since()), AgentsConfig(), clock=clock)
    made.fatal = fatal
    return made


def mortal(kind: str, fatal: str, clock: Clock) -> SignalAgent:
    """The same, as a partial of its first two arguments takes the clock."""
    return agent(kind, clock, fatal=fatal)
