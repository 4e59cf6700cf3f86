"""Settings of risk that contradict themselves are refused where they are read, by their name, and not by the run that needs them."""

from __future__ import annotations

import pytest

from cryptoalpha.app.settings import defaults_with
from cryptoalpha.core.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("risk.ladder.rungs=[[0.5, 0.5], [0.3, 0.25]]", "each rung must be deeper"),
        ("risk.ladder.rungs=[[0.3, 0.5], [0.3, 0.25]]", "each rung must be deeper"),
        ("risk.ladder.rungs=[[0.3, 0.5], [0.5, 0.75]]", "leave less"),
        ("risk.ladder.rungs=[[0.3, 0.5], [0.5, 0.5]]", "leave less"),
        ("risk.ladder.rungs=[[0.3, 1.0]]", "leave less"),
        ("risk.ladder.rungs=[[0, 0.5]]", "greater than 0"),
        ("risk.ladder.step_up_share=0.4", "never rise far enough"),
        ("risk.ladder.regime_exposure=[1, 0.5, 0.25]", "each of the 6 regimes"),
        ("risk.ladder.regime_exposure=[1, 1, 1, 1, 0.5, 0.6]", "calmer"),
        ("risk.breakers.daily_loss_kill=3.0", "daily_loss_reduce"),
        ("risk.tail.least_days=501", "risk.tail.history_days"),
        ("risk.max_drawdown=0", "greater than 0"),
    ],
)
def test_nonsense_is_refused_with_the_name_of_its_setting(override, told):
    with pytest.raises(ConfigError) as refusal:
        defaults_with([override])
    assert override.partition("=")[0] in str(refusal.value)
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ("risk.ladder.rungs=[]", "risk.ladder.step_up_share=1"),
        ("risk.ladder.rungs=[[0.5, 0.5], [1, 0]]",),
        ("risk.ladder.rungs=[[0.2, 0.5]]", "risk.ladder.step_up_share=0.2"),
        ("risk.ladder.regime_exposure=[1, 1, 0.5, 0, 1, 0]",),
        ("risk.breakers.daily_loss_kill=4",),
        ("risk.breakers.daily_loss_kill=2", "risk.breakers.daily_loss_reduce=none"),
        ("risk.breakers.daily_loss_kill=none", "risk.breakers.daily_loss_reduce=9"),
        ("risk.tail.least_days=30", "risk.tail.history_days=30"),
        ("risk.max_drawdown=1",),
        ("risk.max_position=0",),
    ],
)
def test_what_only_looks_odd_is_accepted(overrides):
    defaults_with(overrides)
