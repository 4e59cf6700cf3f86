"""Whatever lies beside a journal under the name of a kill is one: each once, each new one anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.values import Decision
from cryptoalpha.store.controls import control_state, request_control
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.kill_files import _read, leave_kill_file, read_kill_files

AT = 1_700_000_000


def decision(at: int) -> Decision:
    return Decision(happened_at=at, known_at=at, instrument="BTC/USDT", agent="a", target_weight=0.5, confidence=0.5, reason="r")


class Run:
    """A journal whose steps obey."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        self.journal = Journal(path, durable=True, header={})

    def step(self, *, settles: bool = True) -> list[str]:
        """Kinds of what the step took."""
        self.at += 1
        early = self.journal.controls()
        with self.journal.turn() as late:
            if settles:
                self.journal.record_settled()
            self.journal.append(self.at, [decision(self.at)])
        return [control.kind for control in (*early, *late)]

    def resume(self) -> None:
        request_control(self.path, "resume", by="bob", reason="fine", at=9)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = Run(tmp_path / "journal.sqlite")
    yield found
    found.journal.close()


@pytest.fixture
def flag(run: Run) -> Path:
    return run.path.with_name("journal.sqlite.kill")


def link(flag: Path) -> None:
    flag.symlink_to("/nowhere/at/all")


def full_folder(flag: Path) -> None:
    """One that cannot be removed."""
    (flag / "inside").mkdir(parents=True)


MAKERS: dict[str, Callable[[Path], object]] = {
    "file": Path.touch,
    "folder": Path.mkdir,
    "folder with something in it": full_folder,
    "link that leads nowhere": link,
    "link to itself": lambda flag: flag.symlink_to(flag),
    "pipe": os.mkfifo,
    "nonsense": lambda flag: flag.write_bytes(b"\xff{"),
    "a number no clock shows": lambda flag: flag.write_bytes(b'{"at": 1%s, "by": "x", "reason": "y", "flatten": true}' % (b"0" * 30)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_whatever_has_that_name_is_a_kill_and_a_second_one_after_a_resume_too(run, flag, kind):
    for _ in range(2):
        MAKERS[kind](flag)
        state = control_state(run.path)
        assert (state.mode, state.by, state.reason) == ("requested", "file", "journal.sqlite.kill lies beside the journal")
        assert run.step() == ["kill"]
        assert run.step() == []  # once, even where it cannot be removed
        assert (control_state(run.path).mode, control_state(run.path).kills) == ("tripped", 1)
        run.resume()
        assert run.step() == ["resume"]
        assert control_state(run.path).mode == "armed"
        if kind == "folder with something in it":
            assert flag.is_dir()
            (flag / "inside").rmdir()
            flag.rmdir()
        assert not os.path.lexists(flag)


def test_one_of_the_same_place_and_time_as_the_last_is_a_new_kill(run, flag):
    """File systems use a place again, and `touch -d` and `cp -p` set the time."""
    for _ in range(20):
        flag.touch()
        os.utime(flag, ns=(AT, AT))
        assert run.step() == ["kill"]
        run.resume()
        assert run.step() == ["resume"]


def test_one_that_cannot_be_removed_is_a_new_kill_when_it_is_touched(run, flag):
    full_folder(flag)
    assert run.step() == ["kill"]
    run.resume()
    assert run.step() == ["resume"]
    os.utime(flag)
    assert control_state(run.path).mode == "requested"
    assert run.step() == ["kill"]


def test_one_found_again_because_the_process_died_before_removing_it_is_taken_once(run, flag):
    flag.touch()
    (found,) = read_kill_files(run.path)
    assert run.step(settles=False) == ["kill"]
    assert not flag.exists()
    connection = run.journal._connection
    assert connection.execute("SELECT count(*) FROM control WHERE token = ?", (found.token,)).fetchone() == (1,)
    full_folder(flag)  # stays
    assert run.step() == ["kill"]
    run.journal.close()
    run.journal, run.at = Journal(run.path, durable=True, header={}), 0
    assert [run.step() for _ in range(3)] == [["kill"], ["kill"], []]  # the replay's, and nothing new
    assert control_state(run.path).kills == 2


def test_what_a_file_says_is_kept_in_one_line(run):
    leave_kill_file(run.path, at=AT, by="ann\nroot", reason="odd", flatten=True)
    state = control_state(run.path)
    assert (state.at, state.by, state.reason, state.flatten) == (AT, "ann\\nroot", "odd", True)
    assert run.step() == ["kill"]
    assert control_state(run.path).by == "ann\\nroot"
    assert read_kill_files(run.path) == []


def test_two_files_are_two_kills_taken_in_the_order_of_their_names(run):
    for name, flatten in (("b", False), ("a", True)):
        content = {"at": AT, "by": name, "reason": "r", "flatten": flatten}
        run.path.with_name(f"journal.sqlite.kill-{name}").write_bytes(msgspec.json.encode(content))
    assert [file.by for file in read_kill_files(run.path)] == ["a", "b"]
    assert run.step() == ["kill", "kill"]


def test_a_folder_that_cannot_be_looked_through_stops_trading(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot look for kills"):
        read_kill_files(tmp_path / "file" / "journal.sqlite")
    assert read_kill_files(tmp_path / "no folder" / "journal.sqlite") == []


def test_one_that_is_gone_before_it_is_read_is_none_and_one_that_cannot_be_looked_at_stops_trading(tmp_path):
    assert _read(tmp_path / "journal.sqlite.kill") is None
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot look for kills"):
        _read(tmp_path / "file" / "journal.sqlite.kill")
