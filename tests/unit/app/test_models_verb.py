"""`models …` over a home of its own: what is registered, promoted only when judged, followed by runs, rolled back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.champion import open_registry, with_champion, with_version
from cryptoalpha.app.cli import main
from cryptoalpha.app.settings import defaults_with
from cryptoalpha.core.errors import ModelError
from cryptoalpha.store.model_folder import write_fold, write_folder

FOLLOWS = "--set=lifecycle.registry.follow=true"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def model(folder: Path, value: float, kind: str = "forecaster") -> Path:
    fold = write_fold(folder, 0, {"weights": np.full(2, value)}, {"usable_from": 1}, kind=kind)
    lineage = {
        "identity": {"seed": 5, "data": {"fingerprint": "f00d"}, "train": {"epochs": 2}, "version": "0"},
        "model": "net", "horizons": [{"scores": {"net": {"rank_ic": [0.04, 0.01, 0.07], "accuracy": [None, None, None]}}}],
        "net_sharpe": {"net": [1.5, 0.5, 2.5]},
    }  # fmt: skip
    write_folder(folder, kind=kind, description={"width": 2}, lineage=lineage, folds=[fold])
    return folder


def says(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict:
    capsys.readouterr()
    assert main(["models", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_model_goes_in_with_what_its_lineage_says_and_out_by_hand_only_when_judged(home, tmp_path, capsys):
    for number in (1, 2):
        model(tmp_path / f"m{number}", float(number))
    one = says(capsys, "register", "m1", "--line", "forecaster")["result"]
    assert (one["data"], one["seed"], one["config"]) == ("f00d", 5, {"seed": 5, "train": {"epochs": 2}})
    assert one["metrics"] == {"rank_ic": 0.04, "net_sharpe": 1.5}
    refused = says(capsys, "promote", one["id"], code=6)
    assert "was not judged" in refused["error"]["message"]
    assert says(capsys, "promote", one["id"], "--force", code=2)["error"]["type"] == "ConfigError"
    assert says(capsys, "promote", one["id"][:8], "--force", "--reason", "the first")["result"]["forced"] is True

    two = says(capsys, "register", "m2", "--line", "forecaster")["result"]
    assert two["parent"] == one["id"]
    registry = open_registry(home)
    registry.report(two["id"], {"passed": False, "candidate": two["id"], "champion": one["id"], "refused_by": ["paths"]})
    assert "refused by paths" in says(capsys, "promote", two["id"], code=6)["error"]["message"]
    registry.report(two["id"], {"passed": True, "candidate": two["id"], "champion": None})
    assert "judged against nobody" in says(capsys, "promote", two["id"], code=6)["error"]["message"]
    registry.report(two["id"], {"passed": True, "candidate": two["id"], "champion": one["id"]})
    assert says(capsys, "promote", two["id"])["result"]["champion"] == two["id"]

    listed = says(capsys, "list")["result"]
    assert listed["champions"]["forecaster"] == two["id"]
    assert {each["id"] for each in listed["versions"]} == {one["id"], two["id"]}
    shown = says(capsys, "show", two["id"])["result"]
    assert (shown["champion"], len(shown["reports"])) == (True, 3)
    assert says(capsys, "rollback", "forecaster", "--reason", "errs")["result"]["champion"] == one["id"]
    told = says(capsys, "lineage", two["id"])["result"]
    assert [each["id"] for each in told["lineage"]] == [two["id"], one["id"]]
    reasons = [(each["cause"], each["reason"]) for each in told["history"]]
    assert reasons == [("promote", "forced: the first"), ("promote", "passed its judgement number 3"), ("rollback", "errs")]
    assert says(capsys, "gc", "--dry-run")["result"] == {"collected": [], "bytes": 0, "kept": 2, "dry_run": True}
    assert says(capsys, "export", one["id"], code=2)["error"]["type"] == "ConfigError"


def test_runs_follow_the_champion_where_that_is_switched_on(home, tmp_path, capsys):
    for kind in ("forecaster", "genome"):
        model(tmp_path / kind, 1.0, kind)
        version = says(capsys, "register", kind, "--line", kind)["result"]["id"]
        says(capsys, "promote", version, "--force", "--reason", "first")
    plain = defaults_with([])
    assert with_champion(plain, home) is plain
    follows = defaults_with(["lifecycle.registry.follow=true"])
    words: list[str] = []
    used = with_champion(follows, home, say=words.append)
    registry = open_registry(home)
    forecaster, genome = registry.champion("forecaster"), registry.champion("genome")
    assert words == [f"follows the registry: forecaster {forecaster.short}, genome {genome.short}"]
    for name, section in (("forecaster", used.signals.forecast), ("genome", used.signals.genome)):
        assert Path(section.model).parent == home / "models" / "champion" / name
        assert (Path(section.model) / "model.json").is_file()
    assert {"forecast", "genome"} <= {*used.signals.sources}
    assert used.fusion == follows.fusion
    assert Path(with_version(plain, forecaster).signals.forecast.model) == forecaster.path
    (forecaster.path / "fold_00.safetensors").unlink()
    with pytest.raises(ModelError, match=forecaster.short):
        with_champion(follows, home)


def test_a_run_that_follows_a_registry_without_champions_says_so(home):
    words: list[str] = []
    follows = defaults_with(["lifecycle.registry.follow=true"])
    assert with_champion(follows, home, say=words.append) == follows
    assert "no champion yet" in words[0]


def test_a_version_is_logged_to_mlflow_once(home, tmp_path, capsys):
    model(tmp_path / "m1", 1.0)
    one = says(capsys, "register", "m1", "--line", "forecaster")["result"]
    try:
        import mlflow  # noqa: F401
    except ImportError:
        assert "mlflow-skinny" in says(capsys, "export", one["id"], "--mlflow", "runs", code=2)["error"]["message"]
        pytest.skip("mlflow-skinny is not installed: only its absence was tried")
    from mlflow.tracking import MlflowClient

    run = says(capsys, "export", one["id"], "--mlflow", "runs")["result"]["mlflow_run"]
    assert says(capsys, "export", one["id"], "--mlflow", "runs")["result"]["mlflow_run"] == run
    found = MlflowClient(tracking_uri=(tmp_path / "runs").as_uri()).get_run(run)
    assert found.data.metrics == {"rank_ic": 0.04, "net_sharpe": 1.5}
    assert found.data.params["train.epochs"] == "2"
    assert found.data.tags["version"] == one["id"]
