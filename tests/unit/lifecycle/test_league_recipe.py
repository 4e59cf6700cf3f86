"""The recipe of the league: what it leaves behind, that an interrupted run is the whole one, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.decisions.league.config import LeagueConfig, LeagueMarketConfig
from cryptoalpha.decisions.league.market import Luck
from cryptoalpha.decisions.league.member import TrainedLeague
from cryptoalpha.decisions.league.population import play
from cryptoalpha.lifecycle.recipes.league import train_league

SMALL = LeagueConfig(
    market=LeagueMarketConfig(steps=2), rounds=3, episodes=8, simulations=16, hidden=(8,), steps=3, batch=16, judged_episodes=64
)


class Stopped(KeyboardInterrupt):
    pass


def test_it_leaves_a_population_a_lineage_and_a_report(tmp_path):
    told = []
    trained = train_league(SMALL, tmp_path / "league", seed=3, tell=lambda done, of, what: told.append((done, of, what)))
    lineage = json.loads((trained.path / "model.json").read_text())["lineage"]
    assert lineage == trained.lineage
    assert not trained.already
    assert [one["round"] for one in lineage["exploitability"]] == [0, 1, 2, 3]
    assert lineage["verdict"]["share"] == pytest.approx(lineage["verdict"]["end"] / lineage["verdict"]["start"])
    earned = lineage["earnings"]
    total = 3 * earned["a learner"]["mean"] + sum(earned[name]["mean"] for name in ("value", "noise", "momentum", "maker", "liquidity"))
    assert total == pytest.approx(0.0, abs=1e-6)  # what one wins others have lost
    assert all(len(columns) == len(row) for _, columns, rows in trained.tables() for row in rows)
    assert "exploitability" in trained.lines()[0]
    report = (trained.path / "report.html").read_text()
    assert "<svg" in report
    assert "pay-off" in report
    assert "http" not in report
    assert told[0][0] == 0
    assert told[-1][0] < told[-1][1]

    opened = TrainedLeague.open(trained.path)
    assert len(opened.population) == lineage["verdict"]["joined"] + 1
    assert opened.config == SMALL
    luck = Luck.draw(SMALL.market, 32, 3, np.random.default_rng(0))
    wealth, liquidity = play(SMALL.market, [opened.player(32) for _ in range(3)], luck)
    np.testing.assert_array_equal(wealth.sum(axis=1) + liquidity, 0)


def test_a_run_that_was_stopped_goes_on_and_comes_to_the_same(tmp_path):
    whole = train_league(SMALL, tmp_path / "whole", seed=3)

    def stop(done, of, what):
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train_league(SMALL, tmp_path / "stopped", seed=3, tell=stop)
    assert not (tmp_path / "stopped").exists()
    with pytest.raises(ConfigError, match="seed"):
        train_league(SMALL, tmp_path / "stopped", seed=4)
    again = train_league(SMALL, tmp_path / "stopped", seed=3)
    assert again.lineage == whole.lineage
    assert (again.path / "fold_00.safetensors").read_bytes() == (whole.path / "fold_00.safetensors").read_bytes()
    assert not (tmp_path / "stopped.partial").exists()

    assert train_league(SMALL, tmp_path / "whole", seed=3).already
    with pytest.raises(ConfigError, match="another training"):
        train_league(SMALL, tmp_path / "whole", seed=4)
    (tmp_path / "whole" / "fold_00.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be used"):
        TrainedLeague.open(tmp_path / "whole")
    assert not train_league(SMALL, tmp_path / "whole", seed=3, fresh=True).already
