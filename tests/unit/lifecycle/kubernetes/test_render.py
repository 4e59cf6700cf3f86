"""`deploy render`: what of a run's settings reaches the chart, and what never does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cryptoalpha.app.cli import main
from cryptoalpha.app.rendering import chart_values
from cryptoalpha.app.settings import read_settings
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.kubernetes.render import chart_folder, helm_program, profile_file


def test_chosen_settings_reach_the_chart_and_secrets_do_not(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("risk: {max_drawdown: 0.2}\ncredentials: {api_key: 'env:MY_KEY'}\n")
    environment = {"MY_KEY": "very-secret", "CRYPTOALPHA_CREDENTIALS__API_SECRET": "more-secret", "CRYPTOALPHA_ENGINE__SEED": "7"}
    values = chart_values(read_settings(file, environment=environment, directory=tmp_path))
    assert values["settings"] == {"risk": {"max_drawdown": 0.2}, "engine": {"seed": 7}}
    assert "secret" not in json.dumps(values)


def test_thresholds_of_the_rules_follow_the_settings(tmp_path):
    def expression(*overrides: str) -> str:
        values = chart_values(read_settings(overrides=overrides, environment={}, directory=tmp_path))
        rules = [rule for group in values["monitoring"]["rules"]["groups"] for rule in group["rules"]]
        return next(rule["expr"] for rule in rules if rule["alert"] == "drawdown")

    assert "0.5 *" in expression()
    assert "0.25 *" in expression("monitoring.alerts.drawdown=0.25")


def test_the_verb_writes_what_helm_makes_of_it(tool, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HELM", tool("helm"))
    out = tmp_path / "all.yaml"
    settings = ["--set", "engine.seed=7", "--set", "monitoring.alerts.drawdown=0.25"]
    code = main(["deploy", "render", "--profile", "production", "--namespace", "trading", "--out", str(out), "--json", *settings])
    assert code == 0
    document = json.loads(capsys.readouterr().out)
    objects = [each for each in yaml.safe_load_all(out.read_text()) if each]
    assert [(each["kind"], each["metadata"]["name"]) for each in objects] == [
        (each["kind"], each["name"]) for each in document["result"]["objects"]
    ]
    config = next(each for each in objects if (each["kind"], each["metadata"]["name"]) == ("ConfigMap", "cryptoalpha"))
    found = yaml.safe_load(config["data"]["cryptoalpha.yaml"])
    assert (found["engine"], found["risk"]["max_drawdown"]) == ({"auto_trading": False, "seed": 7}, 0.25)  # the profile's stay
    rules = next(each for each in objects if each["kind"] == "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert "0.25 *" in next(rule["expr"] for rule in rules if rule["alert"] == "drawdown")


def test_what_helm_refuses_is_said_in_its_words_with_exit_code_2(tool, monkeypatch, capsys):
    monkeypatch.setenv("HELM", tool("helm"))
    assert main(["deploy", "render", "--value", "engine.replicas=2", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "additional properties 'replicas' not allowed" in error["message"]
    assert error["hint"].endswith("values.yaml says what each value is for")


def test_without_helm_or_with_no_such_profile_it_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HELM", "/nowhere/helm")
    with pytest.raises(ConfigError, match="helm is not installed"):
        helm_program()
    with pytest.raises(ConfigError, match="no profile 'huge'") as refused:
        profile_file(chart_folder(), "huge")
    assert "argo, gpu, minimal, production, serving" in refused.value.hint
    assert Path(chart_folder() / "values.schema.json").is_file()
