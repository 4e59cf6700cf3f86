"""A unique fake secret is put into every source, right and wrong; nothing the program prints may hold it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from cryptoalpha.app.cli import main
from cryptoalpha.app.credentials import reveal
from cryptoalpha.app.output import MASK
from cryptoalpha.core.errors import ConfigError

CANARY = "canary-7f3e9c1b-4d2a"
NAME = "CRYPTOALPHA_CREDENTIALS__API_SECRET"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and environment without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRYPTOALPHA_CONFIG", raising=False)
    return tmp_path


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(list(arguments))
    spoken = capsys.readouterr()
    assert CANARY not in spoken.out + spoken.err
    return code, spoken.out + spoken.err


FILES = {
    "written out": f"credentials:\n  api_secret: {CANARY}\n",
    "a list": f"credentials:\n  api_secret: [{CANARY}, {CANARY}]\n",
    "a mapping": f"credentials:\n  api_secret:\n    {CANARY}: {CANARY}\n",
    "the section itself": f"credentials: {CANARY}\n",
    "a misspelt key": f"credentials:\n  api_sceret: {CANARY}\n",
    "a misspelt section": f"credentails:\n  api_secret: {CANARY}\n",
    "given twice": f"credentials:\n  api_secret: {CANARY}\n  api_secret: {CANARY}\n",
    "an open quote": f"credentials:\n  api_secret: '{CANARY}\n",
    "no colon": f"credentials:\n  api_secret {CANARY}\n",
    "an alias": f"credentials:\n  api_secret: *{CANARY}\n",
    "beside another fault": f"risk:\n  max_drawdown: 7\ncredentials:\n  api_secret: {CANARY}\n",
    "in an address": f"data:\n  streams:\n    redis_address: redis://:{CANARY}@cache:6379\n",
    "in the wrong place": f"risk:\n  max_drawdown: {CANARY}\n",
}


@pytest.mark.parametrize("verb", [("config", "show"), ("config", "show", "--origin"), ("config", "validate")])
@pytest.mark.parametrize("extra", [(), ("--json",), ("-v",)])
@pytest.mark.parametrize("kind", FILES)
def test_a_secret_in_a_file_is_refused_and_not_printed(empty, capsys, kind, verb, extra):
    (empty / "cryptoalpha.yaml").write_text(FILES[kind])
    code, _ = say(capsys, *verb, *extra)
    assert code == 2


@pytest.mark.parametrize("extra", [(), ("--json",), ("-v", "--json")])
@pytest.mark.parametrize("setting", ["credentials.api_secret", "credentials.api_sceret", "credentials", "risk.max_drawdown", "engine.mode"])
def test_a_secret_on_the_command_line_is_refused_and_not_printed(empty, capsys, setting, extra):
    assert say(capsys, "config", "show", "--set", f"{setting}={CANARY}", *extra)[0] == 2
    assert say(capsys, "config", "show", "--set", CANARY, *extra)[0] == 2


@pytest.mark.parametrize("extra", [(), ("--json",), ("--origin",)])
def test_a_secret_in_the_environment_is_taken_and_shown_as_a_mask(empty, capsys, monkeypatch, extra):
    monkeypatch.setenv(NAME, CANARY)
    code, text = say(capsys, "config", "show", *extra)
    assert code == 0
    assert MASK in text
    if extra == ("--origin",):
        assert f"env {NAME}" in text


@pytest.mark.parametrize("extra", [(), ("--json",), ("-v",)])
def test_a_fault_elsewhere_does_not_print_the_secret(empty, capsys, monkeypatch, extra):
    monkeypatch.setenv(NAME, CANARY)
    monkeypatch.setenv("CRYPTOALPHA_RISK__MAX_DRAWDOWN", CANARY)
    monkeypatch.setenv("CRYPTOALPHA_CREDENTIALS__API_SCERET", CANARY)
    assert say(capsys, "config", "show", *extra)[0] == 2


def test_a_secret_from_dotenv_a_file_or_a_directory_is_masked(empty, capsys, monkeypatch):
    mounted = empty / "run"
    mounted.mkdir()
    (mounted / "cryptoalpha_credentials__api_key").write_text(CANARY)
    (empty / ".env").write_text(f"{NAME}={CANARY}\n")
    (empty / "passphrase").write_text(CANARY + "\n")
    monkeypatch.setenv("CRYPTOALPHA_SECRETS_DIR", str(mounted))
    monkeypatch.setenv("CRYPTOALPHA_CREDENTIALS__API_PASSPHRASE_FILE", str(empty / "passphrase"))
    code, text = say(capsys, "config", "show")
    assert code == 0
    assert text.count(MASK) == 3


def test_init_writes_no_secret(empty, capsys, monkeypatch):
    monkeypatch.setenv(NAME, CANARY)
    say(capsys, "init")
    assert CANARY not in (empty / "cryptoalpha.yaml").read_text()


def test_a_reference_in_a_file_is_taken_and_leads_to_the_secret(empty, capsys, monkeypatch):
    monkeypatch.setenv("MY_KEY", CANARY)
    (empty / "cryptoalpha.yaml").write_text("credentials:\n  api_key: env:MY_KEY\n")
    assert say(capsys, "config", "show")[0] == 0
    hidden: list[str] = []
    assert reveal(SecretStr("env:MY_KEY"), "api_key", hidden.extend) == CANARY
    (empty / "key").write_text(CANARY + "\n")
    assert reveal(SecretStr(f"file:{empty / 'key'}"), "api_key", hidden.extend) == CANARY
    assert reveal(SecretStr(CANARY), "api_key", hidden.extend) == CANARY
    assert hidden == [CANARY] * 3


@pytest.mark.parametrize("reference", ["env:NOT_SET_ANYWHERE", "file:/nonexistent/file", "keyring:no-slash", "keyring:cryptoalpha/missing"])
def test_a_reference_that_leads_nowhere_says_so(empty, reference):
    with pytest.raises(ConfigError, match="api_key"):
        reveal(SecretStr(reference), "api_key", lambda secrets: None)
