"""One evolved tensor: the live values that the model computes with, the accepted values, two Adam moments, and the keys of its noise.

The live tensor is only ever written from the accepted values: a member is accepted ± σ e, restoring is a copy, so nothing rounds away over
a run and a crash inside a fitness leaves the accepted values intact. Everything is done in pieces of about 65,000 elements; nothing of the
tensor's size is ever allocated after construction.

A matrix has low-rank noise E = A Bᵀ / √r where its smaller side exceeds the rank r; vectors, scalars and thinner matrices have full noise,
which costs no more there. Tensors of more axes are taken as matrices of their first axis by all others. Noise element (i, s) of A lies at
i · r + s, element (s, j) of Bᵀ at s · columns + j; full noise at the element's own flat place.

A live tensor may lie on any device and have any floating type: what is not float32 or float64 in CPU memory is written through a buffer of
one piece. Accepted values and moments are float32 then, and always in CPU memory.

Source: Sarkar et al. (2025), "Evolution strategies at the hyperscale" (EGGROLL), arXiv 2511.16652, for the low-rank noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.evolution.noise import BLOCK, LARGEST_TENSOR, Single, Words, noise_key, normals
from cryptoalpha.learn.evolution.steps import adam, add_low_rank, sum_full, write_full, write_low_rank

Values = NDArray[np.float32] | NDArray[np.float64]

PIECE = BLOCK * 256
"""Elements that are worked on at a time: 256 KiB of noise, which stays in the cache."""

FACTORS = 1 << 20
"""Elements of right factors that are held at a time (4 MiB)."""


class EvolvedTensor:
    """See the module.

    Args:
        name: what the tensor is called; part of its noise's key.
        live: the tensor the model computes with; its values are taken as the accepted ones.
        rank: rank r of the noise on matrices; 0 gives full noise to all.
        seed: of the run.
    """

    def __init__(self, name: str, live: torch.Tensor, *, rank: int, seed: int) -> None:
        _check(name, live)
        self.name, self.live, self.size = name, live, live.numel()
        self.rows = live.shape[0] if live.ndim >= 2 else 1
        self.columns = self.size // self.rows
        self.rank = rank if 0 < rank < min(self.rows, self.columns) else 0
        kind = np.dtype(np.float64 if live.dtype == torch.float64 else np.float32)
        self.accepted: Values = np.empty(self.size, kind)
        torch.from_numpy(self.accepted).copy_(live.detach().reshape(-1))
        # Not np.zeros, whose memory is claimed at the first write: too little of it should show here, not in the first update.
        self.first: Values = np.full(self.size, 0, kind)
        self.second: Values = np.full(self.size, 0, kind)
        self._full, self._left, self._right = (noise_key(seed, name, part) for part in ("full", "left", "right"))

    @property
    def state_bytes(self) -> int:
        """Memory at rest beside the live tensor."""
        return self.accepted.nbytes + self.first.nbytes + self.second.nbytes

    def factors(self, member: Words) -> tuple[Single, Single]:
        """A and B of each member, `[members, rows, r]` and `[members, columns, r]`; E = A Bᵀ / √r."""
        left = normals(self._left, member, 0, self.rows * self.rank).reshape(len(member), self.rows, self.rank)
        right = normals(self._right, member, 0, self.rank * self.columns).reshape(len(member), self.rank, self.columns)
        return left, right.transpose(0, 2, 1)

    def full(self, member: Words) -> Single:
        """Full noise of each member, in the tensor's shape: `[members, …]`."""
        return normals(self._full, member, 0, self.size).reshape(len(member), *self.live.shape)

    def write(self, member: Words, scale: float) -> None:
        """Live values = accepted + scale · E of one member (`member [1]`)."""
        kind = self.accepted.dtype.type
        if not self.rank:
            for start, out in self._pieces(PIECE):
                write_full(out, self.accepted[start : start + out.size], kind(scale), self._full, member[0], start)
            return
        right = normals(self._right, member, 0, self.rank * self.columns).reshape(self.rank, self.columns)
        for start, out in self._pieces(self._row_piece()):
            base = self.accepted[start : start + out.size].reshape(-1, self.columns)
            left = self._left_lines(member, start // self.columns, len(base))
            write_low_rank(out.reshape(base.shape), base, kind(scale / self.rank**0.5), left, right)

    def restore(self) -> None:
        """Live values = accepted values, bit for bit."""
        for start, out in self._pieces(PIECE):
            out[:] = self.accepted[start : start + out.size]

    def step(self, weights: Single, member: Words, settings: Sequence[float], *, commit: bool) -> None:
        """Live values = accepted ones after an Adam step along Σ_p weights[p] · E_p; `commit` moves accepted ones and moments too."""
        kind = self.accepted.dtype.type
        constants = tuple(kind(value) for value in settings)
        gradients = self._low_rank_gradients(weights, member) if self.rank else self._full_gradients(weights, member)
        pieces = self._pieces(self._row_piece() if self.rank else PIECE)
        for (start, out), gradient in zip(pieces, gradients, strict=True):
            piece = slice(start, start + out.size)
            adam(out, self.accepted[piece], self.first[piece], self.second[piece], gradient, constants, commit)

    def _row_piece(self) -> int:
        """Elements of the whole rows that are worked on at a time."""
        return max(1, PIECE // self.columns) * self.columns

    def _pieces(self, length: int) -> Iterator[tuple[int, Values]]:
        """Start and a place to write for each piece of the live tensor; a piece in a buffer is written when the next one is asked for."""
        flat = self.live.detach().view(-1)
        if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
            direct: Values = flat.numpy()
            for start in range(0, self.size, length):
                yield start, direct[start : start + length]
            return
        buffer = np.empty(min(length, self.size), np.float32)
        for start in range(0, self.size, length):
            out = buffer[: self.size - start]
            yield start, out
            flat[start : start + out.size].copy_(torch.from_numpy(out))

    def _full_gradients(self, weights: Single, member: Words) -> Iterator[Single]:
        buffer = np.empty(min(PIECE, self.size), np.float32)
        for start in range(0, self.size, PIECE):
            gradient = buffer[: self.size - start]
            sum_full(gradient, weights, self._full, member, start)
            yield gradient

    def _low_rank_gradients(self, weights: Single, member: Words) -> Iterator[Single]:
        lines = np.repeat(weights / np.float32(self.rank**0.5), self.rank)
        length = self._row_piece()
        at_once = max(1, FACTORS // (self.rank * self.columns))  # pairs whose right factors are held together
        groups = [slice(first, first + at_once) for first in range(0, len(member), at_once)]
        kept = self._right_lines(member) if len(groups) == 1 else None
        buffer = np.empty(min(length, self.size), np.float32)
        for start in range(0, self.size, length):
            gradient = buffer[: self.size - start].reshape(-1, self.columns)
            gradient[:] = 0.0
            for group in groups:
                right = kept if kept is not None else self._right_lines(member[group])
                left = self._left_lines(member[group], start // self.columns, len(gradient))
                add_low_rank(gradient, lines[group.start * self.rank : group.stop * self.rank], left, right)
            yield gradient.reshape(-1)

    def _left_lines(self, member: Words, row: int, rows: int) -> Single:
        """Rows of A, `[members · r, rows]`."""
        found = normals(self._left, member, row * self.rank, rows * self.rank).reshape(len(member), rows, self.rank)
        return np.ascontiguousarray(found.transpose(0, 2, 1)).reshape(len(member) * self.rank, rows)

    def _right_lines(self, member: Words) -> Single:
        """Bᵀ, `[members · r, columns]`."""
        return normals(self._right, member, 0, self.rank * self.columns).reshape(len(member) * self.rank, self.columns)


def chosen_tensors(parameters: nn.Module | Mapping[str, torch.Tensor], only: Sequence[str] | None) -> dict[str, torch.Tensor]:
    """The tensors to evolve by name, those of a module that need a gradient; `only` keeps names that match one of its patterns (`head.*`).

    Raises:
        ConfigError: if a pattern matches nothing, or nothing is left.
    """
    found: dict[str, torch.Tensor]
    if isinstance(parameters, nn.Module):
        found = {name: tensor for name, tensor in parameters.named_parameters() if tensor.requires_grad}
    else:
        found = dict(parameters)
    if only is not None:
        idle = [pattern for pattern in only if not any(fnmatchcase(name, pattern) for name in found)]
        if idle:
            raise ConfigError(f"no parameter is called {', '.join(map(repr, idle))}", hint=f"there are: {', '.join(found)}")
        found = {name: tensor for name, tensor in found.items() if any(fnmatchcase(name, pattern) for pattern in only)}
    if not found:
        raise ConfigError("there is no parameter to evolve", hint="parameters that need no gradient are left out")
    places = [tensor.data_ptr() for tensor in found.values()]
    if len(set(places)) < len(places):
        raise ConfigError("two names share one tensor, which would be moved twice", hint="name it once")
    return found


def _check(name: str, live: torch.Tensor) -> None:
    if not live.is_floating_point():
        raise ConfigError(f"parameter {name!r} holds {live.dtype}, which noise cannot move; expected floating point")
    if not live.is_contiguous():
        raise ConfigError(f"parameter {name!r} is a view that is not contiguous", hint="evolve the tensor that it looks at")
    if not 0 < live.numel() <= LARGEST_TENSOR:
        raise ConfigError(f"parameter {name!r} has {live.numel():,} elements; 1 to {LARGEST_TENSOR:,} are possible")
    if not bool(torch.isfinite(live.detach()).all()):
        raise ConfigError(f"parameter {name!r} holds NaN or infinity before anything was evolved")
