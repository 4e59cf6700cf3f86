"""A run kept under a name is not lost to another of that name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryptoalpha.app.kept_runs import run_and_keep, stored_content
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY
from cryptoalpha.data.simulated import simulate
from cryptoalpha.risk.config import RiskConfig

SETTINGS = Settings.model_validate(
    {
        "data": {"simulated": {"assets": 1, "bars": 2000}},
        "signals": {"sources": ["momentum_short"], "keep_features": False},
        "fusion": {"method": "equal"},
    }
)


def test_a_name_that_is_taken_by_another_period_is_refused_and_the_kept_run_stays(tmp_path: Path):
    dataset = simulate(SETTINGS.data.simulated, 0).dataset
    first = int(dataset.bars["SIM1/USDT"].open_time[0])
    march, april = Period(first + 30 * DAY, first + 62 * DAY), Period(first + 40 * DAY, first + 72 * DAY)

    def keep(period: Period, *, replace: bool = False) -> str:
        kept = run_and_keep(SETTINGS, dataset, period, tmp_path, instruments=None, name="mine", elsewhere=0, command="", replace=replace)
        return kept.result.digest

    digest = keep(march)
    assert keep(march) == digest  # the same run may replace itself
    bolder = SETTINGS.model_copy(update={"risk": RiskConfig(max_position=0.5)})
    with pytest.raises(ConfigError, match=r"differs in config: .*risk\.max_position was 0\.25 and is 0\.5"):
        run_and_keep(bolder, dataset, march, tmp_path, instruments=None, name="mine", elsewhere=0, command="")
    with pytest.raises(ConfigError, match="differs in since, until"):
        keep(april)
    assert stored_content(tmp_path, "mine").card.journal_digest == digest
    assert keep(april, replace=True) != digest
