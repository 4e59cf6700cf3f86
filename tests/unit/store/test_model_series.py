"""Models that follow each other in one folder: who answers when, what a run that uses them sees, and what is refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import SECOND
from cryptoalpha.store.model_folder import ModelFolder, folder_digest, write_fold, write_folder
from cryptoalpha.store.model_series import AHEAD_SECONDS, extend_series

AHEAD = round(AHEAD_SECONDS * SECOND)
T = 10_000 * SECOND


def model(place: Path, moments: list[int], mark: float, **description: object) -> ModelFolder:
    """A folder whose folds hold their mark and their number."""
    place.mkdir(parents=True)
    folds = [write_fold(place, n, {"w": np.array([mark, n])}, {"usable_from": at}, kind="genome") for n, at in enumerate(moments)]
    return write_folder(place, kind="genome", description={"width": 8, **description}, lineage={"seed": mark}, folds=folds)


def answered(folder: ModelFolder, moment: int) -> list[float] | None:
    number = int(folder.numbers_at(np.array([moment]))[0])
    return None if number < 0 else folder.read(number).arrays["w"].tolist()


def test_a_bar_is_answered_by_who_was_in_charge_when_it_became_known(tmp_path):
    first, second = model(tmp_path / "a", [100, 200], 1.0), model(tmp_path / "b", [150, 300, T + 5 * AHEAD], 2.0)
    place = tmp_path / "series" / "genome"
    begun = extend_series(place, first, member="a", now=T)
    assert [answered(begun, at) for at in (99, 100, 200, 10**18)] == [None, [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    grown = extend_series(place, second, member="b", now=T)
    over = T + AHEAD
    assert [answered(grown, at) for at in (99, 100, 299, over - 1)] == [None, [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    assert [answered(grown, at) for at in (over, T + 5 * AHEAD - 1, T + 5 * AHEAD)] == [[2.0, 1.0], [2.0, 1.0], [2.0, 2.0]]
    back = extend_series(place, first, member="a", now=T + 7 * AHEAD)
    assert answered(back, T + 8 * AHEAD - 1) == [2.0, 2.0]
    assert answered(back, T + 8 * AHEAD) == [1.0, 1.0]
    assert [one["member"] for one in back.lineage["members"]] == ["a", "b", "a"]


def test_who_uses_it_sees_what_was_added_and_keeps_its_numbers_and_the_run_its_identity(tmp_path):
    first, second = model(tmp_path / "a", [100], 1.0), model(tmp_path / "b", [100], 2.0)
    place = tmp_path / "series"
    used = extend_series(place, first, member="a", now=T)
    assert used.refreshed() is used
    before = folder_digest(place / "model.json")
    extend_series(place, second, member="b", now=T)
    now = used.refreshed()
    assert now.folds[:1] == used.folds
    assert len(now.folds) == 2
    assert now.refreshed() is now
    assert folder_digest(place / "model.json") == before
    assert first.refreshed() is first  # no series: a model that is trained anew in its place does not change a run that uses it
    other = extend_series(tmp_path / "other", second, member="b", now=T)
    assert folder_digest(other.path / "model.json") != before


def test_the_model_in_charge_follows_itself_only_once(tmp_path):
    first = model(tmp_path / "a", [100], 1.0)
    place = tmp_path / "series"
    begun = extend_series(place, first, member="a", now=T)
    assert extend_series(place, first, member="a", now=2 * T).folds == begun.folds


def test_another_design_or_a_moment_that_is_taken_is_refused_and_nothing_changes(tmp_path):
    first, second = model(tmp_path / "a", [100], 1.0), model(tmp_path / "b", [100], 2.0)
    place = tmp_path / "series"
    extend_series(place, first, member="a", now=T)
    content = (place / "model.json").read_bytes()
    with pytest.raises(ModelError, match="another design") as refused:
        extend_series(place, model(tmp_path / "c", [100], 3.0, width=16), member="c", now=T)
    assert "series of its own" in refused.value.hint
    assert (place / "model.json").read_bytes() == content
    extend_series(place, second, member="b", now=T)
    with pytest.raises(ModelError, match="already goes on with another"):
        extend_series(place, first, member="a", now=T - 1)


def test_a_series_that_was_rewritten_under_its_user_is_refused(tmp_path):
    place = tmp_path / "series"
    used = extend_series(place, model(tmp_path / "a", [100], 1.0), member="a", now=T)
    content = json.loads((place / "model.json").read_text())
    content["folds"][0]["usable_from"] = content["folds"][0]["takes_over"] = 101
    (place / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="may only grow"):
        used.refreshed()
    (place / "model.json").unlink()
    with pytest.raises(ModelError, match="cannot be read any more"):
        used.refreshed()


def test_a_fold_never_answers_before_it_may_be_used(tmp_path):
    place = model(tmp_path / "a", [100], 1.0).path
    content = json.loads((place / "model.json").read_text())
    content["folds"][0]["takes_over"] = 99
    (place / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="before it may be used"):
        ModelFolder.open(place, "genome")


def test_a_home_that_is_moved_takes_its_series_along(tmp_path):
    home = tmp_path / "home"
    extend_series(home / "series", model(home / "a", [100], 1.0), member="a", now=T)
    home.rename(tmp_path / "moved")
    assert answered(ModelFolder.open(tmp_path / "moved" / "series", "genome"), 100) == [1.0, 0.0]


def test_of_many_who_extend_at_once_each_is_written_or_told(tmp_path):
    models = [model(tmp_path / str(n), [100], float(n)) for n in range(8)]
    place, refused = tmp_path / "series", []

    def extend(number: int) -> None:
        try:
            extend_series(place, models[number], member=str(number), now=T + number)
        except ModelError:
            refused.append(number)

    threads = [threading.Thread(target=extend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    members = [one["member"] for one in ModelFolder.open(place, "genome").lineage["members"]]
    assert sorted([*members, *map(str, refused)]) == [str(number) for number in range(8)]


@given(takeovers=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), max_size=6), asked=st.lists(st.integers(0, 500), max_size=20))
def test_growing_never_changes_what_was_answered(tmp_path_factory, takeovers, asked):
    root = tmp_path_factory.mktemp("growing")
    models = [model(root / str(n), [100 * n + 10, 100 * n + 120], float(n)) for n in range(3)]
    place, now = root / "series", T
    folder = extend_series(place, models[0], member="0", now=now)
    moments = [at * AHEAD // 5 + T - AHEAD for at in asked] + list(range(0, 400, 40))
    for chosen, later in takeovers:
        now += AHEAD * later // 10
        before = {at: answered(folder, at) for at in moments if at < now + AHEAD}
        try:
            extend_series(place, models[chosen], member=str(chosen), now=now)
        except ModelError:
            continue
        folder = folder.refreshed()
        assert {at: answered(folder, at) for at in before} == before
        assert answered(folder, now + AHEAD + 400) == [float(chosen), 1.0]
