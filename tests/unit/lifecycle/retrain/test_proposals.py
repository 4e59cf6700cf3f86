"""What a session of `trade` does about an alarm of drift: it is written into the book once, and answered only where that is switched on."""

from __future__ import annotations

import pytest

from cryptoalpha.app.retrain_proposals import DriftProposals, campaigns_beside
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Alarm
from cryptoalpha.lifecycle.retrain.book import BOOK, book
from cryptoalpha.lifecycle.retrain.config import RetrainConfig
from cryptoalpha.lifecycle.retrain.triggers import take, waiting


def alarm(day: int, *, tier: str = "champion", subject: str = "information_coefficient") -> Alarm:
    return Alarm(
        happened_at=day * DAY, known_at=day * DAY, detector="cusum", subject=subject, tier=tier, statistic=9.0, threshold=8.0,
        run_length=730.0, message=f"it fell by day {day}",
    )  # fmt: skip


def test_an_alarm_is_proposed_once_however_often_its_step_is_taken(tmp_path):
    said: list[str] = []
    hear = DriftProposals(tmp_path, RetrainConfig(), said.append)
    for _ in range(3):
        hear(alarm(10))
    (found,) = waiting(tmp_path / BOOK)
    assert (found.cause, found.subject, found.times, found.detail) == ("drift", "information_coefficient", 1, "it fell by day 10")
    assert said == ["retraining is proposed (information_coefficient, 1. time): `cryptoalpha retrain` answers it"]
    hear(alarm(30))
    assert waiting(tmp_path / BOOK)[0].times == 2


def test_an_alarm_that_was_answered_is_not_proposed_anew_by_a_session_that_takes_its_steps_again(tmp_path):
    DriftProposals(tmp_path, RetrainConfig(), lambda words: None)(alarm(10))
    with book(tmp_path / BOOK, write=True) as connection:
        connection.execute("INSERT INTO campaign (kind, cause, begun_at, plan) VALUES ('retrain', 'drift', 7, '{}')")
        take(connection, 1, ("drift",))
    DriftProposals(tmp_path, RetrainConfig(), lambda words: None)(alarm(10))
    assert waiting(tmp_path / BOOK) == ()


@pytest.mark.parametrize(
    ("tiers", "proposed"), [(("retrain",), ["a"]), (("champion",), ["b"]), (("retrain", "champion"), ["a", "b"]), ((), [])]
)
def test_only_the_tiers_of_the_settings_propose(tmp_path, tiers, proposed):
    hear = DriftProposals(tmp_path, RetrainConfig(tiers=tiers), lambda words: None)
    hear(alarm(10, tier="retrain", subject="a"))
    hear(alarm(11, tier="champion", subject="b"))
    hear(alarm(12, tier="breaker", subject="c"))
    assert [one.subject for one in waiting(tmp_path / BOOK)] == proposed


def test_campaigns_are_not_run_unless_that_is_switched_on(tmp_path):
    said: list[str] = []
    with campaigns_beside(Settings(), tmp_path, [], said.append):
        assert said == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_switched_on_they_are_run_in_a_process_that_ends_with_the_session(tmp_path):
    import os
    import re

    said: list[str] = []
    settings = Settings(lifecycle={"retrain": {"automatic": True}})
    with campaigns_beside(settings, tmp_path, ["--interval", "1h"], said.append):
        (found,) = said
        process = int(re.search(r"process (\d+)", found)[1])  # type: ignore[index]
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
