"""The days that the gates keep locked, and that searches end where they begin."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cryptoalpha.app import tuning
from cryptoalpha.app.locked_days import before_locked_days, locked_days, market_of
from cryptoalpha.app.retraining_child import tune_step
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.simulated import simulate
from cryptoalpha.lifecycle.retrain.step import Work

SETTINGS = Settings.model_validate(
    {"data": {"simulated": {"assets": 2, "bars": 24 * 40 + 7}}, "lifecycle": {"gates": {"holdout_days": 10}}}
)


class AskedError(Exception):
    """The search was asked for, until then."""


@pytest.fixture(scope="module")
def market():
    return simulate(SETTINGS.data.simulated, seed=3).dataset


@pytest.fixture
def asked(monkeypatch):
    def ask(*args, until, **more):
        raise AskedError(until)

    monkeypatch.setattr("cryptoalpha.lifecycle.tune.forecaster.forecaster_search", ask)
    monkeypatch.setattr(tuning, "forecaster_search", ask)


def test_they_are_whole_days_that_are_known_to_their_end(market):
    first = min(int(table.open_time[0]) for table in market.bars.values())
    last = max(int(table.known_at[-1]) for table in market.bars.values())
    locked = locked_days(market, 10)
    assert (locked.since % DAY, locked.until % DAY, locked.until - locked.since) == (0, 0, 10 * DAY)
    assert 0 <= last - locked.until < DAY
    assert (locked.until - first) // DAY == 40
    assert before_locked_days(market, 39) == first + DAY
    with pytest.raises(DataMissingError, match="kept for the gates"):
        before_locked_days(market, 40)


def test_more_days_other_bars_and_other_instruments_are_the_same_market_if_it_is_recorded(market):
    assert market_of(SimpleNamespace(simulated=False, origin="40 days")) == market_of(SimpleNamespace(simulated=False, origin="41 days"))
    assert market_of(market) != market_of(simulate(SETTINGS.data.simulated, seed=4).dataset)


def test_the_verb_searches_before_them_unless_told_otherwise(asked, market, tmp_path):
    with pytest.raises(AskedError) as found:
        tuning.tune_forecaster(SETTINGS, market, tmp_path)
    assert found.value.args == (locked_days(market, 10).since,)
    with pytest.raises(AskedError) as found:
        tuning.tune_forecaster(SETTINGS, market, tmp_path, until=77 * HOUR)
    assert found.value.args == (77 * HOUR,)


def test_a_campaign_searches_before_them(asked, market, tmp_path):
    end = max(int(table.known_at[-1]) for table in market.bars.values()) - 3 * DAY  # bars that came later are none of its own
    plan = {
        "settings": SETTINGS.model_dump(mode="json", exclude={"credentials"}), "until": end, "seed": 0, "home": str(tmp_path),
        "fingerprint": "f", "instruments": None,
    }  # fmt: skip
    with pytest.raises(AskedError) as found:
        tune_step(Work(1, "tune", "gate", 0, tmp_path, plan, {}), lambda settings, words: market)
    assert found.value.args == ((end // DAY - 10) * DAY,)
