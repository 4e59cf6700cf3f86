"""The demo in three acts: a market with a planted edge, one of pure noise, and real data, each judged against baselines.

Acts one and two run on simulated markets whose truth is known. The oracle of act one knows each bar's true expected return and trades it
through the same agent, risk gate and costs; the strategy's share of its information coefficient and of its Sharpe ratio is what was
recovered. Act three is real data; nothing about it was tuned here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryptoalpha.app.backtest import BacktestResult, run_backtest
from cryptoalpha.app.kept_runs import run_and_keep
from cryptoalpha.app.output import Table
from cryptoalpha.app.period import Period, period_of
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.sources import open_dataset
from cryptoalpha.app.summary import as_dict, tables
from cryptoalpha.core.time import DAY
from cryptoalpha.data.sample import load_sample
from cryptoalpha.data.simulated import SimulatedMarket, simulate
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.frame import Frame, squash_all
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.home import Home
from cryptoalpha.store.tables import Dataset

LEARNING_DAYS = 365
"""Days of a simulated market that the fusion learns on before an act begins."""

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Recovery:
    """How much of a planted edge the strategy recovered, net of costs, on the same bars."""

    oracle_ic: float
    strategy_ic: float
    oracle_sharpe: float
    strategy_sharpe: float

    @property
    def ic_share(self) -> float:
        return self.strategy_ic / self.oracle_ic

    @property
    def sharpe_share(self) -> float:
        return self.strategy_sharpe / self.oracle_sharpe

    def as_dict(self) -> dict[str, float]:
        return {
            "oracle_ic": self.oracle_ic,
            "strategy_ic": self.strategy_ic,
            "ic_share": self.ic_share,
            "oracle_sharpe": self.oracle_sharpe,
            "strategy_sharpe": self.strategy_sharpe,
            "sharpe_share": self.sharpe_share,
        }


@dataclass(frozen=True, eq=False)
class Act:
    """One act: its title, its run, what it says, and where its report lies."""

    title: str
    result: BacktestResult
    lines: tuple[str | Table, ...]
    extra: dict[str, object]
    report: Path

    def as_dict(self) -> dict[str, object]:
        return {"title": self.title, **self.extra, "report": str(self.report), **as_dict(self.result)}


class Oracle:
    """A source that knows the simulated market's truth: the direction the best possible forecaster would give.

    Its value is what the ridge would say if it knew the planted weights: `tanh(IC · z / scale)`.
    """

    source = "oracle"
    type = "model"
    horizon = DAY

    def __init__(self, market: SimulatedMarket, scale: float) -> None:
        self._market, self._scale = market, scale

    def reach(self, interval: int) -> int:
        return 0

    def compute(self, frame: Frame) -> Opinions:
        rows = np.searchsorted(self._market.known_at, frame.panel.known_at)
        z = self._market.oracle_direction[rows]
        value = squash_all(self._market.oracle_ic * z / self._scale)
        return opinions(frame, value, np.ones_like(value), self._market.oracle_ic * z)


def for_simulation(settings: Settings, *, pure_noise: bool) -> Settings:
    """Settings of an act on a simulated market: perpetuals, so both directions are traded and funding is paid."""
    return settings.model_copy(
        update={
            "data": settings.data.model_copy(update={"simulated": settings.data.simulated.model_copy(update={"pure_noise": pure_noise})}),
            "agent": settings.agent.model_copy(update={"long_only": False}),
            "risk": settings.risk.model_copy(update={"allow_short": True}),
        }
    )


def planted_act(settings: Settings, home: Path, say: Say) -> Act:
    """Act one."""
    chosen = for_simulation(settings, pure_noise=False)
    say("act 1 of 3: a simulated market with a planted edge …")
    market = simulate(chosen.data.simulated, chosen.engine.seed)
    period = _after_learning(market.dataset)
    kept = run_and_keep(
        chosen, market.dataset, period, home, instruments=None, name="demo-planted", replace=True, elsewhere=0, command="cryptoalpha demo"
    )
    found = recovery(chosen, market, period, kept.result)
    words = (
        f"Planted edge: IC {found.oracle_ic:.3f} over {market.config.horizon_bars} bars for the oracle. The strategy's fused direction has "
        f"{found.strategy_ic:.3f} ({found.ic_share:.0%}), its Sharpe ratio after costs is {found.strategy_sharpe:.2f} against the oracle's "
        f"{found.oracle_sharpe:.2f} ({found.sharpe_share:.0%})."
    )
    lines = (*tables(kept.result), words)
    return Act("a market with a planted edge", kept.result, lines, {"recovery": found.as_dict()}, kept.place / "report.html")


def noise_act(settings: Settings, home: Path, say: Say) -> Act:
    """Act two."""
    chosen = for_simulation(settings, pure_noise=True)
    say("act 2 of 3: the same market without any edge …")
    market = simulate(chosen.data.simulated, chosen.engine.seed)
    kept = run_and_keep(
        chosen, market.dataset, _after_learning(market.dataset), home, instruments=None, name="demo-noise", replace=True, elsewhere=0,
        command="cryptoalpha demo",
    )  # fmt: skip
    own = kept.result.comparison.strategy
    exposure = float(np.abs(kept.result.weights).sum(axis=1).mean())
    words = (
        f"Nothing was planted. Mean exposure {exposure:.1%}, {len(kept.result.recorder.fills)} fills, "
        f"result {own.total_return:+.2%} over {own.days} days after costs."
    )
    extra: dict[str, object] = {"mean_exposure": exposure, "total_return": own.total_return}
    return Act("a market of pure noise", kept.result, (*tables(kept.result), words), extra, kept.place / "report.html")


def real_act(settings: Settings, home: Path, dataset: Dataset, period: Period, say: Say, *, command: str) -> Act:
    """Act three, on data that `real_data` found."""
    say(f"act 3 of 3: {dataset.origin} …")
    quotes = {rule.quote for rule in dataset.rules.values()}
    chosen = settings
    if len(quotes) == 1:
        chosen = settings.model_copy(update={"execution": settings.execution.model_copy(update={"quote": quotes.pop()})})
    kept = run_and_keep(chosen, dataset, period, home, instruments=None, name="demo-real", replace=True, elsewhere=0, command=command)
    words = [f"  {one.words}" for one in kept.result.comparison.differences]
    return Act("real data", kept.result, (*tables(kept.result), *words), {}, kept.place / "report.html")


def real_data(settings: Settings, home: Path, data: Path | None, interval: str) -> Dataset:
    """A named directory, else what the store holds, else the packaged sample of daily Bitcoin bars."""
    if data is not None or Home(home).manifest.exists():
        return open_dataset(settings, home, data=data, simulated=False, interval=interval, instruments=None)
    return load_sample(BarGate(settings.store.bar_gate), interval="1d")


def for_interval(settings: Settings, dataset: Dataset) -> Settings:
    """Settings whose bar counts keep their meaning in days when bars are days rather than hours."""
    if {table.interval for table in dataset.bars.values()} != {DAY}:
        return settings
    fusion = settings.fusion.model_copy(update={"horizon_bars": 7, "half_life_bars": 365.0})
    agent = settings.agent.model_copy(update={"smoothing_half_life_bars": 2.0})
    risk = settings.risk.model_copy(update={"max_state_age_minutes": 3 * 24 * 60.0, "max_position": settings.risk.max_gross})
    return settings.model_copy(update={"fusion": fusion, "agent": agent, "risk": risk})


def recovery(settings: Settings, market: SimulatedMarket, period: Period, result: BacktestResult) -> Recovery:
    """The oracle's run on the same bars, and the shares of it."""
    informed = settings.model_copy(update={"fusion": settings.fusion.model_copy(update={"method": "equal"})})
    oracle = run_backtest(
        informed,
        market.dataset,
        period,
        run="oracle",
        journal_path=None,
        book=SignalBook(models=[Oracle(market, settings.fusion.ridge_scale)]),
    )
    rows = np.searchsorted(market.known_at, result.panel.known_at)
    return Recovery(
        oracle_ic=market.realised_ic(rows=rows),
        strategy_ic=market.realised_ic(result.recorder.directions(), rows),
        oracle_sharpe=oracle.comparison.strategy.sharpe.estimate,
        strategy_sharpe=result.comparison.strategy.sharpe.estimate,
    )


def _after_learning(dataset: Dataset) -> Period:
    whole = period_of(dataset, None, None)
    return Period(whole.since + LEARNING_DAYS * DAY, whole.until)
