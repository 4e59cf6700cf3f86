"""What a rollout writes on an object of the cluster besides weights: whose versions they are, and since when.

Annotations, because nothing else of the object is free. `generation` counts changes of the spec and nothing else (a gateway writes its
status every few minutes, which must not look like another hand), annotations change no generation: the two together name a state of the
split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptoalpha.lifecycle.kubernetes.api import Object
from cryptoalpha.lifecycle.rollout.split import Split

PREFIX = "cryptoalpha.io/"
VERSION, SET_BY = f"{PREFIX}version", f"{PREFIX}set-by"
"""On pods: the version they serve. On a Deployment: that a rollout wrote it, so that an upgrade of the chart leaves it."""
_STABLE, _CANARY, _SINCE, _WROTE = (f"{PREFIX}{name}" for name in ("stable", "canary", "since", "wrote"))


@dataclass(frozen=True)
class Marks:
    """Read from and written to an object's annotations.

    Args:
        since: when the state began that the rollout wrote last, UTC ns.
        wrote: that state in words; another one means that another hand was there.
    """

    stable: str = ""
    canary: str = ""
    since: int = 0
    wrote: str = ""

    @classmethod
    def of(cls, found: Object) -> Marks:
        notes: Mapping[str, str] = found["metadata"].get("annotations") or {}
        since = notes.get(_SINCE, "")
        return cls(notes.get(_STABLE, ""), notes.get(_CANARY, ""), int(since) if since.isdigit() else 0, notes.get(_WROTE, ""))

    def annotations(self) -> dict[str, str]:
        return {_STABLE: self.stable, _CANARY: self.canary, _SINCE: str(self.since), _WROTE: self.wrote}


def worded(weights: Mapping[str, float], *, shadow: bool) -> str:
    """Weights in thousandths, as they can be compared."""
    return ",".join(f"{arm}={round(1000 * weights[arm])}" for arm in sorted(weights)) + (",shadow" if shadow else "")


class Moments:
    """When states began that another hand made: nobody wrote it down, so it is when they were first seen."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def split(self, found: Object, weights: Mapping[str, float], *, shadow: bool, now: int, suffix: str = "") -> Split:
        """The split that an object's weights and marks make."""
        marks, meta = Marks.of(found), found["metadata"]
        version = f"{meta.get('generation') or meta.get('resourceVersion', '')}-{marks.since}{suffix}"
        since = marks.since
        if marks.wrote != worded(weights, shadow=shadow) or suffix:
            since = self._seen.setdefault(version, max(now, marks.since + 1))
        return Split(weights=dict(weights), shadow=shadow, version=version, since=since, stable=marks.stable, canary=marks.canary)


def written_as(found: Object) -> str:
    """The `resourceVersion` under which an object was read; empty where an API gives none."""
    return str(found["metadata"].get("resourceVersion", ""))


def annotated(marks: Marks) -> dict[str, Any]:
    """A merge patch's metadata with these marks."""
    return {"annotations": marks.annotations()}
