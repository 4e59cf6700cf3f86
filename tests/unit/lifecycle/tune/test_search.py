"""A search: it finds what is there, gives up early, counts every look, goes on where it was stopped, and is one at a time."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import optuna
import pytest

from cryptoalpha.core.errors import ConfigError, StoreLockedError, WorkerDiedError
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.tune.journal import Place
from cryptoalpha.lifecycle.tune.ledger import TrialLedger
from cryptoalpha.lifecycle.tune.search import abandon, ended, tune
from cryptoalpha.lifecycle.tune.trial import open_study
from cryptoalpha.monitoring.significance import deflated_sharpe_ratio


@pytest.fixture
def line(monkeypatch):
    """A module that worker processes can import."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import line_search

    return line_search


def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "studies", "line")


def counted(tmp_path: Path, since: int = 0, until: int = 30 * DAY):
    return TrialLedger(tmp_path / "trials.sqlite", now=lambda: 0).looks("d", since, until)


def run(line, tmp_path: Path, trials: int = 20, search=None, **how):
    return tune(search or line.search(tmp_path / "diary"), place(tmp_path), tmp_path / "trials.sqlite", trials=trials, **how)


def test_it_finds_what_is_there_begins_with_what_is_and_counts_every_look(line, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    found = run(line, tmp_path, 30, tell=lambda done, of, what: told.append((done, of, what)))
    assert found.best is not None
    assert found.trials[0].params == {"x": 0.9}
    assert abs(found.params["x"] - line.BEST) < 0.1
    assert found.best.value == pytest.approx((found.params["x"] - line.BEST) ** 2 + 1.0)  # folds shift it by 0, 1 and 2
    states = [row.state for row in found.trials]
    assert len(states) == 30
    assert states.count("given up") > 5
    assert {row.folds for row in found.trials if row.state == "judged"} == {3}
    assert {row.folds for row in found.trials if row.state == "given up"} <= {1, 2}
    looks = counted(tmp_path)
    assert (looks.trials, looks.sources) == (30, {"tune": 30})
    assert looks.states == {"done": states.count("judged"), "pruned": states.count("given up")}
    assert told[-1][1] == 30


def test_the_winner_is_deflated_by_every_look_at_its_days(line, tmp_path: Path) -> None:
    found = run(line, tmp_path, 12)
    assert found.best is not None
    assert found.deflated is not None
    x = found.params["x"]
    returns = np.concatenate([
        np.random.default_rng(1000 + fold).normal(0.002 * (1.0 - abs(x - line.BEST)), 0.01, line.DAYS) for fold in range(line.FOLDS)
    ])  # fmt: skip
    assert found.deflated.trials == 12
    assert found.deflated.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1))
    assert found.deflated.spread == pytest.approx(1.0 / sqrt(29))  # these trials are more alike than luck would make them
    assert found.deflated.probability == pytest.approx(deflated_sharpe_ratio(returns, trials=12))
    assert any("12 looks" in said for said in found.lines())


def test_the_same_seed_searches_the_same_and_another_does_not(line, tmp_path: Path) -> None:
    one, same, other = (run(line, tmp_path / name, 8, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert [row.params for row in one.trials] == [row.params for row in same.trials]
    assert [row.params for row in one.trials][1:] != [row.params for row in other.trials][1:]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()


def test_processes_share_the_trials_and_none_is_done_twice(line, tmp_path: Path) -> None:
    found = run(line, tmp_path, 12, search=line.search(tmp_path / "diary", seconds=0.05), processes=2)
    assert len(found.trials) == 12
    diary = [entry.split() for entry in (tmp_path / "diary").read_text().splitlines()]
    assert len({process for process, _, _ in diary}) == 2
    assert len({(fold, x) for _, fold, x in diary}) == len(diary)


def test_a_search_goes_on_and_only_what_is_missing_is_done(line, tmp_path: Path) -> None:
    run(line, tmp_path, 5)
    before = (tmp_path / "diary").read_text()
    assert len(run(line, tmp_path, 5).trials) == 5
    assert (tmp_path / "diary").read_text() == before
    more = run(line, tmp_path, 7)
    assert [row.number for row in more.trials] == list(range(7))


def test_a_trial_whose_process_was_killed_is_begun_again_with_its_values(line, tmp_path: Path) -> None:
    search = line.search(tmp_path / "diary", dies_above=0.8)  # the first point, 0.9, kills its process, once
    found = run(line, tmp_path, 6, search=search, processes=2)
    assert found.trials[0].state == "begun again"
    again = [row for row in found.trials if row.params == {"x": 0.9} and row.state != "begun again"]
    assert [row.state for row in again] == ["judged"]
    assert sum(row.state in ("judged", "given up") for row in found.trials) == 6
    assert counted(tmp_path).states.get("running", 0) == 0


def test_a_point_that_kills_each_time_fails_and_the_search_goes_on(line, tmp_path: Path) -> None:
    search = line.search(tmp_path / "diary", dies_above=0.89, dies_once=False, first={"x": 0.9})
    found = run(line, tmp_path, 4, search=search, processes=2, retries=1, restarts=8)
    killed = [row for row in found.trials if row.state == "killed"]
    assert {"x": 0.9} in [row.params for row in killed]
    assert sum(row.state in ("judged", "given up", "killed") for row in found.trials) >= 4
    assert counted(tmp_path).states["running"] >= 1  # a look that was killed is a look
    with pytest.raises(WorkerDiedError):
        run(
            line, tmp_path / "a", 4, search=line.search(tmp_path / "a" / "diary", dies_above=-1.0, dies_once=False), processes=2, restarts=1
        )


def test_what_diverges_is_counted_and_avoided(line, tmp_path: Path) -> None:
    found = run(line, tmp_path, 25, search=line.search(tmp_path / "diary", diverges_above=0.6))
    failed = [row for row in found.trials if row.state == "failed"]
    assert found.trials[0] in failed
    assert "the loss is not finite" in found.trials[0].error
    assert found.trials[0].value is None
    assert counted(tmp_path).states["failed"] == len(failed)
    assert sum(row.state == "failed" for row in found.trials[10:]) <= 4  # by chance 6 of 15: the sampler has learned where it goes wrong


def test_the_winner_is_judged_once_on_the_days_that_no_trial_saw(line, tmp_path: Path) -> None:
    search = line.search(tmp_path / "diary", holdout=True)
    found = run(line, tmp_path, 8, search=search)
    assert found.holdout is not None
    assert found.holdout.winner is not None
    assert found.holdout.begin is not None
    assert found.holdout.winner["value"] == pytest.approx((found.params["x"] - line.BEST) ** 2 + 3.0)
    assert found.holdout.begin["value"] == pytest.approx(0.6**2 + 3.0)
    before = (tmp_path / "diary").read_text()
    again = run(line, tmp_path, 8, search=search)
    assert (tmp_path / "diary").read_text() == before
    assert again.holdout == found.holdout
    assert counted(tmp_path, 30 * DAY, 40 * DAY).sources == {"tune holdout": 2}
    assert counted(tmp_path).sources == {"tune": 8}


def test_a_study_that_goes_on_says_the_how_manieth_winner_is_judged_on_those_days(line, tmp_path: Path) -> None:
    search = line.search(tmp_path / "diary", holdout=True)
    first = run(line, tmp_path, 1, search=search)
    assert (first.holdout.winners, "winner number" in " ".join(first.lines())) == (1, False)
    later = run(line, tmp_path, 25, search=search)
    assert later.best.number != first.best.number
    assert later.holdout.winners == 2
    assert "winner number 2 of this study" in " ".join(later.lines())
    assert run(line, tmp_path, 25, search=search).holdout.winners == 2


def test_another_search_of_the_same_name_is_refused_and_fresh_puts_it_aside(line, tmp_path: Path) -> None:
    run(line, tmp_path, 2)
    with pytest.raises(ConfigError, match="seed differ"):
        run(line, tmp_path, 2, seed=1)
    assert len(run(line, tmp_path, 3, seed=1, fresh=True).trials) == 3
    assert (tmp_path / "studies" / "line.previous.journal").exists()
    assert counted(tmp_path).trials > 3  # what was put aside was looked at all the same


def test_one_search_of_a_study_at_a_time_and_never_beside_an_orphan(line, tmp_path: Path) -> None:
    here = place(tmp_path)
    with here.alone(), pytest.raises(StoreLockedError, match="being searched already"):
        run(line, tmp_path, 1)
    orphan = here.join()
    with pytest.raises(StoreLockedError, match="has not ended"), here.alone(patience_seconds=0.2):
        pass
    import os

    os.close(orphan)
    assert len(run(line, tmp_path, 1).trials) == 1


def test_no_trial_begins_after_the_time_is_up(line, tmp_path: Path) -> None:
    found = run(line, tmp_path, 5, seconds=0.0)
    assert [row.state for row in found.trials] == ["queued"]
    assert found.best is None
    assert "there is no winner" in found.lines()[0]


def test_half_a_line_of_a_killed_writer_is_cut_off(line, tmp_path: Path) -> None:
    run(line, tmp_path, 3)
    journal = place(tmp_path).journal
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":5,"wor')
    assert len(run(line, tmp_path, 4).trials) == 4
    assert journal.read_bytes().startswith(whole)
    read = optuna.load_study(
        study_name="line", storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    )  # as optuna-dashboard opens it
    assert len(read.trials) == 4


def test_abandoning_twice_queues_a_trial_once(line, tmp_path: Path) -> None:
    study = open_study(line.search(tmp_path / "diary"), place(tmp_path))
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    study.enqueue_trial({"x": trial.params["x"]}, user_attrs={"retry_of": trial.number})  # killed after this, before it was marked
    assert abandon(study, 2) == 1
    assert abandon(study, 2) == 0
    assert [each.state.name for each in study.trials] == ["FAIL", "WAITING"]
    assert ended(study) == 0
