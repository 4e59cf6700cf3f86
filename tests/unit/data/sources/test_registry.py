"""From settings to sources: what runs, what does not, and what to do about it; a missing key or package is a line, never a crash."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.sources.config import SourcesConfig
from cryptoalpha.data.sources.opening import Tools, needs
from cryptoalpha.data.sources.registry import MODULES, Unavailable, open_sources
from cryptoalpha.data.sources.section import SourceSection
from cryptoalpha.store.state.sqlite_state import SqliteState

KEYS = {"X_BEARER_TOKEN": "t", "REDDIT_CLIENT_ID": "i", "REDDIT_CLIENT_SECRET": "s", "ETHEREUM_RPC_URL": "http://127.0.0.1:1"}


def everything(**changes) -> SourcesConfig:
    """Every source enabled."""
    return SourcesConfig.model_validate({name: {"enabled": True} for name in MODULES} | changes)


def opened(config, environment=KEYS):
    @asynccontextmanager
    async def all_closed():
        async with SqliteState(None) as state:
            found = open_sources(config, Tools(state, environment=environment, instruments=("BTC/USDT", "ETH/USDT")))
            yield found
            for one in found:
                if not isinstance(one, Unavailable):
                    await one.close()

    async def run():
        async with all_closed() as found:
            return found

    return asyncio.run(run())


def test_every_section_of_a_source_has_a_module():
    sections = {name for name, field in SourcesConfig.model_fields.items() if issubclass_of_section(field.annotation)}
    assert set(MODULES) == sections


def issubclass_of_section(kind) -> bool:
    return isinstance(kind, type) and issubclass(kind, SourceSection)


def test_with_keys_and_packages_everything_opens_and_connects_to_nothing(streams_extra):
    found = opened(everything())
    assert [one for one in found if isinstance(one, Unavailable)] == []
    names = [one.name for one in found]
    assert len(names) == len(set(names)) >= len(MODULES)
    assert all(one.topics and one.health.state in ("starting", "closed") for one in found)


def test_what_is_switched_off_is_listed_but_not_wanted():
    found = opened(SourcesConfig.model_validate({name: {"enabled": False} for name in MODULES}))
    assert [(one.name, one.wanted, one.reason) for one in found] == [(name, False, "switched off") for name in MODULES]
    assert all(f"sources.{one.name}.enabled" in one.hint for one in found)


@pytest.mark.parametrize(("name", "variable"), [("x", "X_BEARER_TOKEN"), ("reddit", "REDDIT_CLIENT_ID"), ("ethereum", "ETHEREUM_RPC_URL")])
def test_a_missing_key_takes_one_source_away_and_says_which_variable(streams_extra, name, variable):
    found = opened(everything(), {key: value for key, value in KEYS.items() if key != variable})
    (missing,) = [one for one in found if isinstance(one, Unavailable)]
    assert (missing.name, missing.wanted) == (name, True)
    assert variable in missing.reason
    assert f"export {variable}" in missing.hint


@pytest.mark.parametrize(("package", "names"), [("feedparser", {"news"}), ("asyncpraw", {"reddit"}), ("web3", {"ethereum"})])
def test_a_missing_package_takes_its_sources_away_and_says_what_to_install(monkeypatch, package, names):
    monkeypatch.setitem(sys.modules, package, None)  # what an import of it meets where it is not installed
    for module in [module for module in sys.modules if module.startswith("cryptoalpha.data.sources.")]:
        if module.rsplit(".", 1)[1] in {MODULES[name] for name in names} | {f"{name}_client" for name in names}:
            monkeypatch.delitem(sys.modules, module)
    missing = {one.name: one for one in opened(everything()) if isinstance(one, Unavailable)}
    assert names <= set(missing)
    for name in names:
        assert package in missing[name].reason
        assert missing[name].hint == 'pip install "cryptoalpha[streams]"'


def test_a_needed_package_is_given_or_named():
    assert needs("json").dumps([1]) == "[1]"
    with pytest.raises(ConfigError, match="no_such_package is not installed") as told:
        needs("no_such_package", extra="ray")
    assert told.value.hint == 'pip install "cryptoalpha[ray]"'


def test_secrets_come_from_the_environment_and_show_nowhere():
    async def run():
        async with SqliteState(None) as state:
            tools = Tools(state, environment={"KEY": " hidden \n", "EMPTY": " "})
            assert tools.secret("KEY") == "hidden"
            assert "hidden" not in repr(tools)
            with pytest.raises(ConfigError, match="EMPTY is not set"):
                tools.secret("EMPTY")

    asyncio.run(run())


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": {"base_url": "ftp://x"}},
        {"x": {"base_url": "https://user:pass@x.com"}},
        {"mempool": {"ws_url": "https://mempool.space"}},
        {"x": {"bearer_token_env": "AAAA-not-a-name"}},
        {"x": {"bearer_token": "secret"}},
        {"x": {"daily_units": 0}},
        {"x": {"retry_seconds": -1}},
    ],
)
def test_settings_without_sense_are_refused_and_not_shown(wrong):
    with pytest.raises(ValueError) as told:
        SourcesConfig.model_validate(wrong)
    assert "pass@" not in str(told.value)
    assert "AAAA" not in str(told.value)
