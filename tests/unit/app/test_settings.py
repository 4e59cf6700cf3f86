"""Settings: who wins, where a value came from, and what a wrong name, type or file is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptoalpha.app.leaves import leaves_of
from cryptoalpha.app.settings import Settings, read_settings
from cryptoalpha.core.errors import ConfigError

KEY = ("risk", "max_drawdown")


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "cryptoalpha.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def read(directory: Path, config: Path | None = None, overrides: tuple[str, ...] = (), **environment: str):
    return read_settings(config, overrides=overrides, environment=environment, directory=directory)


def refuse(directory: Path, config: Path | None = None, overrides: tuple[str, ...] = (), **environment: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(directory, config, overrides, **environment)
    assert caught.value.exit_code == 2
    return caught.value


def test_sources_win_in_the_stated_order(tmp_path, write):
    write("risk:\n  max_drawdown: 0.11\n")
    secret_file = write("0.12\n", "drawdown")
    found = [read(tmp_path)]
    names = {"CRYPTOALPHA_RISK__MAX_DRAWDOWN_FILE": str(secret_file)}
    found.append(read(tmp_path, **names))
    write("CRYPTOALPHA_RISK__MAX_DRAWDOWN=0.13\n", ".env")
    found.append(read(tmp_path, **names))
    names["CRYPTOALPHA_RISK__MAX_DRAWDOWN"] = "0.14"
    found.append(read(tmp_path, **names))
    found.append(read(tmp_path, overrides=("risk.max_drawdown=0.15", "risk.max_drawdown=0.16"), **names))
    assert [each.settings.risk.max_drawdown for each in found] == [0.11, 0.12, 0.13, 0.14, 0.16]
    assert [each.origins[KEY] for each in found] == [
        f"{tmp_path / 'cryptoalpha.yaml'}:2",
        f"file {secret_file} (env CRYPTOALPHA_RISK__MAX_DRAWDOWN_FILE)",
        ".env CRYPTOALPHA_RISK__MAX_DRAWDOWN",
        "env CRYPTOALPHA_RISK__MAX_DRAWDOWN",
        "--set risk.max_drawdown",
    ]


def test_without_sources_everything_is_a_default(tmp_path):
    effective = read(tmp_path)
    assert effective.settings == Settings()
    assert effective.origins == {}


def test_a_secrets_directory_holds_one_value_per_file(tmp_path):
    mounted = tmp_path / "run"
    mounted.mkdir()
    (mounted / "cryptoalpha_risk__max_drawdown").write_text("0.3\n")
    (mounted / "another_programs_secret").write_text("x")
    effective = read(tmp_path, CRYPTOALPHA_SECRETS_DIR=str(mounted))
    assert effective.settings.risk.max_drawdown == 0.3
    assert "not a directory" in str(refuse(tmp_path, CRYPTOALPHA_SECRETS_DIR=str(mounted / "gone")))


def test_the_configuration_can_be_named_by_the_environment_and_must_then_exist(tmp_path, write):
    other = write("engine:\n  seed: 7\n", "other.yaml")
    assert read(tmp_path, CRYPTOALPHA_CONFIG=str(other)).settings.engine.seed == 7
    error = refuse(tmp_path, CRYPTOALPHA_CONFIG=str(tmp_path / "gone.yaml"))
    assert "no configuration file at" in str(error)
    assert "cryptoalpha init" in error.hint


def test_a_config_file_that_does_not_exist_is_refused_and_not_skipped(tmp_path):
    assert str(tmp_path / "gone.yaml") in str(refuse(tmp_path, tmp_path / "gone.yaml"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CRYPTOALPHA_RIKS__MAX_DRAWDOWN", "risk"),
        ("CRYPTOALPHA_RISK__MAX_DRAWDON", "risk.max_drawdown"),
        ("CRYPTOALPHA_ENGINE__MAX_DRAWDOWN", "risk.max_drawdown"),
        ("CRYPTOALPHA_RISK", "CRYPTOALPHA_RISK__"),
        ("CRYPTOALPHA_DATA__FILES__MARKT", "data.files.market"),
    ],
)
def test_an_unknown_environment_name_is_refused_with_the_nearest_one(tmp_path, name, told):
    error = refuse(tmp_path, **{name: "0.2"})
    assert name in str(error)
    assert told in error.hint


def test_another_programs_names_are_left_alone_in_environment_and_dotenv(tmp_path, write):
    write("OTHER_APP=1\nexport CRYPTOALPHA_ENGINE__SEED='5'  # a comment\n", ".env")
    effective = read(tmp_path, PATH="/bin", OTHER_APP="1", CRYPTOALPHA_HOME="somewhere")
    assert effective.settings.engine.seed == 5


def test_an_unknown_name_in_dotenv_is_refused(tmp_path, write):
    write("CRYPTOALPHA_ENGINE__SED=5\n", ".env")
    error = refuse(tmp_path)
    assert ".env CRYPTOALPHA_ENGINE__SED" in str(error)
    assert error.hint == "did you mean engine.seed?"


def test_an_unknown_key_in_a_file_is_refused_with_its_line_and_the_nearest_name(tmp_path, write):
    path = write("# a comment\nrisk:\n  max_drawdown: 0.2\n  max_positon: 0.1\n")
    error = refuse(tmp_path)
    assert str(error) == f"{path}:4: risk.max_positon is not a setting"
    assert error.hint == "did you mean risk.max_position?"


def test_an_unknown_section_in_a_file_is_refused(tmp_path, write):
    path = write("rsk:\n  max_drawdown: 0.2\n")
    error = refuse(tmp_path)
    assert f"{path}:1: there is no section 'rsk'" in str(error)
    assert "risk" in error.hint


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path, write):
    path = write("risk:\n  max_drawdown: 0.2\n  allow_short: false\n  max_drawdown: 0.9\n")
    assert str(refuse(tmp_path)) == f"{path}:4: risk.max_drawdown is given twice, first on line 2"


def test_a_top_level_list_is_refused(tmp_path, write):
    path = write("- risk\n- engine\n")
    assert f"{path}:1: the top level is not a mapping" in str(refuse(tmp_path))


def test_a_syntax_error_names_file_and_line_but_never_the_line_itself(tmp_path, write):
    path = write("risk:\n  max_drawdown: 0.2\ncredentials:\n  api_secret: 'CANARY-9981\n")
    error = refuse(tmp_path)
    assert str(error).startswith(f"{path}:")
    assert "not valid YAML" in str(error)
    assert "CANARY" not in str(error) + error.hint


def test_an_undefined_alias_is_not_echoed(tmp_path, write):
    write("credentials:\n  api_secret: *CANARY9981\n")
    error = refuse(tmp_path)
    assert "CANARY" not in str(error) + error.hint


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "cryptoalpha.yaml").write_bytes(b"risk: \xff\xfe")
    assert "not UTF-8" in str(refuse(tmp_path))


def test_a_directory_instead_of_a_file_is_refused(tmp_path):
    assert "cannot read" in str(refuse(tmp_path, tmp_path))


def test_yaml_words_that_turn_into_booleans_are_refused_with_a_reason(tmp_path, write):
    path = write("fusion:\n  method: off\nrisk:\n  max_drawdown: yes\n")
    text = str(refuse(tmp_path))
    assert f"{path}:2: fusion.method cannot be true or false" in text
    assert f"{path}:4: risk.max_drawdown cannot be true or false" in text
    assert "in quotes" in text


def test_a_key_that_yaml_reads_as_a_boolean_is_refused(tmp_path, write):
    path = write("engine:\n  on: 1\n")
    assert f"{path}:2: a key here is a bool, not text" in str(refuse(tmp_path))


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", "1.0e-3"])
def test_a_number_in_scientific_notation_is_a_number_although_yaml_reads_text(tmp_path, write, text):
    write(f"learn:\n  fit:\n    learning_rate: {text}\n")
    assert read(tmp_path).settings.learn.fit.learning_rate == 0.001


def test_scientific_notation_for_a_count_is_refused_with_what_the_setting_means(tmp_path, write):
    write("learn:\n  planner:\n    simulations: 1e3\n")
    error = refuse(tmp_path)
    assert "learn.planner.simulations" in str(error)
    assert "Simulations of one decision" in error.hint


def test_an_empty_section_and_a_file_of_comments_are_valid(tmp_path, write):
    write("# nothing yet\nrisk:\n#  max_drawdown: 0.1\n")
    assert read(tmp_path).settings == Settings()


def test_a_section_written_as_a_value_is_refused(tmp_path, write):
    path = write("risk: 3\n")
    assert f"{path}:1: risk is a section, not a value" in str(refuse(tmp_path))


def test_a_value_out_of_range_names_its_origin_and_meaning(tmp_path):
    error = refuse(tmp_path, CRYPTOALPHA_RISK__MAX_DRAWDOWN="1.5")
    assert str(error).startswith("env CRYPTOALPHA_RISK__MAX_DRAWDOWN: risk.max_drawdown:")
    assert "less than or equal to 1" in str(error)
    assert "peak" in error.hint


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value):
    refuse(tmp_path, overrides=(f"risk.max_drawdown={value}",))


def test_all_faults_are_told_at_once(tmp_path, write):
    write("risk:\n  max_positon: 0.1\n")
    text = str(refuse(tmp_path, overrides=("engine.seed=-1", "nonsense"), CRYPTOALPHA_X="1"))
    assert text.startswith("4 settings are wrong:")
    for part in ("risk.max_positon", "engine.seed", "--set number 2 has no `=`", "CRYPTOALPHA_X"):
        assert part in text


def test_lists_and_nothing_can_be_given_as_text(tmp_path):
    overrides = ("data.exchange.venues=[kraken, okx]", "lifecycle.canary.steps=[0.5, 1]", "risk.volatility_target=none")
    settings = read(tmp_path, overrides=overrides).settings
    assert settings.data.exchange.venues == ("kraken", "okx")
    assert settings.lifecycle.canary.steps == (0.5, 1.0)
    assert settings.risk.volatility_target is None
    assert "list or mapping" in str(refuse(tmp_path, overrides=("data.exchange.venues=[kraken",)))


def test_a_file_named_for_a_value_must_be_readable(tmp_path):
    error = refuse(tmp_path, CRYPTOALPHA_ENGINE__SEED_FILE=str(tmp_path / "gone"))
    assert "CRYPTOALPHA_ENGINE__SEED_FILE" in str(error)
    assert "cannot be read" in str(error)


@pytest.mark.parametrize(
    "override",
    [
        "lifecycle.canary.steps=[0.5, 0.25, 1]",
        "lifecycle.canary.steps=[0.5]",
        "lifecycle.canary.steps=[]",
        "lifecycle.tune.batch=[64, 16]",
        "lifecycle.tune.sigma=[0.1, 0.1]",
        "nets.genome.heads=7",
    ],
)
def test_settings_that_must_agree_with_each_other_are_checked(tmp_path, override):
    refuse(tmp_path, overrides=(override,))


@pytest.mark.parametrize("name", ["drawdown", "limit_used", "memory"])
def test_an_alert_that_would_never_be_silent_is_refused(tmp_path, name):
    assert "greater than 0" in str(refuse(tmp_path, overrides=(f"monitoring.alerts.{name}=0",)))


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings().engine.seed = 3


def test_every_setting_says_what_it_means():
    silent = [leaf.name for leaf in leaves_of(Settings).values() if not (leaf.field.description or "").strip()]
    assert silent == []


@given(st.sampled_from(sorted(leaves_of(Settings))), st.integers(0, 20), st.sampled_from("abcxyz"))
def test_no_misspelt_name_passes_in_silence(key, place, letter):
    name = "__".join(key).upper()
    wrong = name[: place % len(name)] + letter.upper() + name[place % len(name) :]
    if tuple(wrong.lower().split("__")) in leaves_of(Settings):
        return
    refuse(Path("/nonexistent"), **{f"CRYPTOALPHA_{wrong}": "1"})
