"""Folders for runs that follow the champion: one series of models for each part of a line and each design (`store.model_series`).

    HOME/models/champion/PART/DESIGN/model.json     who answered which bars, and who answers from when on

A run that uses these folders goes on when the champion changes; what it did stays explained by who was champion then. The pointer of the
registry says who is champion, and this is brought up to date with it: by whoever promotes, and again by whoever begins a run, because who
promoted may have been killed in between. Until then runs go on with the champion before.

A champion of another design (other sizes, features, horizons) fits no run that was begun with this one: it begins series of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptoalpha.core.errors import CryptoAlphaError, ModelError
from cryptoalpha.lifecycle.registry.lines import MODELS
from cryptoalpha.lifecycle.registry.version import Version
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.model_series import extend_series

PLACE = Path("models") / "champion"
"""Where series lie in the store's home."""


def follow(root: Path, champion: Version, *, now: Callable[[], int]) -> dict[str, Path]:
    """Bring the series up to date with the champion of a line: the folder that a run uses for each part of it.

    Args:
        root: `HOME/models/champion`.
        champion: a verified version.
        now: the time, UTC ns; a part that follows another one takes over a minute later.

    Raises:
        ModelError: if a part is damaged, or a change for a later moment is already written down: the clock was set back.
        StoreError: if the disk refuses.
    """
    found = {}
    for name in MODELS:
        if (folder := champion.model(name)) is not None:
            model = ModelFolder.open(folder, name)
            found[name] = extend_series(root / name / _design(model), model, member=champion.id, now=now()).path
    return found


def in_use(root: Path) -> frozenset[str]:
    """Ids of all versions that a series names: runs ask their files for the bars that they answered.

    Raises:
        ModelError: if a series cannot be read: nobody can tell then whose files it needs.
    """
    return frozenset(member for place in sorted(root.glob("*/*/model.json")) for member in _members(place))


def _members(place: Path) -> Iterator[str]:
    try:
        folder = ModelFolder.open(place.parent, place.parts[-3])
    except CryptoAlphaError as error:
        raise ModelError(
            f"{place.parent} names models that runs use, and cannot be read: {error}", hint="restore it, or remove it if no run uses it"
        ) from error
    yield from (str(one["member"]) for one in folder.lineage.get("members", ()))


def _design(model: ModelFolder) -> str:
    """A name for what all models of a series share."""
    return hashlib.sha256(json.dumps(model.description, sort_keys=True).encode()).hexdigest()[:12]
