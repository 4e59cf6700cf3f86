"""What every reader of texts promises: a vector per text that depends on nothing but the text.

An encoder is named by three things that are kept with whatever was made from its vectors: its name, the revision of its weights or rules,
and the width of its vectors. Two encoders of equal width still speak different languages, so a model refuses vectors of another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ModelError
from cryptoalpha.store.tables import Floats

Vectors = npt.NDArray[np.float32]


@runtime_checkable
class TextEncoder(Protocol):
    """Texts to vectors.

    The vector of a text is the same to the last bit whatever is encoded beside it, in whatever order, in this process or another one on
    the same machine. Equal texts have equal vectors; the empty text has one too; a text longer than the encoder reads is cut.
    """

    @property
    def name(self) -> str:
        """`lexicon`, `minilm`, or `hf:REPOSITORY` / `hf:FOLDER`."""
        ...

    @property
    def revision(self) -> str:
        """Which weights or rules: changes whenever a vector may change."""
        ...

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """`n` texts → float32 `[n, width]`, in their order; `[0, width]` for none."""
        ...


@runtime_checkable
class PolarEncoder(TextEncoder, Protocol):
    """An encoder that has an opinion of its own."""

    def polarity(self, texts: Sequence[str]) -> Floats:
        """`n` texts → `[n]`, −1 (very negative) to 1 (very positive)."""
        ...


@dataclass(frozen=True)
class EncoderId:
    """Which encoder something was made with."""

    name: str
    revision: str
    width: int

    @classmethod
    def of(cls, encoder: TextEncoder) -> Self:
        """The identity of an open encoder."""
        return cls(encoder.name, encoder.revision, encoder.width)

    @classmethod
    def read(cls, state: Mapping[str, Any], where: str) -> Self:
        """The identity that a model's file holds.

        Raises:
            ModelError: if it holds none.
        """
        try:
            return cls(str(state["name"]), str(state["revision"]), int(state["width"]))
        except (KeyError, TypeError, ValueError):
            raise ModelError(f"{where} does not say which text encoder it was trained with", hint="train it anew") from None

    def as_dict(self) -> dict[str, Any]:
        """What goes into a model's file."""
        return {"name": self.name, "revision": self.revision, "width": self.width}

    def __str__(self) -> str:
        return f"{self.name} (revision {self.revision}, {self.width} wide)"


def require_encoder(trained_with: EncoderId, given: TextEncoder | EncoderId, *, where: str) -> None:
    """Refuse vectors of an encoder that a model was not trained with, even of equal width.

    Raises:
        ModelError: if name, revision or width differ.
    """
    found = given if isinstance(given, EncoderId) else EncoderId.of(given)
    if found != trained_with:
        raise ModelError(
            f"{where} was trained on vectors of the text encoder {trained_with}, but {found} is configured",
            hint="set signals.text.encoder (and revision) to the one it was trained with, or train it anew",
        )
