"""A backtest: the engine that trades live, fed with history, and everything needed to doubt its result.

Signals are computed in causal batches ahead of the loop (`SignalBook`); the loop itself sees one bar at a time. The result carries the
baselines on the same bars and costs, a random signal of equal turnover, intervals, and how many variants have been tried on these data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np

from cryptoalpha import __version__
from cryptoalpha.app.ablation import Ablation
from cryptoalpha.app.baselines import WARMUP_DAYS, baseline_weights, shifted_copies
from cryptoalpha.app.book import build_engine, show_the_past, tape_steps, warm_up
from cryptoalpha.app.deciders import model_files
from cryptoalpha.app.engine import Engine, Step, StepOutcome
from cryptoalpha.app.held_out import held_out_notes
from cryptoalpha.app.marks import newest_marks
from cryptoalpha.app.period import Period
from cryptoalpha.app.recorder import Recorder
from cryptoalpha.app.report.content import SourceSkill
from cryptoalpha.app.report.decision_content import StageRow
from cryptoalpha.app.report.risk_content import InstrumentRow, StressStudy, TailStudy
from cryptoalpha.app.result_tables import by_instrument, by_regime, by_year
from cryptoalpha.app.runs import digest_of
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.skill import mean_source_weights, source_skill
from cryptoalpha.app.stress_study import study_stress
from cryptoalpha.app.tail_study import study_tails
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import AccountingError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR, interval_name
from cryptoalpha.decisions.council.council import Learner
from cryptoalpha.execution.broker import funding_by_bar
from cryptoalpha.execution.vectorised import WeightsRun, simulate_weights
from cryptoalpha.monitoring.comparison import Comparison, EquitySeries, compare
from cryptoalpha.monitoring.period_tables import PeriodRow
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.model_folder import folder_digest
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import Dataset, Floats

RANDOM_SIGNAL = "random signal of equal turnover"
RANDOM_COPIES = 20
"""How many time-shifted copies of the strategy make up the random signal."""

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """What a run did and what it is worth. Weights and returns are fractions, costs are in quote currency."""

    run: str
    dataset: Dataset
    period: Period
    settings: Settings
    panel: Panel
    recorder: Recorder
    comparison: Comparison
    strategy: EquitySeries
    baselines: dict[str, EquitySeries]
    weights: Floats
    """Marked-to-market position weights, `[T, A]`."""
    turnover: float
    """Share of the book traded per year: half of what was bought and sold, over mean equity."""
    trials: int
    digest: str
    tape: SignalTape
    seconds: dict[str, float]
    stages: tuple[StageRow, ...] = ()
    """What each stage of deciding added; empty where no ablation was asked for."""
    missing_stages: tuple[str, ...] = ()

    @property
    def instruments(self) -> tuple[str, ...]:
        return self.panel.instruments

    @cached_property
    def tails(self) -> TailStudy:
        """Value at risk of each instrument and of the book, beside what came."""
        judged, config = self.recorder.judged, self.settings.risk.tail
        return study_tails(self.dataset, self.instruments, self.period, self.strategy.daily, judged, config)

    @cached_property
    def stress(self) -> StressStudy:
        """What crises, gaps and outages would have cost the largest book."""
        equity = self.recorder.equity_array()
        return study_stress(self.dataset, self.instruments, self.recorder.time_array(), self.weights, equity)

    @cached_property
    def source_skill(self) -> tuple[SourceSkill, ...]:
        """How much each source knew."""
        return source_skill(self.tape, mean_source_weights(self.recorder), seed=self.settings.engine.seed)

    @cached_property
    def years(self) -> tuple[PeriodRow, ...]:
        return by_year(self.strategy.daily, self.settings.engine.seed)

    @cached_property
    def regimes(self) -> tuple[PeriodRow, ...]:
        seed = self.settings.engine.seed
        return by_regime(self.dataset, self.instruments, self.strategy.daily, self.recorder.regimes, seed)

    @cached_property
    def by_instrument(self) -> tuple[InstrumentRow, ...]:
        return by_instrument(self.recorder, _years(self.panel))


def run_identity(settings: Settings, dataset: Dataset, period: Period, instruments: Sequence[str]) -> dict[str, str]:
    """What makes a run the run it is: the header of its journal. Same identity, same journal."""
    return {
        "data": dataset.fingerprint,
        "since": str(period.since),
        "until": str(period.until),
        "interval": ",".join(sorted({interval_name(dataset.bars[name].interval) for name in instruments if name in dataset.bars})),
        "instruments": ",".join(instruments),
        "config": digest_of(decisive_settings(settings)),
        "seed": str(settings.engine.seed),
        "version": __version__,
    }


OPERATIONAL = {"execution": ("allow_live", "live"), "agent": ("league",)}
"""Settings of decisive sections that decide nothing in a run: how a venue is asked and watched (the journal's rows hold what came of it,
and whoever looks after a live run must be able to change a time limit), and how `train agent --league` plays."""


def decisive_settings(settings: Settings) -> dict[str, object]:
    """The settings that can change what a run does. How files are read belongs to them: a data set's hash names its bytes, not when they
    count as known."""
    sections = {name: getattr(settings, name) for name in ("signals", "fusion", "agent", "risk", "execution")}
    sections |= {"data.files": settings.data.files, "store.bar_gate": settings.store.bar_gate}
    sections["monitoring.drift"] = settings.monitoring.drift  # its alarms are journaled
    decisive: dict[str, object] = {
        name: section.model_dump(mode="json", exclude=set(OPERATIONAL.get(name, ()))) for name, section in sections.items()
    }
    models = model_hashes(settings)
    return {**decisive, "models": models} if models else decisive


def model_hashes(settings: Settings) -> dict[str, str]:
    """SHA-256 of what describes each trained model that is asked, by setting: a path may hold another model tomorrow.

    A folder's `model.json` holds the hashes of its folds; a series of models stays the one it is as it grows. A file that is not there is
    left to whoever opens the model.
    """
    return {name: folder_digest(file) for name, file in model_files(settings).items() if file.is_file()}


def run_backtest(
    settings: Settings,
    dataset: Dataset,
    period: Period,
    *,
    run: str,
    journal_path: Path | None,
    instruments: Sequence[str] | None = None,
    trials: int = 1,
    book: SignalBook | None = None,
    advance: Progress | None = None,
    ablation: bool = False,
) -> BacktestResult:
    """Replay `period` and measure what came of it.

    Args:
        journal_path: where the journal goes; None keeps it in memory.
        trials: variants of the strategy tried on these data so far, this one included.
        book: asks these sources instead of the configured ones.
        advance: told of every step taken.
        ablation: also run the stages that lead up to this run, beside it (`app.ablation`).

    Raises:
        DataMissingError: if the period has no bars.
        AccountingError: if not every bar given was processed.
    """
    started = perf_counter()
    book = book or SignalBook(settings.signals)
    tape = book.prepare(dataset, since=period.since, until=period.until, instruments=instruments)
    prepared, panel, recorder = perf_counter(), tape.panel, Recorder(tape.panel.instruments)
    beside, digest = _loop(settings, dataset, period, tape, book, recorder, journal_path, advance, ablation=ablation)
    looped, staged = perf_counter(), 0.0 if beside is None else beside.seconds
    weights = recorder.position_weights()
    strategy = own_series(settings, recorder, panel)
    stages = () if beside is None else beside.finish(strategy, _years(panel))
    baselines = run_baselines(settings, dataset, panel, weights)
    comparison = _compared(settings, recorder, compare(strategy, baselines, trials, seed=settings.engine.seed))
    seconds = {"signals": prepared - started, "loop": looped - prepared - staged, "evaluation": perf_counter() - looped}
    return BacktestResult(
        run=run,
        dataset=dataset,
        period=period,
        settings=settings,
        panel=panel,
        recorder=recorder,
        comparison=comparison,
        strategy=strategy,
        baselines=baselines,
        weights=weights,
        turnover=strategy.turnover,
        trials=trials,
        digest=digest,
        tape=tape,
        seconds=seconds if beside is None else {**seconds, "ablation": staged},
        stages=stages,
        missing_stages=() if beside is None else tuple(beside.missing),
    )


def _loop(
    settings: Settings,
    dataset: Dataset,
    period: Period,
    tape: SignalTape,
    book: SignalBook,
    recorder: Recorder,
    journal_path: Path | None,
    advance: Progress | None,
    *,
    ablation: bool,
) -> tuple[Ablation | None, str]:
    """Take every step of the tape; returns the stages that ran beside it, and the digest of the journal."""
    names, clock = tape.panel.instruments, VirtualClock()
    identity = run_identity(settings, dataset, period, names)
    account = digest_of(identity)[:8]  # not the run's name: it enters order ids, and a run by another name is the same run
    place = None if journal_path is None else journal_path.parent
    with Journal(journal_path, durable=False, header=identity) as journal:
        engine = build_engine(
            settings, dataset, names, clock=clock, journal=journal, auto_trading=True, account=account, place=place
        )  # fmt: skip
        with closing(engine):
            beside = Ablation(settings, dataset, names, clock) if ablation else None
            learn_before(settings, dataset, period, names, engine, book=book, beside=beside)
            steps = engine.run(tape_steps(tape, dataset, clock), _watcher(recorder, advance, beside))
        digest = journal.digest()
    if steps != len(tape.panel):
        raise AccountingError(
            f"{steps} of {len(tape.panel)} bars were processed; the result would be of another period than the one asked for"
        )
    return beside, digest


def _compared(settings: Settings, recorder: Recorder, comparison: Comparison) -> Comparison:
    """The comparison, whose verdict says first where the run was kept out of the market."""
    notes = held_out_notes(recorder, no_trade_band=settings.risk.no_trade_band, quote=settings.execution.quote)
    return dataclasses.replace(comparison, verdict=" ".join((*notes, comparison.verdict)))


def own_series(settings: Settings, recorder: Recorder, panel: Panel) -> EquitySeries:
    """The strategy's own equity curve, with what it paid and how much it traded."""
    initial = settings.execution.initial_cash
    return EquitySeries.of_marks(
        f"{settings.fusion.method} fusion",
        *newest_marks(recorder.time_array(), recorder.equity_array()),
        initial,
        costs=_costs(recorder) / initial,
        turnover=_turnover(recorder, panel),
    )


def learn_before(
    settings: Settings,
    dataset: Dataset,
    period: Period,
    instruments: Sequence[str],
    engine: Engine,
    *,
    book: SignalBook | None = None,
    beside: Ablation | None = None,
) -> None:
    """Show an engine what the data hold of the days before the period; there may be nothing. The gate remembers the market, a fusion that
    learns is warmed up, agents fill their pools; stages that run `beside` see the same. `book` as in `run_backtest`."""
    gates, agents = [engine.gate], [engine.agent]
    if beside is not None:
        gates, agents = [*gates, *beside.gates], [*agents, *beside.agents]
    for gate in gates:
        show_the_past(gate, dataset, period.since, instruments)
    learners = [agent for agent in agents if isinstance(agent, Learner)]
    days = settings.fusion.warmup_days if settings.fusion.method != "equal" or learners else 0.0
    since = period.since - int(days * DAY)
    opened = [dataset.bars[name].open_time for name in instruments]
    first = [int(times[np.searchsorted(times, since)]) for times in opened if len(times) and times[-1] >= since]
    if first and min(first) < period.since:
        book = book or SignalBook(settings.signals)
        warm_up(engine.fusion, book.prepare(dataset, since=min(first), until=period.since, instruments=instruments), learners)


def _watcher(recorder: Recorder, advance: Progress | None, beside: Ablation | None) -> Callable[[Step, StepOutcome], None]:
    if advance is None and beside is None:
        return recorder.watch

    def watch(step: Step, outcome: StepOutcome) -> None:
        recorder.watch(step, outcome)
        if beside is not None:
            beside.step(step, outcome)
        if advance is not None:
            advance(1)

    return watch


def _costs(recorder: Recorder) -> float:
    """Fees, spread and impact paid less funding received."""
    paid = sum(float(fill.fee + fill.spread_cost + fill.impact_cost) for fill in recorder.fills)
    return paid - sum(float(payment.amount) for payment in recorder.funding)


def _turnover(recorder: Recorder, panel: Panel) -> float:
    """Half of what was bought and sold per year, over mean equity."""
    traded = sum(float(fill.quantity * fill.price) for fill in recorder.fills)
    return 0.5 * traded / float(np.mean(recorder.equity)) / _years(panel)


def _years(panel: Panel) -> float:
    """From the first open to the last close."""
    return len(panel) * panel.interval / (DAYS_PER_YEAR * DAY)


def run_baselines(settings: Settings, dataset: Dataset, panel: Panel, own_weights: Floats) -> dict[str, EquitySeries]:
    """Every baseline on the same bars, with the same costs. `own_weights` `[T, A]` feed the random signal of equal turnover."""
    since = int(panel.open_time[0]) - WARMUP_DAYS * DAY
    until = int(panel.open_time[-1]) + panel.interval
    history = build_panel(dataset, since=since, until=until, instruments=panel.instruments)
    funding, initial = funding_by_bar(panel, dataset), settings.execution.initial_cash

    def run(weights: Floats) -> WeightsRun:
        return simulate_weights(panel, weights, settings.execution, funding=funding, band=settings.risk.no_trade_band)

    weights = baseline_weights(history, first_row=len(history) - len(panel))
    found = {name: as_series(name, panel, run(one), initial) for name, one in weights.items()}
    copies = shifted_copies(own_weights, RANDOM_COPIES, stream(settings.engine.seed, "random signal"))
    found[RANDOM_SIGNAL] = as_series(RANDOM_SIGNAL, panel, median_run([run(one) for one in copies]), initial)
    return found


def as_series(name: str, panel: Panel, ran: WeightsRun, initial: float) -> EquitySeries:
    """The equity curve of a vectorised run."""
    paid = float((ran.fees + ran.spread + ran.impact - ran.funding).sum())
    turnover = 0.5 * float(ran.traded.sum()) / float(ran.equity.mean()) / _years(panel)
    return EquitySeries.of_marks(name, *newest_marks(panel.known_at, ran.equity), initial, costs=paid / initial, turnover=turnover)


def median_run(runs: Sequence[WeightsRun]) -> WeightsRun:
    """The run whose final equity is the median of all: one honest path instead of an average, which would diversify luck away."""
    return sorted(runs, key=lambda ran: float(ran.equity[-1]))[len(runs) // 2]
