"""A version that was copied out of its registry, as pods are given it: served under its own id, or not at all."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from cryptoalpha.core.errors import ModelError
from cryptoalpha.lifecycle.registry.registry import ModelRegistry
from cryptoalpha.lifecycle.serving.versions import find_folder
from cryptoalpha.store.model_folder import write_fold, write_folder


@pytest.fixture
def copied(tmp_path):
    """The folder of a copy, and the version it is of."""
    model = tmp_path / "model"
    folds = [write_fold(model, 0, {"weights": np.ones(4)}, {"usable_from": 100}, kind="forecaster")]
    lineage = {"identity": {"data": "d", "seed": 0, "settings": {}}}
    write_folder(model, kind="forecaster", description={"width": 4}, lineage=lineage, folds=folds)
    registry = ModelRegistry(tmp_path / "registry", now=lambda: 1_000)
    version = registry.register(model, line="forecaster", data="d" * 64, commit="c", config={}, seed=0, metrics={})
    return shutil.copytree(version.path, tmp_path / "served" / version.id), version


def test_a_copy_is_the_version_it_was_copied_from(copied):
    copy, version = copied
    found = find_folder(str(copy))
    assert (found.id, found.folder) == (version.id, copy.resolve())


def test_a_copy_with_a_changed_a_missing_or_a_further_file_is_refused(copied):
    copy, _ = copied
    weights = next(path for path in copy.iterdir() if path.suffix == ".safetensors")
    whole = weights.read_bytes()
    weights.chmod(0o644)
    copy.chmod(0o755)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError):
        find_folder(str(copy))
    weights.unlink()
    with pytest.raises(ModelError):
        find_folder(str(copy))
    weights.write_bytes(whole)
    (copy / "further").write_text("x")
    with pytest.raises(ModelError):
        find_folder(str(copy))
