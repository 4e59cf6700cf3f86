"""`.ci/venv`, which every `make` target runs first: what it says when Python is missing, and what it does with a broken `.venv`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="no POSIX shell here")

FAKE = """#!/bin/sh
# A Python that is old, has no venv, or pretends to make one and to install into it, saying what it was asked for.
case "$*" in
    *version_info*) exit {version} ;;
    *ensurepip*) exit {venv} ;;
    "--version") echo "Python 3.12.0" ;;
    "-m venv "*)
        mkdir -p .venv/bin
        cp "$0" .venv/bin/python
        echo made >>made.txt ;;
    *"pip --version"*) exit {pip} ;;
    *pip*install*)
        echo "$*" >>installed.txt
        case "$*" in
            *"-e ."*) touch .venv/bin/cryptoalpha && chmod +x .venv/bin/cryptoalpha ;;
        esac ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci" / "venv", tmp_path / ".ci" / "venv")
    (tmp_path / "requirements.lock").write_text("numpy==1.0\ntorch==2.13.0\n")
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def python(checkout: Path, *, version: int = 0, venv: int = 0, pip: int = 0) -> str:
    path = checkout / "python3.12"
    path.write_text(FAKE.format(version=version, venv=venv, pip=pip))
    path.chmod(0o755)
    return str(path)


def run(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(["sh", str(checkout / ".ci" / "venv")], env=given, capture_output=True, text=True, check=False, timeout=60)


def lines_of(checkout: Path, name: str) -> list[str]:
    path = checkout / name
    return path.read_text().splitlines() if path.exists() else []


def test_a_python_that_does_not_fit_is_told_in_one_line(checkout):
    for wrong in (python(checkout, version=1), str(checkout / "nothing")):
        done = run(checkout, PYTHON=wrong)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"PYTHON={wrong} is no Python 3.11 to 3.13" in done.stderr


def test_no_python_at_all_is_told_in_one_line(checkout, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "dirname", "cat", "cksum", "grep"):
        (tools / tool).symlink_to(shutil.which(tool))
    done = run(checkout, PATH=str(tools))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no Python 3.11 to 3.13 found; install one" in done.stderr


def test_a_python_without_venv_is_told_what_to_install(checkout):
    done = run(checkout, PYTHON=python(checkout, venv=1))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "apt install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_torch_comes_first_from_its_own_index_then_the_lock_then_the_project(checkout):
    assert run(checkout, PYTHON=python(checkout), TORCH_INDEX="https://example.org/cpu").returncode == 0
    asked = [line.partition("install ")[2] for line in lines_of(checkout, "installed.txt")]
    assert asked == ["--index-url https://example.org/cpu torch==2.13.0", "-r requirements.lock", "--no-deps --no-build-isolation -e ."]


def test_the_second_run_does_nothing_and_a_changed_lock_is_installed_into_the_same_place(checkout):
    fits = python(checkout)
    assert [run(checkout, PYTHON=fits).returncode for _ in range(2)] == [0, 0]
    assert (len(lines_of(checkout, "made.txt")), len(lines_of(checkout, "installed.txt"))) == (1, 3)
    (checkout / "requirements.lock").write_text("numpy==1.1\ntorch==2.13.0\n")
    assert run(checkout, PYTHON=fits).returncode == 0
    assert (len(lines_of(checkout, "made.txt")), len(lines_of(checkout, "installed.txt"))) == (1, 6)


def test_the_remains_of_an_interrupted_start_are_made_again(checkout):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(checkout / "gone")
    (checkout / ".venv" / "half").write_text("")
    assert run(checkout, PYTHON=python(checkout)).returncode == 0
    assert not (checkout / ".venv" / "half").exists()
    assert lines_of(checkout, "made.txt") == ["made"]


def test_an_installation_that_failed_is_not_taken_for_done(checkout):
    fits = python(checkout)
    assert run(checkout, PYTHON=fits).returncode == 0
    (checkout / ".venv" / "cryptoalpha.stamp").unlink()
    (checkout / ".venv" / "bin" / "cryptoalpha").unlink()
    assert run(checkout, PYTHON=fits).returncode == 0
    assert (len(lines_of(checkout, "made.txt")), len(lines_of(checkout, "installed.txt"))) == (1, 6)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_passes_a_bad_python_on_as_one_line(tmp_path):
    done = subprocess.run(
        ["make", "-f", str(REPOSITORY / "Makefile"), "-C", str(_bare(tmp_path)), "venv", f"PYTHON={tmp_path / 'nothing'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("cryptoalpha: ")] == done.stderr.splitlines()[:1]


def _bare(tmp_path: Path) -> Path:
    bare = tmp_path / "bare"
    (bare / ".ci").mkdir(parents=True)
    for name in (".ci/venv", "requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, bare / name)
    return bare


def test_this_python_is_one_that_fits():
    assert (3, 11) <= sys.version_info[:2] <= (3, 13)
