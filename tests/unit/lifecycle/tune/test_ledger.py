"""The trial ledger: every look counts once, wherever periods overlap; what came of it deflates the winner."""

from __future__ import annotations

import sqlite3
import threading
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cryptoalpha.app.trials import backtest_look, trial_ledger
from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.tune.ledger import Look, TrialLedger
from cryptoalpha.monitoring.significance import deflated_sharpe_ratio, expected_max_sharpe


@pytest.fixture
def ledger(tmp_path: Path) -> TrialLedger:
    ticks = iter(range(1, 1_000_000))
    return TrialLedger(tmp_path / "trials.sqlite", now=lambda: next(ticks))


def look(config: str = "c", since: int = 0, until: int = 100, data: str = "d", source: str = "backtest") -> Look:
    return Look(data, since, until, config, source)


def header(**changed: str) -> dict[str, str]:
    return {"data": "d", "since": "0", "until": "100", "config": "c", "interval": "1h", "instruments": "A,B", "version": "1", **changed}


def test_each_configuration_counts_once(tmp_path: Path) -> None:
    ledger = trial_ledger(tmp_path)
    assert ledger.enter(backtest_look(header())) == 1
    assert ledger.enter(backtest_look(header())) == 1
    assert ledger.enter(backtest_look(header(config="c2"))) == 2
    assert ledger.enter(backtest_look(header(instruments="A"))) == 3
    assert ledger.enter(backtest_look(header(seed="7"))) == 3
    assert ledger.enter(backtest_look(header(interval="4h"))) == 4


def test_trials_count_on_their_own_data_and_wherever_periods_overlap(ledger: TrialLedger) -> None:
    assert ledger.enter(look()) == 1
    assert ledger.enter(look("c2", data="other")) == 1
    assert ledger.enter(look("c2", 100, 200)) == 1  # the next period: not one bar shared
    assert ledger.enter(look("c3", 99, 150)) == 3  # both
    assert ledger.enter(look(until=101)) == 3  # the first configuration again, over all three
    assert ledger.enter(look(data="")) == 1  # data made by hand have no fingerprint
    assert ledger.looks("d", 0, 100).trials == 2
    assert ledger.looks(None, 0, 100).trials == 3  # c2 on another data set, too


def test_searches_and_backtests_are_counted_together_and_told_apart(ledger: TrialLedger) -> None:
    ledger.enter(look("a"))
    for config, state in (("b", "done"), ("c", "pruned"), ("d", "failed")):
        ledger.enter(look(config, source="tune"))
        ledger.settle(look(config, source="tune"), state)  # type: ignore[arg-type]
    found = ledger.looks("d", 0, 100)
    assert (found.trials, found.states, found.sources) == (
        4, {"running": 1, "done": 1, "pruned": 1, "failed": 1}, {"backtest": 1, "tune": 3}
    )  # fmt: skip


def test_entering_a_look_again_keeps_what_came_of_it(ledger: TrialLedger) -> None:
    ledger.settle(look(), "done", first_day=0, returns=np.array([0.01, 0.03]))
    ledger.enter(look())
    ledger.settle(look(), "failed")
    found = ledger.looks("d", 0, 1)
    assert found.states == {"failed": 1}
    assert_array_equal(found.returns[0].returns, [0.01, 0.03])
    assert found.sharpes == (pytest.approx(0.02 / sqrt(2e-4)),)  # mean over standard deviation with ddof 1


def test_the_winner_is_deflated_by_all_trials_and_their_spread(ledger: TrialLedger) -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(0.0, 0.01, (200, 6)) + np.linspace(-0.004, 0.004, 6)
    for place in range(6):
        ledger.settle(look(f"c{place}"), "done", first_day=0, returns=columns[:, place])
    for place in range(44):
        ledger.settle(look(f"pruned {place}"), "pruned")
    sharpes = columns.mean(axis=0) / columns.std(axis=0, ddof=1)
    spread = float(np.std(sharpes, ddof=1))
    assert spread > 1.0 / sqrt(199)  # wider than luck, so that it is the one that counts
    found = ledger.looks("d", 0, 100).deflated(columns[:, -1])
    assert (found.trials, found.days) == (50, 200)
    assert found.spread == pytest.approx(spread)
    assert found.benchmark == pytest.approx(expected_max_sharpe(50, spread=spread))
    assert found.probability == pytest.approx(deflated_sharpe_ratio(columns[:, -1], trials=50, spread=spread))
    more = ledger.looks("d", 0, 100).deflated(columns[:, -1], elsewhere=1000)
    assert more.trials == 1050
    assert more.probability < found.probability


def test_trials_that_are_all_alike_do_not_make_the_best_of_them_look_certain(ledger: TrialLedger) -> None:
    base = np.random.default_rng(1).normal(0.001, 0.01, 400)
    for place in range(3):
        ledger.settle(look(f"c{place}"), "done", first_day=0, returns=base + place * 1e-9)
    found = ledger.looks("d", 0, 100).deflated(base)
    assert found.spread == pytest.approx(1.0 / sqrt(399))
    assert found.probability == pytest.approx(deflated_sharpe_ratio(base, trials=3))


def test_returns_that_do_not_vary_have_no_probability(ledger: TrialLedger) -> None:
    ledger.settle(look(), "done", first_day=0, returns=np.zeros(10))
    found = ledger.looks("d", 0, 100)
    assert found.sharpes == ()
    assert np.isnan(found.deflated(np.zeros(10)).probability)


def test_the_columns_of_a_stretch_are_those_that_cover_it(ledger: TrialLedger) -> None:
    ledger.settle(look("whole", 0, 10 * DAY), "done", first_day=0, returns=np.arange(10.0))
    ledger.settle(look("late", 2 * DAY, 10 * DAY), "done", first_day=2 * DAY, returns=np.arange(8.0) + 100.0)
    names, found = ledger.looks("d", 0, 10 * DAY).matrix(2 * DAY - 1, 5 * DAY)
    assert names == ("whole", "late")
    assert_array_equal(found, [[2.0, 100.0], [3.0, 101.0], [4.0, 102.0]])
    assert ledger.looks("d", 0, 10 * DAY).matrix(0, 10 * DAY)[0] == ("whole",)
    assert ledger.looks("d", 0, 10 * DAY).matrix(20 * DAY, 22 * DAY)[1].shape == (2, 0)


def counted_only(path: Path, rows: int) -> None:
    """A ledger as the versions before this one wrote it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        "CREATE TABLE trial (data TEXT, since INTEGER, until INTEGER, config TEXT, PRIMARY KEY (data, config, since, until)) WITHOUT ROWID"
    )
    connection.executemany("INSERT INTO trial VALUES ('d', 0, 100, ?)", [(f"old {row}",) for row in range(rows)])
    connection.execute(f"PRAGMA application_id = {0x63617472}")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()


def test_a_ledger_that_only_counted_goes_on_counting(tmp_path: Path) -> None:
    counted_only(tmp_path / "trials.sqlite", 7)
    ledger = trial_ledger(tmp_path)
    assert ledger.enter(look("new")) == 8
    assert ledger.looks("d", 0, 100).states == {"done": 7, "running": 1}
    assert ledger.enter(look("old 3")) == 8


def test_many_who_open_an_old_ledger_at_once_lose_no_look(tmp_path: Path) -> None:
    counted_only(tmp_path / "trials.sqlite", 50)
    threads = [threading.Thread(target=trial_ledger(tmp_path).enter, args=(look(f"new {place}"),)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trial_ledger(tmp_path).looks("d", 0, 100).trials == 58


def test_what_is_no_ledger_is_left_alone(tmp_path: Path, ledger: TrialLedger) -> None:
    ledger.path.write_bytes(b"not a database, but long enough to be read as the header of one" * 20)
    with pytest.raises(StoreError, match="trial ledger"):
        ledger.enter(look())
    connection = sqlite3.connect(tmp_path / "other.sqlite")
    connection.execute("CREATE TABLE trial (x)")
    connection.close()
    with pytest.raises(StoreError, match="is not a cryptoalpha trial ledger"):
        TrialLedger(tmp_path / "other.sqlite", now=lambda: 0).enter(look())


def test_looks_that_make_no_sense_are_refused(ledger: TrialLedger) -> None:
    with pytest.raises(ConfigError, match="judges nothing"):
        look(since=5, until=5)
    with pytest.raises(ConfigError, match="daily returns need the day"):
        ledger.settle(look(), "done", returns=np.zeros(3))
