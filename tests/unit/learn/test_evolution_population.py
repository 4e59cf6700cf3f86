"""Many members through shared weights: equal to weights that are written out, and never silently computed with the wrong ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.evolution import Evolution, Population, Together, perturbed_linear


class Reader(nn.Module):
    """Every layer that a population may pass: embedding, norm with and without scale, linear with and without bias, a thin head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 24)
        self.norm = nn.LayerNorm(24)
        self.bare = nn.LayerNorm(24, elementwise_affine=False)
        self.mix = nn.Linear(24, 32, bias=False)
        self.deep = nn.Linear(32, 24)
        self.head = nn.Linear(24, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(ids))
        x = self.bare(x + self.deep(torch.relu(self.mix(x))))
        return self.head(x)[..., 0]


def reader() -> Reader:
    torch.manual_seed(0)
    net = Reader().double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return net


def written(strategy: Evolution, net: nn.Module, inputs: torch.Tensor, pairs: range) -> torch.Tensor:
    outputs = []
    for pair in pairs:
        for sign in (1, -1):
            with torch.no_grad(), strategy.member(pair, sign):
                outputs.append(net(inputs))
    return torch.stack(outputs)


@pytest.mark.parametrize("rank", [1, 2, 5, 30])  # at 30 every matrix is too thin for it and has full noise
@pytest.mark.parametrize("only", [None, ["deep.*"], ["mix.weight", "norm.bias"], ["head.bias"]])
def test_a_population_equals_its_members_written_out(rank, only):
    net, ids = reader(), torch.randint(0, 11, (6, 4), generator=torch.Generator().manual_seed(1))
    strategy = Evolution(net, EvolutionConfig(population=8, sigma=0.1, rank=rank), seed=0, only=only)
    pairs = range(1, 4)
    population = strategy.population(pairs)
    with torch.no_grad(), population:
        found = net(population.spread(ids))
    expected = written(strategy, net, ids, pairs)
    assert found.shape == (6, 6, 4)
    assert (found - expected).abs().max() < 1e-12
    assert (expected[0] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("spread", [True, False])
def test_perturbed_linear_is_the_materialised_matrix(spread):
    generator = torch.Generator().manual_seed(3)
    weight, left, right = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((7, 5), (4, 7, 2), (4, 5, 2)))
    scale = torch.tensor([0.3, -0.3] * 4, dtype=torch.float64)
    x = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64).expand(8, 3, 6, 5)
    x = x if spread else x * torch.arange(1.0, 9.0, dtype=torch.float64).reshape(8, 1, 1, 1)
    found = perturbed_linear(x, weight, left, right, scale)
    for member in range(8):
        matrix = weight + scale[member] * left[member // 2] @ right[member // 2].T
        assert (found[member] - x[member] @ matrix.T).abs().max() < 1e-12


def test_inputs_that_differ_between_members_keep_apart():
    net = nn.Linear(5, 3).double()
    strategy = Evolution(net, EvolutionConfig(population=4, sigma=0.5), seed=0)
    x = torch.randn(4, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), strategy.population():
        found = net(x)
    for member in range(4):
        with torch.no_grad(), strategy.member(member // 2, 1 - 2 * (member % 2)):
            assert (found[member] - net(x[member])).abs().max() < 1e-12


def test_a_state_dict_is_perturbed_like_the_module_it_belongs_to():
    net = reader()
    ids = torch.randint(0, 11, (3,), generator=torch.Generator().manual_seed(1))
    strategy = Evolution(dict(net.state_dict()), EvolutionConfig(population=4), seed=0)  # other objects, the same memory
    with torch.no_grad(), strategy.population() as population:
        found = net(population.spread(ids))
    assert (found - written(strategy, net, ids, range(2))).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("layer", "shape", "operation"),
    [
        (nn.Conv1d(3, 4, 2), (2, 3, 9), "conv1d"),
        (nn.PReLU(3), (2, 3), "prelu"),
        (nn.BatchNorm1d(3), (2, 3), "batch_norm"),
        (nn.Embedding(5, 3, max_norm=1.0), None, "embedding"),
    ],
)
def test_an_operation_that_cannot_be_shared_raises_instead_of_ignoring_the_noise(layer, shape, operation):
    strategy = Evolution(layer, EvolutionConfig(population=4), seed=0)
    inputs = torch.zeros(4, dtype=torch.int64) if shape is None else torch.zeros(shape)
    with torch.no_grad(), strategy.population(), pytest.raises(ConfigError, match=rf"{operation}.* reads the evolved parameter 'weight'"):
        layer(inputs)


def test_reading_weights_by_hand_raises_and_shapes_may_be_read():
    net = nn.Linear(5, 4)
    strategy = Evolution(net, EvolutionConfig(population=4), seed=0)
    with torch.no_grad(), strategy.population():
        assert net.weight.shape == (4, 5)
        assert net.weight.dtype == torch.float32
        for use in (lambda: net.weight.t(), lambda: torch.cat([net.bias, net.bias]), lambda: net.weight[0], lambda: net.bias + 1.0):
            with pytest.raises(ConfigError, match="reads the evolved parameter"):
                use()


def test_a_value_that_leaves_as_a_number_raises_too():
    net = nn.Linear(1, 1)
    strategy = Evolution(net, EvolutionConfig(population=4), seed=0)
    weight = net.weight
    with torch.no_grad(), strategy.population():
        for use in (
            lambda: weight.item(), lambda: weight.tolist(), lambda: float(weight), lambda: int(weight), lambda: bool(weight > 0),
            lambda: bool(weight), lambda: weight.numpy(), lambda: np.asarray(weight), lambda: repr(weight), lambda: weight in [1.0],
            lambda: torch.equal(weight, weight), lambda: torch.allclose(weight, weight), lambda: torch.is_nonzero(weight),
            lambda: f"{weight:.3f}", lambda: weight.untyped_storage(), lambda: torch.stack([weight]), lambda: weight.T,
            lambda: list(weight), lambda: weight.add_(1.0),
        ):  # fmt: skip
            with pytest.raises(ConfigError, match="reads the evolved parameter 'weight'"):
                use()
    assert weight.item() == strategy.tensors[0].accepted[0]


def test_a_view_made_before_the_population_is_seen():
    net = nn.Linear(5, 4)
    strategy = Evolution(net, EvolutionConfig(population=4), seed=0)
    plain = net.weight.detach()
    views = [plain[1:], plain[:, 2], plain.t(), plain.view(-1), plain[3:, 4:], plain.view(torch.int32), plain[:2], net.weight.data[2]]
    whole = net.weight.data  # the whole parameter under another name is the parameter
    square = nn.Linear(4, 4)
    other, turned = Evolution(square, EvolutionConfig(population=4), seed=0), square.weight.detach().t()
    x = torch.randn(4, 5)
    with torch.no_grad(), strategy.population():
        for view in views:
            with pytest.raises(ConfigError, match="reads the evolved parameter 'weight'"):
                view + 1
        with pytest.raises(ConfigError, match="'linear' reads"):
            nn.functional.linear(x, views[0])
        found = nn.functional.linear(x, whole, net.bias)
        assert torch.equal(found, net(x))
    with torch.no_grad(), other.population(), pytest.raises(ConfigError, match="'linear' reads"):
        nn.functional.linear(x[:, :4], turned)  # its address and shape are the parameter's, its order is not


def test_parameters_in_one_storage_are_told_apart():
    flat = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, bias, fixed, across = flat[:20].view(4, 5), flat[20:24], flat[24:28], flat[22:26]
    strategy = Evolution({"weight": weight, "bias": bias}, EvolutionConfig(population=4, sigma=0.3), seed=0)
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), strategy.population() as population:
        found = nn.functional.linear(population.spread(x), weight, bias) + fixed  # what is not evolved may be read
        with pytest.raises(ConfigError, match="reads the evolved parameter 'bias'"):
            across.sum()
    for member in range(4):
        with strategy.member(member // 2, 1 - 2 * (member % 2)):
            assert (found[member] - nn.functional.linear(x, weight, bias) - fixed).abs().max() < 1e-12


def test_a_parameter_is_no_input_of_a_layer():
    values = {"queries": torch.randn(4, 5), "weight": torch.randn(3, 5), "scale": torch.randn(5)}
    strategy = Evolution(values, EvolutionConfig(population=4), seed=0)  # four rows, four members: the shapes would fit
    with torch.no_grad(), strategy.population():
        for use in (
            lambda: nn.functional.linear(values["queries"], values["weight"]),
            lambda: nn.functional.layer_norm(values["queries"], (5,), values["scale"]),
        ):
            with pytest.raises(ConfigError, match="reads the evolved parameter 'queries'"):
                use()


def test_inputs_without_the_axis_of_members_are_refused():
    net = nn.Linear(5, 3)
    strategy = Evolution(net, EvolutionConfig(population=4), seed=0)
    with torch.no_grad(), strategy.population(), pytest.raises(ConfigError, match=r"shape \(2, 5\); its first axis must be the 4 members"):
        net(torch.zeros(2, 5))


def test_full_noise_has_no_population():
    strategy = Evolution(nn.Linear(5, 3), EvolutionConfig(population=4, rank=0), seed=0)
    with pytest.raises(ConfigError, match="share no weights"):
        strategy.population()


def test_a_fitness_of_many_members_gives_the_table_of_single_ones():
    net = reader()
    ids = torch.randint(0, 11, (6, 4), generator=torch.Generator().manual_seed(1))
    strategy = Evolution(net, EvolutionConfig(population=10), seed=0)

    def alone(generation: int) -> float:
        with torch.no_grad():
            return float(net(ids).square().mean()) + generation

    def together(population: Population) -> torch.Tensor:
        return net(population.spread(ids)).square().mean((1, 2)) + population.generation

    expected = strategy.evaluate(alone)
    for pairs in (1, 2, 5, 25):  # 2 leaves a last block of one pair
        np.testing.assert_allclose(strategy.evaluate(Together(together, pairs)), expected, rtol=1e-12)
    with pytest.raises(ModelError, match=r"pairs 0–4 has the shape \(3,\), expected \(10,\)"):
        strategy.evaluate(Together(lambda population: [1.0, 2.0, 3.0]))
    with pytest.raises(ModelError, match=r"generation 0, pair 2\+: the fitness is NaN"):
        strategy.evaluate(Together(lambda population: [1.0] * 4 + [math.nan] + [1.0] * 5))
    with pytest.raises(ConfigError, match="0 pairs at once"):
        Together(together, 0)
