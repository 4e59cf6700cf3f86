"""Builds what `serve` runs from settings: which versions there are, who may change them, and the models' processes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

from cryptoalpha.app.credentials import Hide, reveal
from cryptoalpha.app.settings import Settings
from cryptoalpha.lifecycle.registry.registry import PLACE, ModelRegistry
from cryptoalpha.lifecycle.serving.application import Service
from cryptoalpha.lifecycle.serving.fleet import Fleet, FleetLimits
from cryptoalpha.lifecycle.serving.versions import CHAMPION, Known, in_registry


def open_service(
    settings: Settings, home: Path, *, version: str = "", hide: Hide, say: Callable[[str], None] = lambda text: None
) -> tuple[Service, str]:
    """A service that is not running yet, and the name of the version it shall begin with.

    Raises:
        ConfigError: if the token's reference leads nowhere.
    """
    registry = ModelRegistry(home / PLACE, now=time.time_ns)
    known = Known(in_registry(registry))
    folder = settings.signals.forecast.model
    has_champion = any(registry.champion_id(line) for line in ("loop", "forecaster"))
    stable = version or (folder if folder and not has_champion else CHAMPION)
    canary, config = settings.lifecycle.canary, settings.lifecycle.serving
    fleet = Fleet(
        known, config, text=settings.signals.text.model_dump(), now=time.time_ns, say=say,
        limits=FleetLimits(late_seconds=canary.latency_seconds, slower_ratio=canary.slower_ratio),
    )  # fmt: skip
    secret = settings.credentials.serving_token
    token = "" if secret is None else reveal(secret, "serving_token", hide)
    return Service(fleet, config, now=time.time_ns, new_id=lambda: uuid.uuid4().hex, token=token), stable
