"""`kill` and `resume` on a store: which runs are meant, what is refused, and that one damaged journal protects no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.app.safety import halt, told_at_start
from cryptoalpha.store.controls import control_state, request_control
from cryptoalpha.store.journal import Journal


def run_of(home: Path, name: str, *, trades: bool = True, finished: bool = False) -> Path:
    folder = home / "runs" / name
    folder.mkdir(parents=True)
    with Journal(folder / "journal.sqlite", durable=trades, header={"auto_trading": "True"} if trades else {"run": name}) as journal:
        journal.append(1, [])
    if finished:
        (folder / "metrics.json").write_text("{}")
    return folder / "journal.sqlite"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def settle(path: Path) -> None:
    """Let the run take its kill and confirm it."""
    with Journal(path, durable=True, header={"auto_trading": "True"}) as journal:
        with journal.turn():
            journal.append(1, [])
        journal.controls()
        with journal.turn():
            journal.record_settled()
            journal.append(2, [])


def test_kill_stops_every_run_that_trades_and_no_other(home, capsys):
    paths = {name: run_of(home, name) for name in ("a", "b")}
    run_of(home, "back", trades=False)
    run_of(home, "done", finished=True)
    code, found = call(capsys, "kill", "--reason", "odd prices")
    assert code == 0
    assert [each["run"] for each in found["result"]["killed"]] == ["a", "b"]
    assert {each["control"]["at"][-1] for each in found["result"]["killed"]} == {"Z"}  # a time as everywhere
    assert {control_state(path).reason for path in paths.values()} == {"odd prices"}
    assert control_state(home / "runs" / "back" / "journal.sqlite").mode == "armed"


def test_one_run_by_name_with_everything_to_be_closed(home, capsys):
    first, second = run_of(home, "a"), run_of(home, "b")
    assert call(capsys, "kill", "--run", "b", "--flatten")[0] == 0
    assert control_state(second).flatten
    assert not control_state(first).stands


def test_the_journal_in_the_stores_own_folder_is_a_run_too(home, capsys):
    with Journal(home / "journal.sqlite", durable=True, header={"auto_trading": "True"}):
        pass
    assert [each["run"] for each in call(capsys, "kill")[1]["result"]["killed"]] == ["trade"]
    assert call(capsys, "kill", "--run", "trade")[0] == 0
    assert control_state(home / "journal.sqlite").kills == 2


def test_a_damaged_journal_is_told_and_keeps_no_other_run_alive(home, capsys):
    damaged, sound = run_of(home, "a"), run_of(home, "b")
    damaged.write_bytes(b"nothing that anybody could read" * 100)
    code, found = call(capsys, "kill")
    assert code == 3
    assert [each["run"] for each in found["result"]["killed"]] == ["b"]
    assert "run a could not be killed (1 of 2)" in found["error"]["message"]
    assert control_state(sound).stands


def test_a_run_that_has_finished_cannot_be_killed_and_says_so(home, capsys):
    """Nothing would ever carry the kill out: neither trade nor resume could end it."""
    path = run_of(home, "done", finished=True)
    code, found = call(capsys, "kill", "--run", "done")
    assert (code, found["error"]["message"]) == (2, "run 'done' has finished: there is nothing to kill")
    code, found = call(capsys, "kill")
    assert code == 3
    assert found["error"]["message"].endswith("all runs of `cryptoalpha trade` have finished (1)")
    assert control_state(path).mode == "armed"
    request_control(path, "kill", by="x", reason="as its last row was written", at=1)
    code, found = call(capsys, "resume", "--run", "done", "--reason", "r", "--confirm", "resume done")
    assert (code, "start a new run" in found["error"]["hint"]) == (2, True)
    assert "start it again" not in str(halt("done", control_state(path), finished=True))


@pytest.mark.parametrize("reason", ["", "  ", "\t\n"])
def test_a_kill_without_a_reason_is_refused(home, capsys, reason):
    path = run_of(home, "a")
    assert call(capsys, "kill", "--reason", reason)[0] == 2
    assert not control_state(path).stands


def test_a_reason_cannot_pretend_to_be_another_line(home, capsys):
    path = run_of(home, "a")
    assert call(capsys, "kill", "--reason", "odd\nrun a is armed\x1b[2J\u2028ü \udcff")[0] == 0
    assert control_state(path).reason == r"odd\nrun a is armed\x1b[2J\u2028ü \udcff"
    settle(path)
    code, found = call(capsys, "resume", "--run", "a", "--reason", "fine\rreally", "--confirm", "resume a")
    assert (code, found["result"]["control"]["reason"]) == (0, r"fine\rreally")


def test_what_a_resume_means_for_the_limits_is_said_before_and_after(home, capsys, monkeypatch):
    path = run_of(home, "a")
    call(capsys, "kill")
    settle(path)
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda text, **_: asked.append(text) or "resume a")
    assert main(["resume", "--run", "a", "--reason", "r"]) == 0
    for said in (asked[0], capsys.readouterr().out):
        assert "all of `risk.max_drawdown` may be lost once more" in said


def test_who_killed_it_is_said_once_also_where_it_was_the_run_itself(home):
    path = run_of(home, "a")
    with Journal(path, durable=True, header={"auto_trading": "True"}) as journal:
        journal.append(1, [])
        with journal.turn():
            journal.record_trip(2, "by risk: equity fell 35% below its peak; everything is closed", flatten=True)
            journal.append(2, [])
    said = str(halt("a", control_state(path)))
    assert said.startswith("run a is killed by risk: equity fell 35% below its peak; everything is closed")
    assert "by risk: by risk" not in told_at_start(path)
    request_control(path, "kill", by="ann", reason="me too", at=0)
    assert "2 kills stand, the last by ann at 1970-01-01T00:00:00Z: me too" in str(halt("a", control_state(path)))


@pytest.mark.parametrize(("words", "code"), [(("kill",), 3), (("kill", "--run", "x"), 3), (("kill", "--run", "back"), 2)])
def test_what_cannot_be_killed_is_said(home, capsys, words, code):
    run_of(home, "back", trades=False)
    assert call(capsys, *words)[0] == code


def test_resume_wants_the_phrase_a_reason_and_a_kill_that_is_carried_out(home, capsys):
    path = run_of(home, "a")
    sure = ("--confirm", "resume a")
    assert call(capsys, "resume", "--run", "a", "--reason", "r", *sure)[0] == 2  # nothing is killed
    call(capsys, "kill")
    assert call(capsys, "resume", "--run", "a", "--reason", "r", *sure)[0] == 4  # nobody took it
    settle(path)
    for confirmation in ((), ("--confirm", "yes"), ("--confirm", "resume b"), ("--confirm", "resume")):
        code, found = call(capsys, "resume", "--run", "a", "--reason", "r", *confirmation)
        assert (code, control_state(path).mode) == (2, "tripped")
        assert "resume a" in found["error"]["hint"]
    assert call(capsys, "resume", "--run", "a", "--reason", "  ", *sure)[0] == 2
    assert call(capsys, "resume", "--run", "b", "--reason", "r", "--confirm", "resume b")[0] == 3
    assert control_state(path).mode == "tripped"
    assert call(capsys, "resume", "--run", "a", "--reason", "r", *sure)[0] == 0
    assert control_state(path).mode == "armed"


def test_on_a_terminal_the_phrase_is_asked_for(home, capsys, monkeypatch):
    path = run_of(home, "a")
    call(capsys, "kill")
    settle(path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for typed, code in (("nonsense", 2), ("resume a", 0)):
        monkeypatch.setattr("typer.prompt", lambda *_, typed=typed, **__: typed)
        assert call(capsys, "resume", "--run", "a", "--reason", "r")[0] == code
    assert control_state(path).mode == "armed"


def test_trade_says_at_its_start_what_stands(home, capsys):
    path = run_of(home, "a")
    assert told_at_start(path) is None
    assert told_at_start(home / "nothing") is None
    call(capsys, "kill", "--flatten", "--reason", "odd")
    said = told_at_start(path)
    assert said is not None
    assert "odd; it enters nothing, everything it holds is closed" in said
    assert "start it again" in str(halt("a", control_state(path)))
    settle(path)
    assert "start it again" not in str(halt("a", control_state(path)))
    assert halt("a", control_state(path)).exit_code == 4
