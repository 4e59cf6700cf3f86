"""A report's content as bytes, so that a report can be written again, or beside others, without running anything.

Arrays travel as (dtype, shape, raw little-endian bytes). Nothing here executes what it reads: it is msgspec, decoded into known types.
Before the content stand the name and version of the format and the sha256 of what follows.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np

from cryptoalpha.app.report.content import ReportContent
from cryptoalpha.core.errors import StoreError

FORMAT = b"cryptoalpha report 2\n"
_SEAL = hashlib.sha256().digest_size


def dump_content(content: ReportContent) -> bytes:
    """The content as msgpack."""
    body = msgspec.msgpack.encode(content, enc_hook=_encode)
    return FORMAT + hashlib.sha256(body).digest() + body


def load_content(data: bytes) -> ReportContent:
    """The inverse of `dump_content`.

    Raises:
        StoreError: if the bytes are damaged or of another schema.
    """
    if not data.startswith(FORMAT):
        raise StoreError("the stored report is of another version, or none at all", hint="run the backtest again with this version")
    seal, body = data[len(FORMAT) : len(FORMAT) + _SEAL], data[len(FORMAT) + _SEAL :]
    if hashlib.sha256(body).digest() != seal:
        raise StoreError("the stored report is damaged: its content does not match its sha256", hint="run the backtest again")
    try:
        return msgspec.msgpack.decode(body, type=ReportContent, dec_hook=_decode)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreError(f"the stored report cannot be read: {error}", hint="run the backtest again") from None


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
