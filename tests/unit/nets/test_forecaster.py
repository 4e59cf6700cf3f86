"""The forecaster as a whole: who may know what, and that nothing depends on names or on what was not observed."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.config import EvoformerConfig, HeadsConfig
from cryptoalpha.nets.forecaster.losses import forecast_loss
from cryptoalpha.nets.forecaster.model import Forecaster
from cryptoalpha.nets.forecaster.values import Forecast, ForecastInputs, ForecastTargets

TINY = EvoformerConfig(sequence_width=8, pair_width=6, head_width=4, heads=2, pair_heads=2, pair_head_width=3, outer_width=3, blocks=2)
PRICE, CHAIN, TEXT, PAIR, HORIZONS = 5, 3, 7, 4, 2
BATCH, ROWS, ASSETS = 2, 9, 4


def forecaster(*, pairs: bool = True, dtype: torch.dtype = torch.float64, seed: int = 0) -> Forecaster:
    net = Forecaster(
        TINY, HeadsConfig(), horizons=HORIZONS, price=PRICE, chain=CHAIN, text=TEXT, pair=PAIR, seed=seed, pair_representation=pairs
    )
    return net.to(dtype).eval()


def randomised(net: Forecaster, seed: int = 1) -> Forecaster:
    """A fresh net answers the same whatever it is shown, so every leak would hide: give every parameter a random value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return net


def inputs(seed: int = 0, *, dtype: torch.dtype = torch.float64, everything_seen: bool = False) -> ForecastInputs:
    generator = torch.Generator().manual_seed(seed)
    cell = (BATCH, ROWS, ASSETS)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    def seen(*shape: int) -> torch.Tensor:
        return (torch.rand(*shape, generator=generator) < 0.8) | everything_seen

    return ForecastInputs(
        price=draw(*cell, PRICE),
        price_seen=seen(*cell, PRICE) & seen(*cell, 1),
        chain=draw(*cell, CHAIN),
        chain_seen=seen(*cell, CHAIN) & seen(*cell, 1),
        text=draw(*cell, TEXT),
        text_weight=draw(*cell).abs() * seen(*cell),
        pair=draw(*cell, ASSETS, PAIR),
        pair_seen=seen(*cell, ASSETS, PAIR),
        present=seen(*cell),
    )


def targets(seed: int = 0, *, dtype: torch.dtype = torch.float64) -> ForecastTargets:
    generator = torch.Generator().manual_seed(1_000 + seed)
    cell = (BATCH, ROWS, ASSETS)
    supervised = torch.zeros(BATCH, ROWS, dtype=torch.bool)
    supervised[:, ROWS // 2 :] = True
    return ForecastTargets(
        move=torch.randn(*cell, HORIZONS, generator=generator, dtype=dtype),
        volatility=torch.rand(*cell, HORIZONS, generator=generator, dtype=dtype) + 0.5,
        correlation=torch.rand(*cell, ASSETS, generator=generator, dtype=dtype) * 2 - 1,
        supervised=supervised,
    )


def trained(net: Forecaster, steps: int = 4) -> Forecaster:
    """A few real steps of training, with dropout."""
    optimiser = torch.optim.AdamW(net.train().parameters(), lr=3e-2)
    dtype = net.line.weight.dtype
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for step in range(steps):
            optimiser.zero_grad()
            forecast_loss(net(inputs(step, dtype=dtype)), targets(step, dtype=dtype), sideways=0.43).backward()
            optimiser.step()
    return net.eval()


def changed_from(given: ForecastInputs, row: int, size: float) -> ForecastInputs:
    """Other values, other gaps and other presence from this row on."""
    other = inputs(99, dtype=given.price.dtype)
    return ForecastInputs(
        *(
            torch.cat((old[:, :row], new[:, row:] if new.dtype == torch.bool else (size * new[:, row:]).abs()), dim=1)
            for old, new in zip(given, other, strict=True)
        )
    )


@torch.no_grad()
def differences(net: Forecaster, row: int, size: float, dtype: torch.dtype) -> tuple[dict[str, float], dict[str, float]]:
    """Largest change of each head before and from `row`, when everything from `row` on is changed."""
    given = inputs(dtype=dtype)
    before, after = net(given), net(changed_from(given, row, size))
    past, later = {}, {}
    for name in Forecast._fields:
        change = (getattr(before, name) - getattr(after, name)).abs()
        past[name], later[name] = float(change[:, :row].max()), float(change[:, row:].max())
    return past, later


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("weights", ["random", "trained"])
def test_no_head_hears_of_what_comes_later(weights, pairs, dtype):
    fresh = forecaster(pairs=pairs, dtype=dtype)
    net = randomised(fresh) if weights == "random" else trained(fresh)
    for row in (1, ROWS // 2, ROWS - 1):
        for size in (1.0, 1e3):
            past, later = differences(net, row, size, dtype)
            assert set(past.values()) == {0.0}, (row, size, past)
            expected = {name for name in later if (pairs or name != "correlation") and (weights == "random" or name != "sentiment")}
            assert {name for name, change in later.items() if change > 0} >= expected, (row, size, later)


def test_the_check_of_causality_sees_a_leak():
    net = randomised(forecaster())
    for block in net.trunk_net.blocks:
        block.column_attention.ordered = False  # rows may now look ahead
    past, _ = differences(net, ROWS // 2, 1.0, torch.float64)
    assert past["location"] > 1e-6


@pytest.mark.parametrize("pairs", [True, False])
@torch.no_grad()
def test_permuted_assets_give_permuted_answers(pairs):
    net, given = randomised(forecaster(pairs=pairs)), inputs()
    order = torch.tensor([2, 0, 3, 1])

    def permuted(name: str, value: torch.Tensor) -> torch.Tensor:
        value = value[:, :, order]
        return value[:, :, :, order] if name in ("pair", "pair_seen", "correlation") else value

    straight = net(given)
    crossed = net(ForecastInputs(*(permuted(name, getattr(given, name)) for name in ForecastInputs._fields)))
    for name in Forecast._fields:
        assert_allclose(getattr(crossed, name), permuted(name, getattr(straight, name)), rtol=0, atol=1e-12, err_msg=name)


@torch.no_grad()
def test_what_was_not_observed_never_counts():
    net, given = randomised(forecaster()), inputs()
    absent = ~given.present

    def poisoned(value: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return torch.where(seen, value, float("nan"))

    other = given._replace(
        price=poisoned(given.price, given.price_seen),
        chain=poisoned(given.chain, given.chain_seen),
        text=poisoned(given.text, (given.text_weight > 0).unsqueeze(-1)),
        pair=poisoned(given.pair, given.pair_seen),
    )
    for name, value, changed in zip(Forecast._fields, net(given), net(other), strict=True):
        assert torch.equal(value, changed), name
    # An absent asset may hold anything: those that are present do not notice.
    scrambled = given._replace(
        price=torch.where(absent.unsqueeze(-1), 50.0, given.price),
        text=torch.where(absent.unsqueeze(-1), -50.0, given.text),
        pair=torch.where((absent.unsqueeze(-1) | absent.unsqueeze(-2)).unsqueeze(-1), 50.0, given.pair),
    )
    here = given.present
    pair_here = here.unsqueeze(-1) & here.unsqueeze(-2)
    for name, value, changed in zip(Forecast._fields, net(given), net(scrambled), strict=True):
        at = pair_here if name == "correlation" else here
        assert_allclose(changed[at], value[at], rtol=0, atol=1e-12, err_msg=name)


@torch.no_grad()
def test_a_missing_feature_differs_from_a_feature_of_zero():
    net, given = randomised(forecaster()), inputs(everything_seen=True)
    zero = given._replace(price=given.price.index_fill(-1, torch.tensor([0]), 0.0))
    missing = zero._replace(price_seen=given.price_seen.index_fill(-1, torch.tensor([0]), False))
    assert float((net(zero).location - net(missing).location).abs().max()) > 1e-3


@torch.no_grad()
def test_a_block_with_nothing_in_it_is_answered_with_finite_numbers():
    given = inputs()
    nothing = ForecastInputs(*(torch.zeros_like(value) for value in given))
    for name, value in zip(Forecast._fields, randomised(forecaster())(nothing), strict=True):
        assert bool(torch.isfinite(value).all()), name


@torch.no_grad()
def test_a_new_net_says_what_is_true_of_an_unknown_market():
    answer = forecaster()(inputs())
    normal = [-1.6448536, -1.2815516, -0.6744898, 0.0, 0.6744898, 1.2815516, 1.6448536]
    assert_allclose(answer.quantiles, np.broadcast_to(normal, answer.quantiles.shape), atol=1e-6)
    assert_allclose(answer.volatility, np.ones(answer.volatility.shape), atol=1e-7)
    assert_allclose(answer.direction.softmax(-1), np.full(answer.direction.shape, 1 / 3), atol=1e-12)
    assert_allclose(answer.confidence.sigmoid(), np.full(answer.confidence.shape, 1 / 3), atol=1e-6)
    assert_allclose(answer.location, np.zeros(answer.location.shape), atol=0)
    assert torch.equal(answer.correlation, torch.zeros_like(answer.correlation))


@torch.no_grad()
def test_correlation_answers_are_symmetric():
    logits = randomised(forecaster())(inputs()).correlation
    assert torch.equal(logits, logits.transpose(-2, -3))
    assert float(logits.std()) > 0.01


@torch.no_grad()
def test_the_straight_line_is_what_a_new_net_answers():
    net, given = forecaster(), inputs()
    weights = torch.randn(HORIZONS, PRICE + CHAIN, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    net.set_linear(weights, torch.tensor([0.5, -0.25]))
    features = np.concatenate((np.where(given.price_seen, given.price, 0), np.where(given.chain_seen, given.chain, 0)), axis=-1)
    assert_allclose(net(given).location, features @ weights.numpy().T + np.array([0.5, -0.25]), rtol=0, atol=1e-12)
    assert_allclose(net(given).quantiles[..., 3], net(given).location, rtol=0, atol=1e-12)


def test_the_straight_line_learns_or_stays():
    net = forecaster()
    net.set_linear(torch.ones(HORIZONS, PRICE + CHAIN), learn=False)
    trained(net)
    assert torch.equal(net.line.weight, torch.ones_like(net.line.weight))
    net.set_linear(torch.ones(HORIZONS, PRICE + CHAIN))
    trained(net)
    assert float((net.line.weight.detach() - 1.0).abs().min()) > 1e-4


def test_confidence_teaches_only_itself():
    net = randomised(forecaster())
    net(inputs()).confidence.sum().backward()
    taught = {name for name, parameter in net.named_parameters() if parameter.grad is not None and float(parameter.grad.abs().max()) > 0}
    assert taught == {f"assets.{layer}.{part}" for layer in ("confidence_hidden", "confidence") for part in ("weight", "bias")}


@torch.no_grad()
def test_sentiment_that_nobody_taught_says_nothing():
    assert not bool(forecaster().sentiment(torch.randn(3, 5, forecaster().widths[2], dtype=torch.float64)).any())


@torch.no_grad()
def test_sentiment_is_read_from_the_text_alone():
    net, given = randomised(forecaster()), inputs()
    other = inputs(5)._replace(text=given.text, text_weight=given.text_weight)
    assert torch.equal(net(given).sentiment, net(other).sentiment)
    there = given.text_weight > 0
    assert_allclose(net(given).sentiment[there], net.read_sentiment(given.text[there]), rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_temperature_divides_the_logits_of_confidence():
    net, given = randomised(forecaster()), inputs()
    before = net(given).confidence
    net.set_temperature(torch.tensor([2.0, 0.5]))
    assert_allclose(net(given).confidence, before / torch.tensor([2.0, 0.5], dtype=torch.float64), rtol=1e-14)


def test_a_saved_net_answers_alike():
    net = trained(forecaster(dtype=torch.float32))
    net.set_temperature(1.7)
    other = forecaster(dtype=torch.float32, seed=9)
    given = inputs(dtype=torch.float32)
    with torch.no_grad():
        assert not torch.equal(net(given).location, other(given).location)
        other.load_state_dict(net.state_dict())
        for one, two in zip(net(given), other(given), strict=True):
            assert torch.equal(one, two)


def test_a_seed_decides_the_first_weights_and_touches_nothing_else():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = forecaster(seed=1), forecaster(seed=1), forecaster(seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.cells.age.weight, other.cells.age.weight)


def test_every_weight_but_the_sentiment_is_taught_by_the_loss():
    net = randomised(forecaster())
    forecast_loss(net(inputs()), targets(), sideways=0.43).backward()
    idle = {name for name, parameter in net.named_parameters() if parameter.grad is None or float(parameter.grad.abs().max()) == 0.0}
    assert idle == {"sentiment.out.weight", "sentiment.out.bias"}


def test_wrong_widths_are_refused_by_name():
    net = forecaster()
    with pytest.raises(ModelError, match="widths"):
        net(inputs()._replace(price=torch.zeros(BATCH, ROWS, ASSETS, PRICE + 1, dtype=torch.float64)))
    with pytest.raises(ModelError, match="straight line"):
        net.set_linear(torch.zeros(HORIZONS, PRICE))
    with pytest.raises(ModelError, match="finite"):
        net.set_linear(torch.full((HORIZONS, PRICE + CHAIN), float("nan")))
    with pytest.raises(ModelError, match="temperature"):
        net.set_temperature(0.0)
    with pytest.raises(ConfigError, match="at least 1"):
        Forecaster(TINY, HeadsConfig(), horizons=0, price=1, chain=1, text=1, pair=1, seed=0)
    with pytest.raises(ConfigError, match="direction_classes"):
        Forecaster(TINY, HeadsConfig(direction_classes=2), horizons=1, price=1, chain=1, text=1, pair=1, seed=0)
