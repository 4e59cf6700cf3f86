"""What the training loop is made of, each part against numbers worked out by hand."""

from __future__ import annotations

import io
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.learn.fit import TensorSamples, World, checkpoint
from cryptoalpha.learn.fit.gradient_step import precision
from cryptoalpha.learn.fit.optimiser import adamw
from cryptoalpha.learn.fit.order import Order
from cryptoalpha.learn.fit.samples import on_device
from cryptoalpha.learn.fit.schedule import step_size_factor
from cryptoalpha.learn.fit.stop_request import StopRequest

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 10 steps, a warm-up of 0.2: steps 0 and 1 rise; then p = 0, 1/8, …, 7/8.
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("cosine", [0.5, 1, 1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]),  # (1 + cos(π k/8))/2
    ],
)
def test_the_step_size_rises_and_falls_as_worked_out_by_hand(schedule, expected):
    assert_allclose([step_size_factor(step, 10, 0.2, schedule) for step in range(10)], expected, atol=5e-7)


def test_no_warm_up_and_nothing_but_warm_up():
    assert [step_size_factor(step, 4, 0.0, "linear") for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [step_size_factor(step, 4, 1.0, "cosine") for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@given(steps=st.integers(1, 200), warmup=st.floats(0, 1), schedule=st.sampled_from(["cosine", "linear", "constant"]))
@settings(max_examples=50)
def test_every_step_moves_and_none_beyond_the_peak(steps, warmup, schedule):
    factors = [step_size_factor(step, steps, warmup, schedule) for step in range(steps)]
    assert all(0.0 < factor <= 1.0 for factor in factors)


@given(samples=st.integers(1, 60), batch=st.integers(1, 70), epochs=st.integers(1, 4), seed=st.integers(0, 5))
@settings(max_examples=50)
def test_an_epoch_holds_every_sample_once_whatever_step_is_asked_first(samples, batch, epochs, seed):
    order = Order(samples, batch, epochs, seed=seed)
    assert order.steps == epochs * -(-samples // batch)
    batches = {step: order.batch(step).tolist() for step in reversed(range(order.steps))}
    for epoch in range(epochs):
        steps = [step for step in range(order.steps) if order.epoch(step) == epoch]
        assert sorted(index for step in steps for index in batches[step]) == list(range(samples))
        assert [order.ends_epoch(step) for step in steps] == [False] * (len(steps) - 1) + [True]
        assert all(len(batches[step]) == batch for step in steps[:-1])
    other = Order(samples, batch, epochs, seed=seed, rank=1)
    assert all(batches[step] == other.batch(step).tolist() for step in range(order.steps))
    assert all(order.noise_seed(step) != other.noise_seed(step) for step in range(order.steps))


def test_epochs_and_seeds_differ_in_order():
    order = Order(50, 50, 2, seed=0)
    assert not torch.equal(order.batch(0), order.batch(1))
    assert not torch.equal(order.batch(0), Order(50, 50, 2, seed=1).batch(0))
    with pytest.raises(ConfigError, match="no samples"):
        Order(0, 4, 1, seed=0)


@given(length=st.integers(0, 40), size=st.integers(1, 7))
@settings(max_examples=50)
def test_shares_are_the_batch_cut_in_order_and_nearly_equal(length, size):
    batch = torch.arange(length) * 3
    shares = [World(rank, size, torch.device("cpu")).share(batch) for rank in range(size)]
    assert torch.equal(torch.cat(shares), batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_decay_holds_for_matrices_and_not_for_vectors():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Embedding(4, 2))
    model[2].weight.requires_grad_(False)
    matrices, vectors = adamw(model, learning_rate=0.1, weight_decay=0.5).param_groups
    assert [p.shape for p in matrices["params"]] == [(2, 3)]
    assert [p.shape for p in vectors["params"]] == [(2,), (2,), (2,)]
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.5, 0.0)
    with pytest.raises(ConfigError, match="no parameter that wants a gradient"):
        adamw(model.requires_grad_(False), learning_rate=0.1, weight_decay=0.0)


def test_precision_is_bf16_on_a_cpu_only_where_it_is_asked_for():
    cpu = torch.device("cpu")
    assert [precision(wish, cpu) for wish in ("auto", "bf16", "off")] == ["fp32", "bf16", "fp32"]


def test_samples_are_rows_and_their_fingerprint_is_every_byte():
    x, y = torch.arange(12.0).view(6, 2), torch.arange(6)
    samples = TensorSamples(x, y)
    rows, labels = samples.take(torch.tensor([4, 0]))
    assert rows.tolist() == [[8.0, 9.0], [0.0, 1.0]]
    assert labels.tolist() == [4, 0]
    changed = x.clone()
    changed[5, 1] = torch.nextafter(changed[5, 1], torch.tensor(99.0))
    others = [
        TensorSamples(changed, y),
        TensorSamples(x.view(6, 2, 1), y),
        TensorSamples(x, y.int()),
        TensorSamples(x),
        TensorSamples(y, x),
    ]
    assert len({samples.fingerprint(), *(other.fingerprint() for other in others)}) == 6
    assert TensorSamples(x.clone(), y.clone()).fingerprint() == samples.fingerprint()
    with pytest.raises(ConfigError, match=r"one length, not of \[5, 6\]"):
        TensorSamples(x, y[:5])
    with pytest.raises(ConfigError, match="no tensor at all"):
        TensorSamples()


def test_a_batch_moves_to_the_device_with_its_structure():
    batch = {"x": [torch.ones(2), (torch.zeros(1), "name")], "n": 3}
    moved = on_device(batch, torch.device("meta"))
    assert moved["x"][0].device.type == moved["x"][1][0].device.type == "meta"
    assert (moved["x"][1][1], moved["n"], type(moved["x"]), type(moved["x"][1])) == ("name", 3, list, tuple)


STATE = {"step": 3, "weights": {"w": torch.arange(50.0)}, "note": "text"}


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "folder" / "run.fit"
    checkpoint.write(path, checkpoint.encode(STATE))
    content = checkpoint.read(path)
    state = checkpoint.decode(content, "run.fit")
    assert torch.equal(state["weights"]["w"], STATE["weights"]["w"])
    assert (state["step"], state["note"]) == (3, "text")
    assert [file.name for file in path.parent.iterdir()] == ["run.fit"]
    assert checkpoint.read(tmp_path / "absent") is None


CONTENT = checkpoint.encode(STATE)


@given(length=st.integers(0, len(CONTENT) - 1))
@settings(max_examples=50)
def test_a_half_written_checkpoint_is_refused(length):
    with pytest.raises(StoreError, match=r"is damaged|is not a training checkpoint"):
        checkpoint.decode(CONTENT[:length], "run.fit")


@given(place=st.integers(0, len(CONTENT) - 1), bit=st.integers(0, 7))
@settings(max_examples=50)
def test_a_checkpoint_with_a_single_flipped_bit_is_refused(place, bit):
    changed = bytearray(CONTENT)
    changed[place] ^= 1 << bit
    with pytest.raises(StoreError, match=r"is damaged|is not a training checkpoint"):
        checkpoint.decode(bytes(changed), "run.fit")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("reached",)


def test_a_checkpoint_never_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="more than tensors and plain values"):
        checkpoint.decode(checkpoint.encode({"bomb": Bomb()}), "run.fit")
    assert not (tmp_path / "reached").exists()
    buffer = io.BytesIO()
    torch.save({"bomb": Bomb()}, buffer)
    buffer.seek(0)
    torch.load(buffer, weights_only=False)  # the control: read with pickle's full powers, it goes off
    assert (tmp_path / "reached").exists()


def test_a_checkpoint_that_cannot_be_written_says_so_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "run.fit"
    checkpoint.write(path, b"old")
    (tmp_path / ".run.fit.part").mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*run\.fit: Is a directory"):
        checkpoint.write(path, b"new")
    assert path.read_bytes() == b"old"
    with pytest.raises(StoreError, match="cannot be read: Is a directory"):
        checkpoint.read(tmp_path)


def test_a_run_that_was_another_one_is_refused_with_every_difference():
    checkpoint.check_identity({"seed": 1, "batch": 4}, {"batch": 4, "seed": 1}, "run.fit")
    with pytest.raises(ConfigError, match=r"run.fit belongs to another training run: batch was 4, is 8; label a was not recorded, is 'x'"):
        checkpoint.check_identity({"seed": 1, "batch": 4}, {"seed": 1, "batch": 8, "label a": "x"}, "run.fit")
    with pytest.raises(ConfigError, match="seed was 1, is not given"):
        checkpoint.check_identity({"seed": 1}, {}, "run.fit")


def test_the_first_signal_asks_and_the_second_interrupts_and_the_old_handler_returns():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.asked
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_noise_seeds_look_independent():
    seeds = np.array([Order(64, 1, 1, seed=7).noise_seed(step) for step in range(64)], dtype=np.float64)
    assert len(set(seeds)) == 64
    assert 0.3 < seeds.mean() / 2**63 < 0.7
