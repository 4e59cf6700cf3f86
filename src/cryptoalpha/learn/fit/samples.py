"""What is trained on: anything that has a length, gives the batch of some indices, and can say which data it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import torch

from cryptoalpha.core.errors import ConfigError

B_co = TypeVar("B_co", covariant=True)


class Samples(Protocol[B_co]):
    """Training samples. A batch is a pure function of its indices; whatever is random in it must be derived from them."""

    def __len__(self) -> int: ...

    def take(self, indices: torch.Tensor) -> B_co:
        """The batch of these samples; `indices` is int64 `[b]` on the CPU, 0 ≤ index < length, b ≥ 1."""
        ...

    def fingerprint(self) -> str:
        """A text that differs between different data: a run is never resumed on other samples than it began with."""
        ...


class TensorSamples:
    """Samples in tensors that share their first axis: a batch is the tuple of their rows.

    Raises:
        ConfigError: if there is no tensor, or their first axes differ.
    """

    def __init__(self, *tensors: torch.Tensor) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ConfigError(f"samples need tensors of one length, not of {sorted(lengths) or 'no tensor at all'}")
        self.tensors = tensors
        self._fingerprint = ""

    def __len__(self) -> int:
        return len(self.tensors[0])

    def take(self, indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor[indices.to(tensor.device)] for tensor in self.tensors)

    def fingerprint(self) -> str:
        """Hash of shapes, types and every byte; computed once."""
        if not self._fingerprint:
            digest = hashlib.blake2b(digest_size=16)
            for tensor in self.tensors:
                digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def on_device(batch: Any, device: torch.device) -> Any:
    """`batch` with every tensor in its tuples, lists and mappings on `device`; other values as they are."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: on_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(on_device(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(on_device(value, device) for value in batch)
    return batch
