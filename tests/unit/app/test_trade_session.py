"""A session of `trade` that cannot begin leaves its store as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryptoalpha.app.settings import Settings, defaults_with
from cryptoalpha.app.trade_session import TradeRequest, _room_for, run_session
from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.store.controls import control_state, request_control
from cryptoalpha.store.journal import Journal

REQUEST = TradeRequest(
    data=None, since="2022-03-20", until="2022-03-22", interval="1h", instruments=None, simulated=True, speed=0.0, feed=None, run="paper"
)
OVERRIDES = ("data.simulated.assets=2", "data.simulated.bars=2000", "signals.sources=[trend]")
PLAIN = defaults_with(OVERRIDES)


def with_cash(cash: float) -> Settings:
    """Settings that pass no check here, so that the engine itself refuses them."""
    return PLAIN.model_copy(update={"execution": PLAIN.execution.model_copy(update={"initial_cash": cash})})


def test_a_refused_start_leaves_nothing_and_the_corrected_one_begins(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot start with"):
        run_session(with_cash(-1.0), tmp_path, REQUEST, say=lambda text: None)
    assert not (tmp_path / "runs" / "paper").exists()
    assert run_session(PLAIN, tmp_path, REQUEST, say=lambda text: None).steps == 48


def test_what_was_there_before_a_refused_start_stays(tmp_path: Path):
    run = tmp_path / "runs" / "paper"
    run.mkdir(parents=True)
    (run / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot start with"):
        run_session(with_cash(-1.0), tmp_path, REQUEST, say=lambda text: None)
    assert [file.name for file in run.iterdir()] == ["note.txt"]
    run_session(PLAIN, tmp_path, REQUEST, say=lambda text: None)
    other = defaults_with([*OVERRIDES, "risk.max_position=0.1", "risk.ladder.rungs=[[0.5, 0.5]]", "monitoring.alerts.memory=0.5"])
    with pytest.raises(StoreError, match="another run") as refusal:
        run_session(other, tmp_path, REQUEST, say=lambda text: None)
    assert "risk.max_position was 0.25 and is 0.1, risk.ladder.rungs was [[0.333" in str(refusal.value)
    assert "alerts" not in str(refusal.value)  # what only tells decides nothing
    (run / "config.json").unlink()  # as in runs of before: the hash alone refuses
    with pytest.raises(StoreError, match="config was"):
        run_session(other, tmp_path, REQUEST, say=lambda text: None)
    assert run_session(PLAIN, tmp_path, REQUEST, say=lambda text: None).recovered == 48


def test_a_kill_that_came_before_the_refusal_is_kept(tmp_path: Path):
    journal = tmp_path / "runs" / "paper" / "journal.sqlite"

    def killed_and_refused() -> None:
        Journal(journal, durable=True, header={"run": "paper"}).close()
        request_control(journal, "kill", by="me", reason="wait", at=1)
        raise ConfigError("refused")

    with pytest.raises(ConfigError, match="refused"), _room_for(journal, PLAIN):
        killed_and_refused()
    assert control_state(journal).stands
