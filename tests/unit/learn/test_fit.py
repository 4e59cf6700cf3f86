"""The training loop: it does what AdamW on paper does, stops and returns what it should, and refuses what is not a number."""

from __future__ import annotations

import math
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.config import DistributedConfig, FitConfig
from cryptoalpha.learn.fit import FitInterrupted, TensorSamples, World, fit
from cryptoalpha.learn.fit.order import Order

torch.set_num_threads(1)

PLAIN = FitConfig(learning_rate=0.05, batch=4, epochs=3, weight_decay=0.1, warmup=0.25, gradient_clip=1e9)


def squared_error(model, batch):
    x, y = batch
    return ((model(x) - y) ** 2).mean()


def regression(samples: int = 10, width: int = 3) -> tuple[nn.Module, TensorSamples]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(samples, width, dtype=torch.float64, generator=generator)
    y = x @ torch.randn(width, 1, dtype=torch.float64, generator=generator) + 0.5
    model = nn.Linear(width, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-0.5, 0.5, width))
        model.bias.zero_()
    return model, TensorSamples(x, y)


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def adamw_on_paper(samples: TensorSamples, config: FitConfig, seed: int) -> tuple[np.ndarray, float, list[float]]:
    """Linear regression in NumPy: the gradient of the quadratic in closed form, AdamW as in Loshchilov & Hutter's Alg. 2."""
    x, y = (tensor.numpy() for tensor in samples.tensors)
    parameters = np.append(np.linspace(-0.5, 0.5, x.shape[1]), 0.0)
    design = np.column_stack([x, np.ones(len(x))])
    first, second, losses = np.zeros_like(parameters), np.zeros_like(parameters), []
    order = Order(len(x), config.batch, config.epochs, seed=seed)
    rising = round(config.warmup * order.steps)
    for step in range(order.steps):
        rows = order.batch(step).numpy()
        error = design[rows] @ parameters - y[rows, 0]
        losses.append(float((error**2).mean()))
        gradient = 2 * design[rows].T @ error / len(rows)
        gradient *= min(1.0, config.gradient_clip / (np.sqrt((gradient**2).sum()) + 1e-6))
        factor = (step + 1) / rising if step < rising else 0.5 * (1 + math.cos(math.pi * (step - rising) / (order.steps - rising)))
        rate = config.learning_rate * factor
        decay = np.append(np.full(x.shape[1], config.weight_decay), 0.0)  # the bias is a vector
        parameters = parameters * (1 - rate * decay)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        corrected = np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8
        parameters = parameters - rate * first / (1 - 0.9 ** (step + 1)) / corrected
    return parameters[:-1], float(parameters[-1]), losses


@pytest.mark.parametrize("clip", [1e9, 0.5])
def test_a_quadratic_descends_as_on_paper(clip):
    model, samples = regression()
    config = PLAIN.model_copy(update={"gradient_clip": clip})
    report = fit(model, squared_error, samples, config=config, seed=3)
    slope, bias, losses = adamw_on_paper(samples, config, seed=3)
    assert_allclose(report.losses, losses, rtol=1e-12)
    assert_allclose(weights(model)["weight"][0], slope, rtol=1e-12)
    assert_allclose(weights(model)["bias"][0], bias, rtol=1e-12)
    assert (report.steps, report.best_step, report.stopped, report.resumed_at) == (9, 9, "epochs", 0)


def test_training_reaches_the_least_squares_solution():
    model, samples = regression(samples=64)
    config = FitConfig(learning_rate=0.05, batch=16, epochs=150, weight_decay=0.0)
    fit(model, squared_error, samples, config=config, seed=0)
    x, y = (tensor.numpy() for tensor in samples.tensors)
    solution = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y[:, 0], rcond=None)[0]
    assert_allclose([*weights(model)["weight"][0], weights(model)["bias"][0]], solution, atol=1e-6)


@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_a_batch_in_pieces_gives_the_gradient_of_the_whole(pieces):
    whole, samples = regression()
    split, _ = regression()
    one = fit(whole, squared_error, samples, config=PLAIN, seed=3)
    many = fit(split, squared_error, samples, config=PLAIN, seed=3, micro_batch=pieces)
    assert_allclose(many.losses, one.losses, rtol=1e-12)
    assert_allclose(weights(split)["weight"], weights(whole)["weight"], rtol=1e-12)


def test_the_seed_decides_and_the_callers_generator_is_left_alone():
    def train(seed):
        model, samples = regression()
        dropping = nn.Sequential(nn.Dropout(0.5), model)
        before = torch.random.get_rng_state()
        fit(dropping, squared_error, samples, config=PLAIN, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        return weights(model)["weight"]

    torch.manual_seed(1)
    first = train(0)
    torch.manual_seed(2)
    assert_array_equal(train(0), first)
    assert not np.array_equal(train(1), first)


VALUES = [5.0, 3.0, 4.0, 2.0, 2.5, 2.0, 9.0, 1.0]


def test_early_stopping_returns_the_weights_of_the_best_check():
    model, samples = regression()
    seen, modes = [], []

    def validate(model):
        seen.append(weights(model))
        modes.append((model.training, torch.is_grad_enabled()))
        return VALUES[len(seen) - 1]

    model.train()
    report = fit(model, squared_error, samples, config=PLAIN.model_copy(update={"epochs": 8, "patience": 3}), seed=0, validate=validate)
    # 2.0 after epoch 4 is the best; 2.5, 2.0 (not better) and 9.0 use up the patience of 3, so 1.0 is never seen.
    assert_array_equal(report.validations, VALUES[:7])
    assert (report.stopped, report.best_step, report.steps) == ("patience", 4 * 3, 7 * 3)
    assert_array_equal(weights(model)["weight"], seen[3]["weight"])
    assert not np.array_equal(seen[6]["weight"], seen[3]["weight"])
    assert modes == [(False, False)] * 7
    assert model.training


def test_without_an_early_stop_the_best_weights_return_too():
    model, samples = regression()
    seen = []

    def validate(model):
        seen.append(weights(model))
        return [3.0, 1.0, 2.0][len(seen) - 1]

    report = fit(model.eval(), squared_error, samples, config=PLAIN, seed=0, validate=validate)
    assert (report.stopped, report.best_step, report.steps) == ("epochs", 6, 9)
    assert_array_equal(weights(model)["weight"], seen[1]["weight"])
    assert not model.training


@pytest.mark.parametrize("asked", [True, False])
def test_a_loss_that_is_not_a_number_names_the_step_and_the_last_good_checkpoint(tmp_path, asked):
    model, samples = regression()
    steps = 0

    def loss(model, batch):
        nonlocal steps
        steps += 1
        return squared_error(model, batch) * (math.nan if steps == 5 else 1.0)

    path = tmp_path / "run.fit"
    config = PLAIN.model_copy(update={"checkpoint_seconds": 1e-9})
    samples_of_step = ", ".join(map(str, Order(10, 4, 3, seed=0).batch(4).tolist()))
    kept = f"the last good checkpoint is {path}" if asked else "there is no checkpoint"
    with pytest.raises(ModelError, match=rf"loss is nan in step 5 of 9 \(epoch 2, samples {samples_of_step}\); {kept}"):
        fit(model, loss, samples, config=config, seed=0, checkpoint=path if asked else None)
    if asked:
        resumed, again = regression()[0], regression()[0]
        report = fit(resumed, squared_error, samples, config=config, seed=0, checkpoint=path)
        assert report.resumed_at == 4
        fit(again, squared_error, samples, config=config, seed=0)
        assert_array_equal(weights(resumed)["weight"], weights(again)["weight"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_target_leaves_the_weights_of_the_last_good_step(bad):
    reached, samples = [], regression()[1]
    x, y = (tensor.clone() for tensor in samples.tensors)
    y[int(Order(10, 4, 3, seed=0).batch(2)[0])] = bad  # an epoch has three steps: it is in none of the first two
    model = regression()[0]

    def loss(model, batch):
        reached.append(weights(model)["weight"].copy())
        return squared_error(model, batch)

    with pytest.raises(ModelError, match="in step 3 of 9"):
        fit(model, loss, TensorSamples(x, y), config=PLAIN, seed=0)
    assert not np.array_equal(reached[1], reached[2])
    assert_array_equal(weights(model)["weight"], reached[2])


def test_a_bad_gradient_of_a_good_loss_moves_nothing():
    model, samples = regression()
    before = weights(model)["weight"].copy()

    def loss(model, batch):
        mean = squared_error(model, batch)
        mean.register_hook(lambda gradient: gradient * math.inf)
        return mean

    with pytest.raises(ModelError, match="gradient's norm is"):
        fit(model, loss, samples, config=PLAIN, seed=0)
    assert_array_equal(weights(model)["weight"], before)


def test_a_bad_loss_with_a_good_gradient_moves_nothing():
    model, samples = regression()
    before = weights(model)["weight"].copy()
    with pytest.raises(ModelError, match="the loss is inf in step 1"):
        fit(model, lambda model, batch: squared_error(model, batch) + math.inf, samples, config=PLAIN, seed=0)
    assert_array_equal(weights(model)["weight"], before)


def test_a_gradient_or_a_validation_that_is_not_finite_is_refused():
    class Kink(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * math.inf

    model, samples = regression()
    with pytest.raises(ModelError, match=r"gradient's norm is (nan|inf) \(the loss is .*\) in step 1 of 9"):
        fit(model, lambda model, batch: Kink.apply(squared_error(model, batch)), samples, config=PLAIN, seed=0)
    with pytest.raises(ModelError, match=r"validation in epoch 1 \(step 3\) gave nan"):
        fit(regression()[0], squared_error, samples, config=PLAIN, seed=0, validate=lambda model: math.nan)


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda model, batch: (model(batch[0]) - batch[1]) ** 2, r"a tensor of shape \[4, 1\]"),
        (lambda model, batch: 1.0, "a float"),
        (lambda model, batch: squared_error(model, batch).detach(), r"a tensor of shape \[\] without a gradient"),
    ],
)
def test_a_loss_that_is_no_mean_is_refused(loss, found):
    model, samples = regression()
    with pytest.raises(ModelError, match=f"the loss is {found}; expected the mean"):
        fit(model, loss, samples, config=PLAIN, seed=0)


def test_what_cannot_be_trained_is_refused():
    model, samples = regression()
    with pytest.raises(ConfigError, match="no samples"):
        fit(model, squared_error, TensorSamples(torch.empty(0, 3)), config=PLAIN, seed=0)
    with pytest.raises(ConfigError, match="micro batch of 0"):
        fit(model, squared_error, samples, config=PLAIN, seed=0, micro_batch=0)
    with pytest.raises(ConfigError, match="no parameter"):
        fit(model.requires_grad_(False), squared_error, samples, config=PLAIN, seed=0)


def test_progress_counts_steps_and_guesses_the_end():
    model, samples = regression()
    seconds = iter(range(1000))
    told = []
    fit(model, squared_error, samples, config=PLAIN, seed=0, progress=told.append, validate=lambda m: 7.0, clock=lambda: next(seconds))
    assert [(t.step, t.steps, t.epoch) for t in told] == [(step, 9, step // 3) for step in range(1, 10)]
    assert math.isnan(told[0].validation)
    assert told[3].validation == 7.0
    # Began at second 0; each step reads the clock twice, once for the checkpoint and once to tell.
    assert told[1].steps_per_second == pytest.approx(2 / 4)
    assert told[1].seconds_left == pytest.approx(7 * 2)
    assert told[-1].seconds_left == 0.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops_and_the_run_goes_on_to_the_same_end(tmp_path, number):
    path = tmp_path / "run.fit"
    model, samples = regression()
    steps = 0

    def interrupted(model, batch):
        nonlocal steps
        steps += 1
        if steps == 5:
            signal.raise_signal(number)
        return squared_error(model, batch)

    with pytest.raises(FitInterrupted, match=rf"after step 5: resume from {path}") as raised:
        fit(model, interrupted, samples, config=PLAIN, seed=0, checkpoint=path)
    assert isinstance(raised.value, KeyboardInterrupt)
    resumed, straight = regression()[0], regression()[0]
    assert fit(resumed, squared_error, samples, config=PLAIN, seed=0, checkpoint=path).resumed_at == 5
    fit(straight, squared_error, samples, config=PLAIN, seed=0)
    assert_array_equal(weights(resumed)["weight"], weights(straight)["weight"])
    steps = 4
    with pytest.raises(FitInterrupted, match="after step 1: no checkpoint was asked for"):
        fit(regression()[0], interrupted, samples, config=PLAIN, seed=0)


def test_bf16_computes_the_forward_pass_in_bf16_and_keeps_the_weights_in_fp32():
    model = nn.Linear(3, 1)
    samples = TensorSamples(*(tensor.float() for tensor in regression()[1].tensors))
    seen = []

    def loss(model, batch):
        answer = model(batch[0])
        seen.append(answer.dtype)
        return ((answer - batch[1]) ** 2).mean()

    fit(model, loss, samples, config=PLAIN.model_copy(update={"mixed_precision": "bf16"}), seed=0)
    assert set(seen) == {torch.bfloat16}
    assert model.weight.dtype == torch.float32
    seen.clear()
    fit(model, loss, samples, config=PLAIN, seed=0)
    assert set(seen) == {torch.float32}


@contextmanager
def environment(monkeypatch, **values):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield


def test_joining_without_being_started_to_or_with_other_numbers_is_refused(monkeypatch):
    gloo = DistributedConfig(world_size=2, backend="gloo")
    with environment(monkeypatch), pytest.raises(ConfigError, match="not started to train with others: RANK, WORLD_SIZE"), World.join(gloo):
        pass
    place = {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    with (
        environment(monkeypatch, WORLD_SIZE="3", **place),
        pytest.raises(ConfigError, match=r"3 processes were started, but .*world_size is 2"),
        World.join(gloo),
    ):
        pass
    if not torch.cuda.is_available():
        nccl = DistributedConfig(world_size=2)
        with environment(monkeypatch, WORLD_SIZE="2", **place), pytest.raises(ConfigError, match="NCCL needs a GPU"), World.join(nccl):
            pass


def test_checks_within_an_epoch_change_no_step_and_end_with_each_epoch():
    model, samples = regression()
    seen: list[int] = []
    once, config = fit(model, squared_error, samples, config=PLAIN, seed=3), PLAIN.model_copy(update={"patience": 99})
    again, _ = regression()
    steps: list[int] = []
    report = fit(
        again,
        squared_error,
        samples,
        config=config,
        seed=3,
        checks_per_epoch=2,
        validate=lambda model: seen.append(len(steps)) or -float(len(seen)),
        progress=lambda at: steps.append(at.step),
        clock=iter(range(10_000)).__next__,
    )
    assert_array_equal(report.losses, once.losses)
    assert len(report.validations) == 2 * config.epochs  # 3 steps an epoch: looked at after steps 2 and 3 of each
    assert seen == [1, 2, 4, 5, 7, 8]
    for name, value in weights(model).items():
        assert_array_equal(weights(again)[name], value)  # falling all the time: the best weights are the last
    with pytest.raises(ConfigError, match="0 checks per epoch"):
        fit(model, squared_error, samples, config=PLAIN, seed=3, checks_per_epoch=0)
