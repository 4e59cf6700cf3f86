"""No real order without every one of the conditions, and each that is missing is named."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from cryptoalpha.app.cli import main
from cryptoalpha.app.live.gates import fingerprint, keys_for_live, missing_for_live
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.venues import Keys
from cryptoalpha.core.errors import ConfigError

KEYS = {"api_key": "key-of-the-test", "api_secret": "canary-secret-of-the-test"}
WORDS = ("execution.allow_live", "--live", "CRYPTOALPHA_LIVE", "credentials.api_key", "credentials.api_secret")


def settings(*, allowed: bool, keys: dict[str, str]) -> Settings:
    return Settings.model_validate({"execution": {"allow_live": allowed}, "credentials": keys})


@pytest.mark.parametrize("given", list(itertools.product([False, True], repeat=5)))
def test_each_missing_condition_is_named_and_only_those(given):
    allowed, flag, variable, key, secret = given
    chosen = {name: text for (name, text), there in zip(KEYS.items(), (key, secret), strict=True) if there}
    environment = {"CRYPTOALPHA_LIVE": "1"} if variable else {}
    missing = missing_for_live(settings(allowed=allowed, keys=chosen), flag=flag, environment=environment)
    for word, there in zip(WORDS, given, strict=True):
        assert any(word in each for each in missing) is not there
    assert len(missing) == given.count(False)


def test_all_missing_conditions_stand_in_one_error_and_no_secret_does():
    with pytest.raises(ConfigError) as caught:
        keys_for_live(settings(allowed=False, keys=KEYS), flag=True, environment={"CRYPTOALPHA_LIVE": "yes"}, hide=lambda found: None)
    assert "execution.allow_live is not true; CRYPTOALPHA_LIVE is not 1" in str(caught.value)
    assert caught.value.exit_code == 2
    assert "canary" not in str(caught.value) + caught.value.hint


def test_with_every_condition_the_keys_come_out_and_are_hidden_first():
    hidden: list[str] = []
    keys = keys_for_live(settings(allowed=True, keys=KEYS), flag=True, environment={"CRYPTOALPHA_LIVE": "1"}, hide=hidden.extend)
    assert (keys.api_key, keys.secret) == ("key-of-the-test", "canary-secret-of-the-test")
    assert hidden == list(KEYS.values())


def test_a_fingerprint_tells_accounts_apart_and_gives_nothing_away():
    one, other = Keys("a" * 64, "s"), Keys("b" * 64, "s")
    assert fingerprint(one) != fingerprint(other)
    assert len(fingerprint(one)) == 12
    assert fingerprint(one) not in "a" * 64
    assert fingerprint(one, "main") == fingerprint(Keys("c" * 64, "t"), "main") == "main", "the owner's name outlives a key"


def test_a_key_that_is_empty_is_no_key(tmp_path):
    empty = tmp_path / "key"
    empty.write_text("\n")
    with pytest.raises(ConfigError, match=r"credentials.api_key is empty"):
        keys_for_live(
            settings(allowed=True, keys={**KEYS, "api_key": f"file:{empty}"}), flag=True, environment={"CRYPTOALPHA_LIVE": "1"},
            hide=lambda found: None,
        )  # fmt: skip


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str]]:
    code = main([*arguments, "--json"])
    error: dict[str, str] = json.loads(capsys.readouterr().out)["error"]
    return code, error


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CRYPTOALPHA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    return tmp_path


def test_the_flag_alone_sends_nothing_and_names_what_else_is_needed(clean, capsys):
    code, error = told(capsys, "trade", "--live")
    assert code == 2
    for word in ("execution.allow_live", "CRYPTOALPHA_LIVE", "credentials.api_key", "credentials.api_secret"):
        assert word in error["message"]
    assert "--live is not given" not in error["message"]
    assert not (clean / "home").exists()


def test_a_setting_does_not_replace_the_flag(clean, capsys, monkeypatch):
    monkeypatch.setenv("CRYPTOALPHA_LIVE", "1")
    for name, text in KEYS.items():
        monkeypatch.setenv(f"CRYPTOALPHA_CREDENTIALS__{name.upper()}", text)
    code, error = told(capsys, "trade", "--set", "engine.mode=live", "--set", "execution.allow_live=true", "--simulated")
    assert (code, error["message"]) == (2, "no real order may be sent: the flag --live is not given")


@pytest.mark.parametrize("source", [("--simulated",), ("--since", "2024-01-01"), ("--data", "."), ("--feed", "okx"), ("--speed", "9")])
def test_real_orders_are_sent_on_the_bars_of_their_own_venue_only(clean, capsys, monkeypatch, source):
    monkeypatch.setenv("CRYPTOALPHA_LIVE", "1")
    for name, text in KEYS.items():
        monkeypatch.setenv(f"CRYPTOALPHA_CREDENTIALS__{name.upper()}", text)
    code, error = told(capsys, "trade", "--live", "--set", "execution.allow_live=true", *source)
    assert code == 2
    assert source[0] in error["message"]
    assert not any(text in str(error) for text in KEYS.values())
