"""What a row is: named columns, each of a fixed shape and type, so that memory is known before anything is allocated.

The caller declares the columns. Some names mean something to this room, where they are present: `terminated` and `truncated` end an
episode; `reward`, `discount`, `value` and `value_after` make n-step targets; `model_version` says which model wrote targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.store.array_file import Array, dtype_name


@dataclass(frozen=True)
class Column:
    """One value of a row. Args: shape of a single row's value, NumPy type, and whether NaN and infinity are refused (floats only)."""

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    finite: bool = True

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


Schema = Mapping[str, Column]


def checked_schema(schema: Schema) -> dict[str, Column]:
    """The same columns, found fit to be kept.

    Raises:
        ConfigError: without columns, or for a shape or type that cannot be kept.
    """
    if not schema:
        raise ConfigError("a schema without columns keeps nothing", hint="declare at least one column")
    for name, column in schema.items():
        if not name or name.startswith("_"):
            raise ConfigError(f"column name {name!r} is empty or begins with an underscore, which is kept for the buffer's own arrays")
        if any(size < 1 for size in column.shape):
            raise ConfigError(f"column {name!r} has shape {column.shape}, expected positive sizes")
        dtype_name(np.dtype(column.dtype))
    return dict(schema)


def as_columns(schema: Schema, rows: Mapping[str, ArrayLike], *, partial: bool = False) -> tuple[int, dict[str, Array]]:
    """Number of rows, and each column as an array `[n, *shape]` of its type. `partial`: some columns may be left out.

    Raises:
        ConfigError: for a missing or unknown column, a wrong shape, or a value that its type cannot hold.
        ModelError: for NaN or infinity; the message names column and row.
    """
    unknown, missing = rows.keys() - schema.keys(), schema.keys() - rows.keys()
    if unknown or (missing and not partial) or not rows:
        raise ConfigError(f"columns do not fit the schema: unknown {sorted(unknown)}, missing {sorted(missing)}")
    count: int | None = None
    columns: dict[str, Array] = {}
    for name, given in rows.items():
        column = schema[name]
        array = _cast(name, np.asarray(given), np.dtype(column.dtype))
        if count is None:
            count = array.shape[0] if array.ndim else -1
        if array.shape != (count, *column.shape):
            shape = ", ".join(map(str, ("n", *column.shape)))
            raise ConfigError(f"column {name!r} has shape {array.shape}, expected [{shape}] with the same n in all columns")
        if column.finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argmax(~np.isfinite(array).reshape(count, -1).all(axis=1)))
            raise ModelError(f"column {name!r} of row {row} is not finite: {array[row]}", hint="find the model or the reward that made it")
        columns[name] = array
    return int(count or 0), columns


def _cast(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    if array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, casting="same_kind") and not (array.dtype.kind in "iub" and dtype.kind in "iufb"):
        raise ConfigError(f"column {name!r} is {array.dtype}, which {dtype} cannot hold")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused as such
        cast = array.astype(dtype)
    if dtype.kind in "iub" and not np.array_equal(cast, array):
        raise ConfigError(f"column {name!r} holds values that {dtype} cannot hold")
    return cast
