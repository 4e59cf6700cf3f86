"""What a workshop says of the model that lies where a training would end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.recipes.workshop import Workshop
from cryptoalpha.store.model_folder import write_fold, write_folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    out = tmp_path / "model"
    out.mkdir()
    fold = write_fold(out, 0, {"weight": np.ones(3)}, {"usable_from": 7}, kind="genome")
    write_folder(out, kind="genome", description={}, lineage={"identity": "this one"}, folds=[fold])
    return out


def test_a_whole_model_tells_its_lineage(model: Path):
    assert Workshop(model).finished("genome") == {"identity": "this one"}


@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x")])
def test_a_model_with_a_missing_or_changed_fold_is_not_called_done_and_may_be_replaced(model: Path, harm):
    harm(model / "fold_00.safetensors")
    with pytest.raises(ConfigError, match="holds a damaged genome") as refused:
        Workshop(model).finished("genome")
    assert "--fresh" in refused.value.hint
    assert Workshop(model).finished("genome", fresh=True) == {"identity": "this one"}


def test_a_model_of_another_kind_is_left_alone_even_then(model: Path):
    with pytest.raises(ConfigError, match="exists and is no forecaster"):
        Workshop(model).finished("forecaster", fresh=True)
