"""The files that `init` writes and those in `config/`: complete, valid, and what they say they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cryptoalpha.app.cli import main
from cryptoalpha.app.config_files import read_config_file
from cryptoalpha.app.config_template import HEADER, header_of, render
from cryptoalpha.app.leaves import leaves_of
from cryptoalpha.app.settings import Settings, leaf_values, read_file_alone
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.signals.chain_features import CHAIN_FEATURES
from cryptoalpha.signals.price_features import PRICE_FEATURES

REPOSITORY = Path(__file__).resolve().parents[3]
SEED, PRODUCTION = REPOSITORY / "config" / "seed.yaml", REPOSITORY / "config" / "production.yaml"
REMEDY = "run `make config`"

USERS_NUMBERS = {
    "engine.interval_seconds": 1.0,
    "engine.auto_trading": False,
    "risk.max_position": 0.1,
    "risk.risk_tolerance": 0.02,
    "data.streams.kafka_servers": "localhost:9092",
    "data.streams.redis_address": "localhost:6379",
    "data.streams.ray_address": "ray://localhost:10001",
    "data.streams.relevance_threshold": 0.3,
    "data.streams.signal_types": 10,
    "data.streams.regimes": ["bull", "bear", "sideways", "high_volatility", "low_volatility"],
    "data.streams.regime_features": 20,
    "nets.embedding.text": 768,
    "nets.embedding.price": 50,
    "nets.embedding.chain": 30,
    "nets.evoformer.sequence_width": 768,
    "nets.evoformer.pair_width": 128,
    "nets.evoformer.head_width": 32,
    "nets.evoformer.heads": 12,
    "nets.evoformer.pair_heads": 4,
    "nets.evoformer.blocks": 6,
    "nets.evoformer.row_dropout": 0.15,
    "nets.evoformer.pair_dropout": 0.25,
    "nets.heads.sentiment_classes": 5,
    "nets.heads.direction_classes": 3,
    "nets.genome.vocabulary": 16,
    "nets.genome.window_bars": 1000,
    "nets.genome.width": 512,
    "nets.genome.heads": 8,
    "nets.genome.layers": 12,
    "nets.genome.supports": 5,
    "nets.genome.resistances": 5,
    "nets.policy_value.state_width": 100,
    "nets.policy_value.hidden": [512, 512, 256],
    "learn.planner.simulations": 800,
    "learn.planner.c_puct": 1.4,
    "learn.planner.discount": 0.99,
    "learn.evolution.population": 50,
    "learn.evolution.sigma": 0.02,
    "learn.fit.learning_rate": 1e-4,
    "learn.fit.batch": 32,
    "learn.actor_critic.value_widths": [768, 256, 256, 1],
    "learn.actor_critic.policy_widths": [768, 256, 128, 5],
    "learn.distributed.world_size": 4,
    "learn.distributed.backend": "nccl",
    "lifecycle.tune.trials": 50,
    "lifecycle.tune.learning_rate": [1e-5, 1e-2],
    "lifecycle.tune.batch": [16, 128],
    "lifecycle.tune.simulations": [400, 1600],
    "lifecycle.tune.sigma": [0.01, 0.1],
    "lifecycle.tune.dropout": [0.1, 0.5],
    "lifecycle.tune.heads": [8, 16],
    "lifecycle.tune.width": [256, 1024],
    "lifecycle.canary.steps": [0.05, 0.1, 0.25, 0.5, 1.0],
    "lifecycle.alerts.latency_seconds": 0.1,
    "lifecycle.alerts.accuracy_drop": 0.05,
    "lifecycle.alerts.memory": 0.8,
}


def named(settings: Settings) -> dict[str, object]:
    return {".".join(key): value for key, value in leaf_values(settings).items()}


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", [SEED, PRODUCTION], ids=lambda file: file.stem)
def test_both_files_validate_and_hold_the_users_numbers(file):
    assert main(["config", "validate", str(file)]) == 0
    values = named(read_file_alone(file))
    assert {name: values[name] for name in USERS_NUMBERS} == USERS_NUMBERS


@pytest.mark.parametrize("file", [SEED, PRODUCTION], ids=lambda file: file.stem)
def test_both_files_name_every_setting_as_init_would_write_it(file):
    lines = set(read_config_file(file).lines)
    assert sorted(set(leaves_of(Settings)) - lines) == [], REMEDY
    assert file.read_text() == render(read_file_alone(file), header_of(file)), REMEDY


def test_the_seed_differs_from_the_defaults_only_where_the_user_said_so():
    seed, defaults = named(read_file_alone(SEED)), named(Settings())
    assert {name for name in seed if seed[name] != defaults[name]} == {"nets.preset", "risk.max_position", "risk.risk_tolerance"}, REMEDY


def test_production_differs_from_the_seed_only_as_its_header_says():
    seed, production = named(read_file_alone(SEED)), named(read_file_alone(PRODUCTION))
    differing = {name for name in seed if seed[name] != production[name]}
    header = header_of(PRODUCTION)
    assert differing
    assert [name for name in differing if name.rpartition(".")[0] not in header and name not in header] == []


def test_nothing_trades_by_default():
    for settings in (Settings(), read_file_alone(SEED), read_file_alone(PRODUCTION)):
        assert settings.engine.auto_trading is False
        assert settings.engine.mode == "paper"


def test_embedding_widths_are_the_numbers_of_features():
    assert (Settings().nets.embedding.price, Settings().nets.embedding.chain) == (len(PRICE_FEATURES), len(CHAIN_FEATURES))


def test_init_writes_every_default_with_its_meaning(empty):
    assert main(["init"]) == 0
    path = empty / "cryptoalpha.yaml"
    assert read_file_alone(path) == Settings()
    assert main(["config", "validate"]) == 0
    assert sorted(set(leaves_of(Settings)) - set(read_config_file(path).lines)) == []
    text = " ".join(path.read_text().replace("#", " ").split())
    missing = [leaf.name for leaf in leaves_of(Settings).values() if " ".join(leaf.field.description.replace("#", " ").split()) not in text]
    assert missing == []
    assert [path.name for path in empty.iterdir()] == ["cryptoalpha.yaml"]


def test_init_writes_what_is_asked_for_and_values_survive(empty):
    overrides = (
        "--set",
        "risk.volatility_target=none",
        "--set",
        "learn.fit.learning_rate=1e-7",
        "--set",
        "data.streams.regimes=['on', 'a: b']",
    )
    assert main(["init", "mine.yaml", *overrides]) == 0
    settings = read_file_alone(empty / "mine.yaml")
    assert settings.risk.volatility_target is None
    assert settings.learn.fit.learning_rate == 1e-7
    assert settings.data.streams.regimes == ("on", "a: b")
    assert yaml.safe_load((empty / "mine.yaml").read_text())["learn"]["fit"]["learning_rate"] == 1e-7


def test_init_does_not_overwrite_unless_told_to(empty, capsys):
    path = empty / "cryptoalpha.yaml"
    path.write_text("# mine\n# and nobody else's\n\nengine:\n  seed: 3\n")
    assert main(["init"]) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_text().startswith("# mine")
    assert main(["init", "--force", "--config", "cryptoalpha.yaml"]) == 0
    assert path.read_text().startswith("# mine\n# and nobody else's\n\n")
    assert read_file_alone(path).engine.seed == 3


def test_init_to_a_place_that_cannot_be_written_leaves_nothing(empty, capsys):
    (empty / "file").write_text("")
    assert main(["init", "file/below.yaml", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "ConfigError"
    assert main(["init", "new/folder/mine.yaml"]) == 0
    assert read_file_alone(empty / "new" / "folder" / "mine.yaml") == Settings()


def test_the_header_of_a_new_file_is_the_usual_one(empty):
    assert header_of(empty / "nothing.yaml") == HEADER
    (empty / "bare.yaml").write_text("engine:\n")
    assert header_of(empty / "bare.yaml") == HEADER


def test_show_prints_the_effective_value_and_its_origin(empty, capsys, monkeypatch):
    (empty / "cryptoalpha.yaml").write_text("risk:\n  max_drawdown: 0.3\n")
    monkeypatch.setenv("CRYPTOALPHA_ENGINE__SEED", "9")
    assert main(["config", "show", "--origin", "--json", "--set", "fusion.method=equal"]) == 0
    shown = json.loads(capsys.readouterr().out)["result"]
    picked = {name: (shown["settings"][name], shown["origins"][name]) for name in ("risk.max_drawdown", "engine.seed", "fusion.method")}
    assert picked == {
        "risk.max_drawdown": (0.3, "cryptoalpha.yaml:2"),
        "engine.seed": (9, "env CRYPTOALPHA_ENGINE__SEED"),
        "fusion.method": ("equal", "--set fusion.method"),
    }
    assert shown["origins"]["risk.max_gross"] == "default"
    assert main(["config", "show"]) == 0
    assert "engine.seed: 9" in capsys.readouterr().out.splitlines()


def test_a_file_is_validated_alone_whatever_the_environment_says(empty, capsys, monkeypatch):
    monkeypatch.setenv("CRYPTOALPHA_ENGINE__SEED", "not a number")
    (empty / "good.yaml").write_text("engine:\n  seed: 3\n")
    (empty / "bad.yaml").write_text("engine:\n  seed: -3\n")
    assert main(["config", "validate", "good.yaml"]) == 0
    assert main(["config", "validate"]) == 2
    assert main(["config", "validate", "bad.yaml"]) == 2
    assert "bad.yaml:2: engine.seed" in capsys.readouterr().err


def test_the_schema_describes_every_setting(capsys):
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["additionalProperties"] is False
    risk = schema["$defs"]["RiskConfig"]["properties"]["max_drawdown"]
    assert (risk["exclusiveMinimum"], risk["maximum"], risk["default"]) == (0.0, 1.0, Settings().risk.max_drawdown)
    assert "peak" in risk["description"]


def test_a_file_written_in_place_is_whole_or_absent(empty, monkeypatch):
    from cryptoalpha.app import config_template

    def broken(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(ConfigError, match="No space left"):
        config_template.write_new(empty / "mine.yaml", "engine:\n", force=False)
    assert list(empty.iterdir()) == []
