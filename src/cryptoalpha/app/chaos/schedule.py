"""One disturbed history of live trading, drawn from one number: kills, faults, foreign hands, outages, and the market meanwhile.

The same seed gives the same schedule, whatever else runs. Schedules of consecutive seeds walk through all kill points and all faults in
turn, so that any thirteen of them kill at every point once; the rest is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from cryptoalpha.core.seeds import stream
from cryptoalpha.execution.live.points import Point

MINUTE = 60_000_000_000
START = 1_700_006_400_000_000_000
"""Open of the first bar, UTC ns: 2023-11-15 00:00, long past for every clock."""
QUIET = 4
"""Bars at the end in which nothing is decided: what is under way comes to its end."""


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """`kill -9` of one life, at the `visit`-th time it passes a point, or `delay_ms` later: on the wire, in a wait, in a commit."""

    point: int
    visit: int = 1
    delay_ms: int = 0


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody else does with the account once bar `bar` is known."""

    bar: int
    kind: Literal["buy", "sell", "rest", "deposit", "withdraw"]
    instrument: str
    quantity: str


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of the exchange, armed when bar `bar` is known: `kind` is one of the fake exchange's, for the next `count` requests of a
    route."""

    bar: int
    kind: str
    route: str = ""
    count: int = 1
    after: int = 0


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that happens to one run. `missed` are bars that pass while it is down, by life."""

    seed: int
    market: Literal["spot", "futures"]
    instruments: tuple[str, ...]
    bars: int
    kills: tuple[Kill, ...]
    missed: tuple[int, ...]
    hands: tuple[Hand, ...]
    faults: tuple[Fault, ...]
    fee_asset: str
    opening: tuple[tuple[str, str], ...]
    thin: bool
    """Whether bars trade so little that orders fill in parts."""


class Menu(msgspec.Struct, frozen=True):
    """A fault that can be drawn, and where it makes sense."""

    kind: str
    routes: tuple[str, ...]


def market_bars(schedule: Schedule) -> np.ndarray:
    """`[bars, instruments, 5]` of open, high, low, close, volume: a walk of half a percent a bar, rounded to the cent."""
    shape = (schedule.bars, len(schedule.instruments))
    draw = stream(schedule.seed, "chaos", "market")
    base = np.array([30_000.0 / 15.0**place for place in range(shape[1])])
    close = np.round(base * np.exp(np.cumsum(draw.normal(0.0, 0.005, shape), axis=0)), 2)
    open_ = np.vstack([np.round(base, 2), close[:-1]])
    high = np.round(np.maximum(open_, close) * (1.0 + np.abs(draw.normal(0.0, 0.002, shape))), 2)
    low = np.round(np.minimum(open_, close) * (1.0 - np.abs(draw.normal(0.0, 0.002, shape))), 2)
    high, low = np.maximum(high, np.maximum(open_, close)), np.minimum(low, np.minimum(open_, close))
    volume = np.round(draw.uniform(2.0, 8.0, shape) if schedule.thin else draw.uniform(2_000.0, 8_000.0, shape), 3)
    return np.stack([open_, high, low, close, volume], axis=2)


def targets(schedule: Schedule) -> np.ndarray:
    """`[bars, instruments]`: the fraction of equity wanted after each bar; it changes at two bars of three. NaN: nothing is decided."""
    draw = stream(schedule.seed, "chaos", "targets")
    shape = (schedule.bars, len(schedule.instruments))
    low = 0.0 if schedule.market == "spot" else -0.35
    wanted = np.round(np.where(draw.random(shape) < 0.25, 0.0, draw.uniform(low, 0.4, shape)), 3)
    stays = draw.random(shape) < 1 / 3
    for row in range(1, shape[0]):
        wanted[row][stays[row]] = wanted[row - 1][stays[row]]
    wanted[schedule.bars - QUIET :] = np.nan
    return wanted


def draw_schedule(seed: int, menu: Sequence[Menu], *, markets: Sequence[Literal["spot", "futures"]] = ("spot", "futures")) -> Schedule:
    """The schedule of this seed."""
    draw = stream(seed, "chaos", "schedule")
    market = markets[int(draw.integers(len(markets)))]
    instruments = ("BTC/USDT", "ETH/USDT") if market == "spot" else ("BTC/USDT:USDT", "ETH/USDT:USDT")
    bars = int(draw.integers(9, 15)) + QUIET
    points = [1 + seed % len(Point), *(int(draw.integers(1, len(Point) + 1)) for _ in range(int(draw.integers(0, 4))))]
    kills = tuple(
        Kill(point=point, visit=int(draw.geometric(0.5)), delay_ms=0 if draw.random() < 0.7 else int(draw.integers(1, 40)))
        for point in points
    )
    faults = []
    for number in range(int(draw.integers(1, 6))):
        entry = menu[seed % len(menu)] if number == 0 else menu[int(draw.integers(len(menu)))]
        route = entry.routes[int(draw.integers(len(entry.routes)))]
        faults.append(
            Fault(
                bar=int(draw.integers(0, bars - QUIET)), kind=entry.kind, route=route,
                count=int(draw.geometric(0.5)), after=int(draw.integers(0, 2)),
            )
        )  # fmt: skip
    return Schedule(
        seed=seed,
        market=market,
        instruments=instruments,
        bars=bars,
        kills=kills,
        missed=tuple(int(draw.integers(1, 4)) if draw.random() < 0.2 else 0 for _ in kills),
        hands=_hands(draw, market, instruments, bars),
        faults=tuple(sorted(faults, key=lambda fault: fault.bar)),
        fee_asset=str(draw.choice(["", "base", "BNB"])) if market == "spot" else "",
        opening=(("BTC", str(round(float(draw.uniform(0.0, 0.4)), 4))),) if market == "spot" and draw.random() < 0.5 else (),
        thin=bool(draw.random() < 0.3),
    )


def _hands(draw: np.random.Generator, market: str, instruments: Sequence[str], bars: int) -> tuple[Hand, ...]:
    """Nobody else in half of the schedules; else up to three moves of other hands."""
    if draw.random() < 0.5:
        return ()
    kinds: tuple[Literal["buy", "sell", "rest", "deposit", "withdraw"], ...]
    kinds = ("buy", "sell", "rest", "deposit", "withdraw") if market == "spot" else ("buy", "sell", "rest")
    moves = []
    for _ in range(int(draw.integers(1, 4))):
        instrument = instruments[int(draw.integers(len(instruments)))]
        size = 0.02 * 15 ** instruments.index(instrument)
        moves.append(
            Hand(
                bar=int(draw.integers(0, bars - QUIET)), kind=kinds[int(draw.integers(len(kinds)))], instrument=instrument,
                quantity=str(round(float(draw.uniform(0.2, 1.0)) * size, 3)),
            )
        )  # fmt: skip
    return tuple(sorted(moves, key=lambda move: move.bar))
