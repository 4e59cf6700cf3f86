"""ONNX graphs of a version's forecaster, one per fold, for machines without torch: `ROOT/onnx/VERSION/forecaster_NN.onnx`.

They are made from a verified version, not part of it: the exporter's bytes depend on its release, the version's id must not. Each graph is
run by ONNX Runtime and compared with torch before it is kept (`nets.onnx_export.TOLERANCE`, 1e-5 of the larger of 1 and the answer, opset
20), on inputs drawn from the version's id, some of them unobserved. A graph has the shapes of one block: batch 1, the block's bars, and as
many assets as the model was trained with. `onnx.json` names the version and every file's SHA-256; what does not fit is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.registry.copying import drafted, sha256
from cryptoalpha.lifecycle.registry.version import Version
from cryptoalpha.store.whole_file import sync, write_whole

if TYPE_CHECKING:
    from cryptoalpha.nets.forecaster.values import ForecastInputs
    from cryptoalpha.signals.forecast.model import ForecastDesign
    from cryptoalpha.store.model_folder import ModelFolder

DOCUMENT = "onnx.json"


@dataclass(frozen=True)
class OnnxFiles:
    """Graphs of a version, in the order of its folds, and the names of their inputs and answers."""

    path: Path
    files: tuple[Path, ...]
    inputs: tuple[str, ...]
    answers: tuple[str, ...]
    assets: int
    bars: int
    opset: int
    tolerance: float


def onnx_place(version: Version, assets: int) -> Path:
    """Where the graphs of a version for so many assets lie."""
    return version.path.parent.parent / "onnx" / f"{version.id}.{assets}"


def export_onnx(version: Version, *, assets: int | None = None) -> OnnxFiles:
    """Write the graphs of a verified version (`ModelRegistry.get`); those that lie there are returned. Some ten seconds a fold.

    Args:
        assets: assets of a block; the model's own if None.

    Raises:
        ConfigError: if it holds no forecaster, or does not say with how many assets it was trained.
        ModelError: if a graph and torch differ by more than the tolerance.
    """
    from cryptoalpha.nets.onnx_export import OPSET, TOLERANCE, export_network
    from cryptoalpha.signals.forecast.model import ForecastModel

    folder, design = forecaster_of(version)
    count = assets or len(folder.lineage.get("identity", {}).get("instruments", ()))
    if count < 1:
        raise ConfigError(f"version {version.short} does not say with how many assets it was trained", hint="give the number of assets")
    place = onnx_place(version, count)
    if place.is_dir():
        return open_onnx(version, assets=count)
    place.parent.mkdir(parents=True, exist_ok=True)
    with drafted(place.parent.parent) as draft:
        bars, files = design.config.context_bars + design.config.block_bars, {}
        for number in range(len(folder.folds)):
            net = ForecastModel.load(folder, number, design).net
            graph, names, answers = export_network(net, _drawn(design, count, bars, int(version.id[:12], 16)))
            name = f"forecaster_{number:02d}.onnx"
            write_whole(draft / name, graph.data)
            files[name] = graph.digest
        said = {
            "version": version.id, "files": files, "inputs": list(names), "answers": list(answers), "assets": count, "bars": bars,
            "opset": OPSET, "tolerance": TOLERANCE,
        }  # fmt: skip
        write_whole(draft / DOCUMENT, json.dumps(said, indent=1, sort_keys=True) + "\n")
        if not place.exists():
            draft.rename(place)
            sync(place.parent)
    return open_onnx(version, assets=count)


def open_onnx(version: Version, *, assets: int) -> OnnxFiles:
    """The graphs that were exported, verified.

    Raises:
        ConfigError: if none were exported.
        ModelError: if a file is missing, changed, or of another version.
    """
    place = onnx_place(version, assets)
    hint = f"remove {place}, and export anew: cryptoalpha models export {version.short} --onnx"
    try:
        said = json.loads((place / DOCUMENT).read_text(encoding="utf-8"))
        files = {str(name): str(digest) for name, digest in said["files"].items()}
        found = OnnxFiles(
            place, tuple(place / name for name in sorted(files)), tuple(said["inputs"]), tuple(said["answers"]), int(said["assets"]),
            int(said["bars"]), int(said["opset"]), float(said["tolerance"]),
        )  # fmt: skip
        of = str(said["version"])
    except FileNotFoundError:
        raise ConfigError(f"version {version.short} was not exported for {assets} assets", hint="cryptoalpha models export") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{place / DOCUMENT} is damaged", hint=hint) from None
    if of != version.id:
        raise ModelError(f"{place} holds graphs of version {of}, not of {version.id}", hint=hint)
    for path in found.files:
        if not path.is_file() or sha256(path) != files[path.name]:
            raise ModelError(f"{path} is not the graph that was written", hint=hint)
    return found


def forecaster_of(version: Version) -> tuple[ModelFolder, ForecastDesign]:
    """The forecaster of a version, with the settings it was trained with.

    Raises:
        ConfigError: if it holds none.
        ModelError: if the folder does not describe one.
    """
    from pydantic import ValidationError

    from cryptoalpha.signals.config import ForecastConfig, NewsConfig
    from cryptoalpha.signals.forecast.model import KIND, ForecastDesign
    from cryptoalpha.store.model_folder import ModelFolder

    place = version.model(KIND)
    if place is None:
        raise ConfigError(f"version {version.short} of the line {version.line} holds no forecaster", hint="export one that does")
    folder = ModelFolder.open(place, KIND)

    def trained(section: str) -> dict[str, Any]:
        begin = f"signals.{section}."
        return {name[len(begin) :]: value for name, value in folder.description.items() if name.startswith(begin)}

    try:
        forecast, news = ForecastConfig.model_validate(trained("forecast")), NewsConfig.model_validate(trained("news"))
    except ValidationError:
        raise ModelError(f"{place} does not describe a forecaster", hint="train it anew: cryptoalpha train forecaster") from None
    return folder, ForecastDesign.of(folder, forecast, news)


def _drawn(design: ForecastDesign, assets: int, bars: int, seed: int) -> ForecastInputs:
    """A block of numbers from a seed; a fifth of the features and a tenth of the bars are unobserved."""
    import torch

    from cryptoalpha.nets.forecaster.values import ForecastInputs
    from cryptoalpha.signals.chain_features import CHAIN_FEATURES
    from cryptoalpha.signals.forecast.pairs import pair_feature_names
    from cryptoalpha.signals.price_features import PRICE_FEATURES

    generator, shape = stream(seed, "onnx parity"), (1, bars, assets)
    pair = (*shape, assets, len(pair_feature_names(design.config.correlation_bars)))

    def numbers(*size: int) -> torch.Tensor:
        return torch.from_numpy(generator.normal(size=size).astype(np.float32))

    def seen(*size: int, share: float) -> torch.Tensor:
        return torch.from_numpy(generator.random(size) < share)

    price, chain = (*shape, len(PRICE_FEATURES)), (*shape, len(CHAIN_FEATURES))
    return ForecastInputs(
        price=numbers(*price),
        price_seen=seen(*price, share=0.8),
        chain=numbers(*chain),
        chain_seen=seen(*chain, share=0.8),
        text=numbers(*shape, design.encoder.width),
        text_weight=torch.from_numpy(generator.random(shape).astype(np.float32)),
        pair=numbers(*pair),
        pair_seen=seen(*pair, share=0.8),
        present=seen(*shape, share=0.9),
    )
