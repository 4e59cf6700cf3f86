"""A report's content as bytes, so that a report can be written again, or beside others, without running anything.

Arrays travel as (dtype, shape, raw little-endian bytes). Nothing here executes what it reads: it is msgspec, decoded into known types.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from cryptoalpha.app.report.content import ReportContent
from cryptoalpha.core.errors import StoreError

SCHEMA = 1


def dump_content(content: ReportContent) -> bytes:
    """The content as msgpack."""
    return msgspec.msgpack.encode((SCHEMA, content), enc_hook=_encode)


def load_content(data: bytes) -> ReportContent:
    """The inverse of `dump_content`.

    Raises:
        StoreError: if the bytes are damaged or of another schema.
    """
    try:
        schema, content = msgspec.msgpack.decode(data, type=tuple[int, ReportContent], dec_hook=_decode)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreError(f"the stored report cannot be read: {error}", hint="run the backtest again") from None
    if schema != SCHEMA:
        raise StoreError(f"the stored report has schema {schema}, expected {SCHEMA}", hint="run the backtest again with this version")
    return content


def _encode(value: object) -> object:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.floating | np.integer | np.bool_):
        return value.item()
    raise TypeError(f"a report holds a {type(value).__name__}")


def _decode(kind: type, value: Any) -> object:
    dtype, shape, raw = value
    if dtype not in ("<i8", "<f8", "|b1"):
        raise ValueError(f"an array of {dtype} does not belong into a report")
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()
