"""One disturbed history of live trading, drawn from one number: kills, faults, foreign hands, outages, and the market meanwhile.

The same seed gives the same schedule, whatever else runs. Schedules of consecutive seeds walk through all kill points and all faults in
turn, so that any thirteen of them aim at every point once; the rest is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from cryptoalpha.core.seeds import stream
from cryptoalpha.execution.fake_exchange.fault_schedule import ANSWER_ROUTES, WEIGHTS
from cryptoalpha.execution.fake_exchange.fault_script import ACTIONS, CANCELS, FILLS, ORDERS, Fault
from cryptoalpha.execution.live.points import Point

QUIET = 5
"""Bars at the end in which nothing is decided: what is under way comes to its end."""
MOST_BARS = 11
"""Bars before those, at most; seven at least."""

CANCEL_POINTS = (Point.BEFORE_CANCEL, Point.AFTER_CANCEL)

MarketKind = Literal["spot", "futures"]
HandKind = Literal["buy", "sell", "rest", "deposit", "withdraw"]


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """`kill -9` of one life, at the `visit`-th time it passes a point, or `delay_ms` later: on the wire, in a wait, in a commit."""

    point: int
    visit: int = 1
    delay_ms: int = 0


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody else does with the account once bar `bar` is known; `rest` is a limit order far from the market."""

    bar: int
    kind: HandKind
    instrument: str
    quantity: str


class Strike(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of the exchange, armed once bar `bar` is known."""

    bar: int
    fault: Fault


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that happens to one run. `missed` are bars that pass while it is down, after each kill."""

    seed: int
    market: MarketKind
    instruments: tuple[str, ...]
    bars: int
    kills: tuple[Kill, ...] = ()
    missed: tuple[int, ...] = ()
    hands: tuple[Hand, ...] = ()
    strikes: tuple[Strike, ...] = ()
    fees: Literal["quote", "base", "third"] = "quote"
    opening: tuple[tuple[str, str], ...] = ()
    """What the account holds besides cash at the start, by asset."""
    thin: bool = False
    """Whether bars trade so little that orders fill in parts."""
    use_stream: bool = True
    change: float = 2 / 3
    """Share of bars at which an instrument's target changes."""
    waits: bool = False
    """Whether entries wait for what they lack: they have no worst price, so their rest is not given up at once."""

    @property
    def quiet_from(self) -> int:
        """First bar after which nothing is decided any more."""
        return self.bars - QUIET


def calm(schedule: Schedule) -> Schedule:
    """The same market and targets, and nothing that disturbs them."""
    return msgspec.structs.replace(schedule, kills=(), missed=(), hands=(), strikes=())


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
    volume = draw.uniform(5.0, 20.0, shape) if schedule.thin else draw.uniform(2_000.0, 8_000.0, shape)
    if schedule.waits:
        volume[: schedule.quiet_from] /= 5.0
        volume[schedule.quiet_from :] *= 1_000.0  # what still waits at the quiet end gets all it wants
    return np.stack([open_, high, low, close, np.round(volume * 15.0 ** np.arange(shape[1]), 3)], axis=2)


def targets(schedule: Schedule) -> np.ndarray:
    """`[bars, instruments]`: the fraction of equity wanted after each bar; it changes at `change` of the bars. NaN: nothing is decided."""
    draw = stream(schedule.seed, "chaos", "targets")
    shape = (schedule.bars, len(schedule.instruments))
    low = 0.0 if schedule.market == "spot" else -0.35
    wanted = np.round(np.where(draw.random(shape) < 0.25, 0.0, draw.uniform(low, 0.4, shape)), 3)
    stays = draw.random(shape) < 1.0 - schedule.change
    for row in range(1, shape[0]):
        wanted[row][stays[row]] = wanted[row - 1][stays[row]]
    wanted[schedule.quiet_from :] = np.nan
    return wanted


def draw_schedule(seed: int, *, markets: Sequence[MarketKind] = ("spot", "futures")) -> Schedule:
    """The schedule of this seed."""
    draw = stream(seed, "chaos", "schedule")
    market = markets[int(draw.integers(len(markets)))]
    instruments = ("BTC/USDT", "ETH/USDT")
    bars = int(draw.integers(7, MOST_BARS + 1)) + QUIET
    points = [1 + seed % len(Point), *(int(draw.integers(1, len(Point) + 1)) for _ in range(int(draw.integers(0, 4))))]
    kills = tuple(_kill(draw, point) for point in points)
    fees: tuple[Literal["quote", "base", "third"], ...] = ("quote", "base", "third")
    drawn = Schedule(
        seed=seed,
        market=market,
        instruments=instruments,
        bars=bars,
        kills=kills,
        missed=tuple(int(draw.integers(1, 4)) if draw.random() < 0.2 else 0 for _ in kills),
        hands=_hands(draw, market, instruments, bars) if draw.random() < 0.5 else (),
        strikes=_strikes(draw, seed, bars),
        fees=fees[int(draw.integers(3))] if market == "spot" else "quote",
        opening=(("BTC", str(round(float(draw.uniform(0.0, 0.4)), 4))),) if market == "spot" and draw.random() < 0.5 else (),
        thin=bool(draw.random() < 0.3),
        use_stream=bool(draw.random() < 0.8),
    )
    return _with_cancels(drawn) if points[0] in CANCEL_POINTS or any(_is_of_cancels(strike) for strike in drawn.strikes) else drawn


def _is_of_cancels(strike: Strike) -> bool:
    return (strike.fault.route or ACTIONS[strike.fault.action].route) == CANCELS


def _with_cancels(drawn: Schedule) -> Schedule:
    """An order is cancelled only where it still works when another is wanted: the market is thin, entries wait, and something else
    is wanted at every bar; what strikes cancels is armed from the start, and strikes the first."""
    strikes = [
        Strike(bar=0, fault=msgspec.structs.replace(strike.fault, nth=1)) if _is_of_cancels(strike) else strike for strike in drawn.strikes
    ]
    return msgspec.structs.replace(drawn, strikes=tuple(sorted(strikes, key=lambda strike: strike.bar)), thin=True, change=1.0, waits=True)


def _kill(draw: np.random.Generator, point: int) -> Kill:
    return Kill(point=point, visit=int(draw.geometric(0.5)), delay_ms=0 if draw.random() < 0.7 else int(draw.integers(1, 40)))


def _strikes(draw: np.random.Generator, seed: int, bars: int) -> tuple[Strike, ...]:
    """One to five faults; the first is the next in the list of all, the others by how often venues show them."""
    names = list(WEIGHTS)
    chances = np.array(list(WEIGHTS.values())) / sum(WEIGHTS.values())
    strikes = []
    for number in range(int(draw.integers(1, 6))):
        action = names[seed % len(names)] if number == 0 else names[int(draw.choice(len(names), p=chances))]
        strikes.append(Strike(bar=int(draw.integers(0, bars - QUIET)), fault=_fault(draw, action)))
    return tuple(sorted(strikes, key=lambda strike: strike.bar))


def _fault(draw: np.random.Generator, action: str) -> Fault:
    rule, route = ACTIONS[action], ""
    if rule.route == ORDERS and rule.phase in ("before", "after"):
        route = ANSWER_ROUTES[int(draw.integers(len(ANSWER_ROUTES)))]
    elif rule.route == FILLS and draw.random() < 0.3:
        route = "WS account *"
    seconds = round(float(draw.uniform(0.05, 0.3)), 3)
    if action == "skew":
        seconds = float(draw.choice([-3600.0, -5.0, 5.0, 3600.0]))
    elif action in ("rate_limit", "banned"):
        seconds = 1.0  # Retry-After counts in whole seconds
    elif action.startswith("timeout"):
        seconds = 30.0  # until the client gives up
    return Fault(action=action, route=route, nth=1 + int(draw.integers(2)), times=1 + int(draw.integers(3)), seconds=seconds)


def _hands(draw: np.random.Generator, market: MarketKind, instruments: Sequence[str], bars: int) -> tuple[Hand, ...]:
    """Up to three moves of other hands."""
    kinds: tuple[HandKind, ...] = ("buy", "sell", "rest", "deposit", "withdraw") if market == "spot" else ("buy", "sell", "rest")
    moves = []
    for _ in range(int(draw.integers(1, 4))):
        place = int(draw.integers(len(instruments)))
        quantity = str(round(float(draw.uniform(0.2, 1.0)) * 0.02 * 15**place, 3))
        moves.append(
            Hand(
                bar=int(draw.integers(1, bars - QUIET)),  # what they do before the run begins belongs to its opening
                kind=kinds[int(draw.integers(len(kinds)))],
                instrument=instruments[place],
                quantity=quantity,
            )
        )
    return tuple(sorted(moves, key=lambda move: move.bar))
