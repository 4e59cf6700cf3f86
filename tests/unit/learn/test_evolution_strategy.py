"""The strategy: updates worked out a slow second way, exact restoring and undoing, pieces that do not matter, errors with names."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.evolution import Evolution, Replica, evolve
from cryptoalpha.learn.evolution import tensors as tensors_module
from cryptoalpha.learn.evolution.noise import members
from cryptoalpha.learn.evolution.ranks import centred_ranks
from cryptoalpha.learn.workers import InProcess


def weights(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"matrix": (30, 41), "vector": (37,), "kernel": (6, 5, 3), "thin": (1, 300), "scalar": ()}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for name, shape in shapes.items()}


def table(pairs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(pairs, 2))


def noise(strategy: Evolution, name: str, pair: int) -> np.ndarray:
    """e of one pair in float64, materialised."""
    tensor = next(tensor for tensor in strategy.tensors if tensor.name == name)
    word = members(strategy.generation, strategy.pairs, range(pair, pair + 1))
    if not tensor.rank:
        return tensor.full(word)[0].astype(np.float64)
    left, right = (part[0].astype(np.float64) for part in tensor.factors(word))
    return (left @ right.T / math.sqrt(tensor.rank)).reshape(tensor.live.shape)


def copies(values: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy().copy() for name, value in values.items()}


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_member_is_the_accepted_weights_plus_or_minus_sigma_e_and_mirrors_exactly(rank):
    values = weights(torch.float64)
    strategy = Evolution(values, EvolutionConfig(population=6, sigma=0.1, rank=rank), seed=3)
    start = copies(values)
    for pair in range(3):
        with strategy.member(pair, 1):
            plus = copies(values)
        with strategy.member(pair, -1):
            minus = copies(values)
        for name in values:
            expected = 0.1 * noise(strategy, name, pair)
            np.testing.assert_allclose(plus[name] - start[name], expected, atol=1e-14)
            np.testing.assert_allclose(start[name] - minus[name], expected, atol=1e-14)
    zeros = {"w": torch.zeros(20, 20)}
    around_zero = Evolution(zeros, EvolutionConfig(population=2, rank=rank), seed=3)
    with around_zero.member(0, 1):
        plus_bits = zeros["w"].clone()
    with around_zero.member(0, -1):
        assert torch.equal(zeros["w"], -plus_bits)


@pytest.mark.parametrize("rank", [0, 1, 4])
def test_updates_equal_a_materialised_strategy_with_torch_adam(rank):
    values = weights(torch.float64)
    config = EvolutionConfig(population=10, sigma=0.05, rank=rank, learning_rate=0.01, weight_decay=0.1)
    strategy = Evolution(values, config, seed=1)
    slow = {name: nn.Parameter(value.clone()) for name, value in values.items()}
    adam = torch.optim.AdamW(slow.values(), lr=0.01, weight_decay=0.1, maximize=True)
    for generation in range(5):
        fitness = table(5, generation)
        ranks = centred_ranks(fitness)
        for name, parameter in slow.items():
            gradient = sum((ranks[p, 0] - ranks[p, 1]) * noise(strategy, name, p) for p in range(5)) / (10 * 0.05)
            parameter.grad = torch.as_tensor(gradient, dtype=torch.float64).reshape(parameter.shape)
        adam.step()
        strategy.tell(fitness)
    assert strategy.generation == strategy.steps == 5
    for name, value in values.items():
        np.testing.assert_allclose(value.numpy(), slow[name].detach().numpy(), atol=2e-7)  # noise is summed in float32


@pytest.mark.parametrize("rank", [0, 1, 4])
@pytest.mark.parametrize("sigma", [0.05, 0.2])
def test_the_gradient_itself_has_its_size(rank, sigma):
    # Adam forgives a wrong factor; its first moment after one step, (1 − β₁) g, does not.
    values = weights(torch.float64)
    strategy = Evolution(values, EvolutionConfig(population=8, sigma=sigma, rank=rank), seed=1)
    fitness = np.array([[5.0, 1.0], [2.0, 7.0], [4.0, 3.0], [0.0, 6.0]])
    differences = np.array([4, -5, 1, -6]) / 7  # of the centred ranks of eight members, which are 1/7 apart
    expected = {name: sum(differences[p] * noise(strategy, name, p) for p in range(4)) / (8 * sigma) for name in values}
    strategy.tell(fitness)
    for tensor in strategy.tensors:
        gradient = tensor.first.reshape(tensor.live.shape) / 0.1
        np.testing.assert_allclose(gradient, expected[tensor.name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(tensor.second.reshape(tensor.live.shape) / 0.001, expected[tensor.name] ** 2, rtol=1e-3, atol=1e-4)


def test_low_rank_noise_has_unit_variance():
    strategy = Evolution({"w": torch.zeros(200, 300)}, EvolutionConfig(rank=2, population=2), seed=0)
    assert noise(strategy, "w", 0).std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_how_a_tensor_is_cut_changes_no_bit(rank, monkeypatch):
    def run() -> dict[str, torch.Tensor]:
        values = weights()
        strategy = Evolution(values, EvolutionConfig(population=8, rank=rank), seed=2)
        for generation in range(3):
            with strategy.member(1, 1):
                seen = {f"member {name}": value.clone() for name, value in values.items()}
            strategy.tell(table(4, generation))
        return {**values, **seen}

    whole = run()
    monkeypatch.setattr(tensors_module, "PIECE", 256)
    monkeypatch.setattr(tensors_module, "FACTORS", 64)
    for name, value in run().items():
        assert torch.equal(value, whole[name]), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_are_restored_bit_for_bit_also_when_the_fitness_fails(dtype):
    values = weights(dtype)
    before = {name: value.clone() for name, value in values.items()}
    strategy = Evolution(values, EvolutionConfig(population=4), seed=0)
    calls = []

    def fitness(generation: int) -> float:
        assert not torch.equal(values["matrix"], before["matrix"])
        calls.append(generation)
        if len(calls) == 7:
            raise RuntimeError("the market closed")
        return float(values["matrix"].double().sum())

    found = strategy.evaluate(fitness)
    assert found.shape == (2, 2)
    assert all(torch.equal(values[name], before[name]) for name in values)
    with pytest.raises(RuntimeError, match="the market closed"):
        strategy.evaluate(fitness)
    assert all(torch.equal(values[name], before[name]) for name in values)


def test_half_precision_weights_follow_their_float32_master():
    half, single = weights(torch.float16), {name: value.float() for name, value in weights(torch.float16).items()}
    config = EvolutionConfig(population=4, learning_rate=0.01)
    a, b = Evolution(half, config, seed=0), Evolution(single, config, seed=0)
    for generation in range(4):
        a.tell(table(2, generation))
        b.tell(table(2, generation))
    for name, value in half.items():
        assert torch.equal(value, single[name].half())


def test_undo_leaves_weights_and_moments_bit_for_bit_and_accept_is_tell():
    config = EvolutionConfig(population=6, learning_rate=0.01)
    undone, told = weights(), weights()
    a, b = Evolution(undone, config, seed=0), Evolution(told, config, seed=0)
    a.propose(table(3))
    a.accept()
    b.tell(table(3))
    assert a.fingerprint() == b.fingerprint()
    state = [array.copy() for tensor in a.tensors for array in (tensor.accepted, tensor.first, tensor.second)]
    a.propose(table(3, 1))
    assert not torch.equal(undone["matrix"], told["matrix"])
    a.undo()
    assert all(torch.equal(undone[name], told[name]) for name in told)
    after = [array for tensor in a.tensors for array in (tensor.accepted, tensor.first, tensor.second)]
    for one, other in zip(state, after, strict=True):
        assert_array_equal(one, other)
    assert (a.generation, a.steps) == (2, 1)


def test_a_nan_fitness_names_generation_and_pair_and_moves_nothing():
    values = weights()
    before = values["matrix"].clone()
    strategy = Evolution(values, EvolutionConfig(population=8), seed=0)
    strategy.tell(np.ones((4, 2)))  # all equal: no direction, no step
    assert torch.equal(values["matrix"], before)
    calls = iter([1.0, 2.0, 3.0, math.nan])
    with pytest.raises(ModelError, match="generation 1, pair 1−: the fitness is NaN"):
        strategy.evaluate(lambda generation: next(calls))
    broken = np.ones((4, 2))
    broken[2, 0] = math.nan
    for move in (strategy.tell, strategy.propose):
        with pytest.raises(ModelError, match=r"generation 1, pair 2\+"):
            move(broken)
    with pytest.raises(ModelError, match=r"shape \(3, 2\), expected \(4, 2\)"):
        strategy.tell(np.ones((3, 2)))
    assert torch.equal(values["matrix"], before)


def test_what_lay_in_memory_before_is_no_fitness():
    strategy = Evolution({"w": torch.zeros(2, 2)}, EvolutionConfig(population=50), seed=0)

    def fitness(generation: int) -> float:
        np.full((25, 2), math.nan)  # freed at once: the next table of this size may lie there
        return 1.0

    for _ in range(20):
        fitness(0)
        assert_array_equal(strategy.evaluate(fitness), np.ones((25, 2)))


def test_only_what_was_chosen_is_moved():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    net[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    strategy = Evolution(net, EvolutionConfig(population=4), seed=0, only=["2.*", "0.*"])
    assert [tensor.name for tensor in strategy.tensors] == ["0.weight", "2.weight", "2.bias"]
    strategy.tell(table(2))
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"0.weight", "2.weight", "2.bias"}


def test_what_cannot_be_evolved_is_refused_by_name():
    config = EvolutionConfig(population=4)
    shared = torch.zeros(3)
    for parameters, words in [
        ({"ids": torch.zeros(3, dtype=torch.int64)}, "'ids' holds torch.int64"),
        ({"view": torch.zeros(4, 4).t()[:2]}, "'view' is a view that is not contiguous"),
        ({"ruined": torch.tensor([1.0, math.nan])}, "'ruined' holds NaN"),
        ({"empty": torch.zeros(0)}, "'empty' has 0 elements"),
        ({"one": shared, "two": shared}, "two names share one tensor"),
        ({}, "no parameter to evolve"),
    ]:
        with pytest.raises(ConfigError, match=words):
            Evolution(parameters, config, seed=0)
    with pytest.raises(ConfigError, match=r"no parameter is called 'heads.\*'"):
        Evolution({"head.weight": torch.zeros(2, 2)}, config, seed=0, only=["heads.*"])


def test_a_proposal_must_be_decided_before_anything_else():
    strategy = Evolution(weights(), EvolutionConfig(population=4), seed=0)
    with pytest.raises(ConfigError, match="nothing was proposed"):
        strategy.accept()
    strategy.propose(table(2))
    for call in (lambda: strategy.write(0, 1), lambda: strategy.evaluate(lambda g: 0.0), lambda: strategy.tell(table(2))):
        with pytest.raises(ConfigError, match="neither accepted nor undone"):
            call()


@pytest.mark.parametrize("pairs", [range(2, 3), range(5, 8), range(-1, 1), range(0, 3), range(0)])
def test_pairs_of_another_generation_are_refused(pairs):
    values = weights()
    before = values["matrix"].clone()
    strategy = Evolution(values, EvolutionConfig(population=4), seed=0)
    calls = [lambda: strategy.evaluate(lambda generation: 0.0, pairs), lambda: strategy.population(pairs)]
    if pairs and pairs[0] not in (0, 1):
        calls.append(lambda: strategy.write(pairs[0], 1))
        calls.append(lambda: strategy.member(pairs[0], 1).__enter__())
    for call in calls:
        with pytest.raises(ConfigError, match="a generation has the pairs 0 to 1"):
            call()
    with pytest.raises(ConfigError, match="the sign of a member is 0"):
        strategy.write(0, 0)
    assert torch.equal(values["matrix"], before)


def test_same_seed_same_bits_another_seed_others():
    def run(seed: int) -> torch.Tensor:
        values = weights()
        strategy = Evolution(values, EvolutionConfig(population=8), seed=seed)
        evolve(strategy, lambda generation: float(-values["matrix"].square().sum()), generations=3)
        return values["matrix"]

    assert torch.equal(run(5), run(5))
    assert not torch.equal(run(5), run(6))


def test_a_worker_that_shares_this_strategy_is_refused():
    values = weights()
    strategy = Evolution(values, EvolutionConfig(population=4), seed=0)

    def fitness(generation: int) -> float:
        return float(values["vector"].sum())

    with pytest.raises(ModelError, match="a worker is at generation 1, asked for 0"):
        evolve(strategy, fitness, generations=2, workers=InProcess(lambda: Replica(strategy, fitness)))
