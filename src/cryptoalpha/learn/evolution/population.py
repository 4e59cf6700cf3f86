"""A whole population through one network at once: the weights are shared, each member adds only its low-rank noise.

    y = x Wᵀ ± σ/√r · (x B) Aᵀ            x Wᵀ is one product for all members

While a `Population` is in force (a `with` block), `torch.nn.functional.linear`, `embedding` and `layer_norm` see the first axis of their
input as the members: pair 0 +, pair 0 −, pair 1 +, …; `spread` puts that axis before an input that is common to all. Any other operation
that reads the memory of an evolved parameter, also through a view made before the block, raises; only what tells nothing of its values
(`TELLS_NO_VALUE`: shape, type, device …) is let through. So no member is ever computed with weights that are not its own, unless they were
copied before the block, or are read past torch (a NumPy array of the same memory). Biases and other vectors have full noise, one copy per
member.

A layer costs O(r (rows + columns)) a member and sample more than without noise; writing each member's weights costs O(rows · columns) a
member. A fitness so computed differs from one on written weights by rounding.

Source: Sarkar et al. (2025), "Evolution strategies at the hyperscale" (EGGROLL), arXiv 2511.16652. Departure: mirrored pairs, whose two
members share A and B. Written from the paper's formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding, layer_norm, linear
from torch.overrides import TorchFunctionMode

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.evolution.noise import Words
from cryptoalpha.learn.evolution.tensors import EvolvedTensor

_METHODS = """
    size stride dim ndimension numel nelement element_size storage_offset is_contiguous is_floating_point is_complex is_signed get_device
    data_ptr __len__ __hash__
"""
_PROPERTIES = "shape dtype device ndim itemsize nbytes layout is_leaf requires_grad is_cpu is_cuda is_sparse is_quantized is_meta is_nested"

TELLS_NO_VALUE = frozenset(
    [getattr(Tensor, name) for name in _METHODS.split()]
    + [getattr(Tensor, name).__get__ for name in _PROPERTIES.split()]
    + [torch.is_floating_point, torch.is_complex, torch.numel]
)
"""Operations that look at a tensor, not at its values: what they say of a parameter is the same for every member."""


class Population(TorchFunctionMode):
    """Members of one generation; made by `Evolution.population`.

    Inside the block an input of an evolved layer has the shape `[members, …]`; no gradients.

    Raises:
        ConfigError: (while computing) if an evolved parameter is read by an operation that is not one of the three, or an input's first
            axis is not the members.
    """

    def __init__(self, tensors: Sequence[EvolvedTensor], generation: int, pairs: range, words: Words, sigma: float) -> None:
        super().__init__()
        self.generation, self.pairs = generation, pairs
        self._words, self._sigma = words, sigma
        # By place: a state dict holds other objects. A storage may hold several parameters (a flattened model).
        self._evolved = {tensor.live.data_ptr(): tensor for tensor in tensors}
        self._places: dict[int, list[tuple[int, int, EvolvedTensor]]] = {}
        for tensor in tensors:
            start = tensor.live.data_ptr()
            place = (start, start + tensor.live.nbytes, tensor)
            self._places.setdefault(tensor.live.untyped_storage().data_ptr(), []).append(place)
        self._noise: dict[tuple[str, str], tuple[Tensor, ...]] = {}

    @property
    def members(self) -> int:
        """Number of members, two per pair."""
        return 2 * len(self.pairs)

    def spread(self, values: Tensor) -> Tensor:
        """The same values for every member, `[members, …]`; no copy. A first layer then computes its product with W once."""
        return values.expand(self.members, *values.shape)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        read = self._read((*args, *named.values()))
        if not read or func in TELLS_NO_VALUE:
            return func(*args, **named)
        given = args[0] if args else named.get("input")  # a parameter may be a layer's weight, not what it is applied to
        if all(part is not given and self._is_whole(part) for part, _ in read):
            if func is linear:
                return self._linear(*args, **named)
            if func is layer_norm:
                return self._layer_norm(*args, **named)
            if func is embedding and named.get("max_norm") is None and (len(args) < 4 or args[3] is None):
                return self._embedding(args[0] if args else named["input"], args[1] if len(args) > 1 else named["weight"])
        raise ConfigError(
            f"{_name(func)!r} reads the evolved parameter {read[0][1].name!r}, which only "
            f"linear, embedding (without max_norm) and layer_norm can do for many members at once",
            hint="evolve without it (only=…), or give a fitness of the live weights instead of Together",
        )

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        evolved = self._of(weight)
        self._check_axis(x)
        if evolved is None:
            out = linear(x, weight)
        elif evolved.rank:
            out = perturbed_linear(x, weight, *self._factors(evolved, x), self._signed(evolved.rank, x))
        else:
            out = linear(x, weight) + torch.einsum("m...c,mrc->m...r", x, self._full(evolved, x))
        if bias is None:
            return out
        return out + self._vector(bias, out)

    def _layer_norm(
        self, x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        self._check_axis(x)
        out = layer_norm(x, normalized_shape, None, None, eps)
        if weight is not None:
            out = out * self._vector(weight, out)
        return out if bias is None else out + self._vector(bias, out)

    def _embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        evolved = self._evolved[weight.data_ptr()]
        self._check_axis(ids)
        out = embedding(ids, weight)
        flat = ids.reshape(self.members, -1)
        if not evolved.rank:
            noise = self._full(evolved, out)
            picked = torch.stack([noise[member][row] for member, row in enumerate(flat)])
            return out + picked.reshape(out.shape)
        left, right = self._factors(evolved, out)
        signed = self._signed(evolved.rank, out)
        rows = torch.stack([left[member // 2][row] * signed[member] for member, row in enumerate(flat)])  # [members, n, r]
        added = torch.matmul(rows, right.repeat_interleave(2, dim=0).transpose(1, 2))
        return out + added.reshape(out.shape)

    def _factors(self, evolved: EvolvedTensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """A `[pairs, rows, r]` and B `[pairs, columns, r]`, in the type and on the device of `like`."""
        left, right = self._kept(evolved, "factors", like, lambda: evolved.factors(self._words))
        return left, right

    def _full(self, evolved: EvolvedTensor, like: Tensor) -> Tensor:
        """± σ e, `[members, …]`."""
        (noise,) = self._kept(evolved, "full", like, lambda: (evolved.full(self._words),))
        return (noise.unsqueeze(1) * self._signed(1, like).reshape(-1, 2, *(1,) * (noise.ndim - 1))).flatten(0, 1)

    def _kept(
        self, evolved: EvolvedTensor, kind: str, like: Tensor, make: Callable[[], tuple[NDArray[np.float32], ...]]
    ) -> tuple[Tensor, ...]:
        place = (evolved.name, kind)
        if place not in self._noise:
            made = (torch.from_numpy(np.ascontiguousarray(part)) for part in make())
            self._noise[place] = tuple(part.to(device=like.device, dtype=like.dtype) for part in made)
        return self._noise[place]

    def _vector(self, parameter: Tensor, out: Tensor) -> Tensor:
        """A bias or scale of each member, shaped to meet `out [members, …]`; one that is not evolved as it is."""
        evolved = self._of(parameter)
        if evolved is None:
            return parameter
        own = parameter + self._full(evolved, out)
        return own.reshape(self.members, *(1,) * (out.ndim - parameter.ndim - 1), *parameter.shape)

    def _signed(self, rank: int, like: Tensor) -> Tensor:
        """± σ/√r of each member, `[members]`."""
        scale = self._sigma / rank**0.5
        return torch.tensor([scale, -scale] * len(self.pairs), dtype=like.dtype, device=like.device)

    def _check_axis(self, values: Tensor) -> None:
        if values.ndim < 1 or values.shape[0] != self.members:
            raise ConfigError(
                f"an evolved layer was given the shape {tuple(values.shape)}; its first axis must be the {self.members} members",
                hint="begin with population.spread(inputs)",
            )

    def _of(self, parameter: Tensor) -> EvolvedTensor | None:
        return self._evolved.get(parameter.data_ptr())

    def _is_whole(self, part: Tensor) -> bool:
        """Exactly an evolved parameter, element for element: not a part of it, nor the same memory in another order or type."""
        evolved = self._of(part)
        live = None if evolved is None else evolved.live
        return live is not None and (part.shape, part.stride(), part.dtype) == (live.shape, live.stride(), live.dtype)

    def _read(self, values: Iterable[Any]) -> list[tuple[Tensor, EvolvedTensor]]:
        """Tensors among the arguments of an operation that share memory with an evolved parameter, also those in lists and mappings."""
        found: list[tuple[Tensor, EvolvedTensor]] = []
        for value in values:
            if isinstance(value, Tensor):
                evolved = self._beneath(value)
                found += [] if evolved is None else [(value, evolved)]
            elif isinstance(value, tuple | list):
                found += self._read(value)
            elif isinstance(value, Mapping):
                found += self._read(value.values())
        return found

    def _beneath(self, value: Tensor) -> EvolvedTensor | None:
        """The evolved parameter that a tensor's elements lie in, whether it is the parameter or a view of it."""
        if value.layout != torch.strided:
            return None  # sparse tensors have no storage of their own, and none is evolved
        places = self._places.get(value.untyped_storage().data_ptr())
        if places is None or not value.numel():
            return None
        start = value.data_ptr()
        stop = start + value.element_size() * (1 + sum((size - 1) * step for size, step in zip(value.shape, value.stride(), strict=True)))
        return next((evolved for first, last, evolved in places if start < last and first < stop), None)


def _name(func: Callable[..., Any]) -> str:
    """What an operation is called; a property (`weight.T`) by its own name, not by that of its getter."""
    name = getattr(func, "__name__", str(func))
    return str(func.__self__.__name__) if name == "__get__" and hasattr(func, "__self__") else name


def perturbed_linear(x: Tensor, weight: Tensor, left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """`x (W + s A Bᵀ)ᵀ` for each member without ever forming W + s A Bᵀ.

    Shapes: x `[members, …, columns]`, members = 2 · pairs in the order pair 0 +, pair 0 −, …; weight `[rows, columns]`; left A
    `[pairs, rows, r]`; right B `[pairs, columns, r]`; scale s `[members]` → `[members, …, rows]`. No bias. An x that was spread by
    `expand` (stride 0 along the members) has its product with W, and with all B, computed once.

    Source: EGGROLL, arXiv 2511.16652, the batched forward pass.
    """
    pairs, rows, rank = left.shape
    members, columns = x.shape[0], x.shape[-1]
    middle = x.shape[1:-1]
    signs = scale.reshape(pairs, 2, 1, 1)
    if x.stride(0) == 0:
        common = x[0].reshape(-1, columns)
        base = linear(common, weight)  # [n, rows]
        inner = common @ right.transpose(0, 1).reshape(columns, pairs * rank)
        inner = inner.reshape(-1, pairs, 1, rank).permute(1, 2, 0, 3) * signs  # [pairs, 2, n, r]
        out = torch.matmul(inner.reshape(pairs, -1, rank), left.transpose(1, 2)).reshape(pairs, 2, -1, rows)
        return out.add_(base).reshape(members, *middle, rows)
    stacked = x.reshape(pairs, -1, columns)  # + and − of a pair share A and B
    inner = torch.matmul(stacked, right).reshape(pairs, 2, -1, rank) * signs
    out = linear(x, weight).reshape(pairs, -1, rows)
    torch.baddbmm(out, inner.reshape(pairs, -1, rank), left.transpose(1, 2), out=out)
    return out.reshape(members, *middle, rows)


@dataclass(frozen=True)
class Together:
    """A fitness that computes many members at once.

    `fitness(population)` is called while the population is in force, without gradients, and returns one number per member, in the order
    pair 0 +, pair 0 −, …: a sequence, array or tensor `[members]`.
    """

    fitness: Callable[[Population], Sequence[float] | Tensor | NDArray[Any]]
    pairs: int = 25
    """Pairs computed at once (≥ 1). Part of the run, as other numbers round differently: the same for any number of workers."""

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ConfigError(f"{self.pairs} pairs at once were asked for; at least 1 is needed")

    def measure(self, population: Population) -> NDArray[np.float64]:
        """F+ and F− of the population, `[pairs, 2]`.

        Raises:
            ModelError: if the number of values is not the number of members.
        """
        with torch.no_grad(), population:
            found = self.fitness(population)
        values = np.asarray(found.detach().cpu().numpy() if isinstance(found, Tensor) else found, np.float64)
        if values.shape != (population.members,):
            raise ModelError(
                f"generation {population.generation}: the fitness of pairs {population.pairs[0]}–{population.pairs[-1]} has the shape "
                f"{values.shape}, expected ({population.members},): one number per member"
            )
        return values.reshape(-1, 2)
