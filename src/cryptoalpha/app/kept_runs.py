"""Backtests that are kept: run, measured, and written to `runs/{id}/` as journal, numbers, settings and the content of the report.

A run's name is made of its identity, so the same run twice replaces itself. Reports are rendered from the stored content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.app.audit import AuditReport
from cryptoalpha.app.backtest import BacktestResult, Progress, run_backtest, run_identity
from cryptoalpha.app.deciders import has_learned
from cryptoalpha.app.output import plain
from cryptoalpha.app.period import Period
from cryptoalpha.app.report.build import build_report
from cryptoalpha.app.report.content import ReportContent
from cryptoalpha.app.report.storage import dump_content, load_content
from cryptoalpha.app.run_settings import differing_settings, keep_settings
from cryptoalpha.app.runs import CONTENT, JOURNAL, METRICS, REPORT, digest_of, find_run, list_runs, new_run
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.summary import as_dict, report_content
from cryptoalpha.app.trials import backtest_look, trial_ledger
from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import day_of
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole


@dataclass(frozen=True)
class KeptRun:
    """A finished run and where it lies."""

    result: BacktestResult
    place: Path


def run_and_keep(
    settings: Settings,
    dataset: Dataset,
    period: Period,
    home: Path,
    *,
    instruments: Sequence[str] | None,
    name: str | None,
    elsewhere: int,
    command: str,
    replace: bool = False,
    audited: AuditReport | None = None,
    advance: Progress | None = None,
    ablation: bool | None = None,
) -> KeptRun:
    """Backtest and keep the run.

    Args:
        name: what to call it; made from its identity where None.
        elsewhere: trials made on these data that the ledger does not know.
        command: the command line that repeats it.
        ablation: whether to tell what each stage of deciding added; None: where anything learned decides.
        replace: whether a run of that name with other data, period or settings may be overwritten.

    Raises:
        ConfigError: if a different run of that name is kept already.
    """
    names = tuple(instruments) if instruments is not None else tuple(sorted(dataset.bars))
    identity = run_identity(settings, dataset, period, names)
    run = name or f"backtest-{day_of(period.since)}-{day_of(period.until)}-{digest_of(identity)[:8]}"
    if name is not None and not replace:
        _refuse_to_overwrite(home, run, identity, settings)
    ledger, look = trial_ledger(home), backtest_look(identity)
    with new_run(home, run) as draft:
        trials = ledger.enter(look) + elsewhere
        result = run_backtest(
            settings, dataset, period, run=run, journal_path=draft / JOURNAL, instruments=names, trials=trials, advance=advance,
            ablation=has_learned(settings) if ablation is None else ablation,
        )  # fmt: skip
        daily = result.strategy.daily
        ledger.settle(look, "done", first_day=int(daily.days[0]) if len(daily) else None, returns=daily.returns if len(daily) else None)
        content = report_content(result, command=command, audited=audited)
        (draft / CONTENT).write_bytes(dump_content(content))
        write_whole(draft / METRICS, json.dumps(plain(as_dict(result)), indent=2, ensure_ascii=False))
        keep_settings(draft, settings)
        write_whole(draft / REPORT, build_report(content))
    return KeptRun(result, find_run(home, run))


def _refuse_to_overwrite(home: Path, run: str, identity: Mapping[str, str], settings: Settings) -> None:
    if run not in list_runs(home):
        return
    with JournalReader(find_run(home, run) / JOURNAL) as journal:
        kept = journal.header
    differing = sorted(key for key in {*kept, *identity} if kept.get(key) != identity.get(key))
    if differing:
        details = f": {', '.join(told)}" if (told := differing_settings(find_run(home, run), settings)) else ""
        raise ConfigError(
            f"the run {run!r} is kept already and differs in {', '.join(differing)}{details}", hint="choose another --run, or leave it away"
        )


def stored_content(home: Path, run: str | None) -> ReportContent:
    """What the report of a run is made of; of the newest backtest where no run is named.

    Raises:
        DataMissingError: if there is no such run, or it was not a backtest.
    """
    if run is None:
        run = next((name for name in reversed(list_runs(home)) if (home / "runs" / name / CONTENT).is_file()), None)
    place = find_run(home, run)
    if not (place / CONTENT).is_file():
        raise DataMissingError(f"run {place.name} keeps no report content", hint="only backtests do; `cryptoalpha backtest` makes one")
    return load_content((place / CONTENT).read_bytes())
