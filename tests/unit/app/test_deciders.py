"""What decides is built from settings: one agent or a council, the same twice, and a missing model is named before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.backtest import model_hashes, run_backtest
from cryptoalpha.app.checks import Check, check_machine
from cryptoalpha.app.deciders import bar_length, build_agent, build_fusion, has_learned, model_files, unused_models
from cryptoalpha.app.decision_summary import decision_lines
from cryptoalpha.app.period import Period
from cryptoalpha.app.report.build import build_report
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.summary import report_content, tables
from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.config import AgentConfig, FusionConfig
from cryptoalpha.decisions.council.council import Council
from cryptoalpha.decisions.fusion.guided import described
from cryptoalpha.decisions.rule_agent import RuleAgent
from cryptoalpha.signals.config import RegimeConfig, SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.model_folder import write_fold, write_folder
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

NAMES = ("BTC/USDT", "ETH/USDT")
SEARCHED = Settings().model_copy(
    update={
        "signals": SignalsConfig(sources=("momentum", "trend", "volatility")),
        "fusion": FusionConfig(method="search", horizon_bars=12, warmup_days=2.0),
        "agent": AgentConfig(members=("garch", "rule"), dead_band=0.0),
    }
)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=24 * 45), 3).dataset


def test_one_member_is_itself_and_several_are_a_council() -> None:
    assert type(build_agent(Settings(), NAMES, interval=HOUR)) is RuleAgent
    council = build_agent(SEARCHED, NAMES, interval=HOUR)
    assert isinstance(council, Council)
    assert list(council.shares.items()) == [("garch", 0.5), ("rule", 0.5)]
    banded = SEARCHED.model_copy(update={"risk": SEARCHED.risk.model_copy(update={"no_trade_band": 0.07})})
    assert [book._band for book in build_agent(banded, NAMES, interval=HOUR)._books] == [
        0.07,
        0.07,
    ]  # what the gate would not trade is free
    assert build_agent(SEARCHED, NAMES, interval=HOUR, members=("garch",)).name == "garch"
    with pytest.raises(ConfigError, match="cannot vote"):
        build_agent(Settings(), NAMES, interval=HOUR, members=("rule", "rule"))


def test_every_method_has_its_fusion() -> None:
    assert [build_fusion(FusionConfig(method=name)).name for name in ("equal", "hedge", "ridge", "search")] == [
        "equal", "hedge", "ridge", "search",
    ]  # fmt: skip
    assert [has_learned(one) for one in (Settings(), SEARCHED)] == [False, True]


def test_bars_of_a_run_have_one_length(market: Dataset) -> None:
    assert bar_length(market, tuple(market.bars)) == HOUR
    assert bar_length(market, ("NOBODY/USDT",)) == 0


def test_trained_models_are_part_of_what_a_run_is_and_check_names_those_that_are_missing(tmp_path: Path) -> None:
    folder = tmp_path / "regime"
    regime = SEARCHED.signals.regime.model_copy(update={"model": str(folder)})
    settings = SEARCHED.model_copy(update={"signals": SEARCHED.signals.model_copy(update={"regime": regime})})
    assert model_files(settings) == {"regime": folder / "model.json"}
    assert model_hashes(settings) == {}

    def models() -> tuple[str, str]:
        checks = check_machine(tmp_path / "home", lambda: settings, lambda text: None, now=0, directory=tmp_path)
        (found,) = (check for check in checks if check.name == "models")
        return found.state, f"{found.found} {found.fix}"

    state, told = models()
    assert state == "fault"
    assert str(folder) in told
    assert "cryptoalpha train regime" in told
    folder.mkdir()
    fold = write_fold(folder, 0, {"mean": np.zeros(1)}, {"usable_from": 1}, kind="regime")
    write_folder(folder, kind="regime", description={}, lineage={}, folds=[fold])
    assert models() == ("ok", f"regime {folder} (1 fold) ")
    assert set(model_hashes(settings)) == {"regime"}
    (folder / fold.file).write_bytes(b"nothing of the kind")
    assert models()[0] == "fault"


def test_search_and_council_decide_the_same_twice_and_are_told(market: Dataset) -> None:
    end = max(int(table.known_at[-1]) for table in market.bars.values()) // DAY * DAY
    period = Period(end - 2 * DAY, end)
    first, again = (run_backtest(SEARCHED, market, period, run=name, journal_path=None) for name in ("first", "again"))
    assert first.digest == again.digest
    record = first.recorder.deciders
    assert sum(record.charge.values()) == len(first.panel)
    assert set(record.shares[-1][1]) == {"garch", "rule"}
    words = "\n".join(str(line) for line in decision_lines(first))
    assert "in charge: " in words
    assert "council, mean shares: garch 50%" in words
    page = build_report(report_content(first, command=""))
    assert "Who decided" in page
    assert "Shares in the council" in page


def test_a_regime_model_that_never_spoke_is_named(market: Dataset, random_regime, tmp_path: Path) -> None:
    """Its first fold takes over with the last bar; the run ends before."""
    frame = Frame(build_panel(market, since=0, until=2**62), market)
    regime = RegimeConfig(block_bars=16, warm_up_bars=48)
    folder = random_regime(tmp_path / "m", frame, regime, (len(frame.panel) - 1,))
    end = int(frame.panel.known_at[-1]) // DAY * DAY - DAY
    signals = SignalsConfig(sources=("momentum",), regime=regime.model_copy(update={"model": str(folder)}))
    for named, said in ((signals, True), (SignalsConfig(sources=("momentum",)), False)):
        settings = Settings().model_copy(update={"signals": named})
        result = run_backtest(settings, market, Period(end - DAY, end), run="short", journal_path=None)
        silent = [line for line in tables(result) if isinstance(line, str) and line.startswith("no opinion in the whole period")]
        assert any("regime" in line for line in silent) == said


def test_what_a_plain_backtest_needs_does_not_import_torch() -> None:
    code = "import sys, cryptoalpha.app.kept_runs; print([n for n in ('torch', 'onnxruntime', 'gymnasium') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_a_fusion_trained_on_other_bars_is_refused(tmp_path: Path) -> None:
    config = FusionConfig(method="search", learning={"model": str(tmp_path)})
    fold = write_fold(tmp_path, 0, {"x": np.zeros(1)}, {"usable_from": 1}, kind="fusion")
    write_folder(tmp_path, kind="fusion", description={**described(config), "interval": HOUR}, lineage={}, folds=[fold])
    assert build_fusion(config, interval=HOUR).name == "search"
    with pytest.raises(ModelError, match="trained on bars of 1h, these have 4h"):
        build_fusion(config, interval=4 * HOUR)


def test_a_model_that_nobody_asks_is_named_in_a_note_and_one_of_another_kind_is_refused_where_it_is_asked(tmp_path: Path) -> None:
    folder = tmp_path / "regime"
    folder.mkdir()
    fold = write_fold(folder, 0, {"x": np.zeros(1)}, {"usable_from": 1}, kind="regime")
    write_folder(folder, kind="regime", description={}, lineage={}, folds=[fold])
    parts = {
        "agent": {"planner": {"model": str(folder)}},
        "fusion": {"learning": {"model": str(folder)}},
        "signals": {"sources": ["momentum"], "forecast": {"model": str(folder)}, "genome": {"model": str(folder)}},
    }
    idle = Settings(**parts)
    assert [said.partition("=")[0] for said in unused_models(idle)] == [
        "signals.forecast.model", "signals.genome.model", "fusion.learning.model", "agent.planner.model",
    ]  # fmt: skip
    assert "agent" not in model_files(idle)

    def said_of(settings: Settings) -> Check:
        checks = check_machine(tmp_path / "home", lambda: settings, lambda text: None, now=0, directory=tmp_path)
        return next(check for check in checks if check.name == "models")

    assert said_of(idle).state == "note"
    assert f"agent.planner.model={folder} is not used: agent.members has nobody who plans" in said_of(idle).found
    asked = Settings(agent={"members": ["rule", "garch"], **parts["agent"]})
    assert unused_models(asked) == []
    assert "agent" in model_files(asked)
    assert said_of(asked).state == "fault"
    with pytest.raises(ConfigError, match="expected 'agent'"):
        build_agent(asked, NAMES, interval=HOUR)
    with pytest.raises(ConfigError, match="expected 'fusion'"):
        build_fusion(FusionConfig(method="search", learning={"model": str(folder)}))
    assert unused_models(Settings(signals={"regime": {"model": str(folder)}})) == []  # asked wherever it is named
