"""A loop is what `train all` leaves, without the place where it was trained and without what else lies there."""

from __future__ import annotations

import pytest

from cryptoalpha.core.errors import ModelError

TOLD = {"data": "d", "commit": "c", "config": {}, "seed": 0, "metrics": {}}


def loop(folder, write_model, names=("regime", "forecaster")):
    for name in names:
        write_model(folder / name, name)
    (folder / "cryptoalpha.yaml").write_text("".join(f"{name}: {folder.resolve()}/{name}\n" for name in names))
    (folder / "times.json").write_text("{}")
    (folder / "registry").mkdir()
    (folder / "registry" / "other").write_text("not of the loop")
    return folder


def test_a_loop_holds_its_models_and_settings_and_depends_on_no_place(registry, write_model, tmp_path):
    one = registry.register(loop(tmp_path / "here", write_model), line="loop", **TOLD)
    other = registry.register(loop(tmp_path / "there" / "deeper", write_model), line="loop", **TOLD)
    assert one.id == other.id
    assert {file.name for file in one.files} == {
        "cryptoalpha.yaml", "regime/model.json", "regime/fold_00.safetensors", "regime/fold_01.safetensors",
        "forecaster/model.json", "forecaster/fold_00.safetensors", "forecaster/fold_01.safetensors",
    }  # fmt: skip
    assert (one.path / "cryptoalpha.yaml").read_text() == "regime: VERSION:/regime\nforecaster: VERSION:/forecaster\n"
    assert one.model("regime") == one.path / "regime"
    assert one.model("genome") is None


def test_an_unfinished_loop_is_refused(registry, write_model, tmp_path):
    folder = loop(tmp_path / "loop", write_model)
    (folder / "genome.partial").mkdir()
    with pytest.raises(ModelError, match="interrupted"):
        registry.register(folder, line="loop", **TOLD)
    (folder / "genome.partial").rmdir()
    (folder / "forecaster").rename(folder / "elsewhere")
    with pytest.raises(ModelError, match="lacks forecaster"):
        registry.register(folder, line="loop", **TOLD)
    (folder / "elsewhere").rename(folder / "forecaster")
    (folder / "cryptoalpha.yaml").unlink()
    with pytest.raises(ModelError, match=r"cryptoalpha\.yaml is not there"):
        registry.register(folder, line="loop", **TOLD)
    assert registry.versions() == ()


def test_a_fold_of_a_loop_that_was_exchanged_is_refused(registry, write_model, tmp_path):
    one = registry.register(loop(tmp_path / "loop", write_model), line="loop", **TOLD)
    (one.path / "regime" / "fold_00.safetensors").write_bytes((one.path / "regime" / "fold_01.safetensors").read_bytes())
    with pytest.raises(ModelError, match="regime/fold_00"):
        registry.get(one.id)
