"""The promotion gate: each gate refuses for its own reason, the report names it, and the holdout stays closed until all others passed."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError, ModelError, ValidationFailedError
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.gates.config import GateConfig
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
from cryptoalpha.lifecycle.gates.gate import promotion_gate
from cryptoalpha.lifecycle.gates.values import GATES, Entrant, GateReport, GateResult

YEAR = 365.25
CONFIG = GateConfig(resamples=300)
CANDIDATE, CHAMPION = Entrant("candidate-of-64-digits", "loop", Path("a")), Entrant("champion-of-64-digits", "loop", Path("b"))
DAYS = 730


def earning(sharpe: float, seed: int, days: int = DAYS) -> np.ndarray:
    """Daily returns whose Sharpe ratio is exactly this."""
    noise = np.random.default_rng(seed).standard_normal(days)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    return 0.01 * (noise + sharpe / sqrt(365))


class World:
    """A candidate that passes everything; tests spoil one thing at a time."""

    def __init__(self) -> None:
        self.days = DAY * np.arange(DAYS, dtype=np.int64)
        own = earning(4.0, 1)
        self.own = TrackRecord(self.days, own, {"hold": earning(0.3, 2), "trend": earning(0.0, 3)}, (Stretch("forecast", 0),), "data")
        self.theirs = TrackRecord(self.days, earning(0.2, 4), {}, (Stretch("forecast", 0),), "data")
        noise = np.stack([earning(0.0, 10 + n) for n in range(4)], axis=1)
        self.tried = TrialRecord(5, None, np.column_stack((own, noise)))
        self.path_returns = PathReturns(np.stack([earning(2.0, 20 + n) for n in range(5)]), 15)
        self.leaks = AuditFindings(1_000, ())
        self.footprint = Footprint(np.full(200, 0.02), 300 * 2**20)
        self.shadowed = ShadowRecord(336, 0, 0, np.full(336, 0.03), disagreements=12)
        self.look = HoldoutLook(1, earning(1.0, 30, 90))
        self.asked: list[str] = []

    def bring(self, name: str, value: object) -> object:
        self.asked.append(name)
        if isinstance(value, Exception):
            raise value
        return value

    def checks(self) -> Checks:
        return Checks(
            evaluate=lambda who: self.bring("evaluate", self.own if who is CANDIDATE else self.theirs),
            trials=lambda _: self.bring("trials", self.tried),
            paths=lambda _: self.bring("paths", self.path_returns),
            audit=lambda _: self.bring("audit", self.leaks),
            latency=lambda _: self.bring("latency", self.footprint),
            shadow=lambda *_: self.bring("shadow", self.shadowed),
            holdout=lambda _: self.bring("holdout", self.look),
        )

    def judged(self, config: GateConfig = CONFIG, *, champion: Entrant | None = CHAMPION) -> GateReport:
        return promotion_gate(CANDIDATE, champion, self.checks(), config, now=lambda: 77)


@pytest.fixture
def world() -> World:
    return World()


def test_who_proves_everything_passes_and_is_asked_for_each_thing_once(world):
    report = world.judged()
    assert report.passed, report.lines()
    assert report.refused_by == ()
    assert [result.name for result in report.results] == list(GATES)
    assert sorted(world.asked) == ["audit", "evaluate", "evaluate", "holdout", "latency", "paths", "shadow", "trials"]
    assert (report.candidate, report.champion, report.judged_at, report.data) == (CANDIDATE.id, CHAMPION.id, 77, "data")
    report.require()


def test_with_no_champion_only_the_baselines_must_be_beaten(world):
    report = world.judged(champion=None)
    assert report.passed
    assert report.of("champion").words == "there is no champion to beat"
    assert world.asked.count("evaluate") == 1


ALL = CONFIG.model_copy(update={"stop_at_first": False})


@pytest.mark.parametrize(
    ("gate", "spoil", "said"),
    [
        ("look_ahead", {"leaks": AuditFindings(10, ("signal forecast: 3 rows changed",))}, "a leak: signal forecast"),
        ("look_ahead", {"leaks": AuditFindings(0, ())}, "compared nothing"),
        ("paths", {"path_returns": PathReturns(np.stack([earning(s, 40) for s in (-1, -0.5, 1, 1, 1)]), 15)}, "-1.00, -0.50, +1.00"),
        ("paths", {"path_returns": ConfigError("no forecaster to train")}, "ConfigError: no forecaster"),
        ("deflated_sharpe", {"tried": TrialRecord(10**9, np.linspace(-0.4, 0.4, 9), World().tried.returns)}, "the best of 1000000000"),
        ("overfitting", {"tried": TrialRecord(5)}, "5 trials were counted, but returns are kept of 0"),
        ("overfitting", {"tried": TrialRecord(9, None, np.stack([earning(0.0, 50 + n) for n in range(9)], axis=1))}, "halvings"),
        ("champion", {"theirs": replace(World().theirs, returns=earning(4.5, 5))}, "less the champion's"),
        ("baselines", {"own": replace(World().own, baselines={"hold": earning(4.5, 2)})}, "does not beat hold"),
        ("baselines", {"own": replace(World().own, baselines={})}, "no baselines"),
        ("latency", {"footprint": Footprint(np.r_[np.full(190, 0.02), np.full(10, 0.2)], 2**20)}, "p99 200.0 ms"),
        ("latency", {"footprint": Footprint(np.full(20, 0.02), 2**20)}, "20 answers were timed, 200 are asked"),
        ("memory", {"footprint": Footprint(np.full(200, 0.02), 3 * 2**30)}, "3,072 MiB"),
        ("shadow_parity", {"shadowed": ShadowRecord(336, 1, 0, np.full(336, 0.03), first_mismatch="BTC: .1, .2")}, "1 of 336 decisions"),
        ("shadow_parity", {"shadowed": ShadowRecord(9, 0, 0, np.full(336, 0.03))}, "9 decisions"),
        ("shadow_parity", {"shadowed": ShadowRecord(336, 0, 2, np.full(336, 0.03), first_mismatch="ModelError: NaN")}, "ModelError: NaN"),
        ("shadow_latency", {"shadowed": ShadowRecord(336, 0, 0, np.full(336, 0.15))}, "p99 150.0 ms"),
        ("holdout", {"look": HoldoutLook(2, earning(3.0, 30, 90))}, "look 2 at the holdout"),
        ("holdout", {"look": HoldoutLook(1, earning(-5.0, 30, 90))}, "90 held out days"),
        ("holdout", {"look": HoldoutLook(1, np.zeros(90))}, "did not trade"),
    ],
)  # fmt: skip
def test_one_thing_spoiled_refuses_by_its_own_gate_alone(world, gate, spoil, said):
    vars(world).update(spoil)
    report = world.judged(ALL)
    closed = () if gate == "holdout" else ("holdout",)
    assert report.refused_by == (gate, *closed), report.lines()
    assert said in report.of(gate).words
    assert said in report.words()
    assert report.asks_for_search == (gate != "holdout" and report.of(gate).passed is False)
    assert not report.passed
    with pytest.raises(ValidationFailedError, match=f"refused by {gate}") as caught:
        report.require()
    assert caught.value.exit_code == 6


def test_a_champion_judged_on_other_days_is_no_comparison(world):
    world.theirs = replace(world.theirs, days=world.theirs.days + DAY)
    report = world.judged(ALL)
    assert report.refused_by == ("champion", "calibration", "holdout")
    assert report.of("champion").passed is None
    assert not report.asks_for_search  # no settings mend that
    assert "refused by champion" in report.words()
    assert report.words().endswith("; also by calibration") == (report.of("calibration").passed is False)
    assert "was judged on 1970-01-02 to" in report.of("champion").words


def test_too_short_a_record_is_refused_whatever_it_earned(world):
    """120 days of Sharpe 6 would convince every probability; the walk forward asks for 180."""
    short = slice(0, 120)
    own = replace(
        world.own, days=world.days[short], returns=earning(6.0, 1, 120), baselines={"hold": earning(0.0, 2, 120)}
    )  # fmt: skip
    world.own, world.theirs = own, replace(world.theirs, days=world.days[short], returns=earning(0.0, 4, 120))
    world.tried = TrialRecord(1)
    report = world.judged(ALL)
    assert report.refused_by == ("walk_forward", "holdout")
    assert report.of("walk_forward").words == "120 judged days, of which 180 are asked"


def test_days_that_a_model_had_learned_from_are_no_evidence(world):
    world.own = replace(world.own, stretches=(Stretch("forecast", 0), Stretch("genome", 40 * DAY)))
    found = world.judged(ALL).of("walk_forward")
    assert found.passed is None
    assert "genome may answer only from 1970-02-10" in found.words


def test_the_holdout_stays_closed_and_later_gates_unasked_once_one_refused(world):
    world.leaks = AuditFindings(10, ("a leak",))
    report = world.judged()
    assert world.asked == ["audit"]
    assert report.of("paths").words == "not asked: look_ahead had refused"
    assert report.of("holdout").words == "left untouched: look_ahead had refused"
    world.asked.clear()
    world.judged(ALL)
    assert "paths" in world.asked
    assert "holdout" not in world.asked


def test_a_gate_that_is_not_required_is_told_and_does_not_refuse(world):
    world.footprint = Footprint(np.full(200, 0.5), 2**20)
    required = tuple(name for name in GATES if name not in ("latency", "holdout"))
    report = world.judged(CONFIG.model_copy(update={"required": required}))
    assert report.passed
    assert report.of("latency").passed is False
    assert "holdout" not in world.asked  # nobody spends a look for nothing
    assert not replace(report, results=()).passed


def test_evidence_that_cannot_be_brought_refuses_every_gate_that_needs_it_with_its_words(world):
    world.own = ModelError("fold 2 answered NaN")
    report = world.judged(ALL)
    needing = {"walk_forward", "deflated_sharpe", "track_record", "champion", "baselines", "calibration", "holdout"}
    assert set(report.refused_by) == needing
    assert report.of("walk_forward").words == "ModelError: fold 2 answered NaN"
    assert world.asked.count("evaluate") <= 2  # the error is remembered


def test_a_bug_is_no_refusal(world):
    world.leaks = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        world.judged()


def forecasts(shares: list[float], outcomes: np.ndarray) -> Forecasts:
    return Forecasts(np.arange(outcomes.size, dtype=np.int64), np.tile(shares, (outcomes.size, 1)), outcomes)


def test_worse_probabilities_are_refused_and_the_difference_is_the_one_worked_out(world):
    """Outcomes half up, half down. Champion says ½, ½: Brier .5. Candidate says .8, .2: ½(.08) + ½(1.28) = .68, .18 worse."""
    outcomes = np.tile([0, 1], 500)
    world.own, world.theirs = (
        replace(world.own, forecasts=forecasts([0.8, 0.2], outcomes)), replace(world.theirs, forecasts=forecasts([0.5, 0.5], outcomes))
    )  # fmt: skip
    report = world.judged(ALL)
    assert report.refused_by == ("calibration", "holdout")
    found = report.of("calibration")
    assert "Brier score 0.6800, +0.1800" in found.words
    assert found.statistic == pytest.approx(0.18, abs=0.03)
    assert found.bound == 0.01


def test_the_champions_own_probabilities_pass_and_other_questions_cannot_be_compared(world):
    outcomes = np.tile([0, 1], 500)
    same = forecasts([0.6, 0.4], outcomes)
    world.own, world.theirs = replace(world.own, forecasts=same), replace(world.theirs, forecasts=same)
    assert world.judged().of("calibration").statistic == 0.0
    world.theirs = replace(world.theirs, forecasts=forecasts([0.6, 0.4], outcomes[::-1]))
    assert world.judged().of("calibration").passed is None
    world.own = replace(world.own, forecasts=None)
    assert "candidate none" in world.judged().of("calibration").words


def test_without_a_champion_probabilities_must_hold_against_the_shares_that_came_true(world):
    """Three quarters up. Saying so is the constant itself; saying ½ loses: .5 against 2 · ¾ · ¼ = .375."""
    outcomes = np.tile([0, 0, 0, 1], 250)
    world.own = replace(world.own, forecasts=forecasts([0.75, 0.25], outcomes))
    assert world.judged(champion=None).of("calibration").statistic == pytest.approx(0.0, abs=1e-12)
    world.own = replace(world.own, forecasts=forecasts([0.5, 0.5], outcomes))
    found = world.judged(champion=None).of("calibration")
    assert found.passed is False
    assert "+0.1250" in found.words


def test_a_report_travels_as_json_and_does_not_lie(world):
    world.path_returns = ConfigError("no forecaster")
    report = world.judged(ALL)
    told = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert GateReport.from_dict(told).as_dict() == told
    with pytest.raises(DataError, match="says passed=True"):
        GateReport.from_dict({**told, "passed": True})
    with pytest.raises(DataError, match="no gate report"):
        GateReport.from_dict({**told, "results": [{"name": "charm", "passed": True, "relation": "="}]})
    with pytest.raises(DataError, match="format 9"):
        GateReport.from_dict({**told, "format": 9})


def test_nan_never_passes():
    result = GateResult("memory", None, float("nan"), "≤", float("nan"), "unknown")
    assert not GateReport("a", "loop", None, 0, "", (result,)).passed
    assert result.as_dict()["statistic"] is None
