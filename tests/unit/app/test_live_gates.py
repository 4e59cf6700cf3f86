"""No real order without every one of the conditions, and each that is missing is named."""

from __future__ import annotations

import itertools

import pytest

from cryptoalpha.app.live_gates import AccountKeys, keys_for_live, missing_for_live
from cryptoalpha.app.settings import Settings
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
    assert (keys.key, keys.secret) == ("key-of-the-test", "canary-secret-of-the-test")
    assert hidden == list(KEYS.values())


def test_keys_print_as_a_fingerprint_that_tells_accounts_apart():
    one, other = AccountKeys("a" * 64, "s"), AccountKeys("b" * 64, "s")
    assert one.fingerprint != other.fingerprint
    assert len(one.fingerprint) == 12
    assert one.fingerprint not in "a" * 64
    for text in (repr(one), str(one), f"{one!s}"):
        assert "aaaa" not in text
        assert "'s'" not in text
    assert AccountKeys("a" * 64, "s", label="main").fingerprint == AccountKeys("c" * 64, "t", label="main").fingerprint == "main"


def test_a_key_that_is_empty_is_no_key(tmp_path):
    empty = tmp_path / "key"
    empty.write_text("\n")
    with pytest.raises(ConfigError, match=r"credentials.api_key is empty"):
        keys_for_live(
            settings(allowed=True, keys={**KEYS, "api_key": f"file:{empty}"}), flag=True, environment={"CRYPTOALPHA_LIVE": "1"},
            hide=lambda found: None,
        )  # fmt: skip
