"""What alerts do: once for each episode, within the cooldowns, again after a kill; in replicas and in the book of retraining."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.time import HOUR, MINUTE, SECOND
from cryptoalpha.lifecycle.alerts.actions import AlertActions
from cryptoalpha.lifecycle.alerts.book import AlertBook
from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.lifecycle.alerts.notices import Notice, notice_of_change
from cryptoalpha.lifecycle.alerts.proposals import OwnAlerts, into_the_book_of_retraining
from cryptoalpha.lifecycle.alerts.rules import HIGH_LATENCY, HIGH_MEMORY, LOW_ACCURACY, serving_rules
from cryptoalpha.lifecycle.retrain.triggers import waiting
from cryptoalpha.monitoring.alerts import AlertChange

CONFIG = AlertConfig(most_replicas=3)


class World:
    """A clock, a number of replicas that an own limit bounds, and the actions on them."""

    def __init__(self, home: Path, *, most: int = 100) -> None:
        self.now, self.have, self.most, self.is_away, self.home = 1_000 * HOUR, 1, most, False, home
        self.calls: list[int] = []
        self.actions = self.restarted()

    def restarted(self) -> AlertActions:
        book = AlertBook(self.home / "alerts.sqlite")
        return AlertActions(book, CONFIG, now=lambda: self.now, propose=into_the_book_of_retraining(self.home), scaler=self)

    async def replicas(self) -> int:
        if self.is_away:
            raise VenueError("nobody answers")
        return self.have

    async def scale(self, replicas: int) -> int:
        if self.is_away:
            raise VenueError("nobody answers")
        self.calls.append(replicas)
        self.have = min(replicas, self.most)
        return self.have

    def told(self, *notices: Notice) -> list[tuple[str, str]]:
        return [(deed.kind, deed.state) for deed in asyncio.run(self.actions.take(notices))]

    def triggers(self) -> list[tuple[str, str, int]]:
        return [(each.cause, each.subject, each.times) for each in waiting(self.home / "lifecycle" / "retrain.sqlite")]


def notice(alert: str, state: str = "firing", begun_at: int = 7 * HOUR, fingerprint: str = "f1") -> Notice:
    return Notice(alert, {"arm": "stable"}, state, begun_at, fingerprint, "it is so")  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_a_replica_is_added_once_in_a_cooldown_whichever_alert_asks_and_never_beyond_the_most(world):
    assert world.told(notice(HIGH_LATENCY)) == [("scale", "done")]
    assert world.told(notice(HIGH_LATENCY), notice(HIGH_MEMORY, fingerprint="f2")) == []  # told again, and another within 300 s
    world.now += 299 * SECOND
    assert world.told(notice(HIGH_LATENCY)) == []
    world.now += 1 * SECOND
    assert world.told(notice(HIGH_LATENCY)) == [("scale", "done")]  # it still fires: one more
    world.now += HOUR
    assert world.told(notice(HIGH_LATENCY)) == []  # three are the most
    assert world.calls == [2, 3]


def test_an_alert_that_is_over_or_means_nothing_to_us_adds_nothing(world):
    assert world.told(notice(HIGH_LATENCY, "resolved"), notice("kill_switch", fingerprint="f2"), notice("drift_champion")) == []
    assert (world.calls, world.triggers()) == ([], [])
    assert world.actions.book.standing() == ("drift_champion", "kill_switch")


def test_quiet_gives_one_replica_back_each_half_hour_but_not_while_an_alert_stands(world):
    world.told(notice(HIGH_LATENCY))
    world.now += 40 * MINUTE
    assert asyncio.run(world.actions.relax()) is None  # it was never told to be over
    world.told(notice(HIGH_LATENCY, "resolved"))
    assert asyncio.run(world.actions.relax()).target == 1
    world.have = 2
    assert asyncio.run(world.actions.relax()) is None  # just done
    world.now += 30 * MINUTE
    assert asyncio.run(world.actions.relax()).target == 1
    world.now += 30 * MINUTE
    assert asyncio.run(world.actions.relax()) is None  # the least
    assert world.calls == [2, 1, 1]


def test_where_the_cluster_is_away_the_deed_failed_and_the_next_telling_tries_again(world):
    world.is_away = True
    assert world.told(notice(HIGH_LATENCY)) == [("scale", "failed")]
    world.is_away = False
    assert world.told(notice(HIGH_LATENCY)) == [("scale", "done")]  # a failure starts no cooldown
    assert [deed.state for deed in world.actions.book.deeds()] == ["failed", "done"]


def test_what_own_limits_allow_is_said(tmp_path):
    world = World(tmp_path, most=1)
    world.told(notice(HIGH_LATENCY))
    (deed,) = world.actions.book.deeds()
    assert deed.words == "high_prediction_latency: 1 → 2 replicas; 1 is all that its own limits allow"


def test_retraining_is_proposed_once_for_an_episode_and_not_again_for_a_day(world):
    assert world.told(notice(LOW_ACCURACY), notice(LOW_ACCURACY)) == [("retrain", "done")]
    world.now += 25 * HOUR
    assert world.told(notice(LOW_ACCURACY)) == []  # the same episode
    assert world.told(notice(LOW_ACCURACY, begun_at=9 * HOUR)) == [("retrain", "done")]
    assert world.told(notice(LOW_ACCURACY, begun_at=10 * HOUR)) == []  # another, too soon
    assert world.told(notice("drift_retrain")) == [("retrain", "done")]  # of another alert
    assert sorted(world.triggers()) == [("accuracy", LOW_ACCURACY, 2), ("drift", "drift_retrain", 1)]


def test_what_was_begun_when_the_process_ended_is_done_with_the_same_target(world):
    with world.actions.book.transaction() as connection:
        world.actions.book.begin(connection, "scale", notice(HIGH_LATENCY), world.now, 2, "1 → 2")
        world.actions.book.begin(connection, "retrain", notice(LOW_ACCURACY), world.now, None, "it is so")
    world.have = 2  # the call had gone out
    world.actions = world.restarted()
    assert [(deed.kind, deed.state) for deed in asyncio.run(world.actions.resume())] == [("scale", "done"), ("retrain", "done")]
    assert (world.calls, world.triggers()) == ([2], [("accuracy", LOW_ACCURACY, 1)])
    assert asyncio.run(world.actions.resume()) == ()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from cryptoalpha.lifecycle.alerts import actions, book as books
from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.lifecycle.alerts.notices import Notice
from cryptoalpha.lifecycle.alerts.proposals import into_the_book_of_retraining
home, fatal = Path(sys.argv[1]), int(sys.argv[2])
passed = 0
def step():
    global passed
    passed += 1
    if passed == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
class File:
    async def replicas(self): step(); return int((home / "replicas").read_text())
    async def scale(self, replicas):
        step(); (home / "replicas").write_text(str(replicas)); step(); return replicas
class Book(books.AlertBook):
    def hear(self, *given): step(); super().hear(*given); step()
    def begin(self, *given): step(); found = super().begin(*given); step(); return found
    def end(self, *given): step(); found = super().end(*given); step(); return found
write = into_the_book_of_retraining(home)
def propose(*given): step(); write(*given); step()
made = actions.AlertActions(Book(home / "alerts.sqlite"), AlertConfig(), now=lambda: 10**18, propose=propose, scaler=File())
async def main():
    await made.resume()
    await made.take([Notice("high_prediction_latency", {}, "firing", 1, "a"), Notice("low_prediction_accuracy", {}, "firing", 1, "b")])
asyncio.run(main())
print(passed)
"""


def test_killed_at_any_step_and_told_again_there_is_one_more_replica_and_one_proposal(tmp_path):
    """Every place at which something is read, written or called, killed there by SIGKILL in a process of its own."""

    def run(home: Path, fatal: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(home), str(fatal)], capture_output=True, text=True, check=False, env={**os.environ}
        )

    def fresh(name: str) -> Path:
        home = tmp_path / name
        home.mkdir()
        (home / "replicas").write_text("1")
        return home

    whole = run(fresh("whole"), 0)
    assert whole.returncode == 0, whole.stderr
    steps = int(whole.stdout)
    assert steps == 17  # hear 4, count 1, begin 4, scale 2, propose 2, end 4
    for fatal in range(1, steps + 1):
        home = fresh(str(fatal))
        assert run(home, fatal).returncode == -signal.SIGKILL
        again = run(home, 0)
        assert again.returncode == 0, again.stderr
        assert (home / "replicas").read_text() == "2", fatal
        (trigger,) = waiting(home / "lifecycle" / "retrain.sqlite")
        assert (trigger.cause, trigger.campaign) == ("accuracy", None)
        book = AlertBook(home / "alerts.sqlite")
        assert [(deed.kind, deed.state, deed.target) for deed in book.deeds()] == [("scale", "done", 2), ("retrain", "done", None)], fatal


def test_a_process_that_judges_itself_proposes_what_it_is_there_for_and_a_book_that_cannot_be_written_stops_nothing(tmp_path):
    said: list[str] = []
    (rule,) = [each for each in serving_rules(CONFIG) if each.name == LOW_ACCURACY]
    (late,) = [each for each in serving_rules(CONFIG) if each.name == HIGH_LATENCY]
    change = AlertChange(rule, (), "firing", 5 * HOUR, 0.0)

    def own(home: Path) -> OwnAlerts:
        write = into_the_book_of_retraining(home)
        return OwnAlerts(
            AlertBook(home / "alerts.sqlite"), CONFIG, now=lambda: 6 * HOUR, propose=write, say=said.append, only=frozenset({LOW_ACCURACY})
        )

    take = own(tmp_path)
    for each in (change, change, change._replace(state="resolved"), AlertChange(late, ("stable",), "firing", 5 * HOUR, 0.2)):
        take(each)
    assert [(each.cause, each.first_at) for each in waiting(tmp_path / "lifecycle" / "retrain.sqlite")] == [("accuracy", 5 * HOUR)]
    assert len(said) == 1
    (tmp_path / "file").write_text("")
    own(tmp_path / "file")(change)
    assert said[1].startswith("alert low_prediction_accuracy: retraining could not be proposed: ")


def test_one_alert_with_the_same_labels_has_one_fingerprint():
    (late,) = [each for each in serving_rules(CONFIG) if each.name == HIGH_LATENCY]
    marks = {
        notice_of_change(AlertChange(late, (arm,), state, 1, 0.2)).fingerprint for arm in ("a", "b") for state in ("firing", "resolved")
    }
    assert len(marks) == 2
