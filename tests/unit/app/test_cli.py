"""The command line: what it loads, what it prints where, and how it ends."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
import typer

from cryptoalpha import __version__
from cryptoalpha.app import output
from cryptoalpha.app.cli import main
from cryptoalpha.app.frame import Frame, run, verb
from cryptoalpha.app.output import Output, Table, plain
from cryptoalpha.core.errors import (
    BarGateError,
    ConfigError,
    CryptoAlphaError,
    DataMissingError,
    LookAheadError,
    RiskHaltError,
    StoreLockedError,
    VenueError,
)

HEAVY = {"numpy", "pydantic", "msgspec", "duckdb", "torch", "ccxt", "numba", "pandas"}


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def speak(body, arguments: list[str], capsys) -> tuple[int, str, str]:
    """Run a program whose only verb is `body`."""
    app = typer.Typer()
    app.callback()(lambda: None)
    verb(app, "work")(body)
    code = run(app, ["work", *arguments])
    spoken = capsys.readouterr()
    return code, spoken.out, spoken.err


def loaded_by(*arguments: str) -> set[str]:
    script = (
        "import sys\nfrom cryptoalpha.app.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write('\\nLOADED ' + ' '.join(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stderr.rpartition("LOADED ")[2].split())


def test_version_loads_nothing_heavy_not_even_the_parser():
    assert loaded_by("--version") & (HEAVY | {"typer", "rich"}) == set()


def test_help_loads_nothing_heavy():
    assert loaded_by("--help") & HEAVY == set()


def test_a_verb_that_only_reads_settings_loads_no_network():
    assert "torch" not in loaded_by("config", "validate")


def test_version_answers_in_a_fraction_of_a_second():
    def once() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cryptoalpha.app.cli", "--version"], check=True, capture_output=True)
        return time.perf_counter() - started

    assert min(once() for _ in range(3)) < 0.3


@pytest.mark.parametrize("arguments", [["--version"], ["--version", "--help"]])
def test_version_is_printed(capsys, arguments):
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"cryptoalpha {__version__}\n"


def test_without_a_verb_the_help_is_printed(capsys):
    assert main([]) == 0
    assert "config" in capsys.readouterr().out


def test_the_result_goes_to_stdout_and_everything_else_to_stderr(capsys):
    def work(frame: Frame) -> None:
        """Work."""
        frame.out.note("working")
        frame.out.warn("thin data")
        with frame.out.progress("counting", total=2) as advance:
            advance(2)
        frame.out.result({"answer": 42}, ["answer: 42", Table(("asset", "return"), [("BTC", "1.5%"), ("ETHER", "-12%")])])

    code, out, err = speak(work, [], capsys)
    assert code == 0
    assert out.splitlines() == ["answer: 42", "asset  return", "─────  ──────", "BTC      1.5%", "ETHER    -12%"]
    assert err.splitlines() == ["working", "warning: thin data"]
    assert speak(work, ["-q"], capsys)[2] == "warning: thin data\n"


def test_without_a_terminal_a_line_now_and_then_says_where_a_verb_stands(capsys, monkeypatch):
    monkeypatch.setattr(output, "SECONDS_BETWEEN_LINES", 0.05)

    def work(frame: Frame) -> None:
        """Work."""
        with frame.out.progress("beginning") as bar:
            time.sleep(0.2)
            bar.at(1, 4, "fold 0: learning")
            time.sleep(0.2)
        frame.out.result({"answer": 42}, "answer: 42")

    code, out, err = speak(work, [], capsys)
    told = err.splitlines()
    assert (code, out) == (0, "answer: 42\n")
    assert told[0] == "beginning, 0 s so far"
    assert told[-1] == "fold 0: learning: 25%, 0 s so far"
    assert speak(work, ["-q"], capsys)[2] == speak(work, ["--json"], capsys)[2] == ""


def test_json_is_one_document(capsys):
    def work(frame: Frame, size: Annotated[int, typer.Option()] = 3) -> None:
        """Work."""
        frame.out.warn("thin data")
        frame.out.result({"size": size, "sharpe": float("nan")}, "not printed")

    code, out, _ = speak(work, ["--json", "--size", "5"], capsys)
    assert code == 0
    assert json.loads(out) == {
        "schema": 1,
        "command": "work",
        "ok": True,
        "result": {"size": 5, "sharpe": None},
        "warnings": ["thin data"],
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CryptoAlphaError("x"), 1),
        (ConfigError("x"), 2),
        (DataMissingError("x"), 3),
        (BarGateError("x"), 3),
        (StoreLockedError("x"), 3),
        (RiskHaltError("x"), 4),
        (VenueError("x"), 5),
        (LookAheadError("x"), 6),
        (ZeroDivisionError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_its_exit_code_and_its_document(capsys, error, code):
    def work(frame: Frame) -> None:
        """Work."""
        raise error

    ended, out, err = speak(work, ["--json"], capsys)
    document = json.loads(out)
    assert ended == code == document["error"]["code"]
    assert document["ok"] is False
    assert document["command"] == "work"
    assert set(document["error"]) == {"type", "code", "message", "hint"}
    assert "Traceback" not in err


def test_an_interrupt_inside_compiled_code_is_an_interrupt(capsys):
    def work(frame: Frame) -> None:
        """Work."""
        raise SystemError("CPUDispatcher returned a result with an exception set") from KeyboardInterrupt()  # so numba passes Ctrl-C on

    assert speak(work, [], capsys) == (130, "", "Interrupted: stopped by the keyboard\n")


def test_an_error_for_people_is_one_line_and_its_hint(capsys):
    def work(frame: Frame) -> None:
        """Work."""
        raise DataMissingError("no bars for BTC/USDT", hint="run `cryptoalpha data fetch`")

    assert speak(work, [], capsys) == (3, "", "DataMissingError: no bars for BTC/USDT\n  → run `cryptoalpha data fetch`\n")
    assert "Traceback" in speak(work, ["-v"], capsys)[2]


def test_what_nobody_foresaw_is_one_line_too(capsys):
    def work(frame: Frame) -> None:
        """Work."""
        raise ValueError("two\nlines")

    assert speak(work, [], capsys) == (1, "", "ValueError: two lines\n  → run again with -v for the traceback\n")


def test_a_verb_that_found_something_bad_gives_its_result_and_its_error(capsys):
    def work(frame: Frame) -> None:
        """Work."""
        frame.out.result({"leaks": ["scaler"]}, "leak: scaler")
        raise LookAheadError("1 leak")

    code, out, _ = speak(work, ["--json"], capsys)
    document = json.loads(out)
    assert code == 6
    assert document["result"] == {"leaks": ["scaler"]}
    assert document["error"]["type"] == "LookAheadError"
    assert speak(work, [], capsys)[1] == "leak: scaler\n"


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["config"], ["config", "show", "--frob"], ["config", "validate", "a", "b"], ["--frob"]]
)
def test_usage_errors_end_with_2_and_have_a_document(capsys, arguments):
    assert main([*arguments, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["type"] == "UsageError"
    assert "--help" in document["error"]["hint"]
    assert main(arguments) == 2
    spoken = capsys.readouterr()
    assert spoken.out == ""
    assert spoken.err.startswith("UsageError: ")


def test_seed_is_a_setting_and_the_flag_is_its_short_form(capsys):
    def work(frame: Frame) -> None:
        """Work."""
        frame.out.result({"seed": frame.seed})

    assert json.loads(speak(work, ["--seed", "11", "--json"], capsys)[1])["result"] == {"seed": 11}
    assert json.loads(speak(work, ["--set", "engine.seed=4", "--json"], capsys)[1])["result"] == {"seed": 4}


def test_the_store_lies_where_the_environment_says(capsys, monkeypatch, tmp_path):
    def work(frame: Frame) -> None:
        """Work."""
        frame.out.result({}, str(frame.home))

    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    assert speak(work, [], capsys)[1].strip() == str(tmp_path / "home")
    monkeypatch.delenv("CRYPTOALPHA_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert speak(work, [], capsys)[1].strip().endswith("cryptoalpha")


@pytest.mark.skipif(os.name == "nt", reason="pipes break differently there")
def test_a_reader_that_stops_early_is_no_error():
    command = f"{sys.executable} -m cryptoalpha.app.cli config schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


def test_known_secrets_are_masked_wherever_they_turn_up():
    stdout, stderr = io.StringIO(), io.StringIO()
    out = Output("work", as_json=True, stdout=stdout, stderr=stderr)
    out.hide(['top"secret', "abc"])
    out.warn('found top"secret')
    out.result({'top"secret': ['top"secret']})
    out.finish()
    assert "secret" not in stdout.getvalue() + stderr.getvalue()
    assert json.loads(stdout.getvalue())["result"] == {"**********": ["**********"]}


def test_a_secret_that_is_a_word_is_masked_alone_and_not_inside_our_own_names():
    out = Output("work", stdout=io.StringIO(), stderr=io.StringIO())
    out.hide(["secret", "Xy7-secret", "correcthorsebattery"])
    assert out.redact("set credentials.api_secret") == "set credentials.api_secret"
    assert out.redact("signed with 'secret', ?k=secret&x") == "signed with '**********', ?k=**********&x"
    assert out.redact("aXy7-secretb correcthorsebatterystaple") == "a**********b **********staple"  # no words: masked wherever they are


def test_streamed_lines_are_ndjson_or_text():
    streams = []
    for as_json in (True, False):
        stdout = io.StringIO()
        Output("work", as_json=as_json, stdout=stdout).line({"equity": 1.5}, "equity 1.5")
        streams.append(stdout.getvalue())
    assert streams == ['{"equity": 1.5}\n', "equity 1.5\n"]


def test_values_of_the_house_have_a_json_form():
    from dataclasses import dataclass
    from decimal import Decimal

    import numpy as np

    from cryptoalpha.core.values import ObservationRef

    @dataclass
    class Pair:
        left: Decimal
        right: Path

    assert plain(Pair(Decimal("1.10"), Path("a"))) == {"left": "1.10", "right": "a"}
    assert plain({"a": (np.float64("nan"), np.arange(2), np.int64(3))}) == {"a": [None, [0, 1], 3]}
    assert set(plain(ObservationRef(subject="BTC/USDT", partition="p", row=1, happened_at=0, known_at=1))) >= {"partition", "row"}
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})


def test_brackets_in_help_texts_are_shown(capsys):
    assert main(["data", "fetch", "--help"]) == 0
    assert "[else" in capsys.readouterr().out
    assert main(["config", "validate", "--help"]) == 0
    assert "[else the effective settings]" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_terminal_that_knows_only_ascii_still_gets_the_words():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "cryptoalpha", "config", "show", "--origin"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "engine.seed" in done.stdout
