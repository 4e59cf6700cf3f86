"""The audit of training: the real recipe of regimes passes, a recipe that peeks is caught, however little it saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.train_all import STEPS
from cryptoalpha.app.training_audit import JUDGED_DAYS, Recipe, audit_training, cut_moments
from cryptoalpha.app.training_recipes import LEARN_DAYS, chosen_recipes
from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.alphazero.config import ScenarioName
from cryptoalpha.learn.splits.labels import Indices
from cryptoalpha.lifecycle.recipes.agent_fold import Rows32, States
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.model_folder import write_fold, write_folder
from cryptoalpha.store.tables import Dataset


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=24 * 90), 5).dataset


def mean_recipe(seen_until: Callable[[Dataset, int], int]) -> Recipe:
    """A model that is the mean close of everything known by `seen_until(dataset, usable_from)`."""

    def train(dataset: Dataset, moment: int, out: Path) -> None:
        until = seen_until(dataset, moment)
        table = next(iter(dataset.bars.values()))
        mean = np.array([table.close[table.known_at <= until].mean()])
        out.mkdir(parents=True)
        fold = write_fold(out, 0, {"mean": mean}, {"usable_from": moment}, kind="mean")
        write_folder(out, kind="mean", description={}, lineage={}, folds=[fold])

    return Recipe("mean", train)


def end_of(dataset: Dataset) -> int:
    return int(next(iter(dataset.bars.values())).known_at[-1])


def test_a_recipe_that_stops_at_its_moment_is_clean(market: Dataset, tmp_path: Path) -> None:
    moments = cut_moments(market, 2, learn_days=LEARN_DAYS)
    told: list[int] = []
    found = audit_training(market, [mean_recipe(lambda data, moment: moment)], moments, tmp_path, advance=told.append)
    assert found.is_clean
    assert found.compared == {"training mean": 4}  # one number, two moments, two ways
    assert sum(told) == 6


def test_a_fold_that_may_be_used_only_later_may_know_more(market: Dataset, tmp_path: Path) -> None:
    (moment,) = cut_moments(market, 1, learn_days=LEARN_DAYS)

    def train(dataset: Dataset, at: int, out: Path) -> None:
        out.mkdir(parents=True)
        table, folds = next(iter(dataset.bars.values())), []
        for number, until in enumerate((at, at + 2 * DAY)):
            mean = np.array([table.close[table.known_at <= until].mean()])
            folds.append(write_fold(out, number, {"mean": mean}, {"usable_from": until}, kind="mean"))
        write_folder(out, kind="mean", description={}, lineage={}, folds=folds)

    assert audit_training(market, [Recipe("mean", train)], [moment], tmp_path).leaks == []


def test_one_bar_too_many_is_found_by_poison(market: Dataset, tmp_path: Path) -> None:
    (moment,) = cut_moments(market, 1, learn_days=LEARN_DAYS)
    found = audit_training(market, [mean_recipe(lambda data, at: at + 3_600_000_000_000)], [moment], tmp_path)
    assert [(leak.mode, leak.what) for leak in found.leaks] == [("poison", "training mean, fold_00.safetensors: mean")]


def test_a_scaler_over_all_of_history_is_found_both_ways(market: Dataset, tmp_path: Path) -> None:
    (moment,) = cut_moments(market, 1, learn_days=LEARN_DAYS)
    found = audit_training(market, [mean_recipe(lambda data, at: end_of(data))], [moment], tmp_path)
    assert {leak.mode for leak in found.leaks} == {"remove", "poison"}


def test_a_recipe_that_breaks_off_on_garbage_is_not_clean(market: Dataset, tmp_path: Path) -> None:
    honest = mean_recipe(lambda data, moment: moment).train

    def train(dataset: Dataset, moment: int, out: Path) -> None:
        if float(next(iter(dataset.bars.values())).close[-1]) != float(next(iter(market.bars.values())).close[-1]):
            raise DataError("absurd prices")
        honest(dataset, moment, out)

    found = audit_training(market, [Recipe("mean", train)], cut_moments(market, 1, learn_days=LEARN_DAYS), tmp_path)
    assert len(found.leaks) == 2
    assert all("broke off with DataError" in leak.what for leak in found.leaks)


def test_moments_leave_room_to_learn_before_and_to_judge_after(market: Dataset) -> None:
    first, second = cut_moments(market, 2, learn_days=LEARN_DAYS)
    assert second - first == JUDGED_DAYS * DAY
    assert end_of(market) - second >= JUDGED_DAYS * DAY
    with pytest.raises(ConfigError, match="too short for 4 cuts"):
        cut_moments(market, 4, learn_days=LEARN_DAYS)
    with pytest.raises(ConfigError, match="at least one moment"):
        audit_training(market, [], [], Path())


def test_recipes_are_chosen_by_name_in_the_order_they_build_on_each_other() -> None:
    assert [recipe.kind for recipe in chosen_recipes(Settings())] == list(STEPS)
    assert [recipe.kind for recipe in chosen_recipes(Settings(), ("agent", "regime"))] == ["regime", "agent"]
    with pytest.raises(ConfigError, match="horoscope"):
        chosen_recipes(Settings(), ("horoscope",))


@pytest.mark.slow
def test_every_recipe_learns_from_the_past_alone(tmp_path: Path) -> None:
    market = simulate(SimulatedConfig(assets=3, bars=24 * 640), 1).dataset
    found = audit_training(market, chosen_recipes(Settings()), cut_moments(market, 2, learn_days=LEARN_DAYS), tmp_path)
    assert [str(leak) for leak in found.leaks] == []
    assert set(found.compared) == {f"training {name}" for name in STEPS}


@pytest.mark.slow
def test_lessons_from_later_bars_are_found_although_no_value_function_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value functions that their gate refuses leave no array; what they were taught from shows in losses and gates."""
    market = simulate(SimulatedConfig(assets=2, bars=24 * 80), 9).dataset
    settings = Settings().model_copy(update={"signals": SignalsConfig(sources=("momentum_short",), keep_features=False)})
    honest = States.of

    def peeking(self: States, name: ScenarioName, chosen: Indices) -> Rows32:
        return honest(self, name, np.minimum(chosen + 24 * 12, self.first + len(self.rows[name]) - 1))

    monkeypatch.setattr(States, "of", peeking)
    found = audit_training(market, chosen_recipes(settings, ("agent",)), cut_moments(market, 1, learn_days=LEARN_DAYS), tmp_path)
    assert [(leak.mode, leak.what) for leak in found.leaks] == [("poison", "training agent, fold_00.safetensors: state learned")]
