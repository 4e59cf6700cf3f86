"""The whole configuration: every room's section composed into one frozen value, with the origin of each leaf.

Plain pydantic rather than pydantic-settings: its sources skip a missing file, let the last of two equal keys win, ignore misspelt names and
know no origins, and importing it takes three times as long as pydantic; `app.origins` reads the same sources strictly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from cryptoalpha.app.config_files import read_config_file
from cryptoalpha.app.credentials import CredentialsConfig
from cryptoalpha.app.engine_config import EngineConfig
from cryptoalpha.app.leaves import Key, leaves_of
from cryptoalpha.app.origins import Fault, Sources
from cryptoalpha.app.output import MASK
from cryptoalpha.core.config import Section
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.config import ExchangeConfig, FilesConfig, SimulatedConfig
from cryptoalpha.data.streams_config import StreamsConfig
from cryptoalpha.decisions.config import AgentConfig, FusionConfig
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.learn.config import LearnConfig
from cryptoalpha.lifecycle.config import LifecycleConfig
from cryptoalpha.monitoring.config import MonitoringConfig
from cryptoalpha.nets.config import NetsConfig
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.config import BarGateConfig

DEFAULT_FILE = "cryptoalpha.yaml"


class DataConfig(Section):
    """[data] Where history, live bars and made-up markets come from."""

    files: FilesConfig = FilesConfig()
    """A directory of history."""

    simulated: SimulatedConfig = SimulatedConfig()
    """A made-up market."""

    exchange: ExchangeConfig = ExchangeConfig()
    """Public candles."""

    streams: StreamsConfig = StreamsConfig()
    """Messages."""


class StoreConfig(Section):
    """[store] What is kept, and what is let in."""

    bar_gate: BarGateConfig = BarGateConfig()
    """What happens to bars that cannot be true."""


class Settings(Section):
    """Everything that can be configured, one section per owner."""

    engine: EngineConfig = EngineConfig()
    """The loop."""

    data: DataConfig = DataConfig()
    """Sources."""

    store: StoreConfig = StoreConfig()
    """What is kept."""

    signals: SignalsConfig = SignalsConfig()
    """Sources of opinion."""

    fusion: FusionConfig = FusionConfig()
    """How opinions are weighed."""

    agent: AgentConfig = AgentConfig()
    """How the fused direction becomes a position."""

    risk: RiskConfig = RiskConfig()
    """What may never be exceeded."""

    execution: ExecutionConfig = ExecutionConfig()
    """How orders become fills."""

    monitoring: MonitoringConfig = MonitoringConfig()
    """What is watched, and when somebody is told."""

    nets: NetsConfig = NetsConfig()
    """Sizes of the networks."""

    learn: LearnConfig = LearnConfig()
    """How things learn and plan."""

    lifecycle: LifecycleConfig = LifecycleConfig()
    """How models are born, promoted and retired."""

    credentials: CredentialsConfig = Field(default_factory=CredentialsConfig)
    """Keys, by reference."""


@dataclass(frozen=True)
class Effective:
    """Settings and, for each leaf that is not a default, what it came from."""

    settings: Settings
    origins: Mapping[Key, str]


def load_settings(
    config: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    hide: Callable[[Iterable[str]], None] | None = None,
) -> Settings:
    """The effective settings of a run; see `read_settings`."""
    return read_settings(config, overrides=overrides, hide=hide).settings


def read_settings(
    config: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    hide: Callable[[Iterable[str]], None] | None = None,
) -> Effective:
    """Read every source, strongest last, and validate the whole.

    Args:
        config: a YAML file that must exist; else `CRYPTOALPHA_CONFIG`, else `cryptoalpha.yaml` in `directory` if there is one.
        overrides: `section.key=value` texts.
        environment: names and values, `os.environ` by default.
        directory: where `.env` and `cryptoalpha.yaml` are looked for, the working directory by default.
        hide: told every text that may be a secret, before anything can fail.

    Raises:
        ConfigError: naming every fault with its place, and no value.
    """
    environment = os.environ if environment is None else environment
    directory = directory or Path()
    sources = Sources(leaves_of(Settings))
    file = config or _discover(environment, directory)
    dotenv = _read_dotenv(directory / ".env")
    if file is not None:
        sources.add_file(read_config_file(file))
    if environment.get("CRYPTOALPHA_SECRETS_DIR"):
        sources.add_directory(Path(environment["CRYPTOALPHA_SECRETS_DIR"]))
    sources.add_named_files({**dotenv, **environment})
    sources.add_names(dotenv, ".env ")
    sources.add_names(environment, "env ")
    sources.add_overrides(overrides)
    return _compose(sources, hide)


def read_file_alone(path: Path, *, overrides: Sequence[str] = ()) -> Settings:
    """The settings of one file over the defaults, whatever the environment says.

    Raises:
        ConfigError: naming every fault with its place, and no value.
    """
    sources = Sources(leaves_of(Settings))
    sources.add_file(read_config_file(path))
    sources.add_overrides(overrides)
    return _compose(sources, None).settings


def defaults_with(overrides: Sequence[str]) -> Settings:
    """The defaults, changed only by `section.key=value` texts.

    Raises:
        ConfigError: naming every fault, and no value.
    """
    sources = Sources(leaves_of(Settings))
    sources.add_overrides(overrides)
    return _compose(sources, None).settings


def leaf_values(settings: Settings) -> dict[Key, Any]:
    """Every leaf's value in JSON's types, in order; a secret that is set reads as a mask, one that is not as None."""
    content = settings.model_dump(mode="json")
    values: dict[Key, Any] = {}
    for key, leaf in leaves_of(Settings).items():
        value: Any = content
        for part in key:
            value = value[part]
        values[key] = MASK if leaf.secret and value is not None else value
    return values


def _discover(environment: Mapping[str, str], directory: Path) -> Path | None:
    named = environment.get("CRYPTOALPHA_CONFIG")
    if named:
        return Path(named).expanduser()
    usual = directory / DEFAULT_FILE
    return usual if usual.exists() else None


def _read_dotenv(path: Path) -> dict[str, str | None]:
    """The names in a `.env`; none if there is no such file. `${…}` is not expanded, so that no value depends on another's."""
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        return dict(dotenv_values(path, interpolate=False, encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}", hint="make it a readable text file of NAME=value lines") from None


def _compose(sources: Sources, hide: Callable[[Iterable[str]], None] | None) -> Effective:
    """Validate what the sources gave, or raise all faults at once."""
    if hide is not None:
        hide(sources.secrets)
    faults = list(sources.faults)
    settings = None
    try:
        settings = Settings.model_validate(_nest({key: given.value for key, given in sources.given.items()}))
    except ValidationError as error:
        faults += _validation_faults(error, sources)
    if faults or settings is None:
        raise _as_error(faults, sources.secrets)
    return Effective(settings, {key: given.origin for key, given in sources.given.items()})


def _nest(flat: Mapping[Key, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        place = nested
        for part in key[:-1]:
            place = place.setdefault(part, {})
        place[key[-1]] = value
    return nested


def _validation_faults(error: ValidationError, sources: Sources) -> list[Fault]:
    """What pydantic refused, each with its origin. `include_input=False`: the value may be a secret, of any type."""
    faults = []
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        parts = tuple(str(part) for part in each["loc"])
        key = next((parts[:size] for size in range(len(parts), 0, -1) if parts[:size] in sources.leaves), parts)
        leaf = sources.leaves.get(key)
        given = sources.given.get(key)
        where = f"{given.origin}: " if given else ""
        reason = "must be text" if leaf and leaf.secret else each["msg"].removeprefix("Value error, ")
        about = (leaf.field.description or "").strip() if leaf and not leaf.secret else ""
        faults.append(Fault(f"{where}{'.'.join(key)}: {reason[:1].lower()}{reason[1:]}", " ".join(about.split())))
    return faults


def _as_error(faults: Sequence[Fault], secrets: Iterable[str]) -> ConfigError:
    """One error for all faults: a line each, their hints after them."""

    def clean(text: str) -> str:
        for secret in sorted(secrets, key=lambda value: (-len(value), value)):
            text = text.replace(secret, MASK) if len(secret) >= 4 else text
        return text

    if len(faults) == 1:
        return ConfigError(clean(faults[0].message), hint=clean(faults[0].hint))
    lines = [f"{fault.message} ({fault.hint})" if fault.hint else fault.message for fault in faults]
    return ConfigError(
        clean(f"{len(faults)} settings are wrong:\n  " + "\n  ".join(lines)), hint="`cryptoalpha config show` lists all settings"
    )
