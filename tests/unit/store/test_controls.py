"""Controls of a run: asked from anywhere, taken with the row, found again in a replay, in the way of nobody who does not ask."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from cryptoalpha.core.errors import ConfigError, RiskHaltError, StoreError
from cryptoalpha.core.values import Decision, Order
from cryptoalpha.store.controls import control_state, request_control
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader

HEADER = {"auto_trading": "True"}


def decision(at: int) -> Decision:
    return Decision(happened_at=at, known_at=at, instrument="BTC/USDT", agent="a", target_weight=0.5, confidence=0.5, reason="r")


def order(at: int, *, reduce_only: bool = False) -> Order:
    return Order(
        happened_at=at, known_at=at, client_id=f"o{at}", instrument="BTC/USDT", side="sell", quantity=Decimal(1), reduce_only=reduce_only
    )


def kill(path: Path, *, at: int = 7, flatten: bool = False, patience: float = 3.0) -> None:
    request_control(path, "kill", by="ann", reason="odd", at=at, flatten=flatten, patience_seconds=patience)


def resume(path: Path) -> None:
    request_control(path, "resume", by="bob", reason="fine", at=9)


def opened(path: Path) -> Journal:
    return Journal(path, durable=True, header=HEADER)


def take(journal: Journal, at: int, *, settles: bool = False, values: tuple[Order | Decision, ...] = ()) -> tuple[list[str], list[str]]:
    """One step; the kinds of what it took early and late."""
    early = [control.kind for control in journal.controls()]
    with journal.turn() as late:
        if settles:
            journal.record_settled()
        journal.append(at, list(values) or [decision(at)])
    return early, [control.kind for control in late]


def turn(journal: Journal, work: Callable[[], object]) -> None:
    with journal.turn():
        work()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "journal.sqlite"
    with opened(found) as journal:
        take(journal, 1)
    return found


def test_a_run_nobody_asked_anything_of_is_armed(path):
    assert control_state(path).mode == "armed"
    assert not control_state(path).stands


def test_the_ways_of_a_kill_from_request_to_resume(path):
    kill(path, flatten=True)
    state = control_state(path)
    assert (state.mode, state.by, state.reason, state.at, state.flatten, state.taken_row) == ("requested", "ann", "odd", 7, True, None)
    with opened(path) as journal:
        take(journal, 1)
        assert take(journal, 2) == (["kill"], [])
        assert (control_state(path).mode, control_state(path).taken_row) == ("tripping", 2)
        with pytest.raises(RiskHaltError, match="not carried out"):
            resume(path)
        take(journal, 3, settles=True)
        assert control_state(path).mode == "tripped"
        resume(path)
        assert control_state(path).mode == "armed"
        assert take(journal, 4) == (["resume"], [])


def test_a_resume_without_a_kill_is_refused(path):
    with pytest.raises(ConfigError, match="nothing to resume"):
        resume(path)


def test_a_kill_nobody_took_cannot_be_resumed(path):
    kill(path)
    with pytest.raises(RiskHaltError, match="no step of the run has taken it"):
        resume(path)


def test_a_second_kill_adds_to_the_first(path):
    kill(path, at=7)
    kill(path, at=8, flatten=True)
    state = control_state(path)
    assert (state.at, state.kills, state.flatten) == (7, 2, True)


def test_a_kill_that_comes_after_one_that_is_carried_out_is_to_be_carried_out_as_well(path):
    kill(path)
    with opened(path) as journal:
        take(journal, 1)
        take(journal, 2, settles=True)
        kill(path, flatten=True)
        assert (control_state(path).mode, control_state(path).kills) == ("tripping", 2)
        with pytest.raises(RiskHaltError, match="not carried out"):
            resume(path)
        take(journal, 3)
        assert control_state(path).mode == "tripping"
        take(journal, 4, settles=True)
        assert control_state(path).mode == "tripped"


def test_a_row_that_was_not_written_carried_nothing_out(path):
    kill(path)
    with opened(path) as journal:
        take(journal, 1)
        take(journal, 2)
        with pytest.raises(StoreError, match="does not travel"):
            turn(journal, lambda: (journal.record_settled(), journal.append(3, [3])))
        take(journal, 3)
        assert control_state(path).mode == "tripping"
        take(journal, 4, settles=True)
        resume(path)
        kill(path)
        take(journal, 5)
        assert control_state(path).mode == "tripping"  # what settled the first says nothing of the second


def test_a_row_carries_out_only_what_was_taken(path):
    with opened(path) as journal:
        take(journal, 1)
        kill(path)
        journal.record_settled()
        journal.append(2, [decision(2)])  # not in a turn, so it took nothing
        assert control_state(path).mode == "requested"
        assert take(journal, 3) == (["kill"], [])
        assert control_state(path).mode == "tripping"


def test_what_comes_between_early_and_the_turn_is_late_and_a_replay_takes_both_where_they_were(path):
    with opened(path) as journal:
        take(journal, 1)
        kill(path)
        assert [control.kind for control in journal.controls()] == ["kill"]
        kill(path, flatten=True)
        with journal.turn() as late:
            journal.append(2, [decision(2)])
        assert [(control.kind, control.flatten) for control in late] == [("kill", True)]
        assert take(journal, 3) == ([], [])
        digest = journal.digest()
    with opened(path) as again:
        assert [take(again, at) for at in (1, 2, 3)] == [([], []), (["kill"], ["kill"]), ([], [])]
        assert again.digest() == digest


def test_what_a_row_took_is_not_taken_if_the_row_is_not_written(path):
    kill(path)
    with opened(path) as journal:
        take(journal, 1)
        assert len(journal.controls()) == 1
        with pytest.raises(StoreError, match="does not travel"):
            turn(journal, lambda: (journal.append(2, [decision(2)]), journal.append(3, [3])))
        assert (len(journal), journal.next_row, control_state(path).mode) == (1, 2, "requested")
    with opened(path) as journal:
        take(journal, 1)
        assert take(journal, 2) == (["kill"], [])


def test_an_entry_is_not_written_while_a_kill_stands_a_way_out_is(path):
    with opened(path) as journal:
        take(journal, 1, values=(decision(1),))
        kill(path)
        with pytest.raises(RiskHaltError, match="would enter BTC/USDT while the run is killed by ann"):
            take(journal, 2, values=(order(2),))
        assert len(journal) == 1
        take(journal, 2, values=(order(2, reduce_only=True),))
        with pytest.raises(RiskHaltError):  # nor outside of a turn
            journal.append(3, [order(3)])
        assert (len(journal), journal.next_row) == (2, 3)
    with JournalReader(path) as reader:
        assert [type(value).__name__ for _, _, values in reader.rows() for value in values] == ["Decision", "Order"]


def test_a_trip_of_the_runs_own_is_in_the_table_once_and_blocks_its_own_row(path):
    with opened(path) as journal:
        take(journal, 1)
        with pytest.raises(RiskHaltError, match="killed by risk"):
            turn(journal, lambda: (journal.record_trip(2, "drawdown", flatten=True), journal.append(2, [order(2)])))
        assert not control_state(path).stands  # its row was not written, so nothing tripped
        with journal.turn():
            journal.record_trip(2, "drawdown", flatten=True)
            journal.append(2, [order(2, reduce_only=True)])
    for _ in range(2):
        with opened(path) as again:
            take(again, 1)
            assert again.controls() == ()
            with again.turn() as late:
                again.record_trip(2, "drawdown", flatten=True)
                again.append(2, [order(2, reduce_only=True)])
            assert late == ()
        state = control_state(path)
        assert (state.mode, state.by, state.flatten, state.kills, state.taken_row) == ("tripping", "risk", True, 1, 2)


def test_a_kill_gets_through_beside_a_writer_that_never_rests(path):
    waits = []
    with opened(path) as journal:
        take(journal, 1)
        done = threading.Event()

        def ask() -> None:
            for at in range(20):
                began = time.monotonic()
                kill(path, at=at)
                waits.append(time.monotonic() - began)
            done.set()

        asking = threading.Thread(target=ask)
        asking.start()
        at, taken = 1, 0
        while not done.is_set() or taken < 20:
            at += 1
            early, late = take(journal, at, values=(order(at, reduce_only=True),))
            taken += len(early) + len(late)
        asking.join()
    assert max(waits) < 3.0
    assert not list(path.parent.glob("*.kill*"))  # all in the table


@pytest.fixture
def locked(path: Path):
    """Somebody was stopped in the middle of a transaction."""
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    yield holder
    holder.close()


def test_a_kill_of_a_locked_journal_lies_beside_it_and_holds(path, locked):
    began = time.monotonic()
    kill(path, flatten=True, patience=0.2)
    assert time.monotonic() - began < 2.0
    (flag,) = path.parent.glob("journal.sqlite.kill-*")
    state = control_state(path)
    assert (state.mode, state.by, state.reason, state.flatten) == ("requested", "ann", "odd", True)
    locked.execute("ROLLBACK")
    with pytest.raises(RiskHaltError):
        resume(path)
    with opened(path) as journal:
        take(journal, 1)
        assert take(journal, 2) == (["kill"], [])
    assert not flag.exists()
    assert control_state(path).mode == "tripping"


def test_a_resume_of_a_locked_journal_is_refused_in_time(path, locked):
    with pytest.raises(StoreError, match=r"locked by another process for 0\.1 s") as caught:
        request_control(path, "resume", by="b", reason="r", at=1, patience_seconds=0.1)
    assert "hangs" in caught.value.hint


def test_a_kill_left_while_a_row_was_being_written_still_keeps_its_entry_out(path):
    with opened(path) as journal:
        take(journal, 1)
        with pytest.raises(RiskHaltError, match="killed by ann") as caught:
            turn(journal, lambda: (journal.append(2, [order(2)]), kill(path, patience=0.05)))  # the turn holds the lock
        assert "start `cryptoalpha trade` again" in caught.value.hint
        assert take(journal, 2) == (["kill"], [])


def test_old_journals_know_no_controls_and_take_them_all_the_same(path):
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE control")
    connection.commit()
    connection.close()
    assert control_state(path).mode == "armed"
    kill(path)
    assert control_state(path).mode == "requested"


def test_journals_of_backtests_and_in_memory_have_no_table_and_cost_nothing(tmp_path):
    with Journal(None, durable=False, header={}) as memory, Journal(tmp_path / "b", durable=False, header={}) as backtest:
        for journal in (memory, backtest):
            assert not journal.takes_controls
            assert take(journal, 1) == ([], [])
            journal.record_trip(1, "x", flatten=True)
            journal.record_settled()
    connection = sqlite3.connect(tmp_path / "b")
    assert "control" not in {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and then nothing of the kind", b"no database at all" * 400])
def test_an_unreadable_journal_is_said_to_be_one(tmp_path, content):
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(StoreError):
        control_state(tmp_path / "j")
    if content:
        with pytest.raises(StoreError):
            kill(tmp_path / "j")
        with pytest.raises(StoreError):
            opened(tmp_path / "j")


def test_a_journal_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(StoreError, match="no journal at"):
        kill(tmp_path / "j")
    assert not (tmp_path / "j").exists()


def test_a_damaged_control_table_stops_the_run_before_it_begins(path):
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE control RENAME COLUMN early TO soon")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="early"):
        opened(path)
