"""Folders of trained models: which fold answers when, and everything that is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.store.model_folder import ModelFolder, refuse_other, write_fold, write_folder


@pytest.fixture
def folder(tmp_path):
    """Two folds of a genome, given in the wrong order."""
    folds = [write_fold(tmp_path, n, {"w": np.full(3, float(n))}, {"usable_from": at}, kind="genome") for n, at in ((0, 200), (1, 100))]
    write_folder(tmp_path, kind="genome", description={"width": (8, 4)}, lineage={"seed": 7}, folds=folds)
    return tmp_path


def test_a_folder_gives_back_what_was_written(folder):
    opened = ModelFolder.open(folder, "genome")
    assert opened.description == {"width": [8, 4]}
    assert opened.lineage == {"seed": 7}
    assert [fold.file for fold in opened.folds] == ["fold_01.safetensors", "fold_00.safetensors"]
    assert opened.read(0).arrays["w"].tolist() == [1.0, 1.0, 1.0]
    assert sorted(path.name for path in folder.iterdir()) == ["fold_00.safetensors", "fold_01.safetensors", "model.json"]


def test_a_bar_is_answered_by_the_newest_fold_that_may_be_used(folder):
    opened = ModelFolder.open(folder, "genome")
    assert opened.numbers_at(np.array([0, 99, 100, 199, 200, 10**18])).tolist() == [-1, -1, 0, 0, 1, 1]
    assert opened.numbers_at(np.array([[99, 100], [200, 199]])).tolist() == [[-1, 0], [1, 0]]


def test_no_folder_says_how_to_make_one(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"no trained model") as refused:
            ModelFolder.open(path, "forecaster")
        assert "cryptoalpha train forecaster" in refused.value.hint


def test_another_kind_is_refused(folder):
    with pytest.raises(ConfigError, match="kind 'genome', expected 'forecaster'"):
        ModelFolder.open(folder, "forecaster")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "format 2"),
        ("folds", [], "damaged"),
        ("folds", [{"file": "fold_00.safetensors"}], "damaged"),
        ("description", None, "damaged"),
        ("lineage", 3, "damaged"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(key, value, message, folder):
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(ModelError, match=message):
        ModelFolder.open(folder, "genome")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', "\x00"])
def test_a_description_that_cannot_be_read_is_refused(text, folder):
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelError, match="damaged"):
        ModelFolder.open(folder, "genome")


def test_folds_in_the_wrong_order_are_refused(folder):
    content = json.loads((folder / "model.json").read_text())
    content["folds"].reverse()
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="one after the other"):
        ModelFolder.open(folder, "genome")


def test_a_damaged_missing_or_exchanged_fold_is_refused(folder):
    opened = ModelFolder.open(folder, "genome")
    first, second = folder / "fold_00.safetensors", folder / "fold_01.safetensors"
    kept = second.read_bytes()
    second.write_bytes(kept[:-1])
    with pytest.raises(ModelError, match="damaged"):
        opened.read(0)
    second.write_bytes(first.read_bytes())  # a sound file, but not this one
    with pytest.raises(ModelError, match=re.escape("not the file that")):
        opened.read(0)
    second.unlink()
    with pytest.raises(ModelError, match="does not exist"):
        opened.read(0)


def test_a_fold_of_another_kind_or_moment_is_refused(folder):
    content = json.loads((folder / "model.json").read_text())
    other = write_fold(folder, 1, {"w": np.zeros(3)}, {"usable_from": 100}, kind="forecaster")
    content["folds"][0]["sha256"] = other.sha256
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="forecaster fold"):
        ModelFolder.open(folder, "genome").read(0)
    other = write_fold(folder, 1, {"w": np.zeros(3)}, {"usable_from": 50}, kind="genome")
    content["folds"][0]["sha256"] = other.sha256
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=re.escape("may be used from 50, model.json says 100")):
        ModelFolder.open(folder, "genome").read(0)


def test_folds_must_take_over_at_different_moments(tmp_path):
    fold = write_fold(tmp_path, 0, {}, {"usable_from": 1}, kind="genome")
    for folds in ([], [fold, fold]):
        with pytest.raises(ConfigError, match="different moments"):
            write_folder(tmp_path, kind="genome", description={}, lineage={}, folds=folds)
    with pytest.raises(ConfigError, match="from when on"):
        write_fold(tmp_path, 0, {}, {}, kind="genome")


def test_every_difference_is_named():
    refuse_other("m", {"a": [1, 2], "b": "x", "more": 1}, {"a": (1, 2), "b": "x"}, kind="genome")
    with pytest.raises(ModelError, match=r'm does not fit: a is \[1, 3\], trained with \[1, 2\]; c is "y", trained with null') as refused:
        refuse_other("m", {"a": [1, 2], "b": "x"}, {"a": (1, 3), "b": "x", "c": "y"}, kind="genome")
    assert "cryptoalpha train genome" in refused.value.hint
