"""The attention primitive: every kernel answers as the sum written down, and which one answers depends on sizes alone."""

from __future__ import annotations

import math
import sys
import types

import pytest
import torch

from cryptoalpha.nets.evoformer import attention_kernel, flash
from cryptoalpha.nets.evoformer.attention_kernel import attend, choose_kernel


def drawn(batch=2, rows=3, heads=2, positions=5, width=4):
    torch.manual_seed(7)
    q, k, v = (torch.randn(batch, rows, heads, positions, width, dtype=torch.double) for _ in range(3))
    bias = torch.randn(batch, heads, positions, positions, dtype=torch.double)
    mask = torch.rand(batch, rows, positions) > 0.4
    mask[0, 0] = False
    mask[-1, 1, 0] = False  # with time, its first query sees nothing
    return q, k, v, bias, mask


def by_hand(q, k, v, bias, mask, causal):
    """The definition, number by number."""
    out = torch.zeros_like(q)
    batch, rows, heads, positions, width = q.shape
    for b, r, h, i in torch.cartesian_prod(*(torch.arange(n) for n in (batch, rows, heads, positions))).tolist():
        row = r if mask is not None and mask.shape[1] > 1 else 0
        keys = [j for j in range(positions) if (mask is None or mask[b, row, j]) and (not causal or j <= i)]
        powers = [
            math.exp(float(q[b, r, h, i] @ k[b, r, h, j]) / math.sqrt(width) + (0.0 if bias is None else float(bias[b, h, i, j])))
            for j in keys
        ]
        for j, power in zip(keys, powers, strict=True):
            out[b, r, h, i] += power / sum(powers) * v[b, r, h, j]
    return out


@pytest.mark.parametrize("kernel", ["plain", "flash", "flash_training", "sdpa"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", ["no", "shared", "by row"])
@pytest.mark.parametrize("biased", [False, True])
def test_each_kernel_is_the_sum_written_down(monkeypatch, kernel, causal, masked, biased):
    monkeypatch.setattr(attention_kernel, "choose_kernel", lambda *_, **__: kernel)
    q, k, v, bias, mask = drawn()
    bias = bias if biased else None
    mask = {"no": None, "shared": mask[:, :1], "by row": mask}[masked]
    found = attend(q, k, v, bias=bias, key_mask=mask, causal=causal)
    torch.testing.assert_close(found, by_hand(q, k, v, bias, mask, causal), rtol=1e-12, atol=1e-12)
    if mask is not None:
        assert (found[0, 0] == 0.0).all()


@pytest.mark.parametrize("chunk", [1, 2**20])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", ["no", "shared", "by row"])
def test_gradients_of_flash_attention_are_those_of_the_plain_one(monkeypatch, chunk, causal, masked):
    monkeypatch.setattr(flash, "CHUNK_LOGITS", chunk)
    q, k, v, bias, mask = drawn()
    mask = {"no": None, "shared": mask[:, :1], "by row": mask}[masked]
    leaves = [tensor.requires_grad_(True) for tensor in (q, k, v, bias)]
    slope = torch.randn_like(q)
    found = []
    for kernel in ("plain", "flash_training"):
        monkeypatch.setattr(attention_kernel, "choose_kernel", lambda *_, kernel=kernel, **__: kernel)
        found.append(torch.autograd.grad(attend(q, k, v, bias=bias, key_mask=mask, causal=causal), leaves, slope))
    for plain, ours in zip(*found, strict=True):
        assert (ours - plain).abs().max() <= 1e-12 * plain.abs().max()


def test_flash_training_passes_the_check_by_differences(monkeypatch):
    monkeypatch.setattr(attention_kernel, "choose_kernel", lambda *_, **__: "flash_training")
    q, k, v, bias, mask = drawn(batch=1, rows=2, heads=1, positions=3, width=2)
    leaves = tuple(tensor.requires_grad_(True) for tensor in (q, k, v, bias))
    assert torch.autograd.gradcheck(lambda q, k, v, bias: attend(q, k, v, bias=bias, key_mask=mask, causal=True), leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kernel", ["plain", "flash"])
def test_a_query_without_keys_gets_zeros_in_every_precision(monkeypatch, dtype, kernel):
    monkeypatch.setattr(attention_kernel, "choose_kernel", lambda *_, **__: kernel)
    q, k, v, bias, mask = (tensor if tensor.dtype == torch.bool else tensor.to(dtype) for tensor in drawn())
    found = attend(q, k, v, bias=bias, key_mask=mask)
    assert torch.isfinite(found).all()
    assert (found[0, 0] == 0.0).all()
    exact = by_hand(*(tensor.double() for tensor in (q, k, v, bias)), mask, causal=False)
    torch.testing.assert_close(found.double(), exact, rtol=0.05, atol=0.05)


def test_the_kernel_is_chosen_by_sizes(monkeypatch):
    monkeypatch.setattr(attention_kernel, "has_cuequivariance", lambda: True)
    full, double, half = torch.float32, torch.float64, torch.bfloat16

    def chosen(device, dtype=full, *, positions=256, logits=2**24, training=False, biased=True, exporting=False):
        return choose_kernel(device, dtype, positions=positions, logits=logits, training=training, biased=biased, exporting=exporting)

    assert [chosen("cpu", positions=length) for length in (8, 63, 64)] == ["plain", "plain", "flash"]
    assert [chosen("cpu", positions=length, training=True) for length in (64, 127, 128)] == ["plain", "plain", "flash_training"]
    assert chosen("cpu", training=True, logits=2**20) == "plain"
    assert chosen("cpu", exporting=True) == chosen("cuda", exporting=True) == "plain"
    assert [chosen("cuda", dtype) for dtype in (full, half, double)] == ["cuequivariance", "cuequivariance", "sdpa"]
    assert chosen("cuda", biased=False) == "sdpa"
    monkeypatch.setattr(attention_kernel, "has_cuequivariance", lambda: False)
    assert chosen("cuda") == "sdpa"


@pytest.mark.parametrize("causal", [False, True])
def test_what_the_gpu_kernel_is_handed_means_the_same(monkeypatch, causal):
    """A stand-in with the documented signature computes from what it is handed; the GPU kernel itself runs only on a GPU."""

    def triangle_attention(q, k, v, bias, mask, scale):
        batch, rows, heads, length, _ = q.shape
        assert bias.shape == (batch, 1, heads, length, length)
        assert mask.shape == (batch, rows, 1, 1, length)
        logits = (q.float() @ k.float().transpose(-1, -2)) * scale + bias + torch.where(mask, 0.0, -1e9)
        return (logits.softmax(-1) @ v.float()).to(q.dtype)

    module = types.ModuleType("cuequivariance_torch")
    module.triangle_attention = triangle_attention
    monkeypatch.setitem(sys.modules, "cuequivariance_torch", module)
    monkeypatch.setattr(attention_kernel, "choose_kernel", lambda *_, **__: "cuequivariance")
    q, k, v, bias, mask = drawn()
    for seen in (None, mask[:, :1], mask):
        found = attend(*(tensor.float() for tensor in (q, k, v)), bias=bias.float(), key_mask=seen, causal=causal)
        torch.testing.assert_close(found.double(), by_hand(q, k, v, bias, seen, causal), rtol=1e-5, atol=1e-5)
