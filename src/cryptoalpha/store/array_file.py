"""Named arrays in one file that is either whole and unchanged or refused.

Nothing in the file is executed when it is read (no pickle). Its layout is that of safetensors: length of the header (8 bytes), header
(JSON), raw little-endian arrays, so other programs can read it too; what is not an array (counters, states of random generators) is JSON in
the header's metadata. There also stands a SHA-256 over everything else, which finds accidents and careless edits, not an attacker who
computes it anew. Killed while writing, the old file stays (`store.whole_file`).

Source: the safetensors format description (Hugging Face). Departure: the checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError, DataMissingError, StoreError
from cryptoalpha.store.whole_file import replacing

Array = NDArray[Any]

DTYPES = {
    "BOOL": "|b1", "I8": "|i1", "U8": "|u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
"""Name in the file → NumPy type: what can be kept."""

_LARGEST_HEADER = 64 << 20
_CHUNK = 1 << 24


class Kept(NamedTuple):
    """What a file held: its arrays, and its state (plain JSON values)."""

    arrays: dict[str, Array]
    state: dict[str, Any]


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The file's name for a NumPy type.

    Raises:
        ConfigError: for types that have none, such as objects, strings and complex numbers.
    """
    little = dtype.newbyteorder("<").str
    for name, text in DTYPES.items():
        if text == little or text.replace("<", "|") == little:
            return name
    raise ConfigError(f"arrays of type {dtype} cannot be kept", hint=f"use one of {', '.join(DTYPES.values())}")


def write_arrays(path: Path, arrays: Mapping[str, Array], state: Mapping[str, Any], *, kind: str) -> None:
    """Replace `path` by a file of these arrays and this state (JSON values, infinities and NaN too).

    `kind` says what it is and is demanded on reading.

    Raises:
        StoreError: if it cannot be written; what was there before is untouched.
        ConfigError: if an array's type cannot be kept.
    """
    blocks, header, offset = [], {}, 0
    for name, array in arrays.items():
        code = dtype_name(array.dtype)
        block = np.ascontiguousarray(array, dtype=DTYPES[code]).reshape(array.shape)
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [offset, offset + block.nbytes]}
        blocks.append(block)
        offset += block.nbytes
    # A text inside the header, so Python's own spelling of infinities and NaN does no harm to other readers.
    metadata = {"kind": kind, "state": json.dumps(state, sort_keys=True)}
    metadata["sha256"] = _digest(header, metadata, blocks).hexdigest()
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for block in blocks:
            file.write(_bytes(block))


def read_arrays(path: Path, *, kind: str) -> Kept:
    """What `write_arrays` wrote, bit for bit.

    Raises:
        DataMissingError: if there is no such file.
        StoreError: if it is cut off, changed, of another kind, or not such a file at all.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header, metadata, start = _read_header(path, file.read(8), file, size)
            arrays = {}
            for name, entry in header.items():
                array = np.empty(entry["shape"], DTYPES[entry["dtype"]])
                file.seek(start + entry["data_offsets"][0])
                if file.readinto(_bytes(array)) != array.nbytes:
                    raise _broken(path, f"array {name!r} is cut off")
                arrays[name] = array
    except FileNotFoundError:
        raise DataMissingError(f"{path} does not exist") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    claimed = metadata.pop("sha256", "")
    if _digest(header, metadata, list(arrays.values())).hexdigest() != claimed:
        raise _broken(path, "its checksum does not fit its content")
    if metadata.get("kind") != kind:
        raise StoreError(f"{path} is a {metadata.get('kind')!r} file, expected {kind!r}")
    return Kept(arrays, json.loads(metadata["state"]))


def _read_header(path: Path, head: bytes, file: Any, size: int) -> tuple[dict[str, Any], dict[str, str], int]:
    """Array entries, metadata and where the arrays begin; nothing is allocated before the sizes fit the file."""
    length = int.from_bytes(head, "little")
    if len(head) < 8 or not 0 < length <= min(_LARGEST_HEADER, size - 8):
        raise _broken(path, "it has no whole header")
    try:
        header = json.loads(file.read(length))
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__").items()}
        offset = 0
        for name, entry in header.items():
            nbytes = math.prod(entry["shape"]) * np.dtype(DTYPES[entry["dtype"]]).itemsize
            whole = all(type(size) is int and size >= 0 for size in entry["shape"])
            if not whole or entry["data_offsets"] != [offset, offset + nbytes]:
                raise _broken(path, f"array {name!r} does not lie where it should")
            offset += nbytes
    except (ValueError, KeyError, TypeError, AttributeError):  # ValueError covers JSON and text that is no UTF-8
        raise _broken(path, "its header cannot be read") from None
    if 8 + length + offset != size:
        raise _broken(path, f"it has {size} bytes, expected {8 + length + offset}")
    return header, metadata, 8 + length


def _digest(header: Mapping[str, Any], metadata: Mapping[str, str], blocks: list[Array]) -> Any:
    digest = hashlib.sha256(json.dumps([list(header.items()), sorted(metadata.items())]).encode())
    for block in blocks:
        view = _bytes(block)
        for start in range(0, len(view), _CHUNK):
            digest.update(view[start : start + _CHUNK])
    return digest


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _broken(path: Path, why: str) -> StoreError:
    return StoreError(f"{path} is damaged: {why}", hint="restore it from a copy, or delete it and begin anew")
