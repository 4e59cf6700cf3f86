"""Reports are kept in order, looks at a holdout are counted, and only files that nobody needs are given up."""

from __future__ import annotations

import pytest

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.registry.copying import drafted


def test_the_newest_report_decides_and_none_is_lost(registry, registered, clock):
    made, other = registered(1.0), registered(2.0)
    assert registry.reports(made.id) == ()
    registry.report(made.id, {"passed": False, "candidate": made.id, "refused_by": ["paths"]})
    clock.advance_to(9_000)
    for _ in range(2):
        registry.report(made.short, {"passed": True, "candidate": made.id})
    said = registry.reports(made.id)
    assert [(one.passed, one.at) for one in said] == [(False, 1_000), (True, 9_000)]
    assert said[0].content["refused_by"] == ["paths"]
    assert registry.reports(other.id) == ()
    with pytest.raises(ConfigError, match="whether the version passed"):
        registry.report(made.id, {"passed": None})
    with pytest.raises(ConfigError, match="is about"):
        registry.report(other.id, {"passed": True, "candidate": made.id})


def test_a_second_look_at_a_holdout_is_counted(registry):
    def look(since: int, until: int, by: str, data: str = "binance") -> int:
        return registry.holdout_touches(data, since * DAY, until * DAY, by=by)

    assert look(0, 60, "a") == 1
    assert look(0, 60, "a") == 1  # the same judge goes on
    assert look(0, 60, "b") == 2
    assert look(29, 89, "c") == 3  # 31 of 60 days are the same
    assert look(0, 60, "a") == 1
    assert look(60, 120, "d") == 1 + 0  # c shares 29 of 60 days with it: not most of it
    assert look(30, 90, "e", "kraken") == 1  # other data
    assert look(0, 20, "f") == 3  # all of it was seen by a and b
    with pytest.raises(ConfigError, match="empty"):
        look(5, 5, "a")


def test_gc_leaves_champions_ancestors_ways_back_the_newest_and_the_pinned(registry, registered, clock):
    made = []
    for number in range(8):
        clock.advance_to(10_000 + number)
        made.append(registered(float(number), parent=made[0].id if number == 4 else None))
    registry.promote("forecaster", made[1].id, reason="first")
    registry.promote("forecaster", made[2].id, reason="second")
    registry.promote("forecaster", made[4].id, reason="third")
    registry.pin(made[3].id, "rollout 1")
    would = registry.gc(1, dry_run=True)
    gone = [made[1], made[5], made[6]]  # 0 is the champion's parent, 2 was champion before, 3 is pinned, 4 champion, 7 the newest
    assert list(would.versions) == gone
    assert len(registry.versions()) == 8
    assert registry.get(made[5].id) == made[5]
    done = registry.gc(1, dry_run=False)
    assert [one.id for one in done.versions] == [one.id for one in gone]
    assert done.kept == 5
    assert {path.name for path in registry.places.iterdir()} == {made[number].id for number in (0, 2, 3, 4, 7)}
    assert registry.champion("forecaster") == made[4]
    assert registry.rollback("forecaster", reason="back") == made[2]
    with pytest.raises(ConfigError, match="collected"):
        registry.rollback("forecaster", reason="further back than is kept")
    assert registry.champion("forecaster") == made[2]
    registry.unpin(made[3].id, "rollout 1")
    assert registry.pins(made[3].id) == ()
    assert made[3].id in {one.id for one in registry.gc(1, dry_run=False).versions}
    with pytest.raises(ConfigError, match="at least 1"):
        registry.gc(0, dry_run=True)


def test_what_was_collected_keeps_its_place_in_lineage_and_may_come_back(registry, registered, clock):
    first = registered(1.0)
    clock.advance_to(2_000)
    second = registered(2.0, parent=first.id)
    clock.advance_to(3_000)
    registered(3.0)
    registry.gc(1, dry_run=False)
    lineage = registry.lineage(second.id)
    assert [(one.id, one.removed_at) for one in lineage] == [(second.id, 3_000), (first.id, 3_000)]
    with pytest.raises(ConfigError, match="collected"):
        registry.get(first.id)
    with pytest.raises(ConfigError, match="collected"):
        registry.promote("forecaster", second.id, reason="gone")
    again = registered(1.0)
    assert again.id == first.id
    assert registry.get(first.id).files == first.files


def test_gc_clears_what_killed_processes_left_and_no_draft_that_is_being_made(registry, registered):
    made = registered(1.0)
    for left in ("versions/" + "e" * 64, "drafts/abc", "trash/x.0"):
        (registry.root / left).mkdir(parents=True)
        (registry.root / left / "file").write_text("half")
    with drafted(registry.root) as draft:
        (draft / "file").write_text("in the making")
        registry.gc(5, dry_run=False)
        assert (draft / "file").exists()
        assert not (registry.root / "versions" / ("e" * 64)).exists()
    registry.gc(5, dry_run=False)
    assert [list((registry.root / name).iterdir()) for name in ("drafts", "trash")] == [[], []]
    assert registry.get(made.id) == made


def test_a_pin_holds_only_what_is_there(registry, registered):
    made = registered(1.0)
    for _ in range(2):
        registry.pin(made.id, "rollout 1")
    registry.pin(made.id, "serving")
    assert registry.pins(made.id) == ("rollout 1", "serving")
    with pytest.raises(ConfigError):
        registry.pin("abcdef", "nobody")
    (made.path / "fold_00.safetensors").unlink()
    with pytest.raises(ModelError):
        registry.get(made.id)
