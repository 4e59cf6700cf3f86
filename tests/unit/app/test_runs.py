"""Runs, trials, periods and sources: what is kept, counted and refused."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.period import Period, period_of
from cryptoalpha.app.runs import JOURNAL, digest_of, find_run, list_runs, new_run
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.sources import open_dataset
from cryptoalpha.core.errors import ConfigError, DataMissingError, StoreError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.store.tables import BarTable, Dataset
from cryptoalpha.store.whole_file import write_whole


def keep(home: Path, run: str, text: str = "") -> None:
    with new_run(home, run) as draft:
        (draft / JOURNAL).write_text(text)


def everything(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "runs").iterdir())


def test_a_run_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_run(tmp_path, "a") as draft:
        (draft / JOURNAL).write_text("x")
        assert list_runs(tmp_path) == []
    assert list_runs(tmp_path) == ["a"]
    assert everything(tmp_path) == ["a"]


def test_a_run_that_fails_leaves_nothing_and_the_earlier_one_stays(tmp_path: Path) -> None:
    keep(tmp_path, "a", "first")

    def fail() -> None:
        with new_run(tmp_path, "a") as draft:
            (draft / JOURNAL).write_text("second")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (find_run(tmp_path, "a") / JOURNAL).read_text() == "first"
    assert everything(tmp_path) == ["a"]


def test_a_run_of_the_same_name_is_replaced_whole(tmp_path: Path) -> None:
    with new_run(tmp_path, "a") as draft:
        (draft / JOURNAL).write_text("first")
        (draft / "only then").write_text("x")
    keep(tmp_path, "a", "second")
    assert sorted(path.name for path in find_run(tmp_path, "a").iterdir()) == [JOURNAL]
    assert (find_run(tmp_path, "a") / JOURNAL).read_text() == "second"
    assert everything(tmp_path) == ["a"]


def test_a_killed_run_leaves_nothing_that_looks_finished_and_the_next_clears_it_away(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from cryptoalpha.app.runs import JOURNAL, new_run\n"
        "with new_run(pathlib.Path(sys.argv[1]), 'a') as draft:\n"
        "    (draft / JOURNAL).write_text('half')\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        keep(tmp_path, "a", "another process")  # the draft of a living process is left alone
        assert len(everything(tmp_path)) == 2
        process.kill()
    assert list_runs(tmp_path) == ["a"]
    keep(tmp_path, "a", "whole")
    assert everything(tmp_path) == ["a"]


def test_a_run_set_aside_by_a_process_that_died_comes_back(tmp_path: Path) -> None:
    keep(tmp_path, "a", "first")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "runs" / "a").rename(tmp_path / "runs" / f".a.{dead.pid}.old")
    with pytest.raises(ZeroDivisionError), new_run(tmp_path, "a"):
        raise ZeroDivisionError
    assert (find_run(tmp_path, "a") / JOURNAL).read_text() == "first"


def test_clearing_up_after_one_run_leaves_others_alone(tmp_path: Path) -> None:
    for name in (".a.b.1", ".a.x", ".ab.1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    keep(tmp_path, "a")
    assert everything(tmp_path) == [".a.b.1", ".a.x", ".ab.1", "a"]


def test_the_newest_run_is_the_one_made_last_not_the_one_read_last(tmp_path: Path) -> None:
    keep(tmp_path, "old")
    time.sleep(0.02)
    keep(tmp_path, "new")
    write_whole(tmp_path / "runs" / "old" / "report.html", "written again")
    assert list_runs(tmp_path) == ["old", "new"]
    assert find_run(tmp_path, None).name == "new"


def test_a_run_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match="no runs under"):
        find_run(tmp_path, None)
    keep(tmp_path, "a")
    with pytest.raises(DataMissingError, match="no run 'b'") as caught:
        find_run(tmp_path, "b")
    assert caught.value.hint == "there are: a"
    with pytest.raises(ConfigError, match="not a run id"), new_run(tmp_path, "../a"):
        pass


def test_an_unwritable_home_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StoreError, match="cannot write runs"), new_run(tmp_path, "a"):
        pass


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [1.5, "x"]}) == digest_of({"b": [1.5, "x"], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert len(digest_of({})) == 16


# ── periods and sources ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def dataset(first: int = 0, count: int = 100) -> Dataset:
    open_time = DAY + HOUR * np.arange(first, first + count)
    ones = np.ones(count)
    table = BarTable("A/USDT", HOUR, open_time, ones, ones, ones, ones, ones)
    return Dataset("by hand", {"A/USDT": table, "B/USDT": replace(table.take(slice(0, 0)), instrument="B/USDT")})


def test_a_period_is_taken_from_the_data_where_it_is_left_open() -> None:
    assert period_of(dataset(), None, None) == Period(DAY, DAY + 100 * HOUR)
    assert period_of(dataset(), "1970-01-03", None) == Period(2 * DAY, DAY + 100 * HOUR)
    with pytest.raises(DataMissingError, match="has no bars"):
        period_of(dataset(count=0), None, None)
    with pytest.raises(ConfigError, match="is empty"):
        Period(5, 5)
    with pytest.raises(ConfigError, match="is empty"):
        period_of(dataset(), "1970-01-03", "1970-01-02")
    with pytest.raises(DataMissingError, match="has no bars from 1971-01-01T00:00:00Z on") as late:
        period_of(dataset(), "1971-01-01", None)
    assert late.value.hint == "its bars go from 1970-01-02T00:00:00Z to 1970-01-06T04:00:00Z; choose another --since"
    with pytest.raises(DataMissingError, match="has no bars before 1970-01-01"):
        period_of(dataset(), None, "1970-01-01")
    assert str(Period(DAY, 3 * DAY)) == "1970-01-02 to 1970-01-04"


def test_the_last_bars_of_a_period_are_bars_there_are() -> None:
    data = dataset()
    assert Period(0, 400 * DAY).last_bars(data, 10) == Period(DAY + 90 * HOUR, DAY + 100 * HOUR)
    assert Period(0, DAY + 50 * HOUR).last_bars(data, 10) == Period(DAY + 40 * HOUR, DAY + 50 * HOUR)
    assert Period(0, DAY + 50 * HOUR - 1).last_bars(data, 10).until == DAY + 50 * HOUR  # the bar that opens at 49:00 is in it
    assert Period(0, 400 * DAY).last_bars(data, 1000) == Period(DAY, DAY + 100 * HOUR)
    with pytest.raises(DataMissingError, match="has no bars from 1971"):
        Period(365 * DAY, 400 * DAY).last_bars(data, 10)


def test_bars_of_a_period_are_counted_where_there_are_any() -> None:
    data = dataset()
    assert Period(0, 400 * DAY).bars(data) == 100
    assert Period(DAY + HOUR, DAY + 3 * HOUR).bars(data) == 2
    assert Period(0, DAY).bars(data) == 0


def test_two_sources_at_once_and_an_empty_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two sources"):
        open_dataset(Settings(), tmp_path, data=tmp_path, simulated=True, interval="1h", instruments=None)
    with pytest.raises(DataMissingError, match="is empty") as caught:
        open_dataset(Settings(), tmp_path, data=None, simulated=False, interval="1h", instruments=None)
    assert "--data DIR" in caught.value.hint


def test_bars_that_the_simulated_market_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 1h bars") as caught:
        open_dataset(Settings(), tmp_path, data=None, simulated=True, interval="10m", instruments=None)
    assert "data.simulated.interval=10m" in caught.value.hint
