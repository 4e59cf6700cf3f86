"""A run that is stopped anywhere and resumed ends with the bits of the run that was not; controls show what makes it so."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from torch import nn

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.learn.fit import FitReport, TensorSamples, checkpoint, fit

torch.set_num_threads(1)

CONFIG = FitConfig(learning_rate=0.02, batch=7, epochs=4, patience=2, checkpoint_seconds=4.0)
"""45 samples: 7 steps per epoch, the last of 3 samples. A clock that ticks once per look writes a checkpoint every few steps."""

STEPS = 28
SEED = 11


class KilledError(Exception):
    pass


def problem() -> tuple[nn.Module, TensorSamples]:
    """With everything that has a memory of its own: dropout's randomness and the running means of a normalisation."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(45, 5, generator=generator)
    y = torch.tanh(x @ torch.randn(5, 1, generator=generator))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
    return model, TensorSamples(x, y)


def train(path: Path | None, kill_at: int | None = None, config: FitConfig = CONFIG, **named) -> tuple[nn.Module, FitReport]:
    """Train; die in the middle of step `kill_at` (from 0 in this process), as a crash would: nothing gets to clean up."""
    model, samples = problem()
    held_out = problem()[1].take(torch.arange(0, 45, 3))
    steps = itertools.count()

    def loss(model, batch):
        if next(steps) == kill_at:
            raise KilledError
        return ((model(batch[0]) - batch[1]) ** 2).mean()

    def validate(model):
        return float(((model(held_out[0]) - held_out[1]) ** 2).mean())

    ticks = itertools.count()
    arguments = {"seed": SEED, "validate": validate, "checkpoint": path, "clock": lambda: float(next(ticks)), **named}
    return model, fit(model, loss, samples, config=config, **arguments)


@cache
def uninterrupted() -> tuple[nn.Module, FitReport]:
    return train(None)


def assert_same(model: nn.Module, report: FitReport) -> None:
    expected, straight = uninterrupted()
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert_array_equal(report.losses, straight.losses)
    assert_array_equal(report.validations, straight.validations)
    assert (report.best_step, report.stopped) == (straight.best_step, straight.stopped)


def kill_and_resume(path: Path, kills: list[int]) -> tuple[nn.Module, FitReport]:
    for kill_at in kills:
        try:
            return train(path, kill_at)
        except KilledError:
            pass
    return train(path)


def test_the_run_is_worth_interrupting():
    _, report = uninterrupted()
    assert report.steps == STEPS
    assert len(set(report.losses)) == STEPS
    assert report.best_step > 7


@given(kills=st.lists(st.integers(0, STEPS), min_size=1, max_size=3))
@example(kills=[6])  # the last step of an epoch
@example(kills=[7])  # the first of the next
@example(kills=[0, 27])
@settings(max_examples=20, deadline=None)
def test_killed_at_any_steps_and_resumed_it_ends_with_the_same_bits(kills):
    with TemporaryDirectory() as folder:
        assert_same(*kill_and_resume(Path(folder) / "run.fit", kills))


def test_a_checkpoint_in_the_middle_of_an_epoch_is_what_is_resumed_from(tmp_path):
    path = tmp_path / "run.fit"
    with pytest.raises(KilledError):
        train(path, 12)
    _, report = train(path)
    assert report.resumed_at % 7 != 0
    assert 7 < report.resumed_at <= 12


def test_a_finished_run_is_read_and_not_trained_again(tmp_path):
    path = tmp_path / "run.fit"
    train(path)
    model, report = train(path, kill_at=0)
    assert_same(model, report)
    assert report.resumed_at == STEPS


def forget_position(state):
    state["state"]["step"] -= state["state"]["step"] % 7


def forget_moments(state):
    for moments in state["optimiser"]["state"].values():
        moments["exp_avg"].zero_()


def forget_the_count_of_steps(state):
    for moments in state["optimiser"]["state"].values():
        moments["step"].fill_(1.0)


def forget_the_running_means(state):
    state["model"]["1.running_mean"].zero_()


def mistake_the_best(state):
    state["state"]["best"] = -1.0


def change_the_last_bit_of_one_weight(state):
    weight = state["model"]["0.bias"]
    weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))


@pytest.mark.parametrize(
    "spoil",
    [
        forget_position,
        forget_moments,
        forget_the_count_of_steps,
        forget_the_running_means,
        mistake_the_best,
        change_the_last_bit_of_one_weight,
    ],
    ids=lambda function: function.__name__,
)
def test_with_any_part_of_it_wrong_a_checkpoint_leads_elsewhere(tmp_path, spoil):
    path = tmp_path / "run.fit"
    with pytest.raises(KilledError):
        train(path, 12)
    content = checkpoint.read(path)
    state = checkpoint.decode(content, "run")
    path.write_bytes(checkpoint.encode(state))
    assert_same(*train(path))  # decoding and encoding alone changes nothing
    spoil(state)
    path.write_bytes(checkpoint.encode(state))
    with pytest.raises(AssertionError):
        assert_same(*train(path))


def test_without_seeds_of_each_step_dropout_leads_elsewhere(tmp_path, monkeypatch):
    from cryptoalpha.learn.fit import gradient_step

    path = tmp_path / "run.fit"
    monkeypatch.setattr(gradient_step, "seed_randomness", lambda seed, device: None)
    torch.manual_seed(0)
    straight, _ = train(None)
    torch.manual_seed(0)
    with pytest.raises(KilledError):
        train(path, 12)
    torch.manual_seed(0)
    resumed, _ = train(path)
    assert not torch.equal(resumed[0].weight, straight[0].weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 12}, "seed was 11, is 12"),
        ({"config": CONFIG.model_copy(update={"batch": 8})}, r"learn.fit.batch was 7, is 8"),
        ({"config": CONFIG.model_copy(update={"learning_rate": 0.01})}, r"learn.fit.learning_rate was 0.02, is 0.01"),
        ({"validate": None}, "validation was True, is False"),
        ({"labels": {"encoder": "hash 2"}}, "label encoder was not recorded, is 'hash 2'"),
        ({"micro_batch": 2}, "micro batch was None, is 2"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    path = tmp_path / "run.fit"
    with pytest.raises(KilledError):
        train(path, 12)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        train(path, **change)
    assert path.read_bytes() == before


def test_other_data_and_another_model_are_refused(tmp_path):
    path = tmp_path / "run.fit"
    with pytest.raises(KilledError):
        train(path, 12)
    model, samples = problem()
    loss = torch.nn.functional.mse_loss
    arguments = {"config": CONFIG, "seed": SEED, "checkpoint": path}
    x, y = samples.tensors
    with pytest.raises(ConfigError, match=r"data was '.*', is '"):
        fit(model, lambda m, b: loss(m(b[0]), b[1]), TensorSamples(x + 1e-7, y), **arguments)
    with pytest.raises(ConfigError, match="number of samples was 45, is 44"):
        fit(model, lambda m, b: loss(m(b[0]), b[1]), TensorSamples(x[1:], y[1:]), **arguments)
    model[0].bias.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"model was '.*', is '"):
        fit(model, lambda m, b: loss(m(b[0]), b[1]), samples, **arguments)


def test_a_run_in_another_precision_is_refused(tmp_path):
    # `auto` computes in bf16 on some machines and in fp32 on others: the file is that of such another machine.
    path = tmp_path / "run.fit"
    with pytest.raises(KilledError):
        train(path, 12)
    state = checkpoint.decode(path.read_bytes(), "run.fit")
    state["identity"]["precision"] = "bf16"
    path.write_bytes(checkpoint.encode(state))
    with pytest.raises(ConfigError, match="precision was 'bf16', is 'fp32'"):
        train(path)


def test_how_often_it_is_saved_may_change(tmp_path):
    path = tmp_path / "run.fit"
    with pytest.raises(KilledError):
        train(path, 12)
    assert_same(*train(path, config=CONFIG.model_copy(update={"checkpoint_seconds": 1.0})))


def test_a_half_written_checkpoint_stops_the_run_and_says_what_to_do(tmp_path):
    path = tmp_path / "run.fit"
    with pytest.raises(KilledError):
        train(path, 12)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match="is damaged") as raised:
        train(path)
    assert "delete it" in raised.value.hint
