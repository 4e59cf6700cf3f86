"""The trunk read column by column: what a new moment adds, from what is kept of the moments before.

With `causal="columns"` nothing known of earlier moments ever changes when a new one comes. So the trunk need not run over a whole window
again: a new column t adds the cells (t, j) and (j, t) for j ≤ t to the pairs and one cell per row to the sequences. All that every module
needs of the past is keys, values, factors and biases, which are kept. A live bar costs one column instead of the window.

The same sums in another order: equal to the pass over the window up to rounding, and to the last bit from run to run, since the shapes
depend on the column's place and on the number of windows alone. Pairs with absent positions follow the rules of the modules themselves.
What the last block would do to the pairs is left away: no sequence hears of it.

Cells of a step, in this order: (t, j) for j < t, (j, t) for j < t, (t, t): `[B, 2t + 1, Z]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer.attention_kernel import attend
from cryptoalpha.nets.evoformer.block import EvoformerBlock
from cryptoalpha.nets.evoformer.column_attention import ColumnAttention
from cryptoalpha.nets.evoformer.column_kernels import mixed, products, scores
from cryptoalpha.nets.evoformer.evoformer import Evoformer
from cryptoalpha.nets.evoformer.gate import gated
from cryptoalpha.nets.evoformer.outer_product_mean import EPSILON, OuterProductMean
from cryptoalpha.nets.evoformer.row_attention import RowAttentionWithPairBias
from cryptoalpha.nets.evoformer.triangle_attention import TriangleAttention
from cryptoalpha.nets.evoformer.triangle_multiplication import TriangleMultiplication


class TrunkByColumn:
    """A trunk that reads B windows of at most N columns, one column at a time, all windows at once.

    Args:
        trunk: with `causal="columns"`, in evaluation mode.
        batch, rows, columns: B, S, N.

    Raises:
        ConfigError: for a trunk that is not causal along its columns.
    """

    def __init__(self, trunk: Evoformer, *, batch: int, rows: int, columns: int) -> None:
        if trunk.causal != "columns":
            raise ConfigError(f'only a trunk that is causal along its columns can be read by column, this one has causal="{trunk.causal}"')
        blocks = [block for block in trunk.blocks if isinstance(block, EvoformerBlock)]
        self._blocks = [_Block(block, batch, rows, columns, is_last=block is blocks[-1]) for block in blocks]
        self.present = torch.zeros(batch, rows, columns, dtype=torch.bool)

    def read(self, t: int, m: Tensor, z: Tensor, present: Tensor) -> Tensor:
        """The sequences at column t after the last block. All columns before t have been read; later ones are forgotten.

        Shapes: m `[B, S, C]`, z `[B, 2t + 1, Z]` (cells in the order above), present `[B, S]` bool → `[B, S, C]`.
        """
        self.present[:, :, t] = present
        seen = self.present[:, :, : t + 1]
        for block in self._blocks:
            m, z = block.read(t, m, z, seen)
        return m


def numbers_kept(config: EvoformerConfig, *, rows: int, columns: int) -> int:
    """Floats that one window keeps, to tell whether it pays: the keys and values of all pairs are the most of it."""
    pairs = columns * columns * (4 * config.pair_width + 4 * config.pair_heads * config.pair_head_width + 2 * config.pair_heads)
    sequences = columns * rows * (2 * config.heads * config.head_width + 2 * config.outer_width)
    return config.blocks * (pairs + sequences)


class _Block:
    """One block and what it keeps."""

    def __init__(self, block: EvoformerBlock, batch: int, rows: int, columns: int, *, is_last: bool) -> None:
        self.block = block
        self.rows = _RowAttention(block.row_attention, batch, rows, columns)
        self.is_last = is_last
        if is_last:
            return
        self.outer = _OuterProduct(block.outer_product_mean, batch, rows, columns)
        self.outgoing = _Multiplication(block.triangle_outgoing, batch, columns)
        self.incoming = _Multiplication(block.triangle_incoming, batch, columns)
        self.starting = _Attention(block.triangle_starting, batch, columns)
        self.ending = _Attention(block.triangle_ending, batch, columns)

    def read(self, t: int, m: Tensor, z: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """m `[B, S, C]`, z `[B, 2t + 1, Z]`, seen `[B, S, t + 1]` → the same after the block."""
        here = seen[:, :, t]
        m = self.rows.read(t, m, z, seen)
        m = m + _across_rows(self.block.column_attention, m, here)
        m = m + self.block.sequence_transition.update(m, here)
        if self.is_last:
            return m, z
        position = seen.any(1)  # [B, t + 1]
        z = self.outer.read(t, m, z, seen)
        z = self.outgoing.read(t, z, position)
        z = self.incoming.read(t, z, position)
        z = self.starting.read(t, z, position)
        z = self.ending.read(t, z, position)
        both = position & position[:, t:]
        return m, z + self.block.pair_transition.update(z, torch.cat((both[:, :t], both), 1))


class _RowAttention:
    """Keys and values of every column of every row."""

    def __init__(self, module: RowAttentionWithPairBias, batch: int, rows: int, columns: int) -> None:
        self.module = module
        self.keys = torch.zeros(batch, rows, module.heads, columns, module.head_width)
        self.values = torch.zeros_like(self.keys)

    def read(self, t: int, m: Tensor, z: Tensor, seen: Tensor) -> Tensor:
        module = self.module
        q, k, v, gate = module.qkvg(module.norm_m(m)).unflatten(-1, (4, module.heads, module.head_width)).unbind(-3)  # [B, S, H, D]
        self.keys[:, :, :, t], self.values[:, :, :, t] = k, v
        bias = module.pair_bias(module.norm_z(_first_sides(z, t))).transpose(1, 2)[:, None]  # [B, 1, H, t + 1]
        logits = (self.keys[:, :, :, : t + 1] @ (q * module.head_width**-0.5)[..., None]).squeeze(-1) + bias
        found = (_weights(logits, ~seen[:, :, None])[..., None, :] @ self.values[:, :, :, : t + 1]).squeeze(-2)
        answer: Tensor = module.out((gate.sigmoid() * found).flatten(-2))
        return m + answer * seen.any(-1, keepdim=True)


def _across_rows(module: ColumnAttention, m: Tensor, here: Tensor) -> Tensor:
    """Column attention of one column: nothing of it is kept."""
    q, k, v, gate = module.qkvg(module.norm_m(m)).unflatten(-1, (4, module.heads, module.head_width)).unbind(-3)  # [B, S, H, D]
    q, k, v = (part.transpose(1, 2)[:, None] for part in (q, k, v))  # [B, 1, H, S, D]
    found = attend(q, k, v, key_mask=here[:, None]).squeeze(1).transpose(1, 2)
    update: Tensor = module.out((gate.sigmoid() * found).flatten(-2))
    return update * here.any(-1)[:, None, None]


class _OuterProduct:
    """Both factors of every column, all rows side by side."""

    def __init__(self, module: OuterProductMean, batch: int, rows: int, columns: int) -> None:
        self.module = module
        self.a = torch.zeros(batch, columns, rows * module.width)
        self.b = torch.zeros_like(self.a)
        kernel = module.out.weight.t().view(module.width, module.width, -1)  # [c of a, c of b, Z]
        self.of_a, self.of_b = kernel.flatten(1), kernel.transpose(0, 1).flatten(1)

    def read(self, t: int, m: Tensor, z: Tensor, seen: Tensor) -> Tensor:
        module, width = self.module, self.module.width
        here = seen[:, :, t].to(m.dtype)
        a, b = (module.factors(module.norm_m(m)) * here[..., None]).split(width, dim=-1)  # [B, S, c]
        self.a[:, t], self.b[:, t] = a.flatten(1), b.flatten(1)
        rows = self.b[:, : t + 1] @ (a @ self.of_a).unflatten(-1, (width, -1)).flatten(1, 2)  # (t, j)
        columns = self.a[:, :t] @ (b @ self.of_b).unflatten(-1, (width, -1)).flatten(1, 2)  # (j, t)
        count = (seen.to(m.dtype) * here[..., None]).sum(1)  # [B, t + 1]
        share = (1.0 / (count + EPSILON)) * (count > 0)
        total = torch.cat((rows[:, :t], columns, rows[:, t:]), 1)
        return z + (total + module.out.bias) * torch.cat((share[:, :t], share), 1)[..., None]


class _Multiplication:
    """Both factors as far as they count, `[B, Z, N, N]`: a_ik for k ≤ i outgoing; a_ki for k ≤ i, stored as `[i, k]`, incoming."""

    def __init__(self, module: TriangleMultiplication, batch: int, columns: int) -> None:
        self.module = module
        width = module.p_out.out_features
        self.a = torch.zeros(batch, width, columns, columns)
        self.b = torch.zeros_like(self.a)

    def read(self, t: int, z: Tensor, position: Tensor) -> Tensor:
        module = self.module
        x = module.norm_in(z)
        ab = gated(module.p_in(x), module.g_in(x))
        ab = (_first_sides(ab, t) if module.outgoing else ab[:, t:]) * (position & position[:, t:])[..., None]  # [B, t + 1, 2Z]
        a, b = (part.contiguous() for part in ab.transpose(1, 2).chunk(2, dim=1))  # [B, Z, t + 1] each
        self.a[:, :, t, : t + 1], self.b[:, :, t, : t + 1] = a, b
        rows = torch.from_numpy(products(self.b.numpy(), a.numpy(), t + 1))
        columns = torch.from_numpy(products(self.a.numpy(), b.numpy(), t))
        p = torch.cat((rows[..., :t], columns, rows[..., t:]), -1).transpose(1, 2)  # [B, 2t + 1, Z]
        return z + gated(module.p_out(module.norm_out(p)), module.g_out(x))


class _Attention:
    """Keys and values of every pair, and the bias of every query and key, for the starting node; the ending node is that of zᵀ."""

    def __init__(self, module: TriangleAttention, batch: int, columns: int) -> None:
        self.module = module
        self.keys = torch.zeros(batch, columns, module.heads, module.head_width, columns)
        self.values = torch.zeros_like(self.keys)
        self.bias = torch.zeros(batch, module.heads, columns, columns)
        self.ahead = ~torch.ones(columns, columns, dtype=torch.bool).tril()

    def read(self, t: int, z: Tensor, position: Tensor) -> Tensor:
        module = self.module
        x = module.norm(_turned(z, t) if module.ending else z)
        q, k, v, gate = module.qkvg(x).unflatten(-1, (4, module.heads, module.head_width)).unbind(-3)  # [B, 2t + 1, H, D]
        bias = module.pair_bias(_first_sides(x, t)).transpose(1, 2)  # [B, H, t + 1]
        self.bias[:, :, t, : t + 1] = bias
        scale = module.head_width**-0.5
        keys, values = (_first_sides(part, t).transpose(1, 2) for part in (k, v))  # [B, H, t + 1, D]
        for kept, row, column in ((self.keys, keys, k), (self.values, values, v)):
            kept[:, t, :, :, : t + 1], kept[:, :t, :, :, t] = row.transpose(-1, -2), column[:, t : 2 * t]
        barred = ~position[:, None, None] | ~position[:, None, t:, None] | self.ahead[: t + 1, : t + 1]
        logits = (_first_sides(q, t).transpose(1, 2) * scale) @ keys.transpose(-1, -2) + self.bias[:, :, : t + 1, : t + 1]
        rows = (_weights(logits, barred) @ values).transpose(1, 2)  # (t, j): [B, t + 1, H, D]
        alive = position.to(torch.int32).cumsum(-1) > 0  # a key at or before
        queries = (q[:, t : 2 * t] * scale).contiguous()
        logits = torch.from_numpy(scores(self.keys.numpy(), queries.numpy(), t + 1)) + bias[:, None]
        absent = ~(position[:, :t, None] & position[:, None])[:, :, None]  # [B, t, 1, t + 1]
        columns = torch.from_numpy(mixed(self.values.numpy(), _weights(logits, absent).numpy()))  # (j, t): [B, t, H, D]
        found = module.out(gated(torch.cat((rows[:, :t], columns, rows[:, t:]), 1), gate).flatten(-2))
        of_rows, of_columns = alive & position[:, t:], position[:, :t] & alive[:, t:]
        update = found * torch.cat((of_rows[:, :t], of_columns, of_rows[:, t:]), 1)[..., None]
        return z + (_turned(update, t) if module.ending else update)


def _first_sides(cells: Tensor, t: int) -> Tensor:
    """The cells (t, j) for j ≤ t: `[B, 2t + 1, …]` → `[B, t + 1, …]`."""
    return torch.cat((cells[:, :t], cells[:, 2 * t :]), 1)


def _turned(cells: Tensor, t: int) -> Tensor:
    """The cells of the transposed pairs."""
    return torch.cat((cells[:, t : 2 * t], cells[:, :t], cells[:, 2 * t :]), 1)


def _weights(logits: Tensor, barred: Tensor) -> Tensor:
    """Softmax over the keys that are not barred; zeros where all are."""
    return torch.softmax(logits.masked_fill(barred, torch.finfo(logits.dtype).min), dim=-1).masked_fill(barred, 0.0)
