"""A function of rows, computed in blocks of rows that fit the cache, and differentiated without keeping what lies between.

`row_wise(body, rows, sliced, shared)` is `body` over all rows at once, for a `body` whose row i depends on row i of the sliced tensors and
on the shared tensors (weights, a bias) alone. Forward: block after block into one output; nothing but the arguments is kept. Backward: each
block is run again with gradients on; the gradient of a slice is written where the slice came from, those of what is shared are added up in
the order of the blocks. One forward more, and the memory of one block instead of all; at the widths of a pair representation the second
matters for speed as well, because a block stays in the cache from its layer norm to its residual.

Whatever is differentiated must be an argument, never in the body's closure; a body draws no random numbers (dropout comes in, drawn
before).

Source: the recomputation is Chen et al. (2016), "Training Deep Nets with Sublinear Memory Cost", row by row instead of layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

CACHE_NUMBERS = 2**19
"""Numbers of one block: two megabytes of float32, which stay in the second and third level of cache; the best of 2**16 … 2**20."""

LEAST_INFERENCE, LEAST_TRAINING = 64, 128
"""Positions from which blocks are faster than the whole at once, measured by `cryptoalpha bench networks`."""

Body = Callable[[Sequence[Tensor | None], Sequence[Tensor]], Tensor]
"""(slices of the sliced tensors, shared tensors) → that block of the output."""


class Rows(NamedTuple):
    """A tensor that is cut along `dim`, or None where there is none."""

    tensor: Tensor | None
    dim: int = 0


def rows_per_block(length: int, width: int) -> int:
    """Rows of `length` positions with `width` live channels each that fit the cache together; at least 1."""
    return max(1, CACHE_NUMBERS // (length * width))


def blocks_pay(positions: int, device: torch.device) -> bool:
    """Whether blocks are the faster way: on a CPU, from 64 positions on, from 128 if gradients are wanted. Never while a graph is exported.

    The rule knows sizes and nothing of the content, so that equal shapes always take the same path to the same bits.
    """
    least = LEAST_TRAINING if torch.is_grad_enabled() else LEAST_INFERENCE
    return positions >= least and device.type == "cpu" and not torch.compiler.is_compiling()


def row_wise(body: Body, rows: int, sliced: Sequence[Rows], shared: Sequence[Tensor], *, out_dim: int = 0) -> Tensor:
    """`body` over all rows, `rows` at a time.

    Args:
        sliced: tensors cut along their own `dim`, all of the same length there; a size of 1 there is handed on whole, to be broadcast.
        shared: tensors that every block gets whole.
        out_dim: the axis of the output along which its rows lie.

    Shapes:
        the output has the shape of `body`'s answer with the length of the sliced tensors along `out_dim`.
    """
    present = [part for part in sliced if part.tensor is not None]
    plan = _Plan(body, rows, tuple(part.dim for part in sliced), tuple(part.tensor is not None for part in sliced), out_dim)
    out: Tensor = _RowWise.apply(plan, *(part.tensor for part in present), *shared)  # type: ignore[no-untyped-call]
    return out


class _Plan(NamedTuple):
    """All that is no tensor."""

    body: Body
    rows: int
    dims: tuple[int, ...]
    there: tuple[bool, ...]
    out_dim: int

    def split(self, tensors: Sequence[Tensor | None]) -> tuple[list[Rows], list[Any]]:
        """Sliced and shared again, as they were given."""
        left = iter(tensors)
        sliced = [Rows(next(left) if there else None, dim) for there, dim in zip(self.there, self.dims, strict=True)]
        return sliced, list(left)

    def length(self, sliced: Sequence[Rows]) -> int:
        return max(part.tensor.shape[part.dim] for part in sliced if part.tensor is not None)

    def blocks(self, length: int) -> Iterable[tuple[int, int]]:
        return ((start, min(self.rows, length - start)) for start in range(0, length, self.rows))


def _cut(part: Rows, start: int, count: int) -> Tensor | None:
    if part.tensor is None or part.tensor.shape[part.dim] == 1:
        return part.tensor
    return part.tensor.narrow(part.dim, start, count)


class _RowWise(torch.autograd.Function):
    """See the module."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> Tensor:
        ctx.plan = plan
        ctx.autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        ctx.save_for_backward(*tensors)
        sliced, shared = plan.split(tensors)
        length = plan.length(sliced)
        out: Tensor | None = None
        for start, count in plan.blocks(length):
            block = plan.body([_cut(part, start, count) for part in sliced], shared)
            if out is None:
                shape = list(block.shape)
                shape[plan.out_dim] = length
                out = block.new_empty(shape)
            out.narrow(plan.out_dim, start, count).copy_(block)
        assert out is not None
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", dtype=ctx.autocast[1], enabled=ctx.autocast[0]):
            return (None, *_gradients(ctx.plan, ctx.saved_tensors, ctx.needs_input_grad[1:], grad))


def by_batch(answers: Sequence[Tensor]) -> Tensor:
    """Answers of single batches together; of one batch without a copy."""
    return answers[0].unsqueeze(0) if len(answers) == 1 else torch.stack(list(answers))


def row_wise_gradients(
    body: Body, rows: int, sliced: Sequence[Rows], shared: Sequence[Tensor], grad: Tensor, *, out_dim: int = 0
) -> list[Tensor | None]:
    """Gradients of `row_wise` without having run it: of every tensor there is, sliced ones first; None where none is asked for."""
    tensors = [*(part.tensor for part in sliced if part.tensor is not None), *shared]
    plan = _Plan(body, rows, tuple(part.dim for part in sliced), tuple(part.tensor is not None for part in sliced), out_dim)
    return _gradients(plan, tensors, [tensor.requires_grad for tensor in tensors], grad)


def _gradients(plan: _Plan, tensors: Sequence[Tensor], wanted: Sequence[bool], grad: Tensor) -> list[Tensor | None]:
    sliced, shared = plan.split([tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)])
    sums = [torch.zeros_like(tensor) if want else None for tensor, want in zip(tensors, wanted, strict=True)]
    into, shared_sums = plan.split(sums)
    for start, count in plan.blocks(plan.length(sliced)):
        pieces = [_leaf(part, start, count) for part in sliced]
        with torch.enable_grad():
            block = plan.body(pieces, shared)
        pairs = [
            *((piece, _cut(part, start, count)) for piece, part in zip(pieces, into, strict=True)),
            *zip(shared, shared_sums, strict=True),
        ]
        due = [(leaf, total) for leaf, total in pairs if leaf is not None and total is not None]
        found = torch.autograd.grad(block, [leaf for leaf, _ in due], grad.narrow(plan.out_dim, start, count), allow_unused=True)
        for (_, total), gradient in zip(due, found, strict=True):
            if gradient is not None:
                total.add_(gradient)
    return sums


def _leaf(part: Rows, start: int, count: int) -> Tensor | None:
    piece = _cut(part, start, count)
    return None if piece is None else piece.detach().requires_grad_(part.tensor is not None and part.tensor.requires_grad)
