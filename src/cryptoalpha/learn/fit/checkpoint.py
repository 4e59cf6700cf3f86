"""A training run on disk: complete or absent, never half-written, and never code.

File: one header line, the BLAKE2b hash of the payload, then the payload as written by `torch.save`. It is read with `weights_only=True`:
tensors and plain values, nothing that runs. The hash is ours because torch's own archive does not check what it reads.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.store.whole_file import write_whole

HEADER = b"cryptoalpha fit checkpoint 1\n"
DIGEST_BYTES = 32


def encode(state: Mapping[str, Any]) -> bytes:
    """`state` (tensors, numbers, texts, lists, dicts) as the bytes of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getbuffer()
    return b"".join((HEADER, hashlib.blake2b(payload, digest_size=DIGEST_BYTES).digest(), payload))


def decode(content: bytes, source: str) -> dict[str, Any]:
    """The state in the bytes of a checkpoint file; tensors on the CPU. `source` names it in errors.

    Raises:
        StoreError: if it is no checkpoint, or a single bit of it is missing or changed.
    """
    hint = "delete it to train from the beginning, or restore it from a copy"
    if not content.startswith(HEADER):
        raise StoreError(f"{source} is not a training checkpoint of this version", hint=hint)
    start = len(HEADER) + DIGEST_BYTES
    payload = memoryview(content)[start:]
    if hashlib.blake2b(payload, digest_size=DIGEST_BYTES).digest() != content[len(HEADER) : start]:
        raise StoreError(f"the checkpoint {source} is damaged: {len(payload)} bytes that are not those that were written", hint=hint)
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise StoreError(f"the checkpoint {source} holds more than tensors and plain values: {error}", hint=hint) from error
    if not isinstance(state, dict):
        raise StoreError(f"the checkpoint {source} holds a {type(state).__name__}, not a training run", hint=hint)
    return state


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path`, wholly or not at all, and on the disk when this returns.

    Raises:
        StoreError: if it cannot be written.
    """
    write_whole(path, content)


def read(path: Path) -> bytes | None:
    """The bytes at `path`; None if there is no file.

    Raises:
        StoreError: if there is one that cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"the checkpoint {path} cannot be read: {error.strerror}") from error


def check_identity(found: object, expected: Mapping[str, object], source: str) -> None:
    """Refuse to resume a run that was another one.

    Raises:
        ConfigError: naming everything that differs, with both values.
    """
    before = found if isinstance(found, dict) else {}
    differing = [
        f"{name} was {repr(before[name]) if name in before else 'not recorded'}, "
        f"is {repr(expected[name]) if name in expected else 'not given'}"
        for name in sorted({*before, *expected})
        if name not in before or name not in expected or before[name] != expected[name]
    ]
    if differing:
        raise ConfigError(
            f"the checkpoint {source} belongs to another training run: {'; '.join(differing)}",
            hint="undo the change to resume it, or train to another checkpoint path",
        )
