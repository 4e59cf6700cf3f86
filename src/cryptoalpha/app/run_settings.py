"""The settings a run began with, kept beside its journal, so that a start with others can say which differ.

The journal's header holds their hash, which decides; the file only explains. Credentials are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptoalpha.app.backtest import OPERATIONAL, decisive_settings
from cryptoalpha.app.runs import CONFIG
from cryptoalpha.app.settings import Settings
from cryptoalpha.store.whole_file import write_whole


def keep_settings(folder: Path, settings: Settings) -> None:
    """Write them into the run's folder."""
    write_whole(folder / CONFIG, json.dumps(settings.model_dump(mode="json", exclude={"credentials"}), indent=2))


def differing_settings(folder: Path, settings: Settings) -> list[str]:
    """Each setting that can change what a run does and is not what the run in that folder began with, in words; none where the folder
    cannot tell."""
    try:
        kept = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    now = settings.model_dump(mode="json", exclude={"credentials"})
    differing = []
    for section in decisive_settings(settings):
        before, after = (dict(_leaves(section, _decisive(section, _at(content, section)))) for content in (kept, now))
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        differing += [f"{name} was {_shown(before, name)} and is {_shown(after, name)}" for name in names]
    return differing


def _at(content: object, section: str) -> object:
    for part in section.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _decisive(section: str, content: object) -> object:
    """The section without what decides nothing."""
    passed_over = OPERATIONAL.get(section, ())
    return {key: value for key, value in content.items() if key not in passed_over} if isinstance(content, Mapping) else content


def _leaves(name: str, content: object) -> Iterator[tuple[str, object]]:
    """Full names and values; nothing for a section that is not there."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _leaves(f"{name}.{key}", value)
    elif content is not None or "." in name:
        yield name, content


def _shown(values: Mapping[str, object], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "unknown"
