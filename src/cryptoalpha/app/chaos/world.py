"""The world of one schedule: its market as a data set, the settings of its run, and the steps its engine takes.

The agent wants what `schedule.targets` says and asks nobody; risk, journal and broker are those of any run. Waits that are seconds in
production are tenths here, in the same proportions, so that hundreds of outages fit into minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import numpy as np

from cryptoalpha.app.chaos.schedule import Schedule, market_bars, targets
from cryptoalpha.app.engine import Step
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Decision, FusedSignal, InstrumentRules, MarketState, ObservationRef, PortfolioState, Signal
from cryptoalpha.execution.broker import bar_steps, funding_by_bar
from cryptoalpha.execution.config import CostConfig, ExecutionConfig, LiveConfig
from cryptoalpha.risk.config import BreakerConfig, OrderLimitsConfig, RiskConfig, TailConfig
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import BarTable, Dataset, ReadingTable

START = 1_700_006_400_000_000_000
"""Open of the first bar, UTC ns: 2023-11-15 00:00."""
CASH = 100_000.0
BNB = "BNB/USDT"
WORTH = {"BNB": Decimal(250)}
"""What others may pay fees in, and its price: always the same."""
STEPS = {"BTC": ("0.00001", "0.01"), "ETH": ("0.0001", "0.01"), "BNB": ("0.001", "0.01")}
FUNDING_EVERY = 4
"""Bars, hours, between two settlements of funding."""


@dataclass(frozen=True)
class World:
    """See the module header."""

    schedule: Schedule

    @property
    def is_futures(self) -> bool:
        return self.schedule.market == "futures"

    @cached_property
    def rules(self) -> Mapping[str, InstrumentRules]:
        """Of what the run trades."""
        return {name: _rules(name, perpetual=self.is_futures) for name in self.schedule.instruments}

    @cached_property
    def dataset(self) -> Dataset:
        """The market the exchange trades: what the run trades, and on spot the asset that fees may be paid in."""
        bars = market_bars(self.schedule)
        times = START + HOUR * np.arange(len(bars), dtype=np.int64)
        tables = {
            name: BarTable(name, HOUR, times, *(np.ascontiguousarray(bars[:, place, field]) for field in range(5)))
            for place, name in enumerate(self.schedule.instruments)
        }
        rules = dict(self.rules)
        readings = {}
        if self.is_futures:
            settled = times[FUNDING_EVERY:-2:FUNDING_EVERY]  # none so late that no bar is left to tell it
            rates = np.where(np.arange(len(settled)) % 2 == 0, 1e-4, -5e-5)
            for rule in rules.values():
                readings[rule.base, "funding_rate"] = ReadingTable(rule.base, "funding_rate", "chaos", settled, settled, rates)
        else:
            flat = np.full(len(times), float(WORTH["BNB"]))
            tables[BNB] = BarTable(BNB, HOUR, times, flat, flat, flat, flat, np.full(len(times), 1e6))
            rules[BNB] = _rules(BNB, perpetual=False)
        return Dataset(origin=f"chaos schedule {self.schedule.seed}", bars=tables, rules=rules, readings=readings, simulated=True)

    @cached_property
    def panel(self) -> Panel:
        """The bars of what the run trades."""
        until = START + HOUR * self.schedule.bars
        return build_panel(self.dataset, since=START, until=until, instruments=self.schedule.instruments)

    @cached_property
    def risk(self) -> RiskConfig:
        """Every limit so wide that only the lot, the band and the account bind."""
        return RiskConfig(
            volatility_target=None, max_position=1.0, max_drawdown=1.0, no_trade_band=0.005,
            allow_short=self.is_futures,
            tail=TailConfig(max_expected_shortfall=None),
            orders=OrderLimitsConfig(max_entries_per_hour=None, max_liquidation_days=None, collar=None if self.schedule.waits else 0.1),
            breakers=BreakerConfig(
                daily_loss_reduce=None, daily_loss_kill=None, bad_tick_score=1e9, bad_tick_jump=1e9,
                slippage_run_length_days=None, rejects=10_000,
            ),
        )  # fmt: skip

    @cached_property
    def execution(self) -> ExecutionConfig:
        """Costs of the exchange, and the waits of a run, a thirtieth of what they are by default."""
        return ExecutionConfig(
            costs=CostConfig(max_participation=0.1 if self.schedule.thin else None, impact=0.0),
            initial_cash=CASH,
            allow_live=True,
            live=LiveConfig(
                venue="binanceusdm" if self.is_futures else "binance",
                timeout_seconds=0.4,
                reconcile_seconds=2.0,
                alert_after_seconds=1.0,
                absence_seconds=0.3,
                absence_answers=3,
                receive_window_seconds=0.5,
                longest_flight_seconds=1.0,
                retry_seconds=0.02,
                retry_limit_seconds=0.3,
                settle_seconds=0.2,
                requests_per_minute=1e6,
                use_stream=self.schedule.use_stream,
            ),
        )

    @property
    def funds(self) -> Mapping[str, Decimal]:
        """What the account holds at the start; on spot, somebody's coins among it."""
        held = {"USDT": Decimal("100000"), **{asset: Decimal(amount) for asset, amount in self.schedule.opening}}
        return held if self.is_futures else {**held, "BNB": Decimal(10)}

    def header(self) -> dict[str, str]:
        """What identifies the run in its journal."""
        return {"chaos": str(self.schedule.seed), "market": self.schedule.market, "bars": str(self.schedule.bars)}

    def steps(self) -> Iterator[Step]:
        """One step per bar; nobody has an opinion, the agent knows what it wants."""
        funding = funding_by_bar(self.panel, self.dataset)
        for row, bar in enumerate(bar_steps(self.panel, funding if self.is_futures else None)):
            states = [
                MarketState(happened_at=bar.open_time, known_at=bar.at, instrument=name, price=bar.close[place], volatility=0.5)
                for place, name in enumerate(bar.instruments)
            ]
            reference = ObservationRef(happened_at=bar.open_time, known_at=bar.at, subject="chaos", partition="chaos", row=row)
            yield Step(bar, (reference,), states, ())


class ScheduledAgent:
    """Wants what the schedule says of the bar it is asked after."""

    name = "scheduled"

    def __init__(self, world: World) -> None:
        self._wanted = targets(world.schedule)
        self._first = int(world.panel.known_at[0])

    def decide(
        self,
        at: int,
        fused: Sequence[FusedSignal],
        *,
        fused_events: Sequence[int],
        portfolio: PortfolioState,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
    ) -> list[Decision]:
        row, offset = divmod(at - self._first, HOUR)
        if offset or row >= len(self._wanted) or np.isnan(self._wanted[row]).all():
            return []  # a step between bars, or the quiet end
        return [
            Decision(
                happened_at=at, known_at=at, instrument=signal.instrument, agent=self.name,
                target_weight=float(self._wanted[row, place]), confidence=1.0, reason="schedule", fused=fused_events[place],
            )
            for place, signal in enumerate(fused)
        ]  # fmt: skip


def _rules(name: str, *, perpetual: bool) -> InstrumentRules:
    base = name.partition("/")[0]
    lot, tick = (Decimal(step) for step in STEPS[base])
    return InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="fake", base=base, quote="USDT", lot=lot, tick=tick,
        min_notional=Decimal(5), perpetual=perpetual,
    )  # fmt: skip
