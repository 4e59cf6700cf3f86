"""What a report is made of. The backtest fills this in; the report only arranges it.

Every field is a plain value, so that a report can be rebuilt from what is stored, and every number printed comes from here or from
`metrics.metrics_of`. Times are UTC nanoseconds, weights and returns fractions, money amounts floats in the quote currency; losses and costs
are positive where their name says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cryptoalpha.app.report.decision_content import Deciders
from cryptoalpha.app.report.risk_content import InstrumentRow, RiskRecord, StressStudy, TailStudy
from cryptoalpha.app.report.weight_history import WeightHistory
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.bootstrap import Interval
from cryptoalpha.monitoring.comparison import Comparison, EquitySeries
from cryptoalpha.monitoring.period_tables import PeriodRow
from cryptoalpha.monitoring.ratios import NAN

UNMEASURED = Interval(NAN, NAN, NAN, NAN, NAN, 0, NAN)


@dataclass(frozen=True)
class RunCard:
    """Where the numbers come from: enough to run it again."""

    name: str
    """What the run is called in headings and legends, e.g. `hedge fusion, 8 assets`."""
    run_id: str
    data_origin: str
    """In words: `files in DIR`, `packaged sample of …`, `simulated market, edge planted`."""
    is_simulated: bool
    """True puts a SIMULATED banner on top of the page."""
    data_hash: str
    since: int
    """First moment of the window, ns."""
    until: int
    """End of the window (exclusive), ns."""
    interval: str
    instruments: tuple[str, ...]
    quote: str
    """Currency of every amount, e.g. `USDT`."""
    initial_equity: float
    seed: int
    version: str
    git_sha: str
    config_hash: str
    cost_model: tuple[tuple[str, str], ...]
    """Name and value of each cost assumption, e.g. `("taker fee", "0.10% of notional")`."""
    journal_digest: str = ""
    command: str = ""
    """The command line that repeats the run."""
    extra: tuple[tuple[str, str], ...] = ()
    """Any further facts, name and value."""


@dataclass(frozen=True)
class Trade:
    """One fill, as `cryptoalpha explain FILL_ID` finds it."""

    fill_id: str
    """Event id as people type it (`core.values.format_event_id`)."""
    time: int
    instrument: str
    side: Literal["buy", "sell"]
    quantity: float
    price: float
    fee: float
    spread_cost: float
    impact_cost: float
    reason: str = ""
    """The decision's reason, or the binding limit that cut its size."""


@dataclass(frozen=True)
class CostSplit:
    """Where the profit went, in the quote currency."""

    net: float
    """Final equity less initial equity: what was really earned."""
    fees: float
    spread: float
    impact: float
    funding_received: float
    """Positive where funding was received, negative where it was paid."""

    @property
    def gross(self) -> float:
        """What the same fills would have earned at mid prices, without fees and funding."""
        return self.net + self.fees + self.spread + self.impact - self.funding_received


@dataclass(frozen=True)
class SourceSkill:
    """How much one source of signals knew: its rank correlation (IC) with what followed, and its quality as in `signal_quality`."""

    name: str
    ic: float
    t_statistic: float
    observations: int
    mean_weight: float
    horizon: str = ""
    quality: Interval = UNMEASURED
    """IC × coverage × freshness."""
    coverage: float = NAN
    """Share of the known outcomes about which it spoke, 0 to 1."""
    freshness: float = NAN
    """Mean of 2^(−age / horizon) over its opinions, 0 to 1."""
    reason: str = ""
    """Why the quality is undefined."""


@dataclass(frozen=True)
class Check:
    """One look-ahead or leak check and what it found; `passed` is None where it was not run."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class RefusalCount:
    """How often a risk rule stopped an order, with the last message it gave and that refusal's event id, for `cryptoalpha explain`."""

    rule: str
    count: int
    example: str = ""
    event: str = ""


@dataclass(frozen=True)
class GateFinding:
    """One kind of fault the bar gate met in one instrument, and what was done about it."""

    instrument: str
    fault: str
    count: int
    action: str


@dataclass(frozen=True)
class Liveness:
    """How many features of a family had data for an asset."""

    family: str
    asset: str
    live: int
    total: int
    note: str = ""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything one run has to show.

    Only `card`, `comparison`, `strategy` and `costs` are needed; a section whose field is None or empty says what is missing and which
    command makes it.

    Args:
        card: origin, window, seed, versions, costs.
        comparison: `monitoring.comparison.compare(strategy, baselines, trials)`.
        strategy: the series that was compared; its daily equity is drawn.
        baselines: those compared, same names and order as in `comparison`.
        costs: gross to net.
        trades: the last fills, oldest first; the report prints at most 200 of them.
        trades_total: how many fills there were in all.
        source_weights: weights of signal sources over time (averaged over instruments), any row spacing.
        position_weights: marked-to-market position weights over time, one column per instrument.
        source_skill: information coefficient per source.
        checks: look-ahead and leak checks.
        refusals: orders stopped, by rule.
        bar_gate: what the bar gate reported; `bar_gate_summary` says it in one line.
        liveness: features that had data, per family and asset.
        risk: what limits did, how their state changed, what is left of them, and alarms.
        tail: value at risk beside what came.
        stress: the largest book under crises, gaps and outages.
        years, regimes: the strategy by calendar year and by state of the market.
        instruments: profit, costs and turnover by instrument.
        deciders: who was in charge, who was heard, and what each stage added.
        notes: sentences a reader must not miss (limits of the data, periods without text, …), printed under the verdict.
    """

    card: RunCard
    comparison: Comparison
    strategy: EquitySeries
    baselines: Mapping[str, EquitySeries]
    costs: CostSplit
    trades: tuple[Trade, ...] = ()
    trades_total: int = 0
    source_weights: WeightHistory | None = None
    position_weights: WeightHistory | None = None
    source_skill: tuple[SourceSkill, ...] = ()
    checks: tuple[Check, ...] = ()
    refusals: tuple[RefusalCount, ...] = ()
    bar_gate: tuple[GateFinding, ...] = ()
    bar_gate_summary: str = ""
    liveness: tuple[Liveness, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    risk: RiskRecord | None = None
    tail: TailStudy | None = None
    stress: StressStudy | None = None
    years: tuple[PeriodRow, ...] = ()
    regimes: tuple[PeriodRow, ...] = ()
    instruments: tuple[InstrumentRow, ...] = ()
    deciders: Deciders | None = None

    def __post_init__(self) -> None:
        compared = tuple(one.name for one in self.comparison.baselines)
        if compared != tuple(self.baselines):
            raise ConfigError(f"the comparison names baselines {compared}, the equity curves {tuple(self.baselines)}")
