"""Who decided in a backtest, in lines and tables for people: the ablation, fusions in charge, shares of the council, regimes."""

from __future__ import annotations

import numpy as np

from cryptoalpha.app.backtest import BacktestResult
from cryptoalpha.app.decision_record import deciders
from cryptoalpha.app.output import Table
from cryptoalpha.app.report.decision_content import ChargeChange, Deciders, FusionScore, StageRow
from cryptoalpha.core.time import iso
from cryptoalpha.monitoring.bootstrap import Interval

SHOWN_CHANGES = 5
"""The newest changes of charge that are printed; the report has them all."""


def run_deciders(result: BacktestResult) -> Deciders:
    """What a report and `--json` show of who decided."""
    return deciders(result.recorder.deciders, result.recorder.regimes, result.stages, result.missing_stages)


def decision_lines(result: BacktestResult) -> list[str | Table]:
    """The ablation, who was in charge when, and who was heard; nothing where only rules decided."""
    found = run_deciders(result)
    lines: list[str | Table] = []
    if found.stages:
        lines.append(stage_table(found.stages))
        lines += [f"left out: {'; '.join(found.missing_stages)}"] if found.missing_stages else []
    if found.charge:
        shares = ", ".join(f"{one.name} {one.share:.0%} of {sum(each.bars for each in found.charge):,} bars" for one in found.charge)
        lines.append(f"in charge: {shares}")
        older = len(found.changes) - SHOWN_CHANGES
        lines += [f"  {older} earlier changes stand in the report"] if older > 0 else []
        lines += [_change_words(one) for one in found.changes[-SHOWN_CHANGES:]]
    lines += [_score_words(one) for one in found.scores]
    if found.members:
        heard = ", ".join(f"{one.name} {one.mean_share:.0%} (at the end {one.last_share:.0%})" for one in found.members)
        lines.append(f"council, mean shares: {heard}")
    if found.regimes:
        lines.append(f"regimes, mean belief: {', '.join(f'{one.name} {one.share:.0%}' for one in found.regimes)}")
    return lines


def _score_words(one: FusionScore) -> str:
    when = "a day later" if one.stretch == "day" else "at its horizon"
    worth = f"hit rate {_figure(one.hit_rate, '{:.1%}')}, IC {_figure(one.ic, '{:+.3f}')}"
    gain = _figure(one.log_score, "{:+.5f}")
    return f"what was said, judged {when}: {one.judged:,} decisions; lately {worth}, log score over saying nothing {gain}"


def stage_table(stages: tuple[StageRow, ...]) -> Table:
    """The ablation for people: each stage has everything of those above it."""
    columns = ("stage, same tape and costs", "Sharpe", "95 % interval", "return", "max drawdown", "turnover/yr", "costs", "added to Sharpe")
    return Table(columns, [_stage_cells(one) for one in stages])


def _stage_cells(one: StageRow) -> tuple[str, ...]:
    added = "–" if one.added is None else f"{_figure(one.added.estimate, '{:+.2f}')} [{_bounds(one.added)}]"
    return (
        one.name,
        _figure(one.sharpe.estimate, "{:.2f}"),
        _bounds(one.sharpe),
        f"{one.total_return:+.1%}",
        _figure(one.max_drawdown.estimate, "{:.1%}"),
        _figure(one.turnover, "{:.1f}"),
        _figure(one.costs, "{:.1%}"),
        added,
    )


def _bounds(interval: Interval) -> str:
    return "–" if np.isnan(interval.low) else f"{interval.low:+.2f} … {interval.high:+.2f}"


def _figure(value: float, form: str) -> str:
    return "–" if np.isnan(value) else form.format(value)


def _change_words(one: ChargeChange) -> str:
    return f"  since {iso(one.time)}: {one.name}, {one.reason}"
