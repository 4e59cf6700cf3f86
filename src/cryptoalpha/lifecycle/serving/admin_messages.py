"""What those who hold the token may send."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

VersionName = Annotated[str, Meta(min_length=1, max_length=500, description="Id, prefix of one, `champion`, or the path of a folder.")]


class SplitWrite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Divide requests anew, if the split is still at `expected_version`."""

    weights: dict[Literal["stable", "canary"], Annotated[float, Meta(ge=0.0, le=1.0)]]
    expected_version: str
    shadow: bool = False


class EnsurePair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Load a stable version and a canary."""

    stable: VersionName
    canary: VersionName


class FinishRollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Let one arm answer everything from now on."""

    winner: Literal["stable", "canary"]


class SwapVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Let another version answer as stable."""

    version: VersionName
