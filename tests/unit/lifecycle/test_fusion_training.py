"""Training of the fusion end to end on a small made-up market: whole folders, the same bits after a kill, nothing from ahead."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.guided import EVOLVED, GuidedFusion, TrainedFolder, open_fusion
from cryptoalpha.decisions.fusion.learning_config import FusionLearningConfig, FusionOnlineConfig
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.searched import SearchedFusion
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes import fusion_fold
from cryptoalpha.lifecycle.recipes.forecaster import Period
from cryptoalpha.lifecycle.recipes.fusion import FusionPlan, _identity, train_fusion
from cryptoalpha.lifecycle.recipes.fusion_evolving import evolve_settings, settings_of
from cryptoalpha.lifecycle.recipes.fusion_fold import is_kept
from cryptoalpha.lifecycle.recipes.fusion_judging import TRAINED, beside, judge_fusion
from cryptoalpha.lifecycle.recipes.fusion_walk import coarse, columns_of, steps_of, walk
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig

SIGNALS = SignalsConfig(sources=("momentum_short", "volatility"))
FUSION = FusionConfig(search=SearchConfig(simulations=8), learning=FusionLearningConfig(passes=2, batch=64))
TRAIN = TrainConfig(test_days=6, train_days=24, expanding=True, processes=1, evolve_generations=1, validation_share=0.2, accept_share=0.25)
PLAN = FusionPlan(SIGNALS, FUSION, TRAIN, seed=3)
TWO = Period(folds=2)


@pytest.fixture(scope="module")
def market():
    return simulate(SimulatedConfig(assets=2, bars=24 * 44), 1).dataset


@pytest.fixture(scope="module")
def trained(market, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("fusion") / "model"
    train_fusion(PLAN, market, TWO, place)
    return place


@pytest.fixture(scope="module")
def tape(market):
    return SignalBook(SIGNALS).prepare(market, since=0, until=2**62)


def content(place):
    return json.loads((place / "model.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_folder_says_where_it_comes_from_and_what_it_is_worth(trained, market):
    found = content(trained)
    assert [fold["file"] for fold in found["folds"]] == ["fold_00.safetensors", "fold_01.safetensors"]
    assert found["lineage"]["stride_bars"] == 4
    assert set(found["lineage"]["judgement"]["scores"]["score"]) == {"trained", "search", "ridge", "hedge", "equal"}
    assert "Whatever it says here" in found["lineage"]["verdict"]["words"]
    assert "<h2>training</h2>" in (trained / "report.html").read_text(encoding="utf-8")
    again = train_fusion(PLAN, market, TWO, trained)
    assert again.already
    assert len(again.tables()) == 5
    assert len(again.lines()) == 4
    with pytest.raises(ConfigError):
        train_fusion(dataclasses.replace(PLAN, seed=4), market, TWO, trained)


def test_a_training_is_told_from_one_that_heard_another_model_under_the_same_path(market, tape):
    source = dataclasses.replace(tape.sources[0], value=tape.sources[0].value.copy())
    source.value[-1, 0] = np.nextafter(source.value[-1, 0], 1.0)
    other = dataclasses.replace(tape, sources=(source, *tape.sources[1:]))
    assert _identity(PLAN, market, (), tape) == _identity(PLAN, market, (), dataclasses.replace(tape))
    assert _identity(PLAN, market, (), tape) != _identity(PLAN, market, (), other)


class KilledError(Exception):
    """In place of a power cut."""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["after a pass", "while evolving", "before the result"])
def test_a_training_that_is_killed_goes_on_to_the_same_bits(trained, market, tmp_path, monkeypatch, at):
    place = tmp_path / "model"
    with monkeypatch.context() as patched:
        if at == "after a pass":
            whole = fusion_fold.write_arrays

            def cut(path, arrays, state, *, kind):
                whole(path, arrays, state, kind=kind)
                if kind == fusion_fold.LEARNED and path.name == "learned_01.safetensors":
                    raise KilledError

            patched.setattr(fusion_fold, "write_arrays", cut)
        else:
            name = "_evolved" if at == "while evolving" else "_walked"

            def stop(*given):
                raise KilledError

            patched.setattr(fusion_fold, name, stop)
        with pytest.raises(KilledError):
            train_fusion(PLAN, market, TWO, place)
    assert not place.exists()
    train_fusion(PLAN, market, TWO, place)
    assert content(place) == content(trained)  # the digests of the folds, too


@pytest.mark.slow
def test_what_comes_after_a_folds_past_changes_nothing_in_it(trained, market, tmp_path):
    """Most of the last fold's test stretch is cut off: the fold before it is the same file, bit for bit."""
    last = content(trained)["folds"][1]["usable_from"]
    place = tmp_path / "model"
    first = content(trained)["folds"][0]
    train_fusion(PLAN, market, Period(until=last + DAY // 2, test_since=first["usable_from"], test_until=last, folds=None), place)
    assert content(place)["folds"][0]["sha256"] == first["sha256"]


@pytest.mark.slow
def test_a_run_takes_each_fold_over_when_it_may_answer_and_refuses_another_fusion(trained, tape):
    config = FUSION.model_copy(update={"learning": FusionLearningConfig(passes=2, batch=64, model=str(trained))})
    fusion = open_fusion(config, seed=0, live=False)
    assert isinstance(fusion, GuidedFusion)
    folder = TrainedFolder(trained, config)
    moments = [fold.usable_from for fold in folder.folder.folds]
    steps = steps_of(tape, 1)
    around = [step for step in steps if any(abs(step.at - moment) < DAY // 6 for moment in moments)]
    seen = {}
    for step in around:
        places = range(len(step.states)), range(len(step.signals))
        fusion.fuse(step.at, step.states, step.signals, state_events=places[0], signal_events=places[1])
        seen[step.at] = fusion.search.version
    fold = [folder.fold(number) for number in range(2)]
    for at, version in seen.items():
        number = sum(at >= moment for moment in moments) - 1
        assert version == ("" if number < 0 else fold[number].version)
    assert {at < moments[0] for at in seen} == {True, False}
    fusion.close()
    assert folder.folder.description["interval"] == tape.panel.interval
    with pytest.raises(ModelError):
        TrainedFolder(trained, config.model_copy(update={"horizon_bars": 12}))


@pytest.mark.slow
def test_a_run_that_learns_beside_itself_is_the_same_run_when_replayed(tape, tmp_path):
    online = FusionOnlineConfig(enabled=True, every_bars=48, delay_bars=6, rehearsed=1)
    config = coarse(FUSION, 4).model_copy(update={"online": online})
    steps = steps_of(tape, 4)[:130]
    journals, said = [], []
    for place in ("one", "two"):
        fusion = open_fusion(config, seed=0, live=False, place=tmp_path / place, say=said.append)
        journal = []
        for step in steps:
            places = range(len(step.states)), range(len(step.signals))
            fused = fusion.fuse(step.at, step.states, step.signals, state_events=places[0], signal_events=places[1])
            journal.append((fused, fusion.search))
        fusion.close()
        journals.append(journal)
    assert journals[0] == journals[1]
    assert len(said) == 4
    assert said[:2] == said[2:]


def test_steps_are_bars_of_several_hours_at_fixed_moments(tape):
    steps = steps_of(tape, 4)
    interval = tape.panel.interval
    assert {step.states[0].happened_at - step.at for step in steps} == {-4 * interval}
    assert {(step.states[0].happened_at // interval) % 4 for step in steps} == {0}
    config = coarse(FUSION, 4)
    assert (config.horizon_bars, config.half_life_bars, config.search.half_life_bars) == (6, 2190.0, 2190.0)
    with pytest.raises(ConfigError):
        coarse(FUSION, 5)


def test_judged_is_what_numpy_says_of_what_matured(tape):
    config = coarse(FUSION, 4)
    matured = walk(SearchedFusion(config, seed=0), steps_of(tape, 4))
    columns = columns_of(matured)
    outcomes = np.concatenate([one.outcomes[np.isfinite(one.outcomes)] for one in matured])
    random = stream(0, "made up")
    made_up = [
        dataclasses.replace(
            one, predictions=np.where(np.arange(4)[:, None] == 0, one.outcomes + random.normal(size=one.outcomes.shape), 0.1)
        )
        for one in matured
    ]
    judged = judge_fusion(beside(columns_of(made_up), columns), horizon=6, resamples=100)
    known = np.concatenate([one.predictions[0][np.isfinite(one.outcomes)] for one in made_up])
    assert judged.scores["ic"][TRAINED].estimate == pytest.approx(np.corrcoef(known, outcomes)[0, 1])
    assert judged.scores["score"]["ridge"].estimate == pytest.approx(np.mean([one.scores[1] for one in matured]))
    assert "look for a leak" in judged.verdict()["audit_first"]  # an IC of 0.7 is too good to be true
    reversed_ = [dataclasses.replace(one, predictions=-one.predictions) for one in made_up]
    wrong = judge_fusion(beside(columns_of(reversed_), columns), horizon=6, resamples=100).verdict()
    assert "its IC is shown to be below zero" in wrong["words"]


def test_a_network_is_kept_if_it_earned_more_and_is_worse_in_nothing(tape):
    columns = columns_of(walk(SearchedFusion(coarse(FUSION, 4), seed=0), steps_of(tape, 4)))
    better = {**columns, "reward": columns["reward"] + 1e-4}
    worse = {**columns, "reward": columns["reward"] - 1e-4}
    surely_worse = {**better, "search score": columns["search score"] - 1e-3}
    kept = [is_kept(judge_fusion(beside(one, columns), horizon=6, resamples=100)) for one in (better, columns, worse, surely_worse)]
    assert kept == [True, False, False, False]


def test_evolution_finds_a_known_optimum_and_keeps_nothing_that_does_worse(tmp_path):
    base = SearchConfig()

    def goal(config):
        return -(math.log(config.delta / 0.2) ** 2) - math.log(config.prior_ic / 0.03) ** 2

    factors, done = evolve_settings(base, goal, goal, generations=25, seed=0, checkpoint=tmp_path / "evolution")
    assert goal(settings_of(base, factors)) > 0.25 * goal(base)  # both are below zero: three quarters of the way
    assert done["accept_after"] > done["accept_before"]
    worse, undone = evolve_settings(
        base, goal, lambda config: 0.0 if config == base else -1.0, generations=3, seed=0, checkpoint=tmp_path / "undone"
    )
    assert worse == [0.0] * len(EVOLVED)
    assert undone["kept"] == 0
    nothing, _ = evolve_settings(base, goal, lambda config: -math.inf, generations=3, seed=0, checkpoint=tmp_path / "none")
    assert nothing == [0.0] * len(EVOLVED)
