"""The Evoformer computes what the published algorithm computes: other people's numbers, and a slow NumPy version of the same formulas.

The NumPy version is written from the formulas with loops and einsum, in the parameter names of the shared fixtures, and is itself put to
them. `wrong=` names one mistake that it then makes: every one must be seen.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer import Evoformer, EvoformerBlock

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "parity"
FOLDER = Path(os.environ.get("CRYPTOALPHA_PARITY_DIR", SHARED))
FOUND = sorted(FOLDER.glob("*.npz"))
FIXTURES = FOUND or [pytest.param(None, marks=pytest.mark.skip(reason=f"no parity fixtures in {FOLDER}: set CRYPTOALPHA_PARITY_DIR"))]
MODES = [("none", "shared"), ("columns", "shared"), ("rows", "shared"), ("rows", "per_step")]
MISTAKES = (
    "gate sign",
    "head layout",
    "flatten order",
    "bias not divided",
    "logits scale",
    "mask axis",
    "ending bias transposed",
    "epsilon 1e-6",
)
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}


# --- the slow version -------------------------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


class Slow:
    """One block, one module per method; `p` holds the parameters of one block under the fixtures' names."""

    def __init__(self, p, dims, *, causal="none", pairs="shared", wrong=""):
        self.p, self.dims, self.wrong = p, dims, wrong
        self.ordered, self.rows_are_time, self.per_step = causal == "columns", causal == "rows", pairs == "per_step"

    def linear(self, x, name):
        return x @ self.p[f"{name}.weight"].T + self.p.get(f"{name}.bias", 0.0)

    def norm(self, x, name):
        epsilon = 1e-6 if self.wrong == "epsilon 1e-6" else 1e-5
        spread = np.sqrt(((x - x.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True) + epsilon)
        return (x - x.mean(-1, keepdims=True)) / spread * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def attention(self, x, name, heads, bias, keys, ordered):
        """One sequence x [L, C]; bias [H, L, L] or None; keys [L] True where observed → [L, C]."""
        length = len(x)
        q, k, v, gate = (self.linear(x, f"{name}.{part}") for part in ("q", "k", "v", "gate"))
        width = q.shape[1] // heads
        gate = sigmoid(-gate if self.wrong == "gate sign" else gate)
        scale = q.shape[1] if self.wrong == "logits scale" else width
        answer = np.zeros((length, heads * width))
        allowed = np.array([[keys[j] and (j <= i or not ordered) for j in range(length)] for i in range(length)])
        for h in range(heads):
            at = slice(h, None, heads) if self.wrong == "head layout" else slice(h * width, (h + 1) * width)
            for i in range(length):
                if not allowed[i].any():
                    continue
                logits = q[i, at] @ k[allowed[i], at].T / np.sqrt(scale)
                if bias is not None:
                    logits = logits + bias[h, i, allowed[i]]
                weights = np.exp(logits - logits.max())
                answer[i, at] = weights / weights.sum() @ v[allowed[i], at]
        return self.linear(gate * answer, f"{name}.out") * allowed.any(1)[:, None]

    def row_attention(self, m, z, mask):
        x = self.norm(m, "row_attention.norm_m")
        update = np.zeros_like(m)
        for b, s in np.ndindex(m.shape[:2]):
            pairs = z[b, s] if self.per_step else z[b]
            bias = self.linear(self.norm(pairs, "row_attention.norm_z"), "row_attention.pair_bias").transpose(2, 0, 1)
            update[b, s] = self.attention(x[b, s], "row_attention", self.dims["heads_msa"], bias, mask[b, s], self.ordered)
        return update

    def column_attention(self, m, mask):
        x = self.norm(m, "column_attention.norm_m")
        update = np.zeros_like(m)
        for b, i in np.ndindex(m.shape[0], m.shape[2]):
            heads = self.dims["heads_msa"]
            update[b, :, i] = self.attention(x[b, :, i], "column_attention", heads, None, mask[b, :, i], self.rows_are_time)
        return update

    def transition(self, x, mask, name, norm):
        hidden = np.maximum(self.linear(self.norm(x, f"{name}.{norm}"), f"{name}.expand"), 0.0)
        return self.linear(hidden, f"{name}.contract") * mask[..., None]

    def outer_product_mean(self, m, mask):
        if self.per_step:  # row s: the mean over rows up to it
            return np.stack([self.one_mean(m[:, : s + 1], mask[:, : s + 1]) for s in range(m.shape[1])], axis=1)
        return self.one_mean(m, mask)

    def one_mean(self, m, mask):
        x = self.norm(m, "outer_product_mean.norm_m")
        a, b = (self.linear(x, f"outer_product_mean.{part}") * mask[..., None] for part in "ab")
        order = "nsid,nsjc->nijcd" if self.wrong == "flatten order" else "nsic,nsjd->nijcd"
        outer = np.einsum(order, a, b).reshape(*m.shape[:1], m.shape[2], m.shape[2], -1)
        count = np.einsum("nsi,nsj->nij", mask.astype(float), mask.astype(float))[..., None]
        total = outer @ self.p["outer_product_mean.out.weight"].T
        bias = self.p["outer_product_mean.out.bias"]
        if self.wrong == "bias not divided":
            return total / (count + 1e-3) + bias
        return (total + bias) / (count + 1e-3) * (count > 0)

    def triangle_multiplication(self, z, mask, name):
        x = self.norm(z, f"{name}.norm_in")
        a, b = (self.linear(x, f"{name}.{s}_value") * sigmoid(self.linear(x, f"{name}.{s}_gate")) * mask[..., None] for s in "ab")
        step = range(z.shape[1])
        known = np.array([[[float(not self.ordered or (k <= i and k <= j)) for k in step] for j in step] for i in step])
        sides = "nikc,njkc" if name.endswith("outgoing") else "nkic,nkjc"
        total = np.einsum(f"ijk,{sides}->nijc", known, a, b)
        return sigmoid(self.linear(x, f"{name}.gate")) * self.linear(self.norm(total, f"{name}.norm_out"), f"{name}.out")

    def triangle_attention(self, z, mask, name):
        ending = name.endswith("ending")
        if self.wrong == "mask axis":
            mask = mask.swapaxes(1, 2)
        x = self.norm(z, f"{name}.norm_z")
        bias = self.linear(x, f"{name}.pair_bias")  # starting: bias of (j, k) is x_jk; ending: bias of (i, k) is x_ki
        update = np.zeros_like(z)
        for n, r in np.ndindex(z.shape[:2]):
            transposed = ending and self.wrong != "ending bias transposed"
            by_head = bias[n].transpose(2, 1, 0) if transposed else bias[n].transpose(2, 0, 1)
            line, keys = (x[n, :, r], mask[n, :, r]) if ending else (x[n, r], mask[n, r])
            found = self.attention(line, name, self.dims["heads_pair"], by_head, keys, self.ordered)
            if ending:
                update[n, :, r] = found
            else:
                update[n, r] = found
        return update

    def updates(self, m, z, row_mask, pair_mask):
        """Every module's update of what came in."""
        flat, flat_mask = self.flat(z), pair_mask.reshape(-1, *pair_mask.shape[-2:])
        found = {name: self.pair_update(name, flat, flat_mask).reshape(z.shape) for name in PAIR_MODULES}
        return found | {
            "row_attention": self.row_attention(m, z, row_mask),
            "column_attention": self.column_attention(m, row_mask),
            "msa_transition": self.transition(m, row_mask, "msa_transition", "norm_m"),
            "outer_product_mean": self.outer_product_mean(m, row_mask),
        }

    def pair_update(self, name, z, mask):
        if name == "pair_transition":
            return self.transition(z, mask, name, "norm_z")
        return (self.triangle_multiplication if "multiplication" in name else self.triangle_attention)(z, mask, name)

    def flat(self, z):
        return z.reshape(-1, *z.shape[-3:])

    def block(self, m, z, row_mask, pair_mask):
        m = m + self.row_attention(m, z, row_mask)
        m = m + self.column_attention(m, row_mask)
        m = m + self.transition(m, row_mask, "msa_transition", "norm_m")
        z = z + self.outer_product_mean(m, row_mask)
        shape, z, mask = z.shape, self.flat(z), pair_mask.reshape(-1, *pair_mask.shape[-2:])
        for name in PAIR_MODULES:
            z = z + self.pair_update(name, z, mask)
        return m, z.reshape(shape)


PAIR_MODULES = (
    "triangle_multiplication_outgoing",
    "triangle_multiplication_incoming",
    "triangle_attention_starting",
    "triangle_attention_ending",
    "pair_transition",
)
ATTENTIONS = ("row_attention", "column_attention", "triangle_attention_starting", "triangle_attention_ending")
MODULES = {  # the fixtures' name of a module → ours
    "row_attention": "row_attention",
    "column_attention": "column_attention",
    "msa_transition": "sequence_transition",
    "outer_product_mean": "outer_product_mean",
    "triangle_multiplication_outgoing": "triangle_outgoing",
    "triangle_multiplication_incoming": "triangle_incoming",
    "triangle_attention_starting": "triangle_starting",
    "triangle_attention_ending": "triangle_ending",
    "pair_transition": "pair_transition",
}


# --- from their names to ours -----------------------------------------------------------------------------------------------------------


def sizes(dims, blocks=1) -> EvoformerConfig:
    assert (dims["c_hidden_mul"], dims["transition_n"]) == (dims["c_z"], 4), f"the library has no such widths: {dims}"
    return EvoformerConfig(
        sequence_width=dims["c_m"],
        pair_width=dims["c_z"],
        head_width=dims["c_hidden_msa_att"],
        heads=dims["heads_msa"],
        pair_heads=dims["heads_pair"],
        pair_head_width=dims["c_hidden_pair_att"],
        outer_width=dims["c_hidden_opm"],
        blocks=blocks,
    )


def state(p):
    """The parameters of one block under our names; q, k, v, gate and a, b are one matrix each."""
    found = {}
    for theirs, ours in MODULES.items():
        fused = {"qkvg.weight": ("q.weight", "k.weight", "v.weight", "gate.weight"), "qkvg.gate_bias": ("gate.bias",)}
        if "multiplication" in theirs:
            fused = {
                f"{new}.{kind}": (f"a_{old}.{kind}", f"b_{old}.{kind}")
                for new, old in (("p_in", "value"), ("g_in", "gate"))
                for kind in KINDS
            }
            fused |= {f"{new}.{kind}": (f"{old}.{kind}",) for new, old in (("p_out", "out"), ("g_out", "gate")) for kind in KINDS}
        elif theirs == "outer_product_mean":
            fused = {f"factors.{kind}": (f"a.{kind}", f"b.{kind}") for kind in KINDS}
        elif "transition" in theirs:
            fused = {}
        used = {part for parts in fused.values() for part in parts}
        found |= {f"{ours}.{new}": np.concatenate([p[f"{theirs}.{part}"] for part in parts]) for new, parts in fused.items()}
        for name, values in p.items():
            module, part = name.split(".", 1)
            if module == theirs and part not in used:
                alone = theirs not in ("row_attention", "column_attention", "outer_product_mean") and part.startswith(("norm_m", "norm_z"))
                found[f"{ours}.{part[:4] + part[6:] if alone else part}"] = values
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in found.items()}


KINDS = ("weight", "bias")


def updates(block: EvoformerBlock, m, z, row_mask, pair_mask):
    """Every module's update, by the fixtures' names."""
    flat, flat_mask = z.flatten(0, -4), None if pair_mask is None else pair_mask.flatten(0, -3)
    found = {name: getattr(block, MODULES[name]).update(flat, flat_mask).reshape(z.shape) for name in PAIR_MODULES}
    found["row_attention"] = block.row_attention.update(m, z, row_mask)
    found["column_attention"] = block.column_attention.update(m, row_mask)
    found["msa_transition"] = block.sequence_transition.update(m, row_mask)
    found["outer_product_mean"] = block.outer_product_mean.update(m, row_mask)
    return {name: update.numpy() for name, update in found.items()}


# --- other people's numbers ---------------------------------------------------------------------------------------------------------------


class Fixture:
    def __init__(self, path: Path, dtype=torch.float64):
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.dims = json.loads(str(self.arrays["meta"]))["dims"]
        self.p = {name.removeprefix("param/"): a for name, a in self.arrays.items() if name.startswith("param/")}
        self.m, self.z = self.arrays["input/m"], self.arrays["input/z"]
        self.row_mask, self.pair_mask = self.arrays["mask/msa"] > 0, self.arrays["mask/pair"] > 0
        self.block = EvoformerBlock(sizes(self.dims)).to(dtype).eval()
        self.block.load_state_dict(state(self.p))
        self.tensors = (*(torch.from_numpy(a).to(dtype) for a in (self.m, self.z)), *map(torch.from_numpy, (self.row_mask, self.pair_mask)))

    def outputs(self, variant):
        return self.arrays[f"output/{variant}.m"], self.arrays[f"output/{variant}.z"]


@pytest.mark.parametrize("path", FIXTURES, ids=str)
def test_every_module_gives_the_fixtures_update(path):
    given = Fixture(path)
    with torch.no_grad():
        found = updates(given.block, *given.tensors)
    for name in MODULES:
        assert_allclose(found[name], given.arrays[f"output/{name}"], **TOLERANCE, err_msg=name)


@pytest.mark.parametrize("path", FIXTURES, ids=str)
def test_the_whole_block_gives_the_fixtures_numbers(path):
    given = Fixture(path)
    m, z, row_mask, pair_mask = given.tensors
    block = given.block
    with torch.no_grad():
        masked, unmasked = block(m, z, row_mask, pair_mask), block(m, z)
        whole = block(m, z, torch.ones_like(row_mask), torch.ones_like(pair_mask))
        plain_m = block.column_attention(block.row_attention(m, z, row_mask), row_mask)
        plain_m = block.sequence_transition(plain_m)
        plain_z = block.outer_product_mean(plain_m, z, row_mask)
        for name in PAIR_MODULES[:-1]:
            plain_z = getattr(block, MODULES[name])(plain_z, pair_mask)
        plain_z = block.pair_transition(plain_z)
    for variant, found in (
        ("block", masked),
        ("block_no_mask", unmasked),
        ("block_no_mask", whole),
        ("block_plain_transitions", (plain_m, plain_z)),
    ):
        for tensor, expected in zip(found, given.outputs(variant), strict=True):
            assert_allclose(tensor.numpy(), expected, **TOLERANCE, err_msg=variant)
    # Unmasked transitions touch what is masked and nothing else.
    assert torch.equal(plain_m[row_mask], masked[0][row_mask])
    assert not torch.equal(plain_m, masked[0])


@pytest.mark.parametrize("path", FIXTURES, ids=str)
def test_float32_is_as_near_as_the_reference_itself(path):
    given = Fixture(path, torch.float32)
    with torch.no_grad():
        found = given.block(*given.tensors)
    for tensor, expected in zip(found, given.outputs("block"), strict=True):
        assert_allclose(tensor.numpy(), expected, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("path", FIXTURES, ids=str)
def test_the_slow_version_gives_the_fixtures_numbers_too(path):
    given = Fixture(path)
    slow = Slow(given.p, given.dims)
    for name, update in slow.updates(given.m, given.z, given.row_mask, given.pair_mask).items():
        assert_allclose(update, given.arrays[f"output/{name}"], **TOLERANCE, err_msg=name)
    for found, expected in zip(slow.block(given.m, given.z, given.row_mask, given.pair_mask), given.outputs("block"), strict=True):
        assert_allclose(found, expected, **TOLERANCE)


# --- the slow version, where no fixture reaches -------------------------------------------------------------------------------------------

DIMS = {"c_m": 6, "c_z": 4, "c_hidden_msa_att": 3, "c_hidden_opm": 3, "c_hidden_mul": 4, "c_hidden_pair_att": 2, "heads_msa": 2}
DIMS |= {"heads_pair": 2, "transition_n": 4}


def draw_parameters(rng, d):
    """Every parameter normal(0, .3), norms too: a fresh block is the identity and would agree with anything."""
    c, z, att, pair, n = (
        d["c_m"],
        d["c_z"],
        d["c_hidden_msa_att"] * d["heads_msa"],
        d["c_hidden_pair_att"] * d["heads_pair"],
        d["transition_n"],
    )
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name, inputs, outputs, bias=True):
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name, width):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    for name, width, inner in zip(ATTENTIONS, (c, c, z, z), (att, att, pair, pair), strict=True):
        for part in "qkv":
            layer(f"{name}.{part}", width, inner, bias=False)
        layer(f"{name}.gate", width, inner)
        layer(f"{name}.out", inner, width)
        norm(f"{name}.{'norm_m' if width is c else 'norm_z'}", width)
    norm("row_attention.norm_z", z)
    layer("row_attention.pair_bias", z, d["heads_msa"], bias=False)
    for name in ATTENTIONS[2:]:
        norm(f"{name}.norm_z", z)
        layer(f"{name}.pair_bias", z, d["heads_pair"], bias=False)
    for name, width, inner in (("msa_transition", c, "norm_m"), ("pair_transition", z, "norm_z")):
        norm(f"{name}.{inner}", width)
        layer(f"{name}.expand", width, n * width)
        layer(f"{name}.contract", n * width, width)
    norm("outer_product_mean.norm_m", c)
    for part in "ab":
        layer(f"outer_product_mean.{part}", c, d["c_hidden_opm"])
    layer("outer_product_mean.out", d["c_hidden_opm"] ** 2, z)
    for name in PAIR_MODULES[:2]:
        for part in ("a_value", "a_gate", "b_value", "b_gate", "out", "gate"):
            layer(f"{name}.{part}", z, z)
        for part in ("norm_in", "norm_out"):
            norm(f"{name}.{part}", z)
    return {name: rng.normal(0.0, 0.3, shape) for name, shape in shapes.items()}


def draw_world(seed, rows, columns, pairs="shared", dims=DIMS):
    """m, z and masks in which some keys are missing, some rows have none left, and the pair mask is no outer product."""
    rng = np.random.default_rng(seed)
    grid = (2, rows, columns, columns) if pairs == "per_step" else (2, columns, columns)
    m, z = rng.normal(size=(2, rows, columns, dims["c_m"])), rng.normal(size=(*grid, dims["c_z"]))
    row_mask, pair_mask = rng.random((2, rows, columns)) > 0.25, rng.random(grid) > 0.25
    row_mask[0, 0] = row_mask[1, :, 0] = pair_mask[0, ..., 1, :] = pair_mask[1, ..., :, 1] = False
    return rng, m, z, row_mask, pair_mask


@pytest.mark.parametrize(("rows", "columns"), [(2, 5), (4, 3), (4, 4)])
@pytest.mark.parametrize(("causal", "pairs"), MODES)
@pytest.mark.parametrize("masked", [True, False])
def test_modules_and_trunk_agree_with_the_slow_version(causal, pairs, rows, columns, masked):
    rng, m, z, row_mask, pair_mask = draw_world(rows, rows, columns, pairs)
    net = Evoformer(sizes(DIMS, blocks=2), causal=causal, pairs=pairs).double().eval()
    drawn = [draw_parameters(rng, DIMS) for _ in net.blocks]
    for block, p in zip(net.blocks, drawn, strict=True):
        block.load_state_dict(state(p))
    tensors = tuple(map(torch.from_numpy, (m, z, row_mask, pair_mask))) if masked else (*map(torch.from_numpy, (m, z)), None, None)
    masks = (row_mask, pair_mask) if masked else (np.ones_like(row_mask), np.ones_like(pair_mask))
    with torch.no_grad():
        found = updates(net.blocks[0], *tensors)
        answer = net(*tensors)
    for name, update in Slow(drawn[0], DIMS, causal=causal, pairs=pairs).updates(m, z, *masks).items():
        assert_allclose(found[name], update, **TOLERANCE, err_msg=name)
    for p in drawn:
        m, z = Slow(p, DIMS, causal=causal, pairs=pairs).block(m, z, *masks)
    assert_allclose(answer[0].numpy(), m, **TOLERANCE)
    assert_allclose(answer[1].numpy(), z, **TOLERANCE)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_classic_mistake_is_seen(mistake):
    rng, m, z, row_mask, pair_mask = draw_world(5, 4, 5)
    p = draw_parameters(rng, DIMS)
    block = EvoformerBlock(sizes(DIMS)).double().eval()
    block.load_state_dict(state(p))
    with torch.no_grad():
        found = [tensor.numpy() for tensor in block(*map(torch.from_numpy, (m, z, row_mask, pair_mask)))]
    right, wrong = (Slow(p, DIMS, wrong=kind).block(m, z, row_mask, pair_mask) for kind in ("", mistake))
    for ours, slow in zip(found, right, strict=True):
        assert_allclose(ours, slow, **TOLERANCE)
    assert max(np.abs(ours - slow).max() for ours, slow in zip(found, wrong, strict=True)) > 1e-6


def test_both_orders_of_the_outer_product_mean_are_taken_and_agree():
    rng, m, _z, row_mask, _pair_mask = draw_world(3, 3, 4)
    block = EvoformerBlock(sizes(DIMS)).double().eval()
    block.load_state_dict(state(draw_parameters(rng, DIMS)))
    module = block.outer_product_mean
    few, many = torch.zeros(1, 1, 9, 6), torch.zeros(1, 9, 1, 6)
    assert module._project_first(few)
    assert not module._project_first(many)
    factors = torch.from_numpy(m[..., :3] * row_mask[..., None]), torch.from_numpy(m[..., 3:])
    outer, projected = module._outer(*factors), module._projected(*factors)
    torch.testing.assert_close(outer, projected, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(module._by_row(*factors).sum(1), outer, rtol=0.0, atol=1e-12)
