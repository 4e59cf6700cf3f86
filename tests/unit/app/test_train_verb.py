"""`train forecaster` and `train genome`: what they refuse, with which exit code, before anything is computed or written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cryptoalpha.app.cli import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


Call = Callable[..., tuple[int, dict]]


@pytest.fixture(params=["forecaster", "genome"])
def call(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Call:
    def said(*arguments: str) -> tuple[int, dict]:
        code = main(["train", request.param, *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return said


def test_an_unknown_preset_names_those_there_are(call, home):
    code, said = call("--simulated", "--preset", "huge")
    assert (code, said["error"]["type"]) == (2, "ConfigError")
    assert "small, base, seed, custom" in said["error"]["hint"]
    assert not home.exists()


def test_an_empty_store_says_how_to_fill_it(call):
    code, said = call()
    assert code == 3
    assert "--data DIR" in said["error"]["hint"]


def test_too_little_history_says_how_many_days_are_needed(call, home):
    code, said = call("--simulated", "--set", "data.simulated.bars=2400", "--set", "data.simulated.assets=2")
    assert (code, said["error"]["type"]) == (3, "DataMissingError")
    assert "holds 100 days" in said["error"]["message"]
    assert "needs 700: 504 to learn from and 196 to be judged on" in said["error"]["message"]
    assert not home.exists()


def test_labelled_texts_that_are_not_there_end_the_training_before_it_begins(tmp_path, capsys):
    arguments = [
        "--simulated",
        "--set",
        "data.simulated.bars=24000",
        "--set",
        "data.simulated.assets=2",
        "--labelled",
        str(tmp_path / "none"),
    ]
    assert main(["train", "forecaster", *arguments, "--json"]) == 3
    assert "no labelled texts in" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not (tmp_path / "home" / "models").exists()


def test_a_folder_that_is_something_else_is_left_alone(call, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one.txt").write_text("dear")
    code, said = call("--simulated", "--set", "data.simulated.bars=240", "--out", str(tmp_path / "letters"), "--fresh")
    assert (code, said["error"]["type"]) == (2, "ConfigError")
    assert (tmp_path / "letters" / "one.txt").read_text() == "dear"
