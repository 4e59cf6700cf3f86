"""Series of champions: what a run uses that follows them, and whose files it still needs."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import SECOND
from cryptoalpha.lifecycle.registry.following import follow, in_use
from cryptoalpha.store.model_folder import ModelFolder, write_fold, write_folder

MINUTE = 60 * SECOND


def test_a_series_has_the_champions_in_their_order_each_from_a_minute_after_it_was_seen(registry, registered, tmp_path):
    root, first, second = tmp_path / "champion", registered(1.0), registered(2.0)
    place = follow(root, first, now=lambda: 500)["forecaster"]
    for version, now in ((second, 1_000), (second, 2_000), (first, 10 * MINUTE)):
        assert follow(root, version, now=lambda now=now: now) == {"forecaster": place}
    series = ModelFolder.open(place, "forecaster")
    assert [fold.answers_from for fold in series.folds] == [100, 200, 1_000 + MINUTE, 11 * MINUTE]
    assert [series.read(number).arrays["weights"][0] for number in range(4)] == [1.0, 2.0, 3.0, 2.0]
    assert in_use(root) == {first.id, second.id}


def test_another_design_begins_a_series_of_its_own(registry, registered, tmp_path):
    root, first = tmp_path / "champion", registered(1.0)
    wide = tmp_path / "wide"
    fold = write_fold(wide, 0, {"weights": np.ones(8)}, {"usable_from": 100}, kind="forecaster")
    write_folder(wide, kind="forecaster", description={"width": 8}, lineage={"identity": {}}, folds=[fold])
    second = registry.register(wide, line="forecaster", data="d", commit="c", config={}, seed=1, metrics={})
    one, other = (follow(root, version, now=lambda: 500)["forecaster"] for version in (first, second))
    assert one != other
    assert len(ModelFolder.open(one, "forecaster").folds) == 2
    assert follow(root, first, now=lambda: 900)["forecaster"] == one


def test_while_a_series_cannot_be_read_nothing_is_given_up(registry, registered, clock, tmp_path):
    root, first = tmp_path / "champion", registered(1.0)
    clock.advance_to(2_000)
    registered(2.0)  # neither the newest nor named by a series
    clock.advance_to(3_000)
    newest = registered(3.0)
    assert in_use(root) == frozenset()
    place = follow(root, first, now=lambda: 500)["forecaster"]
    content = (place / "model.json").read_bytes()
    (place / "model.json").write_bytes(content[:100])
    with pytest.raises(ModelError, match="names models that runs use"):
        registry.gc(1, dry_run=False)
    (place / "model.json").write_bytes(content)
    registry.gc(1, dry_run=False)
    assert [version.id for version in registry.versions()] == [newest.id, first.id]
