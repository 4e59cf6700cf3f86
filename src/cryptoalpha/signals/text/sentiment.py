"""A trained sentiment head, run without torch, and the file it is kept in.

The head's few products are made one text at a time, so that a tone is the same to the last bit whatever is read beside it. The file
(`store.array_file`) holds weights, the encoder they were trained on, the classes and where it all came from; with another encoder it
is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.text.labels import POLARITY
from cryptoalpha.nets.text.labels import SENTIMENTS as CLASSES
from cryptoalpha.signals.text.encoder import EncoderId, TextEncoder, Vectors, require_encoder
from cryptoalpha.store.array_file import read_arrays, write_arrays
from cryptoalpha.store.tables import Floats

KIND = "sentiment head"

_ARRAYS = ("mean", "scale", "outer.weight", "outer.bias")
_INNER = ("inner.weight", "inner.bias")


@dataclass(frozen=True, eq=False)
class SentimentModel:
    """Vectors → shares of the five classes.

    Raises:
        ModelError: if the arrays do not fit each other or the encoder.
    """

    encoder: EncoderId
    arrays: Mapping[str, npt.NDArray[np.float32]]
    """`mean`, `scale` `[D]`; `inner.weight` `[H, D]`, `inner.bias` `[H]` (none in a linear head); `outer.weight` `[5, H]`, `outer.bias`."""
    lineage: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from: data, split, seed, settings, figures."""

    def __post_init__(self) -> None:
        width = self.encoder.width
        hidden = len(self.arrays["inner.bias"]) if "inner.bias" in self.arrays else None
        wanted: dict[str, tuple[int, ...]] = {"mean": (width,), "scale": (width,), "outer.bias": (len(CLASSES),)}
        wanted["outer.weight"] = (len(CLASSES), width if hidden is None else hidden)
        if hidden is not None:
            wanted |= {"inner.weight": (hidden, width), "inner.bias": (hidden,)}
        found = {name: array.shape for name, array in self.arrays.items()}
        if found != wanted:
            raise ModelError(f"a sentiment head on {self.encoder} has arrays {found}, expected {wanted}", hint="train it anew")
        if not all(np.isfinite(array).all() for array in self.arrays.values()) or (self.arrays["scale"] <= 0.0).any():
            raise ModelError(f"the sentiment head on {self.encoder} holds numbers that are not finite", hint="train it anew")

    @cached_property
    def digest(self) -> str:
        """Hash of encoder and weights: which head gave a tone."""
        digest = hashlib.sha256(repr(self.encoder).encode())
        for name in sorted(self.arrays):
            digest.update(name.encode() + np.ascontiguousarray(self.arrays[name], "<f4").tobytes())
        return digest.hexdigest()[:16]

    def shares(self, vectors: Vectors) -> Floats:
        """Probability of each class. `[n, D]` → `[n, 5]`.

        Raises:
            ConfigError: if the vectors are of another width.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.encoder.width:
            raise ConfigError(f"vectors of shape {vectors.shape} do not fit a head on {self.encoder}")
        weights = {name: array.astype(np.float64) for name, array in self.arrays.items()}
        out = np.empty((len(vectors), len(CLASSES)))
        for row, vector in enumerate(vectors):
            x = (vector.astype(np.float64) - weights["mean"]) / weights["scale"]
            if "inner.weight" in weights:
                x = np.maximum(weights["inner.weight"] @ x + weights["inner.bias"], 0.0)
            logits = weights["outer.weight"] @ x + weights["outer.bias"]
            shares = np.exp(logits - logits.max())
            out[row] = shares / shares.sum()
        return out

    def polarity(self, vectors: Vectors) -> Floats:
        """Expected polarity, −1 to 1. `[n, D]` → `[n]`."""
        expected: Floats = (self.shares(vectors) * np.array(POLARITY)).sum(axis=1)
        return np.clip(expected, -1.0, 1.0)

    def save(self, path: Path) -> None:
        """Replace `path` by this head.

        Raises:
            StoreError: if it cannot be written.
        """
        state = {"encoder": self.encoder.as_dict(), "classes": list(CLASSES), "lineage": dict(self.lineage), "digest": self.digest}
        write_arrays(path, dict(self.arrays), state, kind=KIND)

    @classmethod
    def load(cls, path: Path, *, encoder: TextEncoder | EncoderId | None = None) -> SentimentModel:
        """The head in `path`; with an encoder given, only if it was trained on that one.

        Raises:
            DataMissingError: if there is no such file.
            StoreError: if it is damaged or of another kind.
            ModelError: if it was trained on another encoder, or for other classes.
        """
        kept = read_arrays(path, kind=KIND)
        if tuple(kept.state.get("classes", ())) != CLASSES:
            raise ModelError(f"{path} answers {kept.state.get('classes')}, expected {', '.join(CLASSES)}", hint="train it anew")
        identity = EncoderId.read(kept.state.get("encoder", {}), str(path))
        if encoder is not None:
            require_encoder(identity, encoder, where=str(path))
        if not set(_ARRAYS) <= set(kept.arrays) <= {*_ARRAYS, *_INNER}:
            raise ModelError(f"{path} holds the arrays {', '.join(kept.arrays)}, not those of a head", hint="train it anew")
        return cls(identity, kept.arrays, kept.state.get("lineage", {}))
