"""The last steps of a campaign against a real registry and a real router: who is compared with whom, and who wins where two promote."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cryptoalpha.app.retraining import LINE, Retraining, Source
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.registry import pointers
from cryptoalpha.lifecycle.registry.index import book
from cryptoalpha.lifecycle.registry.version import StoredFile, Version
from cryptoalpha.lifecycle.retrain.step import Work
from cryptoalpha.lifecycle.rollout.router import Router
from cryptoalpha.store.whole_file import write_whole

SETTINGS = Settings(lifecycle={"canary": {"minimum_seconds": 10, "bake_seconds": 20, "look_seconds": 10}})


class Hand:
    def __init__(self) -> None:
        self.at = 1_000 * DAY

    def __call__(self) -> int:
        return self.at


def versions(home: Path, now: Hand) -> tuple[str, str, str]:
    """Three versions of the line, of one text file each: what models are in them nobody here asks."""
    root, found = home / "models" / "registry", []
    for name in ("old", "new", "other"):
        text = f"{name}\n"
        import hashlib

        stored = StoredFile("cryptoalpha.yaml", len(text), hashlib.sha256(text.encode()).hexdigest())
        made = Version.made(
            root / "versions",
            line=LINE,
            parent=None,
            created_at=now(),
            data="d",
            commit="c",
            config={},
            seed=0,
            metrics={},
            files=(stored,),
        )
        write_whole(made.path / "cryptoalpha.yaml", text)
        write_whole(made.path / "version.json", made.document())
        with book(root, write=True) as connection:
            connection.execute(
                "INSERT INTO version (id, line, parent, created_at, document) VALUES (?, ?, ?, ?, ?)",
                (made.id, LINE, None, now(), made.document()),
            )
        found.append(made.id)
    with book(root, write=True) as connection:
        pointers.put(connection, LINE, found[0], expected=None, at=now(), reason="the first")
    return found[0], found[1], found[2]


@pytest.fixture
def world(tmp_path):
    now = Hand()
    old, new, other = versions(tmp_path, now)
    work = Work(
        1, "retrain", "drift", now(), tmp_path / "c", {}, {"register": {"version": new, "champion": old}, "canary": {"words": "well"}}
    )
    return now, old, new, other, work, tmp_path


def retraining(home: Path, now: Hand, split: Router | None = None) -> Retraining:
    return Retraining(SETTINGS, home, Source(), now, split)


def test_whoever_became_champion_meanwhile_stays(world):
    now, old, new, other, work, home = world
    made = retraining(home, now)
    made.registry.promote(LINE, other, expected=old, reason="by hand")
    outcome = made.promote(work)
    assert outcome.verdict == "refused"
    assert other[:12] in outcome.words
    assert made.registry.champion_id(LINE) == other
    assert new != other


def test_a_promotion_that_was_done_and_not_written_down_is_done_again_without_harm(world):
    now, _, new, _, work, home = world
    made = retraining(home, now)
    assert made.promote(work).verdict == "done"
    assert made.promote(work).verdict == "done"
    assert [one.version for one in made.registry.history(LINE)][-1] == new
    assert len(made.registry.history(LINE)) == 2
    assert "drift" in made.registry.history(LINE)[-1].reason


def test_where_nothing_serves_the_canary_says_so_and_is_passed_over(world):
    now, _, _, _, work, home = world
    outcome = retraining(home, now).canary(work)
    assert (outcome.verdict, outcome.result["words"]) == ("done", "nothing serves (no --serve): there are no requests to divide")


def test_the_canary_keeps_its_version_from_being_collected_until_it_is_over(world):
    now, old, new, _, work, home = world
    router: Router[float] = Router(stable=old, salt="s", now=now, check=lambda answer: None if answer == answer else "nan")
    made = retraining(home, now, router)
    first = made.canary(work)
    assert (first.verdict, first.again_at) == ("wait", now() + 10 * 10**9)
    assert made.registry.pins(new) == ("campaign 1",)

    async def ask() -> None:
        async def call(version: str) -> float:
            return float("nan") if version == new else 1.0

        for k in range(100):
            assert (await router.answer(str(k), call)).answer == 1.0
        await router.drain()

    asyncio.run(ask())
    now.at += 60 * 10**9
    outcome = made.canary(work)
    assert outcome.verdict == "refused"
    assert "nan" in outcome.words
    assert made.registry.pins(new) == ()
    assert made.registry.champion_id(LINE) == old
