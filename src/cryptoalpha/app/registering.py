"""What `models register` says of a folder: its data, settings, seed and measures, read from the lineage that its training left."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import ModelError
from cryptoalpha.lifecycle.registry.lines import MODELS, demand_line


@dataclass(frozen=True)
class Told:
    """Arguments of `ModelRegistry.register`."""

    data: str
    config: Mapping[str, Any]
    seed: int
    metrics: Mapping[str, float]


def told_by(folder: Path, line: str) -> Told:
    """What a trained folder says of itself. Of a loop every model is named in front: `forecaster.rank_ic`.

    Raises:
        ConfigError: if there is no such line.
        ModelError: if there is no model in the folder, or its description cannot be read.
    """
    demand_line(line)
    places = {"": folder} if line != "loop" else {f"{name}.": folder / name for name in MODELS if (folder / name).is_dir()}
    lineages = {name: _lineage(place) for name, place in places.items()}
    if not lineages:
        raise ModelError(f"{folder} holds no models", hint="name what `cryptoalpha train all` wrote: --out, else models/ in the store")
    identities = {name: _of(lineage, "identity") for name, lineage in lineages.items()}
    prints = [str(_of(identity, "data").get("fingerprint") or _of(identity, "data")) for identity in identities.values()]
    data = prints[0] if len(set(prints)) == 1 else hashlib.sha256("\n".join(prints).encode()).hexdigest()
    left_out = ("data", "version")
    config = {f"{name}{key}": value for name, one in identities.items() for key, value in one.items() if key not in left_out}
    seeds = [int(one["seed"]) for one in identities.values() if isinstance(one.get("seed"), int)]
    metrics = {f"{name}{key}": value for name, lineage in lineages.items() for key, value in _metrics(lineage).items()}
    return Told(data, config, seeds[0] if seeds else 0, metrics)


def _metrics(lineage: Mapping[str, Any]) -> dict[str, float]:
    """Estimates of the model that was trained, at its longest horizon; a fold's mean otherwise where it says one."""
    found: dict[str, float] = {}
    name, horizons = lineage.get("model"), lineage.get("horizons")
    if isinstance(name, str) and isinstance(horizons, list) and horizons:
        for key, value in _of(_of(horizons[-1], "scores"), name).items():
            _take(found, key, value[0] if isinstance(value, list) and value else value)
    if isinstance(name, str):
        value = _of(lineage, "net_sharpe").get(name)
        _take(found, "net_sharpe", value[0] if isinstance(value, list) and value else value)
    return found


def _take(found: dict[str, float], key: str, value: object) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        found[key] = float(value)


def _of(content: Any, key: str) -> Mapping[str, Any]:
    value = content.get(key) if isinstance(content, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _lineage(folder: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads((folder / "model.json").read_text(encoding="utf-8"))["lineage"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f"{folder} holds no trained model, or a damaged one", hint="train one: cryptoalpha train") from None
