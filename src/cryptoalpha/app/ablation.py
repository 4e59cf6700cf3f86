"""What each stage of deciding added: signals only → + fusion → + agent → + council → + risk, on one tape, with one set of fused signals.

The stages run beside the backtest, bar by bar, through the same engine: what the run's fusion said in a step is handed to the stages that
use it (`Relayed`), so nothing is searched twice. The last stage is the run itself. All pay the same costs and keep the same no-trade band;
those before `risk` have no other limit than the money there is (`without_limits`).

Differences are paired day by day and get a bootstrap interval; a stage that is not configured is left out and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from msgspec.structs import replace as replaced

from cryptoalpha.app.deciders import RULE, bar_length, build_agent
from cryptoalpha.app.engine import Engine, Step, StepOutcome
from cryptoalpha.app.marks import newest_marks
from cryptoalpha.app.report.decision_content import StageRow
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import Clock
from cryptoalpha.core.values import (
    REGIMES,
    Decision,
    Fill,
    FundingPayment,
    FusedSignal,
    FusionSearch,
    MarketState,
    PortfolioState,
    Signal,
    Travelling,
)
from cryptoalpha.decisions.config import MemberName
from cryptoalpha.decisions.fusion.contract import EqualWeights, Fusion
from cryptoalpha.decisions.rule_agent import Agent
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.monitoring.comparison import Assessment, EquitySeries, compare
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.tables import Dataset

NEVER = 1e12
"""A threshold that nothing reaches."""


@dataclass(frozen=True)
class Stage:
    """One stage before risk: whether the run's fusion speaks (else equal weights), and who decides."""

    name: str
    what: str
    is_fused: bool
    members: tuple[MemberName, ...]


def stages_of(settings: Settings) -> tuple[list[Stage], list[str]]:
    """The stages of a run before risk, in order, and those left out with the reason."""
    method, members = settings.fusion.method, settings.agent.members
    planners = [name for name in members if name != "rule"]
    found, missing = [Stage("signals only", "equal weights, rule agent, no limits", False, RULE)], []
    if method == "equal":
        missing.append("+ fusion (fusion.method is equal)")
    else:
        found.append(Stage("+ fusion", f"{method} fusion, rule agent, no limits", True, RULE))
    if planners:
        found.append(Stage("+ agent", f"{planners[0]} agent plans, no limits", True, (planners[0],)))
    else:
        missing.append("+ agent (agent.members names the rule only)")
    if len(members) > 1:
        found.append(Stage("+ council", f"council of {', '.join(members)}, no limits", True, members))
    else:
        missing.append("+ council (agent.members names one agent)")
    return found, missing


def without_limits(risk: RiskConfig) -> RiskConfig:
    """The same gate with every limit out of reach. What stays belongs to trading, not to safety: the no-trade band, what sizes mean,
    whether the venue lends for a short, and that cash cannot be spent twice."""
    return risk.model_copy(
        update={
            "volatility_target": None, "max_position": 1.0, "risk_tolerance": None, "max_drawdown": 1.0, "max_cluster": 1.0,
            "max_concentration": None, "max_heat": None, "max_state_age_minutes": NEVER,
            "tail": risk.tail.model_copy(update={"max_expected_shortfall": None}),
            "ladder": risk.ladder.model_copy(update={"rungs": (), "regime_exposure": (1.0,) * len(REGIMES)}),
            "orders": risk.orders.model_copy(
                update={"max_notional": None, "max_entries_per_hour": None, "collar": None, "max_liquidation_days": None}
            ),
            "breakers": risk.breakers.model_copy(
                update={"daily_loss_reduce": None, "daily_loss_kill": None, "bad_tick_score": NEVER, "bad_tick_jump": NEVER,
                        "slippage_run_length_days": None, "rejects": 1_000_000_000}
            ),
        }
    )  # fmt: skip


class Relayed:
    """Says what another fusion said in the same step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.search: FusionSearch | None = None
        self.said: Sequence[FusedSignal] = ()

    def fuse(
        self,
        at: int,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
        *,
        state_events: Sequence[int],
        signal_events: Sequence[int],
    ) -> list[FusedSignal]:
        return list(self.said)


class Unexplained:
    """An agent whose expected returns are kept back: without them the gate has no Kelly fraction to cut with."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.name = agent, agent.name

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
        decided = self.agent.decide(at, fused, fused_events=fused_events, portfolio=portfolio, states=states, signals=signals)
        return [one if one.expected_return is None else replaced(one, expected_return=None) for one in decided]


class Unwritten(Journal):
    """A journal that counts rows and keeps none: a stage is measured, not explained."""

    def __init__(self) -> None:
        super().__init__(None, durable=False, header={})
        self._rows = 0

    @property
    def next_row(self) -> int:
        return self._rows + 1

    def append(self, at: int, values: Sequence[Travelling]) -> int:
        self._rows += 1
        return self._rows


@dataclass
class _Run:
    """A stage under way: its engine, and what its account did."""

    stage: Stage
    engine: Engine
    agent: Agent
    times: list[int]
    equity: list[float]
    paid: float = 0.0
    traded: float = 0.0

    def watch(self, at: int, outcome: StepOutcome) -> None:
        self.times.append(at)
        self.equity.append(float(outcome.portfolio.equity))
        for event in outcome.happened:
            if isinstance(event, Fill):
                self.paid += float(event.fee + event.spread_cost + event.impact_cost)
                self.traded += float(event.quantity * event.price)
            elif isinstance(event, FundingPayment):
                self.paid -= float(event.amount)


class Ablation:
    """The stages of one run before risk.

    Args:
        clock: the run's own; whoever moves it for the run moves it for the stages.
    """

    def __init__(self, settings: Settings, dataset: Dataset, instruments: Sequence[str], clock: Clock) -> None:
        self._settings = settings
        stages, self.missing = stages_of(settings)
        self._relay = Relayed(settings.fusion.method)
        self._runs = [self._begin(stage, dataset, instruments, clock) for stage in stages]
        self.seconds = 0.0
        """Wall time the stages took."""

    @property
    def agents(self) -> list[Agent]:
        """The agents of all stages, to be shown the past as the run's own is."""
        return [run.agent for run in self._runs]

    @property
    def gates(self) -> list[RiskGate]:
        return [run.engine.gate for run in self._runs]

    def step(self, step: Step, outcome: StepOutcome) -> None:
        """Take the step that the run has just taken."""
        started = perf_counter()
        self._relay.said = outcome.fused
        for run in self._runs:
            run.watch(step.bar.at, run.engine.step(step))
        self.seconds += perf_counter() - started

    def finish(self, own: EquitySeries, years: float) -> tuple[StageRow, ...]:
        """End the stages. Returns the table: every stage with its intervals, and what it added to the one before.

        Args:
            own: the run itself, the last stage.
            years: length of the run.
        """
        initial = self._settings.execution.initial_cash
        for run in self._runs:
            run.engine.journal.close()
        series = [
            EquitySeries.of_marks(
                run.stage.name, *newest_marks(np.array(run.times, np.int64), np.array(run.equity)), initial, costs=run.paid / initial,
                turnover=0.5 * run.traded / (sum(run.equity) / len(run.equity)) / years,
            )
            for run in self._runs
        ]  # fmt: skip
        members = ", ".join(self._settings.agent.members)
        told = [run.stage.what for run in self._runs] + [f"the run: {self._settings.fusion.method} fusion, {members}, all limits"]
        stages = [*series, replace(own, name="+ risk")]
        return tuple(self._row(one, stages[k - 1] if k else None, told[k]) for k, one in enumerate(stages))

    def _row(self, one: EquitySeries, before: EquitySeries | None, what: str) -> StageRow:
        compared = compare(one, {} if before is None else {before.name: before}, 1, seed=self._settings.engine.seed)
        own: Assessment = compared.strategy
        gap = compared.differences[0] if compared.differences else None
        return StageRow(
            name=one.name,
            what=what,
            sharpe=own.sharpe,
            total_return=own.total_return,
            max_drawdown=own.max_drawdown,
            turnover=own.turnover,
            costs=own.costs,
            added=None if gap is None else gap.sharpe,
            words="" if gap is None else f"It {gap.words}.",
        )

    def _begin(self, stage: Stage, dataset: Dataset, instruments: Sequence[str], clock: Clock) -> _Run:
        settings = self._settings
        rules = {name: dataset.rules[name] for name in instruments}
        agent = build_agent(settings, instruments, interval=bar_length(dataset, instruments), members=stage.members)
        fusion: Fusion = self._relay if stage.is_fused else EqualWeights()
        perpetual = [name for name, rule in rules.items() if rule.perpetual]
        engine = Engine(
            clock=clock,
            fusion=fusion,
            agent=Unexplained(agent),
            gate=RiskGate(without_limits(settings.risk), rules, account="stage"),
            broker=SimulatedBroker(settings.execution, rules),
            portfolio=Portfolio(settings.execution.initial_cash, instruments, perpetual),
            journal=Unwritten(),
        )
        return _Run(stage, engine, agent, [], [])
