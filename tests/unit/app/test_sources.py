"""Which data a verb works on, and whether their texts pass the sieve."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.sources import open_dataset
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.agents.config import SieveConfig
from cryptoalpha.signals.agents.sieve import assets_of, sifted


def opened(tmp_path, **sieve):
    settings = Settings.model_validate(
        {"data": {"simulated": {"assets": 2, "bars": 600}}, "signals": {"agents": {"sieve": {"near_duplicate": 0.3, **sieve}}}}
    )
    found = open_dataset(settings, tmp_path, data=None, simulated=True, interval="1h", instruments=None)
    return found, settings


@pytest.mark.lengthy
def test_stored_texts_pass_the_sieve_where_that_is_asked_for(tmp_path):
    plain, settings = opened(tmp_path)
    whole = simulate(settings.data.simulated, settings.engine.seed).dataset
    assert _ids(plain) == _ids(whole)
    left, settings = opened(tmp_path, on_history=True)
    expected = sifted(whole, assets_of(whole), settings.signals.agents.sieve)
    assert _ids(left) == _ids(expected)
    assert 0 < sum(map(len, _ids(left).values())) < sum(map(len, _ids(whole).values()))


def test_what_has_passed_the_sieve_passes_it_again_and_keeps_its_weight(tmp_path):
    whole, _ = opened(tmp_path)
    once = sifted(whole, assets_of(whole), SieveConfig())
    for table in once.posts.values():
        object.__setattr__(table, "weight", np.linspace(0.1, 0.9, len(table)))
    again = sifted(once, assets_of(whole), SieveConfig())
    assert _ids(again) == _ids(once)
    assert all(np.array_equal(table.weight, once.posts[name].weight) for name, table in again.posts.items())


def _ids(dataset):
    return {name: table.post_id.tolist() for name, table in dataset.posts.items()}
