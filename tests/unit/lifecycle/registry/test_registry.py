"""Versions go in once and cannot change; champions change in one step, for a reason, and back."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.lifecycle.registry.registry import ANY, ModelRegistry


def test_a_version_is_found_again_with_all_that_was_said_of_it(registry, registered):
    made = registered(1.0)
    found = registry.get(made.id[:6])
    assert found == made
    assert (found.data, found.commit, found.config, found.seed, found.metrics) == ("d1", "c1", {"epochs": 2}, 7, {"rank_ic": 0.03})
    assert [file.name for file in found.files] == ["fold_00.safetensors", "fold_01.safetensors", "model.json"]
    assert found.created_at == 1_000
    assert found.model("forecaster") == found.path
    assert found.model("genome") is None


def test_the_id_is_the_sha256_of_what_is_said_and_of_the_files(registry, registered):
    made = registered(1.0)
    files = [
        {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        for path in sorted(made.path.iterdir()) if path.name != "version.json"
    ]  # fmt: skip
    said = {
        "commit": "c1", "config": {"epochs": 2}, "data": "d1", "files": files, "format": 1, "line": "forecaster",
        "metrics": {"rank_ic": 0.03}, "parent": None, "seed": 7,
    }  # fmt: skip
    assert made.id == hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()


def test_registering_twice_is_registering_once(registry, registered, clock):
    made = registered(1.0)
    clock.advance_to(2_000)
    assert registered(1.0) == made
    assert [one.id for one in registry.versions()] == [made.id]
    assert list((registry.root / "drafts").iterdir()) == []


def test_versions_are_listed_newest_first_and_by_line(registry, registered, clock):
    first = registered(1.0)
    clock.advance_to(2_000)
    second, other = registered(2.0), registered(1.0, line="genome")
    assert [one.id for one in registry.versions("forecaster")] == [second.id, first.id]
    assert [one.id for one in registry.versions("genome")] == [other.id]
    assert {one.id for one in registry.versions()} == {first.id, second.id, other.id}


def test_a_later_change_of_the_trained_folder_does_not_reach_the_version(registry, registered, write_model, tmp_path):
    made = registered(1.0)
    write_model(tmp_path / "made forecaster 1.0", value=5.0)
    assert registry.get(made.id) == made
    assert registered(5.0).id != made.id


CHANGES = {
    "a fold is missing": lambda path: (path / "fold_00.safetensors").unlink(),
    "a fold is cut off": lambda path: (path / "fold_00.safetensors").write_bytes((path / "fold_00.safetensors").read_bytes()[:-1]),
    "a byte is another": lambda path: _flip(path / "fold_01.safetensors"),
    "model.json is edited": lambda path: (path / "model.json").write_text((path / "model.json").read_text().replace("width", "depth")),
    "a file is added": lambda path: (path / "extra").write_text("x"),
    "a file is a link": lambda path: _link(path / "fold_00.safetensors"),
    "version.json is missing": lambda path: (path / "version.json").unlink(),
    "version.json is half": lambda path: (path / "version.json").write_text((path / "version.json").read_text()[:50]),
    "a metric is embellished": lambda path: _edit(path, "metrics", {"rank_ic": 0.3}),
    "the parent is another": lambda path: _edit(path, "parent", "f" * 64),
    "the moment is another": lambda path: _edit(path, "created_at", 5),
    "the folder is gone": shutil.rmtree,
}


def _flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def _link(file):
    other = file.parent.parent.parent / "elsewhere"
    file.rename(other)
    file.symlink_to(other)


def _edit(path, key, value):
    content = json.loads((path / "version.json").read_text())
    (path / "version.json").write_text(json.dumps({**content, key: value}, sort_keys=True, separators=(",", ":")))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_version_that_was_changed_is_refused_everywhere_and_registering_again_mends_it(registry, registered, change):
    before, made = registered(1.0), registered(2.0)
    registry.promote("forecaster", made.id, reason="first")
    change(made.path)
    for use in (
        lambda: registry.get(made.id),
        lambda: registry.champion("forecaster"),
        lambda: registry.promote("forecaster", made.id, reason="again"),
    ):
        with pytest.raises(ModelError, match=made.short):
            use()
    registry.promote("forecaster", before.id, reason="the other is damaged")
    with pytest.raises(ModelError):
        registry.rollback("forecaster", reason="back to a damaged one")
    assert registry.champion("forecaster") == before
    assert registry.get(registered(2.0).id).files == made.files


def test_what_is_no_whole_model_is_not_registered(registry, write_model, tmp_path):
    told = {"data": "d", "commit": "c", "config": {}, "seed": 0, "metrics": {}}
    with pytest.raises(ModelError, match="no trained model"):
        registry.register(tmp_path, line="forecaster", **told)
    folder = write_model(tmp_path / "other", "genome")
    with pytest.raises(ModelError, match="kind 'genome'"):
        registry.register(folder, line="forecaster", **told)
    (folder / "fold_01.safetensors").unlink()
    with pytest.raises(ModelError, match="fold 1"):
        registry.register(folder, line="genome", **told)
    whole = write_model(tmp_path / "whole")
    (whole / ".report.html.part").write_text("half")
    with pytest.raises(ModelError, match="half a file"):
        registry.register(whole, line="forecaster", **told)
    (whole / ".report.html.part").unlink()
    (whole / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        registry.register(whole, line="forecaster", **told)
    (whole / "link").unlink()
    with pytest.raises(ConfigError, match="no line 'oracle'"):
        registry.register(whole, line="oracle", **told)
    for wrong in ({"metrics": {"ic": float("nan")}}, {"metrics": {"ic": "good"}}, {"config": {"x": {1, 2}}}, {"parent": "abcdef"}):
        with pytest.raises(ConfigError):
            registry.register(whole, line="forecaster", **{**told, **wrong})
    assert registry.versions() == ()
    assert not registry.places.exists() or list(registry.places.iterdir()) == []


def test_ids_are_found_by_their_beginning_unless_it_is_short_strange_or_shared(registry, registered):
    made = registered(1.0)
    for wrong, words in ((made.id[:3], "no id"), ("zzzzzz", "no id"), ("%%%%", "no id"), ("0" * 64, "there is no version")):
        with pytest.raises(ConfigError, match=words):
            registry.get(wrong)
    assert registry.get(made.id[:4].upper()) == made


def test_lineage_goes_from_child_to_the_first(registry, registered):
    first = registered(1.0)
    second = registered(2.0, parent=first.id[:8])
    third = registered(3.0, parent=second.id)
    assert registry.lineage(third.id) == (third, second, first)
    assert registry.lineage(first.id) == (first,)


def test_a_champion_takes_over_and_two_rollbacks_lead_two_back(registry, registered, clock):
    one, two, three = (registered(float(n)) for n in (1, 2, 3))
    assert registry.champion("forecaster") is None
    with pytest.raises(ConfigError, match="has no champion"):
        registry.rollback("forecaster", reason="nobody there")
    registry.promote("forecaster", one.id, expected=None, reason="first")
    registry.promote("forecaster", two.id, expected=one.id, reason="better")
    clock.advance_to(5_000)
    registry.promote("forecaster", three.id, expected=two.id[:8], reason="better still")
    assert registry.champion("forecaster") == three
    assert registry.rollback("forecaster", reason="errs") == two
    assert registry.rollback("forecaster", reason="errs too") == one
    with pytest.raises(ConfigError, match="none to go back to"):
        registry.rollback("forecaster", reason="further")
    assert registry.promote("forecaster", three.id, reason="mended") == three
    assert registry.rollback("forecaster", reason="no") == one
    told = [(one.version, one.was, one.cause, one.reason, one.at) for one in registry.history("forecaster")]
    assert told == [
        (one.id, None, "promote", "first", 1_000),
        (two.id, one.id, "promote", "better", 1_000),
        (three.id, two.id, "promote", "better still", 5_000),
        (two.id, three.id, "rollback", "errs", 5_000),
        (one.id, two.id, "rollback", "errs too", 5_000),
        (three.id, one.id, "promote", "mended", 5_000),
        (one.id, three.id, "rollback", "no", 5_000),
    ]
    assert registry.champion("genome") is None
    assert registry.history("genome") == ()


def test_who_expected_another_champion_is_told_who_it_is(registry, registered):
    one, two, three = (registered(float(n)) for n in (1, 2, 3))
    registry.promote("forecaster", one.id, expected=None, reason="first")
    registry.promote("forecaster", two.id, expected=one.id, reason="faster")
    with pytest.raises(ConfigError, match=rf"is {two.short} .*faster.*expected was {one.short}"):
        registry.promote("forecaster", three.id, expected=one.id, reason="too late")
    with pytest.raises(ConfigError, match="expected was nobody"):
        registry.promote("forecaster", three.id, expected=None, reason="too late")
    with pytest.raises(ConfigError, match=two.short):
        registry.rollback("forecaster", expected=one.id, reason="too late")
    assert registry.champion("forecaster") == two
    assert registry.promote("forecaster", three.id, expected=ANY, reason="whoever it is") == three


def test_a_change_that_is_done_twice_is_done_once(registry, registered):
    one, two = registered(1.0), registered(2.0)
    for _ in range(2):
        registry.promote("forecaster", one.id, expected=None, reason="first")
    for _ in range(2):
        registry.promote("forecaster", two.id, expected=one.id, reason="better")
    for _ in range(2):
        assert registry.rollback("forecaster", expected=two.id, reason="worse") == one
    assert [pointer.version for pointer in registry.history("forecaster")] == [one.id, two.id, one.id]


def test_a_champion_is_of_its_line_and_has_a_reason(registry, registered):
    genome = registered(1.0, line="genome")
    with pytest.raises(ConfigError, match="of the line genome"):
        registry.promote("forecaster", genome.id, reason="wrong line")
    with pytest.raises(ConfigError, match="reason"):
        registry.promote("genome", genome.id, reason=" ")
    assert registry.history("genome") == ()


def test_asking_makes_no_registry(tmp_path):
    registry = ModelRegistry(tmp_path / "none", now=lambda: 0)
    assert registry.versions() == ()
    assert registry.champion("loop") is None
    with pytest.raises(ConfigError, match="no version"):
        registry.get("abcdef")
    assert not registry.root.exists()
