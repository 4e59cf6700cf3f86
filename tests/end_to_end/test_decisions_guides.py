"""The pages on decisions name things that exist: links lead somewhere, commands and their options are understood, settings hold."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.train_all import STEPS
from cryptoalpha.app.verbs import build

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("decisions", "regimes", "fusion", "agents", "environment", "league", "council")
STEERING = {"--config", "--set", "--seed", "--json"}
"""Options of every verb, taken before the verb is looked at."""


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def commands_of(page: str) -> list[list[str]]:
    """Every command line in the page's fenced blocks and in its inline code, in words."""
    blocks = "\n".join(re.findall(r"```(?:bash)?\n(.*?)```", text_of(page), re.DOTALL)).replace("\\\n", " ")
    inline = [" ".join(found.split()) for found in re.findall(r"`(cryptoalpha [^`]+)`", text_of(page))]
    lines = [line.split("  #")[0].strip() for line in blocks.splitlines()] + inline
    return [shlex.split(line)[1:] for line in lines if line.startswith("cryptoalpha ")]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text_of(page)) if "://" not in link]
    assert [link for link in links if not (DOCS / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "environment"])
def test_commands_of_a_page_are_verbs_with_those_options_and_settings(page: str) -> None:
    commands = commands_of(page)
    assert commands
    for words in commands:
        verb: Any = typer.main.get_command(build())
        path = 0
        while hasattr(verb, "commands"):  # a group, whichever click it is made of
            assert words[path] in verb.commands, words
            verb, path = verb.commands[words[path]], path + 1
        known = {name for parameter in verb.params for name in (*parameter.opts, *parameter.secondary_opts)} | STEERING
        assert {word for word in words if word.startswith("--")} <= known, words
        for setting in [words[place + 1].split("=")[0] for place, word in enumerate(words) if word == "--set"]:
            assert setting_of(setting) is not None


def setting_of(path: str) -> object:
    """The default of a setting; AttributeError where there is none."""
    value: object = Settings()
    for name in path.split("."):
        value = getattr(value, name)
    return value


def test_the_door_tells_defaults_choices_and_steps_as_they_are() -> None:
    text = text_of("decisions")
    settings = Settings()
    assert (settings.fusion.method, settings.agent.members, settings.signals.regime.model) == ("ridge", ("rule",), "")
    named = re.findall(r"^\| `([a-z_.]+)` \|", text, re.MULTILINE)
    assert len(named) == 5
    for path in (*named, "fusion.online.enabled"):
        setting_of(path)
    assert ", ".join(STEPS[:-1]) + f" and {STEPS[-1]}" in text
