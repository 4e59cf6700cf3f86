"""Promotion by hand: only what the gates let through, unless somebody forces it and says why."""

from __future__ import annotations

from cryptoalpha.core.errors import ConfigError, ValidationFailedError
from cryptoalpha.lifecycle.registry.pointers import ANY, Expected
from cryptoalpha.lifecycle.registry.registry import ModelRegistry
from cryptoalpha.lifecycle.registry.version import SHOWN, Version


def expectation(said: str | None) -> Expected:
    """What `--expected` means: an id, `none` for nobody; not given: whoever is champion."""
    if said is None:
        return ANY
    return None if said.strip().lower() == "none" else said


def promote_judged(registry: ModelRegistry, wanted: str, *, reason: str, expected: str | None, force: bool) -> tuple[Version, str]:
    """Make a version champion whose newest report passed against the champion there is; returns it and the reason that is kept.

    Raises:
        ValidationFailedError: if it was not judged, was refused, or was judged against another champion, and `force` is not set.
        ConfigError: if force is used without a reason, or another is champion than was expected.
        ModelError: if its files are not what was registered.
    """
    version = registry.get(wanted)
    if force:
        if not reason.strip():
            raise ConfigError("a promotion by force needs a reason", hint="--reason TEXT: it is kept in the history")
        words = f"forced: {reason}"
        return registry.promote(version.line, version.id, expected=expectation(expected), reason=words), words
    against = registry.champion_id(version.line)
    judged = _judged(registry, version, against)
    words = reason.strip() or judged
    demanded: Expected = (
        against if expected is None else expectation(expected)
    )  # whoever takes over meanwhile was not what it was judged by
    return registry.promote(version.line, version.id, expected=demanded, reason=words), words


def _judged(registry: ModelRegistry, version: Version, against: str | None) -> str:
    reports = registry.reports(version.id)
    hint = f"judge it: cryptoalpha models judge {version.short}; or --force --reason TEXT, which is recorded"
    if not reports:
        raise ValidationFailedError(f"version {version.short} was not judged: it is not promoted", hint=hint)
    newest = reports[-1]
    if not newest.passed:
        by = ", ".join(str(name) for name in newest.content.get("refused_by", ())) or "its judge"
        raise ValidationFailedError(f"version {version.short} was refused by {by}: it is not promoted", hint=hint)
    before = newest.content.get("champion", against)
    if before != against and against != version.id:
        was, now = (str(one)[:SHOWN] if one else "nobody" for one in (before, against))
        raise ValidationFailedError(
            f"version {version.short} was judged against {was}, and the champion is {now}: it is not promoted", hint=hint
        )
    return f"passed its judgement number {newest.number}"
