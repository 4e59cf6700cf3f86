"""What can be said about Ray without Ray: settings, the token's file, what is told where it is not installed, who imports it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.config import LearnConfig, RuntimeConfig
from cryptoalpha.learn.runtime import open_executor, open_workers
from cryptoalpha.learn.runtime.ray_cluster import check_token, kept_token
from cryptoalpha.learn.runtime.ray_seats import first_words

SOURCE = Path(__file__).resolve().parents[4] / "src" / "cryptoalpha"


def test_nothing_is_started_by_default_and_no_gpu_is_asked_for():
    runtime = LearnConfig().runtime
    assert (runtime.backend, runtime.gpus_per_actor, runtime.token_auth) == ("local", 0.0, True)


@pytest.mark.parametrize(
    "wrong",
    [{"gpus_per_actor": 1.5}, {"gpus_per_actor": -0.25}, {"temp_dir": "/" + 60 * "x"}, {"object_store_mib": 10}, {"backend": "dask"}],
    ids=str,
)
def test_settings_that_ray_would_choke_on_are_refused(wrong):
    with pytest.raises(ValidationError):
        RuntimeConfig(**wrong)


@pytest.mark.parametrize("fine", [0.0, 0.25, 1.0, 2.0])
def test_a_share_of_one_gpu_or_whole_ones(fine):
    assert RuntimeConfig(gpus_per_actor=fine).gpus_per_actor == fine


@pytest.mark.parametrize("opened", [open_executor, lambda config: open_workers(config, 2, int)], ids=["executor", "workers"])
def test_without_ray_it_is_said_what_to_install(monkeypatch, opened):
    monkeypatch.setitem(sys.modules, "ray", None)  # what Python does where it is not installed
    with pytest.raises(ConfigError, match=r"learn\.runtime\.backend is ray, but ray cannot be imported") as raised:
        opened(RuntimeConfig(backend="ray"))
    assert 'pip install "cryptoalpha[ray]"' in raised.value.hint


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    path = kept_token(tmp_path / "new")
    token = path.read_text()
    assert (len(token), path.stat().st_mode & 0o777) == (64, 0o600)
    path.chmod(0o644)
    assert kept_token(tmp_path / "new").read_text() == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept_token(tmp_path / "other").read_text() != token


def test_a_token_that_is_missing_or_that_others_can_read_is_refused(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no token for the Ray cluster at .*auth_token"):
        check_token()
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("0" * 64)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others") as raised:
        check_token()
    assert raised.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    check_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="elsewhere"):
        check_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    check_token()


def test_of_a_death_ray_reports_the_reason_is_kept_and_the_advice_left():
    told = RuntimeError(
        "The actor died unexpectedly before finishing this task.\n\tpid: 7\nThe actor is dead because its worker process has died. "
        "Worker exit detail: End of file. Some common causes include: (1) the OOM killer"
    )
    assert first_words(told) == "The actor is dead because its worker process has died. Worker exit detail: End of file."
    assert first_words(RuntimeError("")) == ""


def test_one_module_alone_imports_ray():
    texts = {path.name: path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"^\s*(import|from) ray\b", text, re.MULTILINE)] == []  # only by name …
    assert [name for name, text in texts.items() if "importlib.import_module(part)" in text] == ["ray_cluster.py"]  # … and only there
    assert 'part: str = "ray"' in texts["ray_cluster.py"]
