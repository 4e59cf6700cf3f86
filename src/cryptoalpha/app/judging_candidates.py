"""How the gates get their evidence: a contender's models are put into the loop, and the engine that trades tells what came of it.

    ground = Ground(settings, dataset, home, candidate, champion, scratch=…, look_at_holdout=…)
    report = promotion_gate(candidate, champion, ground.checks(), settings.lifecycle.gates, now=clock.now)

Candidate and champion are judged over the same days: from the first midnight at which every model of both may answer, to the holdout, which
is the newest `lifecycle.gates.holdout_days`. Each such backtest is entered in the trial ledger before it runs. All looks at overlapping
days count, whatever the data set was called: a day more makes another data set of the same market.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cryptoalpha.app.backtest import BacktestResult, run_backtest, run_identity
from cryptoalpha.app.deciders import model_files
from cryptoalpha.app.locked_days import locked_days, market_of
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.train_all import STEPS, with_models
from cryptoalpha.app.trials import backtest_look, trial_ledger
from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, DataMissingError
from cryptoalpha.core.time import DAY, iso
from cryptoalpha.lifecycle.gates.evidence import (
    AuditFindings,
    Checks,
    Footprint,
    Forecasts,
    HoldoutLook,
    PathReturns,
    ShadowRecord,
    Stretch,
    TrackRecord,
    TrialRecord,
)
from cryptoalpha.lifecycle.gates.values import Contender
from cryptoalpha.lifecycle.recipes.predictions import classes_of
from cryptoalpha.signals.forecast.labels import forecast_labels
from cryptoalpha.signals.tape import SignalTape
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.tables import Dataset

LOOP = "loop"
KINDS = {"forecast": "forecaster"}
"""Kind of a model folder where it differs from the name that the settings give it."""

CountLook = Callable[[str, int, int], int]
"""Counts a look at a holdout for ever: `(market, since, until)` → the how manieth it is (`ModelRegistry.holdout_touches`)."""


def folders_of(contender: Contender) -> dict[str, Path]:
    """The model folders of a contender, by the step that makes such a model.

    Raises:
        ConfigError: if its line is none of models, or nothing lies there.
    """
    if contender.line in STEPS:
        return {contender.line: contender.path}
    if contender.line != LOOP:
        raise ConfigError(f"line {contender.line!r} is judged by nobody", hint=f"lines are {', '.join(STEPS)} and {LOOP}")
    found = {name: contender.path / name for name in STEPS if (contender.path / name / "model.json").is_file()}
    if not found:
        raise ConfigError(f"{contender.path} holds no models", hint="it should be a folder that `cryptoalpha train all` made")
    return found


@dataclass(frozen=True, eq=False)
class Ground:
    """Data and days on which a candidate meets its champion.

    Args:
        settings: what surrounds the contenders' models: the other models of a single line, costs, risk.
        dataset: all data up to now.
        home: where the trial ledger lies.
        scratch: a folder for trainings; what lies there is gone on with.
        look_at_holdout: counts looks; the registry's. None: the holdout cannot be judged.
        instruments: the book; None for all.
    """

    settings: Settings
    dataset: Dataset
    home: Path
    candidate: Contender
    champion: Contender | None
    scratch: Path
    look_at_holdout: CountLook | None = None
    instruments: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The instruments of the book."""
        return self.instruments or tuple(sorted(self.dataset.bars))

    @cached_property
    def judged(self) -> Period:
        """The days that are judged.

        Raises:
            DataMissingError: if there is none between the models' first answers and the holdout.
        """
        contenders = [each for each in (self.candidate, self.champion) if each is not None]
        begin = max(all_answer_from(stretches_of(self.settings_of(each))) for each in contenders)
        interval = self.dataset.bars[self.names[0]].interval  # a bar that opens at midnight is known, and answered, a bar later
        since, until = -(-max(begin - interval, self._first) // DAY) * DAY, self.held_out.since
        if since >= until:
            raise DataMissingError(
                f"models answer from {iso(begin)} on and the holdout begins {iso(until)}: no day is left to be judged",
                hint="train with more folds before the newest days, or set lifecycle.gates.holdout_days lower",
            )
        return Period(since, until)

    @cached_property
    def held_out(self) -> Period:
        """The locked days, the newest whole ones."""
        return locked_days(self.dataset, self.settings.lifecycle.gates.holdout_days, self.names)

    @cached_property
    def open_data(self) -> Dataset:
        """What was known before the holdout began."""
        return self.dataset.known_until(self.held_out.since)

    @property
    def _first(self) -> int:
        return min(int(self.dataset.bars[name].open_time[0]) for name in self.names)

    def settings_of(self, contender: Contender) -> Settings:
        """The loop with this contender's models in it."""
        return with_models(self.settings, folders_of(contender))

    def checks(self) -> Checks:
        """What the gates ask."""
        return Checks(self.evaluate, self.trials, self.paths, self.audit, self.latency, self.shadow, self.holdout)

    def evaluate(self, contender: Contender) -> TrackRecord:
        """Backtest the contender over the judged days, beside the baselines, counted in the ledger."""
        result = self._counted(contender, self.open_data, self.judged)
        daily = result.strategy.daily
        return TrackRecord(
            daily.days,
            daily.returns,
            {name: each.daily.returns for name, each in result.baselines.items()},
            tuple(stretches_of(self.settings_of(contender))),
            f"{self.dataset.origin}, {self.judged}",
            forecasts_of(result.tape, self.settings_of(contender)),
        )

    def trials(self, contender: Contender) -> TrialRecord:
        """Every look at days that overlap, whoever took it. The contender's own is there once it was evaluated."""
        period = self.judged
        looks = trial_ledger(self.home).looks(None, period.since, period.until)
        names, returns = looks.matrix(period.since, period.until)
        return TrialRecord(looks.trials, np.array(looks.sharpes) if looks.sharpes else None, returns if names else None)

    def paths(self, contender: Contender) -> PathReturns:
        """Train the contender's forecaster on every split of combinatorial purged cross-validation."""
        from cryptoalpha.app.judging_paths import path_returns

        return path_returns(self, contender)

    def audit(self, contender: Contender) -> AuditFindings:
        """Remove and poison the future of the contender's own loop, and of the recipes that made it."""
        from cryptoalpha.app.audit import audit, default_path
        from cryptoalpha.app.training_audit import audit_training, cut_moments
        from cryptoalpha.app.training_recipes import LEARN_DAYS, chosen_recipes

        settings, config, seed = self.settings_of(contender), self.settings.lifecycle.gates, self.settings.engine.seed
        window = self.judged.last_bars(self.open_data, config.audit_bars)
        reports = [audit(self.open_data, default_path(settings, window, self.instruments), cuts=config.audit_cuts, seed=seed)]
        if config.audit_training:
            moments = cut_moments(self.open_data, 1, learn_days=LEARN_DAYS)
            recipes = chosen_recipes(self.settings, tuple(folders_of(contender)))
            place = self.scratch / "audit" / contender.id[:12]
            with suppress(FileNotFoundError):
                _emptied(place)
            reports.append(audit_training(self.open_data, recipes, moments, place, seed=seed))
        compared = sum(sum(report.compared.values()) for report in reports)
        return AuditFindings(compared, tuple(str(leak) for report in reports for leak in report.leaks))

    def latency(self, contender: Contender) -> Footprint:
        """Ask the contender for newest bars one by one, in a process of its own."""
        from cryptoalpha.app.judging_shadow import measured_answers

        return measured_answers(self.settings_of(contender), self.dataset, self.names, self.settings.lifecycle.gates.latency_answers)

    def shadow(self, candidate: Contender, champion: Contender | None) -> ShadowRecord:
        """Both over the newest days, bar by bar as they became known."""
        from cryptoalpha.app.judging_shadow import shadow_run

        days = round(self.settings.lifecycle.gates.shadow_days * DAY)
        period = Period(self.held_out.until - days, self.held_out.until)
        beside = None if champion is None else self.settings_of(champion)
        return shadow_run(self.settings_of(candidate), beside, self.dataset, self.names, period)

    def holdout(self, contender: Contender) -> HoldoutLook:
        """The look that is taken once. It is counted before it is taken.

        Raises:
            ConfigError: if nobody counts.
        """
        if self.look_at_holdout is None:
            raise ConfigError("looks at the holdout are not counted here", hint="judge versions of the registry, which counts them")
        touches = self.look_at_holdout(market_of(self.dataset), self.held_out.since, self.held_out.until)
        daily = self._counted(contender, self.dataset, self.held_out).strategy.daily
        return HoldoutLook(touches, daily.returns)

    def _counted(self, contender: Contender, dataset: Dataset, period: Period) -> BacktestResult:
        """A backtest that the ledger knows of before it begins."""
        settings = self.settings_of(contender)
        ledger, look = trial_ledger(self.home), backtest_look(run_identity(settings, dataset, period, self.names))
        look = replace(look, source="gate")
        trials = ledger.enter(look)
        try:
            result = run_backtest(
                settings, dataset, period, run=f"judge-{contender.id[:12]}", journal_path=None, instruments=self.names, trials=trials
            )  # fmt: skip
        except CryptoAlphaError:
            ledger.settle(look, "failed")
            raise
        daily = result.strategy.daily
        ledger.settle(look, "done", first_day=int(daily.days[0]) if len(daily) else None, returns=daily.returns if len(daily) else None)
        return result


def all_answer_from(stretches: Sequence[Stretch]) -> int:
    """The moment (UTC ns) from which every model has a fold that may answer; 0 where nothing was trained."""
    first: dict[str, int] = {}
    for one in stretches:
        first[one.model] = min(one.usable_from, first.get(one.model, one.usable_from))
    return max(first.values(), default=0)


def stretches_of(settings: Settings) -> list[Stretch]:
    """Every fold of every trained model that these settings ask, with the moment from which it may answer."""
    found = []
    for name, file in model_files(settings).items():
        if file.name != "model.json":
            continue  # a head that labelled texts taught: it saw no price
        folder = ModelFolder.open(file.parent, KINDS.get(name, name))
        found += [Stretch(name, fold.answers_from) for fold in folder.folds]
    return found


def forecasts_of(tape: SignalTape, settings: Settings) -> Forecasts | None:
    """What the forecaster said of up, down and sideways over its longest horizon, beside what came; None where none was asked."""
    source = next((each for each in tape.sources if each.source == "forecast"), None)
    if source is None:
        return None
    config = settings.signals.forecast
    logits = np.asarray(source.traces["forecast/direction"], np.float64)[:, :, -1]  # [T, A, 3]
    move = forecast_labels(tape.panel, tape.sigma, config).move[:, :, -1].astype(np.float64)
    classes = classes_of(move, config.sideways)
    rows, places = np.nonzero((classes >= 0) & np.isfinite(logits).all(axis=2))
    chosen = logits[rows, places]
    exponent = np.exp(chosen - chosen.max(axis=1, keepdims=True)) if rows.size else chosen
    shares = exponent / exponent.sum(axis=1, keepdims=True)
    return Forecasts(tape.panel.known_at[rows], shares, classes[rows, places])


def _emptied(place: Path) -> None:
    import shutil

    shutil.rmtree(place)
