"""`train sentiment`: what it prints, where the head lies, how it is refused."""

from __future__ import annotations

import json

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.signals.text import SentimentModel


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """A store of its own, and one labelled file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    rows = ["text,label"]
    for i in range(80):
        rows += [f"company {i:b} surges to a record,bullish", f"company {i:b} plunges after a hack,bearish"]
    (tmp_path / "mine.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path / "mine.csv"


def test_a_head_is_trained_kept_in_the_store_and_reported_as_json(labelled, tmp_path, capsys):
    assert main(["train", "sentiment", "--data", str(labelled), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["result"]
    place = tmp_path / "home" / "models" / "sentiment.safetensors"
    assert said["out"] == str(place)
    assert said["digest"] == SentimentModel.load(place).digest
    assert {scored["model"] for scored in said["sets"]["mine"]["test"]} >= {"commonest class", "lexicon, rules only", "lexicon + head"}
    assert said["sets"]["mine"]["test"][-1]["macro_f1"] > 0.9


def test_an_unknown_encoder_and_an_empty_folder_end_with_their_own_codes(labelled, tmp_path, capsys):
    assert main(["train", "sentiment", "--data", str(labelled), "--encoder", "bert"]) == 2
    assert "no text encoder 'bert'" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["train", "sentiment", "--data", str(tmp_path / "empty")]) == 3
    assert "no labelled texts" in capsys.readouterr().err
